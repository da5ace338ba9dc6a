"""Decoding: tokens a second, and the share of what the memory's bandwidth allows.

On a CUDA GPU: the 3B in bf16 with random weights (their values change nothing), batch 1, a prompt of 512 tokens
and as many greedy ones after it. To make a token, every weight is read once and so is every filled slot of the
cache; the bandwidth limit is the time that takes at the data sheet's rate. `graph` is what `generate` does by
itself, `compiled` what it does where asked to, and the target, 60 % of the limit, is the latter's. `plain` shows
what launching kernels one by one costs. Times are of whole steps, the choice of the token and its way to the host
included.

On a CPU, and on every machine: a model of 6.4 million parameters, greedy, batch 1 and 16, beside `transformers`'
`generate` with the same weights; float32, processor time of one core. Both must give the same tokens.
"""

import re
import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks import table
from benchmarks.cpu_training import CONFIG as TINY
from starsmith.model.cache import KeyValueCache
from starsmith.model.configuration import Starcoder2Config, num_parameters
from starsmith.model.generation import Decoding, Step, generate
from starsmith.model.starcoder2 import Starcoder2

BANDWIDTHS: tuple[tuple[str, float], ...] = (
    (r"NVIDIA A100-(SXM4|SXM)-40GB|NVIDIA A100-PCIE-40GB", 1.555),  # A100 data sheet
    (r"NVIDIA A100-SXM4-80GB", 2.039),  # A100 80GB data sheet, SXM
    (r"NVIDIA A100 80GB PCIe", 1.935),  # A100 80GB data sheet, PCIe
    (r"NVIDIA A30", 0.933),  # A30 data sheet
    (r"NVIDIA H100 PCIe", 2.0),  # H100 data sheet, PCIe
    (r"NVIDIA H100 NVL", 3.9),  # H100 data sheet, NVL
    (r"NVIDIA H100( 80GB HBM3)?", 3.35),  # H100 data sheet, SXM
    (r"NVIDIA H200( NVL)?", 4.8),  # H200 data sheet
    (r"NVIDIA B200", 8.0),  # HGX B200 data sheet, 64 TB/s of eight
    (r"NVIDIA L4", 0.3),  # L4 data sheet
    (r"NVIDIA L40S?", 0.864),  # L40 and L40S data sheets
)
"""Names as `torch.cuda.get_device_name` gives them (the whole name must match), TB/s."""

TARGET_SHARE = 60.0
PROMPT_TOKENS, NEW_TOKENS = 512, {"small": 64, "full": 512}
TINY_PROMPT_TOKENS, TINY_NEW_TOKENS = 64, {"small": 64, "full": 256}
TINY_ROUNDS = {"small": 2, "full": 5}
PUBLISHED_3B = Starcoder2Config(
    vocab_size=49_152, hidden_size=3_072, intermediate_size=12_288, num_hidden_layers=30, num_attention_heads=24,
    num_key_value_heads=2,
)  # fmt: skip


def main() -> None:
    chosen = table.options(__doc__ or "")
    rows = [row for batch in (1, 16) for row in on_cpu(batch, chosen.scale)]
    if torch.cuda.is_available():
        rows += on_gpu(chosen.scale)
    else:
        print("no CUDA GPU here: decoding the 3B and its share of the bandwidth limit are not measured")
    table.publish(rows, ("torch", "transformers"), chosen.json)


def device_bandwidth(name: str) -> float | None:
    """Bytes a second of a GPU's memory by its name, or None where the table does not have it."""
    return next((tera * 1e12 for pattern, tera in BANDWIDTHS if re.fullmatch(pattern, name)), None)


def bytes_per_token(config: Starcoder2Config, num_keys: float, bytes_a_number: int = 2) -> float:
    """What a step at batch 1 must read: all weights, and keys and values of `num_keys` tokens.

    Of an embedding that is not the head too, only one row is read.
    """
    weights = num_parameters(config)
    if not config.tie_word_embeddings:
        weights -= (config.vocab_size - 1) * config.hidden_size
    seen = num_keys if config.sliding_window is None else min(num_keys, config.sliding_window)
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * seen
    return bytes_a_number * (weights + cached)


