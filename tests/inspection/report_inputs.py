"""Report inputs over a made-up corpus, with training, evaluation and timings as later rooms hand them over."""

import math
import random
from pathlib import Path
from typing import Any

from starsmith.inspection.composition import compose
from starsmith.inspection.funnel import funnel
from starsmith.inspection.report import ReportInputs

HOSTILE_CODE = 'def f():\n    return "</code></pre><script>alert(1)</script><img src=x>"  # \u202e\u0000\ud800'


def inputs(tables: dict[str, list[Path]]) -> ReportInputs:
    """Everything was run."""
    draw = random.Random(3)
    metrics = [_metric(step, draw) for step in range(1, 601)]
    return ReportInputs(
        run_name="quickstart",
        starsmith_version="0.1.0",
        recipe_toml='[run]\nname = "quickstart"\n\n[[sources]]\ntype = "git"\nurl = "https://forge.test/a/b"\n',
        sources=[
            {
                "label": f"pypi-package-{n}-1.{n}.0",
                "origin": f"pkg:pypi/package-{n}@1.{n}.0",
                "fingerprint": f"{n:064x}",
                "num_files": 40 * n,
                "bytes": 300_000 * n,
                "num_incidents": n % 2,
            }
            for n in range(1, 8)
        ],
        policy=[
            {
                "rule": "license",
                "title": "the licence type is one that stays",
                "threshold": "permissive, no_license",
                "section": "1.2",
                "key": "licenses.keep",
                "enabled": True,
            },
            {
                "rule": "vendored",
                "title": "the path is not that of vendored code",
                "threshold": "no",
                "section": "1.4",
                "key": "languages.keep_vendored",
                "enabled": False,
            },
        ],
        funnel=funnel(tables),
        composition=compose(tables),
        benchmarks_searched=["humaneval"],
        tokenizer={"vocab_size": 8192, "sample_bytes": 20_000_000, "bytes_per_token": 3.4123},
        tokens={"tokens": {"train": 9_876_543, "validation": 432_100}, "sequences": 12_345},
        model={
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "vocab_size": 8192,
            "sliding_window": 192,
            "num_parameters": 3_345_678,
            "tie_word_embeddings": True,
            "rope_theta": 10000.0,
        },
        metrics=metrics,
        evaluation=evaluation(),
        timings=[
            {"step": step, "seconds": seconds, "reused": reused, "peak_memory_bytes": memory}
            for step, seconds, reused, memory in (
                ("ingest/pypi-six-1.16.0", 0.4, True, 90_000_000),
                ("contents", 4.2, True, 310_000_000),
                ("signals/license_texts", 71.5, False, 640_000_000),
                ("training", 131.0, False, 1_200_000_000),
                ("evaluation", 48.3, False, 900_000_000),
            )
        ],
    )


def evaluation() -> dict[str, Any]:
    """The shape of results.json."""
    return {
        "benchmarks": {
            "humaneval": {
                "metrics": {"pass@1": {"value": 0.0061, "low": 0.0, "high": 0.0337, "n": 164}},
                "labels": {"pass": 1, "wrong": 96, "compile": 41, "runtime": 24, "timeout": 2, "sandbox_error": 0},
                "samples": [
                    {
                        "problem": "HumanEval/0",
                        "prompt": "def add(a, b):\n",
                        "completion": "    return a + b\n",
                        "label": "pass",
                    },
                    {
                        "problem": "HumanEval/1",
                        "prompt": "def f():\n",
                        "completion": HOSTILE_CODE,
                        "label": "wrong",
                    },
                ],
                "notes": ["greedy, one sample a problem"],
            },
            "bits_per_byte": {
                "metrics": {"bits_per_byte": {"value": 2.113, "low": 2.051, "high": 2.181, "n": 87}},
                "labels": {"measured": 87},
                "samples": [],
                "notes": [],
            },
        },
        "sandbox": {"level": "bubblewrap"},
        "references": {"humaneval": {"passed": 164, "of": 164}},
    }


def _metric(step: int, draw: random.Random) -> dict[str, Any]:
    loss = 2.6 + 6.4 * math.exp(-step / 90) + draw.gauss(0, 0.08)
    metric = {
        "step": step,
        "loss": loss,
        "learning_rate": 3e-3 * min(step / 60, 0.5 + 0.5 * math.cos(step / 600 * math.pi)),
        "grad_norm": 1.0,
        "tokens": step * 4096,
        "seconds": 0.2,
        "tokens_per_second": 20_000 + draw.gauss(0, 700),
        "skipped": False,
    }
    return metric | ({"validation_loss": loss + 0.15} if step % 100 == 0 else {})
