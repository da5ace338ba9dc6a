"""The report: one self-contained HTML page about a run, for people who were not there.

`render_report` is a pure function of plain values; nothing is fetched, by it or by the page. A part of the road
that was not run is shown as "not run" rather than left out, so that a page without an evaluation cannot be
mistaken for one that had nothing to say.

How text stays text is told in `pages`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starsmith.inspection import evaluation_results, pages, plots, training_curves
from starsmith.inspection.composition import Composition, Share
from starsmith.inspection.evaluation_results import BenchmarkView
from starsmith.inspection.funnel import Funnel
from starsmith.inspection.pages import Tile, cut, format_share
from starsmith.inspection.plots import Plot
from starsmith.inspection.training_curves import Event, StageSummary

MAX_SAMPLES = 6
_MAX_SAMPLE_CHARS = 4_000
_NOT_LISTED_IN_MODEL = {"architectures", "transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """What the page is filled from; None (or empty) means that this part was not run."""

    run_name: str
    starsmith_version: str = ""
    recipe_toml: str | None = None
    """The resolved recipe, as text."""
    sources: Sequence[Mapping[str, Any]] = ()
    """What was read: `label`, `origin`, `fingerprint`, and, where known, `num_files`, `bytes`, `num_incidents`."""
    policy: Sequence[Mapping[str, Any]] = ()
    """Every rule in order: `rule`, `title`, `threshold`, `section`, `key`, `enabled`."""
    funnel: Funnel | None = None
    excerpts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Lines of dropped files to show, by rule and content_id; see `inspection.excerpts`."""
    composition: Composition | None = None
    certificate: Sequence[Mapping[str, Any]] = ()
    """Rows of `schema.NEAR_DUPLICATE_QUALITY`."""
    near_duplicate_threshold: float | None = None
    repositories: Mapping[str, int] = field(default_factory=dict)
    """How many repositories are `whole`, `holed` and `gone` after the decisions."""
    benchmarks_searched: Sequence[str] | None = None
    """Benchmarks whose texts were searched for; empty when no benchmark data was given, None when not run."""
    benchmarks_not_searched: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Why, and which: known sets without data, sets left out, folders that are no known set."""
    tokenizer: Mapping[str, Any] | None = None
    """Facts by name; numbers are formatted, the rest is shown as it is."""
    tokens: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None
    """The model's configuration and `num_parameters`."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """One for each training step, as `metrics.jsonl` has them (keys may be absent or None, but for `step`), stage
    after stage; a later stage's rows carry its name as `stage`."""
    evaluation: Mapping[str, Any] | None = None
    """What evaluation wrote as `results.json`: `sandbox` (with its `level`, or None), and `benchmarks` by name,
    each with `estimates` (`value`, `low`, `high`, `n`), `labels`, `examples`, `num_problems`,
    `num_available_problems`, `num_counted_problems`, `excluded`, `finish_reasons` and `preflight`."""
    evaluation_page: str | None = None
    """Where the evaluation's own page lies, seen from this one."""
    release: Mapping[str, Any] | None = None
    """What `write_dataset` returned."""
    timings: Sequence[Mapping[str, Any]] = ()
    """One for each step: `step`, `seconds`, `reused`, `peak_memory_bytes`."""


@dataclass(frozen=True, kw_only=True)
class _View:
    """The inputs, and what the template should not have to work out."""

    inputs: ReportInputs
    tiles: Sequence[Tile]
    figures: Mapping[str, Plot]
    stages: Sequence[StageSummary] = ()
    events: Sequence[Event] = ()
    validation: Sequence[Mapping[str, Any]] = ()
    """Rows of the table of losses: those with a validation loss, the first and the last."""
    evaluated: Sequence[BenchmarkView] = ()
    samples: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    model_rows: Mapping[str, Any] = field(default_factory=dict)


