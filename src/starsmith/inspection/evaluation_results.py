"""What an evaluation's results say, ready to be shown: on a page of its own and on its run's page.

Results are plain values, as `results.json` holds them. Keys that only some benchmarks have (an analyser, a scorer,
contamination) may be absent; those that are not known here are shown too, under their own names, since a number on
a page is only as good as what is told beside it.

A benchmark's measures of the whole carry no slash in their names; `pass@1/java` is a measure of a part, and parts
are drawn as bars, one for each group, with their intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starsmith.inspection import plots
from starsmith.inspection.pages import Tile, format_number
from starsmith.inspection.plots import Interval, Plot

Benchmark = Mapping[str, Any]
Estimate = Mapping[str, Any]
OURS: Final = ("StarCoder2-3B", "StarCoder2-7B", "StarCoder2-15B")
CERTAINTY: Final = {
    "checked": "agrees with a second source",
    "recalled": "not compared with a second source",
    "doubtful": "uncertain in the last digits or more",
}
_SHOWN: Final = frozenset(
    {
        "version", "num_available_problems", "num_problems", "num_counted_problems", "problems", "groups",
        "skipped", "num_skipped_problems", "published", "estimates", "group_estimates", "labels",
        "finish_reasons", "num_extraction_failures", "num_empty_completions", "num_cut_contexts", "excluded",
        "preflight", "examples", "sampling", "contamination", "estimates_without_contaminated",
        "toolchains", "remarks",
    }
)  # fmt: skip
_SHOWN_OF_ALL: Final = frozenset({"model", "seed", "sandbox", "absent", "benchmarks"})
NO_FAILURE: Final = ("pass", "measured")
_MAX_GROUP_FIGURES: Final = 2
_MAX_FACTS: Final = 400


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row of the table of results."""

    benchmark: str
    metric: str
    estimate: Estimate
    published: Mapping[str, Mapping[str, Any]]
    """By model, those of the same measure."""
    without: Estimate | None = None
    """The same without the problems that the training corpus holds."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkView:
    """One benchmark; whatever its results lack is empty here."""

    name: str
    number: int
    """Its place, for identifiers."""
    num_problems: int | None
    num_available: int | None
    num_counted: int | None
    measures: Sequence[Measure]
    groups: Mapping[str, int]
    group_metrics: Sequence[str]
    group_estimates: Mapping[str, Mapping[str, Estimate]]
    labels: Mapping[str, int]
    finish_reasons: Mapping[str, int]
    remarks: Sequence[str]
    """What the benchmark itself says of its numbers: an analyser, a scorer, what they do not compare with."""
    notes: Sequence[str]
    """What else could mislead, a sentence each."""
    skipped: Mapping[str, str]
    excluded: Mapping[str, str]
    preflight: Mapping[str, Any]
    published: Sequence[Mapping[str, Any]]
    contamination: Mapping[str, Any]
    asked: Sequence[tuple[str, str]]
    """Version, problems, sampling, toolchains and limits, as facts."""
    others: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    """What is not known here, by its own name."""
    num_failures: int

    @property
    def models(self) -> frozenset[str]:
        """Those with a published result of a measure here."""
        return frozenset(model for measure in self.measures for model in measure.published)

    @property
    def wholes(self) -> list[Measure]:
        """The measures but those of a part, where the whole has the same."""
        names = {measure.metric for measure in self.measures}
        return [
            measure
            for measure in self.measures
            if measure.metric.partition("/")[0] not in names - {measure.metric}
        ]

    @property
    def parts(self) -> list[Measure]:
        wholes = {measure.metric for measure in self.wholes}
        return [measure for measure in self.measures if measure.metric not in wholes]

    @property
    def contaminated(self) -> list[tuple[str, str]]:
        """Problems that stand in the training corpus, and where."""
        found = self.contamination.get("problems") or {}
        if not isinstance(found, Mapping):
            return [(str(problem), "") for problem in found]
        return [
            (problem, "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts(where)))
            for problem, where in found.items()
        ]

    @property
    def contamination_rule(self) -> list[tuple[str, str]]:
        """What else is told of the search."""
        return facts({name: value for name, value in self.contamination.items() if name != "problems"})

    @property
    def has_without(self) -> bool:
        return any(measure.without is not None for measure in self.measures)


def benchmarks(results: Mapping[str, Any] | None) -> list[BenchmarkView]:
    """Every benchmark of the results, in their order."""
    found = (results or {}).get("benchmarks") or {}
    return [_view(number, name, benchmark) for number, (name, benchmark) in enumerate(found.items())]


def tiles(results: Mapping[str, Any] | None) -> list[Tile]:
    """Of each benchmark the measure after which it is named, else its first."""
    found = []
    for name, benchmark in ((results or {}).get("benchmarks") or {}).items():
        estimates: Mapping[str, Estimate] = benchmark["estimates"]
        measured = [metric for metric in estimates if estimates[metric]["n"]]
        for metric in sorted(measured, key=lambda metric: metric not in name)[:1]:
            estimate = estimates[metric]
            note = f"{metric}, {format_number(estimate['low'])} to {format_number(estimate['high'])}"
            value = format_number(estimate["value"])
            found.append(Tile(label=name.replace("_", " "), value=value, note=note))
    return found


def setup(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Model, seed, sandbox, and whatever else is told of the whole evaluation."""
    told = {name: results.get(name) for name in ("model", "seed", "sandbox")}
    others = {name: value for name, value in results.items() if name not in _SHOWN_OF_ALL}
    return facts({**told, **others})


