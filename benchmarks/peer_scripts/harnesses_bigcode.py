"""bigcode-evaluation-harness's execution on a file of samples: wall and processor seconds, and verdicts.

Arguments: its checkout, a file of samples (`task_id`, `solution`, `test`), the time limit of a program, the number
of workers. Its metric is taken from the checkout without the package around it, which would need all of its
requirements. It has no limit of memory, so this process gives itself one for the machine's sake.
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from pathlib import Path

CHECKOUT, SAMPLES, TIMEOUT, WORKERS = sys.argv[1:]
MEMORY_BYTES = 4 * 1024**3

sys.path.insert(0, str(Path(CHECKOUT) / "bigcode_eval" / "tasks"))
os.environ["HF_ALLOW_CODE_EVAL"] = "1"

from custom_metrics.code_eval import compute_code_eval  # noqa: E402 - found through the path above


def _processor_seconds():
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    candidates, tests = defaultdict(list), {}
    for line in Path(SAMPLES).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        candidates[row["task_id"]].append(row["solution"])
        tests[row["task_id"]] = row["test"]
    started, cpu = time.perf_counter(), _processor_seconds()
    _, results = compute_code_eval(
        predictions=list(candidates.values()),
        references=[tests[task] for task in candidates],
        k=[1],
        num_workers=int(WORKERS),
        timeout=float(TIMEOUT),
    )
    wall, cpu = time.perf_counter() - started, _processor_seconds() - cpu
    verdicts = {task: [each["result"] for _, each in results[n]] for n, task in enumerate(candidates)}
    print(json.dumps({"wall": wall, "cpu": cpu, "verdicts": verdicts}), flush=True)


main()
