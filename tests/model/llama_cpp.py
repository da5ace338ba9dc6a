"""llama.cpp in a process of its own, so that nothing native can take the tests with it.

Standard input: {"model": file, "context": tokens, "requests": [[path of llama.cpp's server, body], ...]};
standard output: the answers. Everything in fp32 and on one thread, so that answers can be compared with ours.
"""

import json
import sys
import urllib.request

import xllamacpp


def serve(model: str, num_tokens: int) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.n_gpu_layers = num_tokens, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)


def main() -> None:
    asked = json.load(sys.stdin)
    server = serve(asked["model"], asked["context"])
    answers = []
    for path, body in asked["requests"]:
        request = urllib.request.Request(
            server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answers.append(json.load(answer))
    json.dump(answers, sys.stdout)


main()
