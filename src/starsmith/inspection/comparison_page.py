"""The page of a comparison: evaluations of several models on the same problems, each against the first.

Two kinds of number stand here and answer different questions. The values of each evaluation are its own, over all
that it counted. The differences are paired: over problems that both sides counted, so that their intervals are far
narrower than those of the values would suggest. Problems that one side alone solved can be opened, with both
completions: a difference of a few problems is best judged by reading them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starsmith.errors import InputError
from starsmith.inspection import evaluation_results, pages, plots
from starsmith.inspection.plots import Interval, Plot

MAX_TEXT_CHARS: Final = 4_000
MAX_RUNS: Final = 6
"""As many as the palette has colours."""
_MAX_GROUP_FIGURES: Final = 12
Results = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ComparisonInputs:
    """What the page is filled from."""

    runs: Sequence[tuple[str, Results]]
    """Names and what `results.json` holds; the first is what the others are compared with."""
    compared: Sequence[Mapping[str, Any]]
    """Of each but the first: `old`, `new`, `compared` (rows with `paired`) and `notes`."""
    changed: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]] = ()
    """Of each but the first: by benchmark, problems that one side alone solved: `problem`, `solved_by`, `old` and
    `new` (rows of `generations.jsonl`)."""
    starsmith_version: str = ""


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One comparison with the first run."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    changed: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class _Value:
    """A measure, and what each run has of it."""

    benchmark: str
    metric: str
    estimates: Sequence[Mapping[str, Any] | None]


def render_comparison(inputs: ComparisonInputs) -> str:
    """The page as HTML; the same inputs give the same text.

    Raises:
        InputError: there are more runs than a plot can tell apart.
    """
    if len(inputs.runs) > MAX_RUNS:
        raise InputError(f"a page compares {MAX_RUNS} evaluations at most, got {len(inputs.runs)}; compare fewer")
    values = _values(inputs.runs)
    sides = [
        _Side(
            name=str(found["new"]),
            rows=found["compared"],
            notes=found["notes"],
            changed=_shown(inputs.changed[number]) if inputs.changed else {},
        )
        for number, found in enumerate(inputs.compared)
    ]
    names = [name for name, _ in inputs.runs]
    return pages.render(
        "comparison.html.jinja",
        title="Evaluations compared",
        version=inputs.starsmith_version,
        names=names,
        setups=[evaluation_results.setup(results) for _, results in inputs.runs],
        values=values,
        sides=sides,
        figures=_figures(names, values, sides, inputs.runs),
    )


def _values(runs: Sequence[tuple[str, Results]]) -> list[_Value]:
    """Every measure that any run has, in the order in which they appear."""
    keys: dict[tuple[str, str], None] = {}
    for _, results in runs:
        for name, benchmark in (results.get("benchmarks") or {}).items():
            keys |= dict.fromkeys((name, metric) for metric in benchmark.get("estimates") or {})
    return [
        _Value(
            benchmark=name,
            metric=metric,
            estimates=[
                ((results.get("benchmarks") or {}).get(name) or {}).get("estimates", {}).get(metric)
                for _, results in runs
            ],
        )
        for name, metric in keys
    ]


def _shown(changed: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        benchmark: [{**row, "old": _answer(row["old"]), "new": _answer(row["new"])} for row in rows]
        for benchmark, rows in changed.items()
        if rows
    }


def _answer(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: pages.cut(str(row.get(key) or ""), MAX_TEXT_CHARS) for key in ("text", "label", "detail")}


def _figures(
    names: Sequence[str], values: Sequence[_Value], sides: Sequence[_Side], runs: Sequence[tuple[str, Results]]
) -> dict[str, Plot]:
    drawn: dict[str, Plot] = {}
    labels = [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]
    shares = [value for value in values if "/" not in value.metric and _is_share(value)]
    if shares:
        drawn["values"] = plots.intervals(
            "values",
            "Values",
            "Shares from 0 to 1 with their 95 % intervals, each over all problems that its evaluation counted.",
            [f"{value.benchmark.replace('_', ' ')} {value.metric}" for value in shares],
            {label: [_interval(value.estimates[run]) for value in shares] for run, label in enumerate(labels)},
            axis="share",
            max_label_chars=44,
        )
    judged = [row["benchmark"] for side in sides for row in side.rows if row["metric"] == "passed"]
    rows = list(dict.fromkeys(judged))
    if rows:
        drawn["differences"] = plots.intervals(
            "differences",
            f"Difference to {labels[0]}",
            "Shares of answers that pass, new minus old, over problems that both counted; 95 % intervals.",
            [benchmark.replace("_", " ") for benchmark in rows],
            {
                label: [_difference(side, benchmark) for benchmark in rows]
                for label, side in zip(labels[1:], sides, strict=True)
            },
            axis="new \u2212 old",
            as_points=True,
            max_label_chars=44,
        )
    return drawn | _group_figures(labels, runs)


def _group_figures(labels: Sequence[str], runs: Sequence[tuple[str, Results]]) -> dict[str, Plot]:
    """For each benchmark with groups, its first measure in each group and run."""
    drawn: dict[str, Plot] = {}
    found = [results.get("benchmarks") or {} for _, results in runs]
    for name in dict.fromkeys(name for results in found for name in results):
        grouped = [(results.get(name) or {}).get("group_estimates") or {} for results in found]
        groups = list(dict.fromkeys(group for own in grouped for group in own))
        metrics = list(dict.fromkeys(metric for own in grouped for part in own.values() for metric in part))
        if not groups or len(drawn) == _MAX_GROUP_FIGURES:
            continue
        key = f"groups-{len(drawn)}"
        drawn[key] = plots.intervals(
            key,
            f"{metrics[0]} of {name} by group",
            f"{metrics[0]} with its 95 % interval for each group and evaluation.",
            [group.replace("_", " ") for group in groups],
            {
                label: [_interval((own.get(group) or {}).get(metrics[0])) for group in groups]
                for label, own in zip(labels, grouped, strict=True)
            },
            axis=metrics[0],
        )
    return drawn


def _is_share(value: _Value) -> bool:
    known = [estimate for estimate in value.estimates if estimate is not None]
    return all(estimate["low"] >= 0 and estimate["high"] <= 1 for estimate in known)


def _interval(estimate: Mapping[str, Any] | None) -> Interval | None:
    if estimate is None:
        return None
    return Interval(value=estimate["value"], low=estimate["low"], high=estimate["high"])


def _difference(side: _Side, benchmark: str) -> Interval | None:
    rows = [row for row in side.rows if row["benchmark"] == benchmark and row["metric"] == "passed"]
    return _interval(rows[0]["paired"]["difference"]) if rows else None
