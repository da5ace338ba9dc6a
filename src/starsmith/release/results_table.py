"""Results of an evaluation as Markdown, to be put into a pull request, an issue or a card.

The rows are those of the terminal's table: every estimate with its interval and how many problems it rests on, and
beside it what is published of StarCoder2. Below stands what could mislead.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from starsmith.release import cards

_OURS: Final = ("StarCoder2-3B", "StarCoder2-7B", "StarCoder2-15B")
_MARKS: Final = {"checked": "", "recalled": "?", "doubtful": "??"}


def render_results(results: Mapping[str, Any], *, name: str) -> str:
    """The table and its notes; the same results give the same text."""
    benchmarks = results.get("benchmarks") or {}
    rows = [row for benchmark, found in benchmarks.items() for row in _rows(benchmark, found)]
    return cards.render(
        "results.md.jinja",
        name=name,
        rows=rows,
        models=_OURS,
        notes=list(_notes(results)),
        has_published=any(set(row["published"]) != {"-"} for row in rows),
    )


def _rows(name: str, benchmark: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    published = {(row["metric"], row["model"]): row for row in benchmark.get("published") or ()}
    for metric, estimate in benchmark["estimates"].items():
        beside = [published.get((metric, model)) for model in _OURS]
        yield {
            "benchmark": name,
            "metric": metric,
            "value": f"{estimate['value']:.4g}" if estimate["n"] else "-",
            "interval": f"{estimate['low']:.4g} to {estimate['high']:.4g}" if estimate["n"] else "-",
            "n": estimate["n"],
            "published": [
                f"{row['value']:.4g}{_MARKS.get(row['certainty'], '')}" if row else "-" for row in beside
            ],
        }
    if not benchmark["estimates"]:
        yield {
            "benchmark": name,
            "metric": "nothing was measured",
            "value": "-",
            "interval": "-",
            "n": 0,
            "published": ["-"] * len(_OURS),
        }


def _notes(results: Mapping[str, Any]) -> Iterator[str]:
    sandbox = results.get("sandbox") or {}
    if "level" in sandbox:
        where = "without a sandbox" if sandbox["level"] == "none" else f"in a sandbox of level {sandbox['level']}"
        yield f"generated programs ran {where}"
    for name, benchmark in (results.get("benchmarks") or {}).items():
        for remark in benchmark.get("remarks") or ():
            yield f"{name}: {remark}"
        if groups := benchmark.get("groups"):
            yield f"{name}: over " + ", ".join(f"{group} ({count})" for group, count in groups.items())
        if (asked := benchmark.get("num_problems")) != (available := benchmark.get("num_available_problems")):
            yield f"{name}: {asked} of {available} problems were asked"
        if excluded := benchmark.get("excluded"):
            yield f"{name}: problems excluded, since their reference or the sandbox failed: {len(excluded)}"
        for language, install in (benchmark.get("skipped") or {}).items():
            yield f"{name}: skipped: {language}: no toolchain; {install}"
        for metric, estimate in (benchmark.get("estimates_without_contaminated") or {}).items():
            interval = f"{estimate['low']:.4g} to {estimate['high']:.4g}, n {estimate['n']}"
            yield f"{name}: {metric} without contaminated problems: {estimate['value']:.4g} ({interval})"
    for name, reason in (results.get("absent") or {}).items():
        yield f"not run: {name}: {reason}"
