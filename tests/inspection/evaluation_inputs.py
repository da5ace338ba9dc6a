"""Results of an evaluation as `runner.evaluate` leaves them, with everything that a page must bear."""

import math
from typing import Any

HOSTILE_CODE = (
    'return "</code></pre></details><script>alert(1)</script><img src=x onerror=alert(2)>"  # \u202e\u0000\ud800'
)
HOSTILE_NAME = "<b>\"'&|`$x$</b>]]>--><!-- {{ 7 * 7 }}"
LANGUAGES = (
    "cpp", "cs", "d", "go", "java", "jl", "js", "lua", "php", "pl", "r", "rb", "rkt", "rs", "scala", "sh",
    "swift", "ts",
)  # fmt: skip


def estimate(value: float, n: int) -> dict[str, Any]:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / n)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def results() -> dict[str, Any]:
    """The shape of `results.json`."""
    per_language = {language: estimate(0.05 + 0.02 * n, 161 - n) for n, language in enumerate(LANGUAGES)}
    return {
        "model": "0123456789abcdef" * 4,
        "seed": 42,
        "sandbox": {"level": "landlock", "python": "3.11.2", "refused": {"bubblewrap": ["no user namespaces"]}},
        "absent": {"ds1000": "no ds1000.jsonl.gz of ds1000: put it at data/ds1000/ds1000.jsonl.gz"},
        "benchmarks": {
            "humaneval": benchmark(
                estimates={"pass@1": estimate(0.0061, 163)},
                labels={"pass": 1, "wrong": 96, "compile": 41, "runtime": 24, "timeout": 2},
                finish_reasons={"length": 60, "stop": 104},
                excluded={"HumanEval/9": "the reference does not pass: timeout"},
                num_cut_contexts=3,
                num_empty_completions=2,
                published=[
                    published("pass@1", "StarCoder2-3B", 0.317),
                    published("pass@1", "StarCoder2-15B", 0.463),
                    published("pass@1", "CodeLlama-34B", 0.482, "recalled"),
                ],
                contamination={
                    "checked": True, "num_checked": 160, "num_too_short": 4, "num_contaminated": 1,
                    "problems": {"HumanEval/3": {
                        "document": "swh:1:cnt:94a9ed024d3859793618152ea559a168bbcbb5e2", "repo_name": "a/b",
                        "path": "/eval.py", "method": "text", "score": 1.0, "start": 10, "end": 400,
                        "num_files": 2,
                    }},
                    "rule": {"ngram_words": 10, "threshold": 0.5}, "corpus": {"num_files": 1234},
                },
                estimates_without_contaminated={"pass@1": estimate(0.0, 162)},
                toolchains={"python": "3.11.2"},
                examples=[answer("HumanEval/0", "pass", "    return a + b\n")],
            ),
            "multipl_e_humaneval": benchmark(
                estimates={
                    "pass@1": estimate(0.21, 2800),
                    **{f"pass@1/{language}": found for language, found in per_language.items()},
                },
                groups={language: found["n"] for language, found in per_language.items()},
                group_estimates={language: {"pass@1": found} for language, found in per_language.items()},
                labels={"pass": 600, "wrong": 1500, "compile": 500, "runtime": 200},
                skipped={"jl": "no Debian package; https://julialang.org"},
                num_skipped_problems=159,
                published=[
                    published(f"pass@1/{language}", "StarCoder2-15B", 0.15 + 0.015 * n, "doubtful")
                    for n, language in enumerate(LANGUAGES)
                ],
                contamination={"checked": False, "reason": "it is not known what the model was trained on"},
            ),
            "asleep_at_the_keyboard": benchmark(
                estimates={"insecure": estimate(0.4, 40), "valid": estimate(0.9, 54)},
                labels={"measured": 54},
                remarks=["CWE-89 by bandit 1.8: not comparable with CodeQL"],
                analysers={"bandit": "1.8", "mapping": {"CWE-89": ["B608"]}, "note": "not comparable with CodeQL"},
            ),
            "bits_per_byte": benchmark(
                estimates={"bits_per_byte": {"value": 2.113, "low": 2.051, "high": 2.181, "n": 87}},
                labels={"measured": 87},
                finish_reasons={"measured": 87},
                preflight=None,
                sampling=None,
            ),
            "nothing": benchmark(estimates={}, num_problems=0, num_counted_problems=0),
        },
    }  # fmt: skip


def benchmark(**changes: Any) -> dict[str, Any]:
    return {
        "version": "2", "num_available_problems": 164, "num_problems": 164, "num_counted_problems": 163,
        "problems": "feedc0de" * 5, "groups": {}, "skipped": {}, "num_skipped_problems": 0, "published": [],
        "group_estimates": {}, "labels": {}, "finish_reasons": {}, "num_extraction_failures": 0,
        "num_empty_completions": 0, "num_cut_contexts": 0, "excluded": {}, "remarks": [],
        "preflight": {
            "num_references": 164, "num_references_passed": 163, "num_empty_answers": 164,
            "num_empty_answers_failed": 164, "limits": {"cpu_seconds": 3.0}, "limit_per_reference_time": 10.0,
        },
        "examples": [],
        "sampling": {"samples": 1, "temperature": 0.0, "top_p": 0.95, "max_new_tokens": 512},
        **changes,
    }  # fmt: skip


def published(metric: str, model: str, value: float, certainty: str = "checked") -> dict[str, Any]:
    source = "StarCoder 2 and The Stack v2, section 6.1"
    return {
        "benchmark": "",
        "metric": metric,
        "model": model,
        "value": value,
        "certainty": certainty,
        "source": source,
    }


def answer(problem: str, label: str, completion: str, **changes: Any) -> dict[str, Any]:
    return {
        "problem": problem, "group": "", "sample": 0, "prompt": "def add(a, b):\n", "suffix": None,
        "completion": completion, "finish_reason": "stop", "expected": None, "label": label, "detail": "",
        **changes,
    }  # fmt: skip


def failures() -> list[dict[str, Any]]:
    """Rows of `failures.jsonl`: an ordinary one, a hostile one, a long one."""
    hostile = {"prompt": HOSTILE_CODE, "suffix": HOSTILE_CODE, "expected": HOSTILE_CODE, "detail": HOSTILE_NAME}
    rows = [
        answer("HumanEval/1", "wrong", "    return []\n", detail="AssertionError", output="Traceback"),
        answer("HumanEval/2", "runtime", HOSTILE_CODE, output=HOSTILE_CODE, group=HOSTILE_NAME, **hostile),
        answer("HumanEval/4", "compile", "x" * 3_000_000, sample=7),
    ]  # fmt: skip
    return [
        {"benchmark": "humaneval", "key": f"{number:040x}", "output": "", **row} for number, row in enumerate(rows)
    ]