def facts(value: Any) -> list[tuple[str, str]]:
    """Nested values as lines: the names on the way, and what stands there."""
    lines = list(_facts("", value))
    if len(lines) <= _MAX_FACTS:
        return lines
    return [*lines[:_MAX_FACTS], ("and", f"{len(lines) - _MAX_FACTS:,} more, in results.json")]


def figures(results: Mapping[str, Any] | None) -> dict[str, Plot]:
    """The plots by name: `evaluation`, and `groups-N-M` and `labels-N` of the benchmark in place N."""
    drawn: dict[str, Plot] = {}
    views = benchmarks(results)
    overview = [measure for view in views for measure in view.wholes if _is_share(measure)]
    if len(overview) > 1:
        drawn["evaluation"] = _overview(overview)
    for view in views:
        for number, metric in enumerate(view.group_metrics[:_MAX_GROUP_FIGURES]):
            drawn[f"groups-{view.number}-{number}"] = _groups(f"groups-{view.number}-{number}", view, metric)
        counted = {label: count for label, count in view.labels.items() if count}
        if len(counted) > 1:
            drawn[f"labels-{view.number}"] = plots.bars(
                f"labels-{view.number}",
                f"Outcomes of {view.name}",
                "Completions by outcome; a time limit and a fault of the sandbox are not wrong answers.",
                [label.replace("_", " ") for label in counted],
                {"completions": list(counted.values())},
                axis="completions",
            )
    return drawn


def _view(number: int, name: str, benchmark: Benchmark) -> BenchmarkView:
    labels = benchmark.get("labels") or {}
    grouped: Mapping[str, Mapping[str, Estimate]] = benchmark.get("group_estimates") or {}
    return BenchmarkView(
        name=name,
        number=number,
        num_problems=benchmark.get("num_problems"),
        num_available=benchmark.get("num_available_problems"),
        num_counted=benchmark.get("num_counted_problems"),
        measures=_measures(name, benchmark),
        groups=benchmark.get("groups") or {},
        group_metrics=list(dict.fromkeys(metric for own in grouped.values() for metric in own)),
        group_estimates=grouped,
        labels=labels,
        finish_reasons=benchmark.get("finish_reasons") or {},
        remarks=benchmark.get("remarks") or [],
        notes=list(_notes(benchmark)),
        skipped=benchmark.get("skipped") or {},
        excluded=benchmark.get("excluded") or {},
        preflight=benchmark.get("preflight") or {},
        published=benchmark.get("published") or [],
        contamination=benchmark.get("contamination") or {},
        asked=facts(_asked(benchmark)),
        others=[(key, facts(value)) for key, value in benchmark.items() if key not in _SHOWN and value],
        num_failures=sum(count for label, count in labels.items() if label not in NO_FAILURE),
    )


