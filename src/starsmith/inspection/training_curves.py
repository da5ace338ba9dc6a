"""What a training run looked like, from the rows of its `metrics.jsonl`: figures, stages, and what went wrong.

The stages of a run follow each other on one axis of steps. A step that learned nothing, or before which somebody
stepped in, is marked in the loss and listed beneath it: a smooth curve that hides its interventions is not honest.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starsmith.inspection import plots
from starsmith.inspection.plots import Curve, Mark, Plot

Row = Mapping[str, Any]
FIRST_STAGE = "training"
MAX_EVENTS = 200
"""Of those listed; the page says how many there were."""


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage in numbers; None where its rows have no such number."""

    name: str
    num_steps: int
    num_tokens: int
    num_skipped: int
    seconds: float
    first_loss: float | None
    last_loss: float | None
    validation_loss: float | None
    """The last one measured."""
    tokens_per_second: float | None
    """All tokens by all seconds, the slow first steps included."""
    mfu: float | None
    """The median of its steps."""
    data_wait: float | None
    """Share of the seconds."""
    memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """A step that was not like the others."""

    stage: str
    step: int
    what: str
    is_intervention: bool


def stages(rows: Sequence[Row]) -> list[StageSummary]:
    """The stages in the order in which they appear."""
    return [_summary(name, part) for name, part in _by_stage(rows).items()]


def events(rows: Sequence[Row]) -> list[Event]:
    """Interventions and skipped steps, in order."""
    found = []
    for row in rows:
        for key in ("intervention", "skipped"):
            if row.get(key):
                found.append(
                    Event(
                        stage=_stage(row),
                        step=int(row["step"]),
                        what=str(row[key]),
                        is_intervention=key == "intervention",
                    )
                )
    return found


