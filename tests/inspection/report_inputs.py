"""Report inputs over a made-up corpus, with training, evaluation and timings as later rooms hand them over."""

import math
import random
from pathlib import Path
from typing import Any

from starsmith.inspection.composition import compose
from starsmith.inspection.excerpts import excerpts
from starsmith.inspection.funnel import funnel
from starsmith.inspection.report import ReportInputs

HOSTILE_CODE = 'def f():\n    return "</code></pre><script>alert(1)</script><img src=x>"  # \u202e\u0000\ud800'


def shown(tables: dict[str, list[Path]]) -> dict[tuple[str, str], str]:
    rules = funnel(tables).rules
    return excerpts(tables, [(rule.name, example.content_id) for rule in rules for example in rule.examples])


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
        excerpts=shown(tables),
        certificate=[
            {
                "lower": 0.7,
                "upper": 1.0,
                "num_contents": 120,
                "num_pairs": 400,
                "num_linked": 390,
                "num_joined": 398,
                "fraction": 0.995,
                "interval_low": 0.982,
                "interval_high": 0.9986,
            },
            {
                "lower": 0.4,
                "upper": 0.5,
                "num_contents": 0,
                "num_pairs": 0,
                "num_linked": 0,
                "num_joined": 0,
                "fraction": None,
                "interval_low": 0.0,
                "interval_high": 1.0,
            },
        ],
        near_duplicate_threshold=0.7,
        repositories={"whole": 3, "whole_with_copies": 1, "holed": 5, "gone": 1},
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
        release={
            "name": "starsmith-corpus",
            "num_files": 1234,
            "num_repositories": 12,
            "released_bytes": 3_400_000,
            "include_text": True,
            "verified": {"released_id": 1234, "content_id": 1230, "content_id_not_reencodable": 4},
            "languages": [{"config": "C#", "files": 31, "released_bytes": 70_900, "redacted_files": 2}],
        },
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
        "model": "0" * 40,
        "seed": 42,
        "sandbox": {"level": "landlock", "python": "3.11.2", "refused": {"bubblewrap": ["no user namespaces"]}},
        "benchmarks": {
            "humaneval": {
                "version": "1", "num_available_problems": 164, "num_problems": 164, "num_counted_problems": 163,
                "estimates": {"pass@1": {"value": 0.0061, "low": 0.0, "high": 0.0337, "n": 163}},
                "labels": {"pass": 1, "wrong": 96, "compile": 41, "runtime": 24, "timeout": 2, "sandbox_error": 0},
                "finish_reasons": {"length": 60, "stop": 104}, "num_cut_contexts": 3,
                "excluded": {"HumanEval/9": "the reference solution fails here"},
                "preflight": {
                    "num_references": 164, "num_references_passed": 163, "num_empty_answers": 164,
                    "num_empty_answers_failed": 164, "limits": [],
                },
                "examples": [
                    {"problem": "HumanEval/0", "prompt": "def add(a, b):\n", "suffix": None, "expected": None,
                     "completion": "    return a + b\n", "label": "pass", "detail": ""},
                    {"problem": "HumanEval/1", "prompt": "def f():\n", "suffix": "g()\n", "expected": HOSTILE_CODE,
                     "completion": HOSTILE_CODE, "label": "wrong", "detail": "<i>NameError</i>"},
                ],
            },
            "bits_per_byte": {
                "version": "1", "num_available_problems": 90, "num_problems": 87, "num_counted_problems": 87,
                "estimates": {"bits_per_byte": {"value": 2.113, "low": 2.051, "high": 2.181, "n": 87}},
                "labels": {"measured": 87}, "finish_reasons": {"measured": 87}, "num_cut_contexts": 0,
                "excluded": {}, "preflight": None, "examples": [],
            },
        },
    }  # fmt: skip


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
