"""EvalPlus on a file of samples: wall and processor seconds, and a verdict for each.

Arguments: `humaneval` or `mbpp`, a file of problems, a file of samples (`task_id`, `solution`), the number of
workers. The expected outputs are computed first, as EvalPlus does once a machine, and timed by themselves. Prints
those seconds, the seconds of its `evaluate`, and each problem's verdicts, original and further tests, in order.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

DATASET, PROBLEMS, SAMPLES, WORKERS = sys.argv[1:]
os.environ[f"{DATASET.upper()}_OVERRIDE_PATH"] = PROBLEMS
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # where it would look for an earlier run's outputs
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from evalplus import evaluate as evalplus  # noqa: E402 - it reads the variables when it is imported


def _processor_seconds():
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main():
    if DATASET == "humaneval":
        problems, digest, special = evalplus.get_human_eval_plus(), evalplus.get_human_eval_plus_hash(), []
    else:
        problems, digest = evalplus.get_mbpp_plus(), evalplus.get_mbpp_plus_hash()
        special = evalplus.MBPP_OUTPUT_NOT_NONE_TASKS
    started = time.perf_counter()
    evalplus.get_groundtruth(problems, digest, special)
    reference_seconds = time.perf_counter() - started
    started, cpu = time.perf_counter(), _processor_seconds()
    evalplus.evaluate(DATASET, samples=SAMPLES, parallel=int(WORKERS))
    wall, cpu = time.perf_counter() - started, _processor_seconds() - cpu
    found = json.loads(Path(SAMPLES.replace(".jsonl", "_eval_results.json")).read_text(encoding="utf-8"))["eval"]
    verdicts = {
        task: [[each["base_status"], each["plus_status"]] for each in results] for task, results in found.items()
    }
    print(json.dumps({"reference": reference_seconds, "wall": wall, "cpu": cpu, "verdicts": verdicts}), flush=True)
    os._exit(0)  # a thread of it looks for stuck samples, and sleeps on for up to 20 s


main()