def learned(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a loss."""
    return [row for row in rows if row.get("loss") is not None and math.isfinite(row["loss"])]


def figures(rows: Sequence[Row]) -> dict[str, Plot]:
    """The section's plots by name; empty without rows, and without those for which there are no numbers."""
    if not rows:
        return {}
    places = _places(rows)
    borders = _borders(rows, places)
    drawn = {"loss": _loss(rows, places, borders)}
    for name, title, description, key, axis in (
        ("learning-rate", "Learning rate", "The rate at each step.", "learning_rate", "learning rate"),
        ("gradient-norm", "Gradient norm", "The norm of the gradient before clipping.", "grad_norm", "norm"),
        (
            "throughput",
            "Throughput",
            "Tokens a second over the last steps.",
            "tokens_per_second",
            "tokens a second",
        ),
    ):
        curve = _curve(title.lower(), key, rows, places)
        if curve is not None:
            drawn[name] = plots.curves(
                name,
                title,
                description,
                [curve],
                axis="step",
                value_axis=axis,
                form=plots.format_short if key == "tokens_per_second" else plots.format_plain,
                marks=borders,
                from_zero=key != "grad_norm",
                logarithmic=key == "grad_norm",  # a spike is many times the rest
            )
    drawn |= _utilisation(rows, places, borders)
    return drawn


def _loss(rows: Sequence[Row], places: Sequence[float], borders: Sequence[Mark]) -> Plot:
    good = learned(rows)
    lines = [
        curve
        for curve in (
            _curve("training loss", "loss", rows, places),
            _curve("validation loss", "validation_loss", rows, places, points=True),
        )
        if curve is not None
    ]
    marks = list(borders)
    skipped = [place for place, row in zip(places, rows, strict=True) if row.get("skipped")]
    stepped_in = [place for place, row in zip(places, rows, strict=True) if row.get("intervention")]
    if skipped:
        marks.append(Mark(label=f"skipped steps ({len(skipped):,})", x=skipped, kind="ticks"))
    if stepped_in:
        marks.append(Mark(label=f"interventions ({len(stepped_in):,})", x=stepped_in, kind="lines"))
    outcome = f"from {good[0]['loss']:.3f} to {good[-1]['loss']:.3f}" if good else "nowhere: no step has one"
    return plots.curves(
        "loss",
        "Loss",
        f"The training loss goes {outcome} in {len(rows):,} steps; {len(skipped):,} of them learned nothing.",
        lines,
        axis="step",
        value_axis="loss (nats per token)",
        marks=marks,
        wide=True,
    )


def _utilisation(rows: Sequence[Row], places: Sequence[float], borders: Sequence[Mark]) -> dict[str, Plot]:
    waits = [
        {"wait": 100 * row["data_wait_seconds"] / row["seconds"]}
        if row.get("seconds") and row.get("data_wait_seconds") is not None
        else {}
        for row in rows
    ]
    shares = [{"mfu": 100 * row["mfu"]} if row.get("mfu") is not None else {} for row in rows]
    lines = [
        curve
        for curve in (
            _curve("MFU (of the peak)", "mfu", shares, places),
            _curve("waiting for data (of the time)", "wait", waits, places),
        )
        if curve is not None
    ]
    if not lines:
        return {}
    title = "MFU and data wait" if len(lines) == 2 else "Data wait"
    plot = plots.curves(
        "utilisation",
        title,
        "The model's arithmetic as a share of the device's peak; the share of a step that waited for its batch.",
        lines,
        axis="step",
        value_axis="%",
        marks=borders,
        from_zero=True,
    )
    return {"utilisation": plot}


def _curve(
    label: str, key: str, rows: Sequence[Row], places: Sequence[float], *, points: bool = False
) -> Curve | None:
    """The values of a key where there are any."""
    values = [
        (place, float(row[key])) for place, row in zip(places, rows, strict=True) if row.get(key) is not None
    ]
    if not any(math.isfinite(value) for _, value in values):
        return None
    return Curve(label=label, x=[x for x, _ in values], y=[y for _, y in values], marks=points)


def _places(rows: Sequence[Row]) -> list[float]:
    """Steps on one axis: each stage begins where the one before ended."""
    places: list[float] = []
    start, stage = 0.0, None
    for row in rows:
        if _stage(row) != stage:
            start, stage = places[-1] if places else 0.0, _stage(row)
        places.append(start + float(row["step"]))
    return places


def _borders(rows: Sequence[Row], places: Sequence[float]) -> list[Mark]:
    """A mark where each later stage begins, with its name."""
    found: list[Mark] = []
    for number in range(1, len(rows)):
        name = _stage(rows[number])
        if name != _stage(rows[number - 1]):
            found.append(Mark(label=name.replace("_", " "), x=[places[number - 1]], kind="border"))
    return found


def _by_stage(rows: Sequence[Row]) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(_stage(row), []).append(row)
    return parts


def _stage(row: Row) -> str:
    return str(row.get("stage") or FIRST_STAGE)


def _summary(name: str, rows: Sequence[Row]) -> StageSummary:
    good = learned(rows)
    validated = [row["validation_loss"] for row in rows if row.get("validation_loss") is not None]
    utilised = [row["mfu"] for row in rows if row.get("mfu") is not None]
    memory = [row["memory_bytes"] for row in rows if row.get("memory_bytes") is not None]
    timed = [row for row in rows if row.get("seconds") and row.get("tokens")]
    seconds = sum(row["seconds"] for row in timed)
    waited = [row["data_wait_seconds"] for row in timed if row.get("data_wait_seconds") is not None]
    return StageSummary(
        name=name,
        num_steps=len(rows),
        num_tokens=sum(row.get("tokens") or 0 for row in rows),
        num_skipped=sum(bool(row.get("skipped")) for row in rows),
        seconds=seconds,
        first_loss=good[0]["loss"] if good else None,
        last_loss=good[-1]["loss"] if good else None,
        validation_loss=validated[-1] if validated else None,
        tokens_per_second=sum(row["tokens"] for row in timed) / seconds if seconds else None,
        mfu=statistics.median(utilised) if utilised else None,
        data_wait=sum(waited) / seconds if waited and seconds else None,
        memory_bytes=max(memory) if memory else None,
    )