@torch.inference_mode()
def on_gpu(scale: str) -> Iterator[table.Row]:
    """The 3B, batch 1."""
    with torch.device("cuda"):
        model = Starcoder2(PUBLISHED_3B).to(torch.bfloat16)
    name, num_new = torch.cuda.get_device_name(), NEW_TOKENS[scale]
    bandwidth = device_bandwidth(name)
    ways: tuple[Decoding, ...] = ("plain", "graph", "compiled")
    for decoding in ways:
        seconds = _step_seconds(model, decoding, num_new)
        yield table.row(f"GPU, 3B, {decoding}", 1 / seconds, "tokens/s")
        yield table.row(f"GPU, 3B, {decoding}: a token", 1e3 * seconds, "ms")
        if bandwidth is None:
            print(f"{name} is not in the table of bandwidths, so there is no limit to compare with")
            continue
        limit = bytes_per_token(PUBLISHED_3B, PROMPT_TOKENS + num_new / 2) / bandwidth
        yield table.row(
            f"GPU, 3B, {decoding}: share of the limit ({1e3 * limit:.2f} ms)", 100 * limit / seconds, "%",
            target=TARGET_SHARE if decoding == "compiled" else None, direction="at least",
        )  # fmt: skip


def _step_seconds(model: Starcoder2, decoding: Decoding, num_new: int) -> float:
    """Median of a step, after as many that record graphs for every width that will be looked at."""
    prompt_BT = torch.zeros((1, PROMPT_TOKENS), dtype=torch.int64, device="cuda")
    taken: list[float] = []
    for _ in range(2):
        cache = KeyValueCache(
            model.config, 1, PROMPT_TOKENS + num_new, device=torch.device("cuda"), dtype=torch.bfloat16
        )
        next_B = model(prompt_BT, cache=cache)[:, -1].argmax(dim=1)
        step, taken = Step(model, cache, decoding), []
        for _ in range(num_new):
            started = time.perf_counter()
            next_B = step(next_B).float().argmax(dim=1)
            next_B.tolist()  # waits for the device, as `generate` does to look for the end
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def on_cpu(num_rows: int, scale: str) -> Iterator[table.Row]:
    """The tiny model beside `transformers`, the same number of tokens whatever they are."""
    import transformers

    num_new, threads = TINY_NEW_TOKENS[scale], torch.get_num_threads()
    torch.set_num_threads(1)
    model = Starcoder2(TINY).initialise(0)
    peer = transformers.Starcoder2ForCausalLM(transformers.Starcoder2Config(**TINY.to_dict())).eval()
    peer.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(3)
    prompts_BT = torch.randint(1, TINY.vocab_size, (num_rows, TINY_PROMPT_TOKENS), generator=generator)

    def ours() -> list[list[int]]:
        found = generate(model, prompts_BT.tolist(), max_new_tokens=num_new, eos_token_id=-1)
        return [completion.ids for completion in found]

    def theirs() -> list[list[int]]:
        found = peer.generate(
            prompts_BT, attention_mask=torch.ones_like(prompts_BT), min_new_tokens=num_new, max_new_tokens=num_new,
            do_sample=False, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        ids: list[list[int]] = found[:, TINY_PROMPT_TOKENS:].tolist()
        return ids

    mine, reference = ours(), theirs()
    differing = sum(first != second for first, second in zip(mine, reference, strict=True))
    pairs = []
    for _ in range(TINY_ROUNDS[scale]):
        started = time.process_time()
        ours()
        between = time.process_time()
        theirs()
        pairs.append((between - started, time.process_time() - between))
    torch.set_num_threads(threads)
    speed = num_rows * num_new / statistics.median(pair[0] for pair in pairs)
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    yield table.row(
        f"CPU, {num_parameters(TINY) / 1e6:.1f}M parameters, batch {num_rows}", speed, "tokens/s of one core",
        peer=speed / ratio, peer_name="transformers", target=1.0, direction="at least",
    )  # fmt: skip
    yield table.row(f"CPU, batch {num_rows}: rows with other tokens", differing, f"of {num_rows}", target=0)


if __name__ == "__main__":
    main()