def render_report(inputs: ReportInputs) -> str:
    """The page as HTML; the same inputs give the same text."""
    view = _View(
        inputs=inputs,
        tiles=_tiles(inputs),
        figures=_figures(inputs),
        stages=training_curves.stages(inputs.metrics),
        events=training_curves.events(inputs.metrics),
        validation=_tabled(inputs.metrics),
        evaluated=evaluation_results.benchmarks(inputs.evaluation),
        samples=_samples(inputs.evaluation),
        model_rows={
            name: value for name, value in (inputs.model or {}).items() if name not in _NOT_LISTED_IN_MODEL
        },
    )
    return pages.render(
        "report.html.jinja",
        view=view,
        inputs=inputs,
        max_events=training_curves.MAX_EVENTS,
        ours=evaluation_results.OURS,
        certainty=evaluation_results.CERTAINTY,
    )


def _tiles(inputs: ReportInputs) -> list[Tile]:
    tiles = []
    if inputs.funnel is not None:
        arrived, kept = inputs.funnel.arrived, inputs.funnel.kept
        tiles += [
            Tile(label="files arrived", value=f"{arrived.files:,}", note=plots.format_bytes(arrived.bytes)),
            Tile(
                label="files kept",
                value=f"{kept.files:,}",
                note=f"{plots.format_bytes(kept.bytes)}, {format_share(kept.bytes, arrived.bytes)} of the bytes",
            ),
        ]
    if inputs.composition is not None:
        composed = inputs.composition
        tiles.append(
            Tile(
                label="repositories",
                value=f"{composed.kept_repositories:,}",
                note=f"of {composed.num_repositories:,}, in {composed.kept_languages:,} languages",
            )
        )
    parameters = (inputs.model or {}).get("num_parameters")
    if parameters is not None:
        tiles.append(Tile(label="parameters", value=_short_count(parameters)))
    learned = training_curves.learned(inputs.metrics)
    if learned:
        validation = [row["validation_loss"] for row in inputs.metrics if row.get("validation_loss") is not None]
        note = f"{learned[0]['loss']:.3f} at first" + (f", validation {validation[-1]:.3f}" if validation else "")
        tiles.append(Tile(label="training loss", value=f"{learned[-1]['loss']:.3f}", note=note))
    return [*tiles, *evaluation_results.tiles(inputs.evaluation)]


