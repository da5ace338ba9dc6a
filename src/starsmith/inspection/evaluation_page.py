"""The page of one evaluation: every number with what it rests on, and failures that can be opened.

A pure function of what the evaluation wrote, as plain values; a benchmark that measured nothing, a key that is
absent and a benchmark that was not run are shown as that. How text stays text is told in `pages`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starsmith.inspection import evaluation_results, pages
from starsmith.inspection.evaluation_results import BenchmarkView
from starsmith.inspection.pages import Tile
from starsmith.inspection.plots import Plot

MAX_TEXT_CHARS: Final = 6_000
"""Of each text of an answer; what is longer is cut and says so."""
_MAX_LINE_CHARS: Final = 120
_MAX_TILES: Final = 12
_TEXTS: Final = ("prompt", "completion", "suffix", "expected", "detail", "output", "finish_reason", "key")


@dataclass(frozen=True, kw_only=True)
class _Page:
    name: str
    version: str
    tiles: Sequence[Tile]
    views: Sequence[BenchmarkView]
    figures: Mapping[str, Plot]
    sandbox: Mapping[str, Any]
    absent: Mapping[str, str]
    setup: Sequence[tuple[str, str]]
    failures: Mapping[str, Sequence[Mapping[str, Any]]]
    examples: Mapping[str, Sequence[Mapping[str, Any]]]


def render_evaluation(
    results: Mapping[str, Any],
    *,
    failures: Sequence[Mapping[str, Any]] = (),
    name: str,
    starsmith_version: str = "",
) -> str:
    """The page as HTML; the same values give the same text.

    Args:
        results: what `results.json` holds.
        failures: the rows of `failures.jsonl`.
        name: what was evaluated, for people.
        starsmith_version: of the code that evaluated.
    """
    failed: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in failures:
        failed[row["benchmark"]].append(_answer(row))
    found = results.get("benchmarks") or {}
    page = _Page(
        name=name,
        version=starsmith_version,
        tiles=evaluation_results.tiles(results)[:_MAX_TILES],
        views=evaluation_results.benchmarks(results),
        figures=evaluation_results.figures(results),
        sandbox=results.get("sandbox") or {},
        absent=results.get("absent") or {},
        setup=evaluation_results.setup(results),
        failures={benchmark: failed[benchmark] for benchmark in found},
        examples={benchmark: _others(own, failed[benchmark]) for benchmark, own in found.items()},
    )
    return pages.render(
        "evaluation.html.jinja",
        page=page,
        title=f"{name}: evaluation",
        ours=evaluation_results.OURS,
        certainty=evaluation_results.CERTAINTY,
    )


def _others(benchmark: Mapping[str, Any], failed: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Examples that are not among the failures."""
    return [
        _answer(row)
        for row in benchmark.get("examples") or ()
        if not failed or row.get("label") in evaluation_results.NO_FAILURE
    ]


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = {key: pages.cut(str(row.get(key) or ""), MAX_TEXT_CHARS) for key in _TEXTS}
    first = (texts["detail"].splitlines() or [""])[0]
    line = first if len(first) <= _MAX_LINE_CHARS else f"{first[: _MAX_LINE_CHARS - 1]}\u2026"
    return {**row, **texts, "line": line}
