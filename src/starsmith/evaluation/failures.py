"""Answers as people open them: what was asked, what the model wrote, and what its program said.

`results.json` holds a few answers of each label, and `failures.jsonl` those that did not pass. A page cannot
hold a benchmark's thousands, so failures are dealt out in turns over every label and group: a rare kind of
failure is there however common the others are. Texts are cut where they are long, and say by how much; the
whole completion is in `generations.jsonl` under the same `key`.

A program's output is the one thing here that may differ from run to run (it may speak of time, or of addresses
in memory), so it is in `failures.jsonl` alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, Final

from starsmith.evaluation.contract import Candidate, Problem, Request, RunResult, Score

NUM_FAILURES: Final = 40
"""Of each benchmark."""
MAX_CHARS: Final = 4_000
"""Of each text."""
_NO_FAILURE: Final = ("pass", "measured")


def choose(scores: Sequence[Score]) -> list[int]:
    """The places of the failures that are shown, in order."""
    kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, score in enumerate(scores):
        if score.label not in _NO_FAILURE:
            kinds[score.label, score.group].append(place)
    turns = chain.from_iterable(zip_longest(*kinds.values()))
    return sorted([place for place in turns if place is not None][:NUM_FAILURES])


def answer(problem: Problem, request: Request, candidate: Candidate, score: Score) -> dict[str, Any]:
    """One answer in plain values: the end of the prompt, the beginning of the suffix, and the completion."""
    expected = request.target if request.target is not None else problem.inputs.get("middle")
    return {
        "problem": score.problem,
        "group": score.group,
        "sample": score.sample,
        "prompt": _end(request.prompt),
        "suffix": request.suffix and _beginning(request.suffix),
        "completion": _ends(candidate.completion.text),
        "finish_reason": candidate.completion.finish_reason,
        "expected": expected if expected is None else _beginning(str(expected)),
        "label": score.label,
        "detail": score.detail,
    }


def output(results: Sequence[RunResult]) -> str:
    """What the program wrote that decided: the first that failed, or the last."""
    if not results:
        return ""
    decisive = next((run for run in results if run.ended != "exit" or run.status), results[-1])
    return _ends(decisive.stdout) + _ends(decisive.stderr)


def _beginning(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}\n{_note(len(text) - MAX_CHARS)}"


def _end(text: str) -> str:
    return text if len(text) <= MAX_CHARS else f"{_note(len(text) - MAX_CHARS)}\n{text[-MAX_CHARS:]}"


def _ends(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n{_note(len(text) - 2 * half)}\n{text[-half:]}"


def _note(num_chars: int) -> str:
    return f"[{num_chars:,} characters are not shown]"