def _measures(name: str, benchmark: Benchmark) -> list[Measure]:
    published = benchmark.get("published") or []
    without = benchmark.get("estimates_without_contaminated") or {}
    return [
        Measure(
            benchmark=name,
            metric=metric,
            estimate=estimate,
            published={row["model"]: row for row in published if row["metric"] == metric},
            without=without.get(metric),
        )
        for metric, estimate in benchmark["estimates"].items()
    ]


def _asked(benchmark: Benchmark) -> dict[str, Any]:
    checked = dict(benchmark.get("preflight") or {})
    return {
        "version": benchmark.get("version"),
        "digest of the problems": benchmark.get("problems"),
        **(benchmark.get("sampling") or {}),
        "toolchain": benchmark.get("toolchains"),
        "limit": checked.get("limits"),
        "limit per reference time": checked.get("limit_per_reference_time"),
    }


def _notes(benchmark: Benchmark) -> Iterator[str]:
    for key, words in (
        ("num_extraction_failures", "completions held no answer in the form that was asked for."),
        ("num_empty_completions", "completions were empty."),
        ("num_cut_contexts", "contexts did not fit into the model's window and were cut."),
        ("num_skipped_problems", "problems were skipped, because the toolchain of their language is absent."),
    ):
        if benchmark.get(key):
            yield f"{benchmark[key]:,} {words}"


def _facts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _facts(f"{name}: {key}" if name else str(key), inner)
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping | list | tuple) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _facts(f"{name} {number}".strip(), inner)
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value)) or "none"
    elif value == {}:
        yield name, "none"
    elif value is not None:
        yield name, str(value)


def _is_share(measure: Measure) -> bool:
    found = measure.estimate
    return bool(found["n"] > 0 and found["low"] >= 0 and found["high"] <= 1)


def _overview(measures: Sequence[Measure]) -> Plot:
    beside = {
        model: [measure.published[model]["value"] if model in measure.published else None for measure in measures]
        for model in OURS
    }
    return plots.intervals(
        "evaluation",
        "Results",
        "Shares from 0 to 1 with their 95 % intervals; hollow signs are published results.",
        [f"{measure.benchmark.replace('_', ' ')} {measure.metric}" for measure in measures],
        {"this model": [_interval(measure.estimate) for measure in measures]},
        axis="share",
        marks={model: values for model, values in beside.items() if any(value is not None for value in values)},
        max_label_chars=44,
    )


def _groups(key: str, view: BenchmarkView, metric: str) -> Plot:
    chosen = [(group, own[metric]) for group, own in view.group_estimates.items() if metric in own]
    published = {
        (row["model"], row["metric"].rpartition("/")[2]): row["value"]
        for row in view.published
        if row["metric"].startswith(f"{metric}/")
    }
    beside = {model: [published.get((model, group)) for group, _ in chosen] for model in OURS}
    return plots.intervals(
        key,
        f"{metric} of {view.name} by group",
        f"{metric} with its 95 % interval for each of {len(chosen):,} groups; in brackets, their problems.",
        [f"{group.replace('_', ' ')} ({estimate['n']:,})" for group, estimate in chosen],
        {"this model": [_interval(estimate) for _, estimate in chosen]},
        axis=metric,
        marks={model: values for model, values in beside.items() if any(value is not None for value in values)},
        as_points=any(estimate["low"] < 0 for _, estimate in chosen),
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(value=estimate["value"], low=estimate["low"], high=estimate["high"])