def _tabled(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    last = len(metrics) - 1
    return [
        row for place, row in enumerate(metrics) if place in (0, last) or row.get("validation_loss") is not None
    ]


def _short_count(value: float) -> str:
    for factor, unit in ((1e9, "B"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:,.0f}"


def _samples(evaluation: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A few completions, of every label first and then in the order given, cut where they are very long."""
    chosen: list[Mapping[str, Any]] = []
    for name, benchmark in ((evaluation or {}).get("benchmarks") or {}).items():
        samples = list(benchmark.get("examples") or ())
        seen: set[Any] = set()
        firsts = [s for s in samples if s.get("label") not in seen and not seen.add(s.get("label"))]  # type: ignore[func-returns-value]
        rest = [sample for sample in samples if not any(sample is first for first in firsts)]
        for sample in (firsts + rest)[:MAX_SAMPLES]:
            texts = {
                key: cut(str(sample.get(key) or ""), _MAX_SAMPLE_CHARS)
                for key in ("prompt", "completion", "suffix", "expected")
            }
            chosen.append({**sample, **texts, "benchmark": name})
    return chosen


def _figures(inputs: ReportInputs) -> dict[str, Plot]:
    return {
        **(_funnel_figures(inputs.funnel) if inputs.funnel is not None else {}),
        **(_composition_figures(inputs.composition) if inputs.composition is not None else {}),
        **training_curves.figures(inputs.metrics),
        **evaluation_results.figures(inputs.evaluation),
        **_timing_figures(inputs.timings),
    }


def _funnel_figures(funnel: Funnel) -> dict[str, Plot]:
    dropping = [rule for rule in funnel.rules if rule.dropped.files]
    if not funnel.arrived.files:
        return {}

    def steps(unit: str) -> list[tuple[str, float]]:
        return [
            ("arrived", getattr(funnel.arrived, unit)),
            *((rule.name.replace("_", " "), getattr(rule.dropped, unit)) for rule in dropping),
            ("kept", getattr(funnel.kept, unit)),
        ]

    arrived, kept = plots.format_bytes(funnel.arrived.bytes), plots.format_bytes(funnel.kept.bytes)
    outcome = f"Of {funnel.arrived.files:,} files {funnel.kept.files:,} were kept"
    return {
        "funnel-files": plots.waterfall(
            "funnel-files",
            "Files dropped by each rule",
            f"{outcome}; the bars between show what each rule took, in the order of the policy.",
            steps("files"),
            axis="files",
        ),
        "funnel-bytes": plots.waterfall(
            "funnel-bytes",
            "Source bytes dropped by each rule",
            f"{arrived} arrived, {kept} were kept.",
            steps("bytes"),
            axis="source bytes",
            form=plots.format_bytes,
        ),
    }


def _composition_figures(composition: Composition) -> dict[str, Plot]:
    figures: dict[str, Plot] = {}
    for name, title, shares in (
        ("languages", "Languages by source bytes", composition.languages),
        ("license-types", "Licence types by source bytes", composition.license_types),
        ("licenses", "Most frequent licences by files", composition.licenses[:12]),
    ):
        if shares:
            figures[name] = _share_figure(name, title, shares, by_files=name == "licenses")
    duplicates = composition.duplicates
    if duplicates.num_pairs:
        figures["similarity"] = plots.histogram(
            "similarity",
            "Similarity of near-duplicate pairs",
            f"{duplicates.num_pairs:,} verified pairs by their Jaccard similarity.",
            duplicates.similarity_edges,
            duplicates.similarity_counts,
            axis="Jaccard similarity of word n-grams",
            count_axis="pairs",
        )
        labels, counts = _grouped_sizes(duplicates.cluster_sizes)
        figures["clusters"] = plots.columns(
            "clusters",
            "Sizes of near-duplicate clusters",
            f"{duplicates.num_clusters:,} clusters by the number of distinct contents in them.",
            labels,
            counts,
            axis="contents in a cluster",
            count_axis="clusters",
        )
    if composition.pii:
        figures["pii"] = plots.bars(
            "pii",
            "Personal data found",
            "Findings of each kind, in all contents and in those that were kept.",
            [kind.kind for kind in composition.pii],
            {
                "all contents": [kind.findings for kind in composition.pii],
                "kept contents": [kind.kept_findings for kind in composition.pii],
            },
            axis="findings",
        )
    return figures


def _share_figure(name: str, title: str, shares: Sequence[Share], *, by_files: bool) -> Plot:
    arrived = [share.arrived_files if by_files else share.arrived_bytes for share in shares]
    kept = [share.kept_files if by_files else share.kept_bytes for share in shares]
    return plots.bars(
        name,
        title,
        f"{shares[0].name} is the largest of those that arrived. Hollow bars: arrived; filled bars: kept.",
        [share.name for share in shares],
        {"arrived": arrived, "kept": kept},
        axis="files" if by_files else "source bytes",
        form=plots.format_count if by_files else plots.format_bytes,
    )


def _grouped_sizes(sizes: Iterable[tuple[int, int]]) -> tuple[list[str], list[int]]:
    """Sizes 2 to 5 apart, then powers of two."""
    groups: dict[str, int] = {}
    for size, count in sizes:
        low = size if size <= 5 else max(6, 2 ** int(math.log2(size)))
        high = size if size <= 5 else 2 ** (int(math.log2(size)) + 1) - 1
        label = str(low) if low == high else f"{low}\u2013{high}"
        groups[label] = groups.get(label, 0) + count
    return list(groups), list(groups.values())


def _timing_figures(timings: Sequence[Mapping[str, Any]]) -> dict[str, Plot]:
    slowest = sorted(timings, key=lambda row: -float(row["seconds"]))[:12]
    if not slowest:
        return {}
    return {
        "timings": plots.bars(
            "timings",
            "Slowest steps",
            f"{slowest[0]['step']} took longest.",
            [str(row["step"]) for row in slowest],
            {"seconds": [float(row["seconds"]) for row in slowest]},
            axis="seconds",
            form=lambda value: f"{value:,.1f}" if value < 100 else f"{value:,.0f}",
        )
    }
