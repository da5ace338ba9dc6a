"""The report's plots: values in, SVG text out, the same bytes each time.

Matplotlib draws; this module decides the form. Text stays text (so that it can be read aloud, searched and
scaled), colours become CSS variables of the page (so that a plot is right in light and dark), and everything
that would point outside the page or differ from run to run is removed: document type, namespaces, metadata,
dates. Identifiers carry the plot's own prefix, because many plots stand in one HTML document.

The palette is Okabe and Ito's, which people with any of the common colour-vision deficiencies can tell apart;
series differ in more than colour where they meet in one place (filled, hollow, dashed).
"""

import contextlib
import html
import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDTH_INCHES = 5.6
MAX_POINTS = 400
_MAX_LABEL_CHARS = 30

# Matplotlib knows no CSS variables: each stands in as a colour that nothing else uses, and is put back after.
_INK, _MUTED, _GRID = "#0a0b01", "#0a0b02", "#0a0b03"
_SERIES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")
_CSS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--rule)",
    **{color: f"var(--series-{number})" for number, color in enumerate(_SERIES, 1)},
}
_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.labelsize": 9.5,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    svg: str
    """An `<svg>` element for inlining in HTML."""
    title: str
    description: str
    """What one sees, in a sentence; also the element's `<desc>`."""


def format_count(value: float) -> str:
    """12345 -> 12,345."""
    return f"{value:,.0f}"


def format_short(value: float) -> str:
    """12300 -> 12.3k, 1200000 -> 1.2M; below a thousand as it is."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.4g}{unit}" if abs(value) < 100 * factor else f"{value / factor:.0f}{unit}"
    return f"{value:.6g}"


def format_plain(value: float) -> str:
    """As short as three digits allow: 0.0003 -> 3e-4."""
    text = f"{value:.3g}" if value == 0 or 1e-2 <= abs(value) < 1e5 else f"{value:.2e}"
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return text
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def format_bytes(value: float) -> str:
    """Bytes in decimal units with three digits at most: 3400000 -> 3.4 MB."""
    size = abs(float(value))
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{value:,.0f} {unit}" if unit == "B" or size >= 99.95 else f"{_trim(value)} {unit}"
        size, value = size / 1000, value / 1000
    raise AssertionError("unreachable")


def _trim(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def bars(
    name: str,
    title: str,
    description: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    axis: str,
    form: Callable[[float], str] = format_count,
) -> Plot:
    """Horizontal bars, one group a label and the first label on top; the first series is drawn hollow.

    Args:
        name: letters and hyphens; prefixes the identifiers in the SVG.
        series: name to one value for each label.
        axis: the value axis' label, with its unit.
        form: writes a value at the end of a bar and on the axis.
    """
    num_series = len(series)
    thickness = 0.8 / num_series
    with _style():
        figure = _figure(0.75 + len(labels) * (0.2 + 0.13 * num_series))
        axes = figure.subplots()
        for number, (label, values) in enumerate(series.items()):
            places = [row + (number - (num_series - 1) / 2) * thickness for row in range(len(labels))]
            hollow = num_series > 1 and number == 0
            color = _SERIES[0 if num_series == 1 else max(number - 1, 0)]
            drawn = axes.barh(
                places,
                values,
                height=thickness * 0.88,
                label=label,
                facecolor="none" if hollow else color,
                edgecolor=_MUTED if hollow else color,
                linewidth=0.9,
            )
            axes.bar_label(drawn, [form(value) for value in values], padding=4, color=_MUTED, fontsize=8.5)
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
        axes.invert_yaxis()
        axes.margins(x=0.14, y=0.02)
        _value_axis(axes, axis, form)
        if num_series > 1:
            figure.legend(loc="outside upper left", ncols=num_series)
        return _render(figure, name, title, description)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with the interval around it."""

    value: float
    low: float
    high: float


def intervals(
    name: str,
    title: str,
    description: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Interval | None]],
    *,
    axis: str,
    form: Callable[[float], str] = "{:.3g}".format,
    marks: Mapping[str, Sequence[float | None]] | None = None,
    as_points: bool = False,
    max_label_chars: int = _MAX_LABEL_CHARS,
) -> Plot:
    """Values with their intervals, one row a label and the first label on top.

    Args:
        name: letters and hyphens; prefixes the identifiers in the SVG.
        series: name to one value for each label, None where there is none. One series is drawn as bars from 0,
            several as points beside each other.
        axis: the value axis' label, with its unit.
        form: writes a value at the end of its interval and on the axis.
        marks: other values to compare with, by what they are; hollow signs.
        as_points: one series too; for what has no natural 0, or may lie on both sides of it.
        max_label_chars: labels are cut to this.
    """
    num_series = len(series)
    as_bars = num_series == 1 and not as_points
    marks = marks or {}
    with _style():
        legend = 0.25 if marks or num_series > 1 else 0.0
        figure = _figure(0.75 + legend + len(labels) * (0.17 + 0.16 * num_series))
        axes = figure.subplots()
        for number, (label, values) in enumerate(series.items()):
            rows = [
                (row + (number - (num_series - 1) / 2) * 0.8 / num_series, found)
                for row, found in enumerate(values)
                if found is not None
            ]
            places, centres = [place for place, _ in rows], [found.value for _, found in rows]
            around = [
                [max(found.value - found.low, 0) for _, found in rows],
                [max(found.high - found.value, 0) for _, found in rows],
            ]
            color = _SERIES[number % len(_SERIES)]
            if as_bars:
                axes.barh(places, centres, height=0.62, facecolor=color, edgecolor="none", alpha=0.55)
            axes.errorbar(
                centres, places, xerr=around, fmt="none" if as_bars else "osD^vP"[number % 6], color=color,
                ecolor=_INK if as_bars else color, elinewidth=1.3, capsize=2.5, markersize=5, label=label,
            )  # fmt: skip
            # Beside marks that may lie anywhere, values stand in a column of their own.
            across = axes.get_yaxis_transform() if marks else axes.transData
            for place, found in rows:
                axes.annotate(
                    form(found.value), (1 if marks else found.high, place), xycoords=across, xytext=(5, 0),
                    textcoords="offset points", va="center", color=_MUTED, fontsize=8.5,
                )  # fmt: skip
        for number, (label, others) in enumerate(marks.items()):
            known = [(value, row) for row, value in enumerate(others) if value is not None]
            axes.plot(
                [value for value, _ in known], [row for _, row in known], "DsoP^v"[number % 6], linestyle="none",
                markersize=5.5, markerfacecolor="none", markeredgecolor=_SERIES[(number + 1) % len(_SERIES)],
                markeredgewidth=1.5, label=label,
            )  # fmt: skip
        axes.set_yticks(range(len(labels)), [_short(label, max_label_chars) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.margins(x=0.12)
        _value_axis(axes, axis, form, integer=False, from_zero=not as_points)
        if as_points:
            axes.axvline(0, color=_MUTED, linewidth=0.9)
        if legend:
            figure.legend(loc="outside upper left", ncols=3)
        return _render(figure, name, title, description)


def waterfall(
    name: str,
    title: str,
    description: str,
    steps: Sequence[tuple[str, float]],
    *,
    axis: str,
    form: Callable[[float], str] = format_count,
) -> Plot:
    """What remains after each step: the first and the last row are totals, those between are losses.

    Args:
        steps: (label, amount); the losses must lead from the first amount to the last.
    """
    with _style():
        figure = _figure(0.7 + 0.3 * len(steps))
        axes = figure.subplots()
        remaining = steps[0][1]
        for row, (_, amount) in enumerate(steps):
            total = row in (0, len(steps) - 1)
            if not total:
                remaining -= amount
            drawn = axes.barh(
                row, amount, left=0 if total else remaining, height=0.66, color=_SERIES[0] if total else _SERIES[1]
            )
            text = form(amount) if total or amount == 0 else f"\u2212{form(amount)}"
            axes.bar_label(drawn, [text], padding=4, color=_MUTED, fontsize=8.5)
            if row + 1 < len(steps):
                axes.plot([remaining, remaining], [row, row + 1], color=_GRID, linewidth=0.9, zorder=0)
        axes.set_yticks(range(len(steps)), [_short(label) for label, _ in steps])
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.02)
        _value_axis(axes, axis, form)
        return _render(figure, name, title, description)


def histogram(
    name: str,
    title: str,
    description: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    axis: str,
    count_axis: str,
) -> Plot:
    """Counts in bins; one more edge than counts."""
    with _style():
        figure = _figure(2.6)
        axes = figure.subplots()
        widths = [high - low for low, high in itertools.pairwise(edges)]
        axes.bar(list(edges[:-1]), counts, widths, align="edge", color=_SERIES[0], edgecolor="none", linewidth=0)
        _upright(axes, axis, count_axis)
        return _render(figure, name, title, description)


def columns(
    name: str,
    title: str,
    description: str,
    labels: Sequence[str],
    counts: Sequence[float],
    *,
    axis: str,
    count_axis: str,
) -> Plot:
    """Upright bars of one series over named places."""
    with _style():
        figure = _figure(2.6)
        axes = figure.subplots()
        axes.bar(range(len(labels)), counts, 0.66, color=_SERIES[0])
        axes.set_xticks(range(len(labels)), [_short(label) for label in labels])
        axes.set_xlim(-0.6, max(len(labels), 6) - 0.4)  # a few bars stay bars
        _upright(axes, axis, count_axis)
        return _render(figure, name, title, description)


@dataclass(frozen=True, kw_only=True)
class Curve:
    label: str
    x: Sequence[float]
    y: Sequence[float]
    marks: bool = False
    """Few measurements: drawn as points joined by a dashed line."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Places on the horizontal axis that mean something."""

    label: str
    x: Sequence[float]
    kind: Literal["border", "lines", "ticks"]
    """Where something begins, with its label in the plot; lines from top to bottom; or ticks at the bottom."""


def curves(
    name: str,
    title: str,
    description: str,
    lines: Sequence[Curve],
    *,
    axis: str,
    value_axis: str,
    form: Callable[[float], str] | None = None,
    marks: Sequence[Mark] = (),
    from_zero: bool = False,
    logarithmic: bool = False,
    wide: bool = False,
) -> Plot:
    """Lines over one horizontal axis.

    A line of more than `MAX_POINTS` points is drawn as the means of so many equal runs of its points, over a band
    from the least to the largest of each run. `logarithmic` needs a positive value somewhere to have an effect.
    """
    with _style():
        figure = _figure(3.2, WIDTH_INCHES * 2 if wide else WIDTH_INCHES)
        axes = figure.subplots()
        for number, curve in enumerate(lines):
            x, y = thin(curve.x, curve.y)
            low, high = _extent(curve.x, curve.y)
            if len(curve.x) > MAX_POINTS:
                axes.fill_between(x, low, high, color=_SERIES[number], alpha=0.18, linewidth=0)
            axes.plot(
                x,
                y,
                color=_SERIES[number],
                linewidth=1.6,
                label=curve.label,
                marker="o" if curve.marks else "",
                markersize=4,
                linestyle="--" if curve.marks else "-",
            )
        _upright(axes, axis, value_axis, form, integer=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
        if logarithmic and any(value > 0 for curve in lines for value in curve.y):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
        if from_zero:
            axes.set_ylim(bottom=0)
        for mark in marks:
            _draw(axes, mark)
        if len(lines) + sum(mark.kind != "border" for mark in marks) > 1:
            figure.legend(loc="outside upper left", ncols=4 if wide else 2)
        return _render(figure, name, title, description)


def _draw(axes: Axes, mark: Mark) -> None:
    across = axes.get_xaxis_transform()  # the horizontal axis in data, the vertical one from 0 to 1
    match mark.kind:
        case "border":
            axes.axvline(mark.x[0], color=_MUTED, linewidth=0.9)
            axes.text(
                mark.x[0], 1.01, f"{mark.label} \u2192", transform=across, color=_MUTED, fontsize=8.5, va="bottom"
            )
        case "lines":
            axes.vlines(mark.x, 0, 1, transform=across, color=_SERIES[3], linewidth=1.2, linestyle=(0, (4, 2)),
                        label=mark.label)  # fmt: skip
        case "ticks":
            axes.vlines(mark.x, 0, 0.06, transform=across, color=_SERIES[4], linewidth=1.8, label=mark.label)


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most `MAX_POINTS` points: means of equal runs; values that are not finite are left out."""
    runs = _runs(x, y)
    return [sum(a for a, _ in part) / len(part) for part in runs], [
        sum(b for _, b in part) / len(part) for part in runs
    ]


def _extent(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The least and the largest value of each run of `thin`."""
    runs = _runs(x, y)
    return [min(b for _, b in part) for part in runs], [max(b for _, b in part) for part in runs]


def _runs(x: Sequence[float], y: Sequence[float]) -> list[list[tuple[float, float]]]:
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    run = max(1, math.ceil(len(points) / MAX_POINTS))
    return [points[start : start + run] for start in range(0, len(points), run)]


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_RC):
        yield


def _figure(height_inches: float, width_inches: float = WIDTH_INCHES) -> Figure:
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def _short(label: str, max_chars: int = _MAX_LABEL_CHARS) -> str:
    return label if len(label) <= max_chars else label[: max_chars - 1] + "\u2026"


def _value_axis(
    axes: Axes, label: str, form: Callable[[float], str], *, integer: bool = True, from_zero: bool = True
) -> None:
    axes.set_xlabel(label)
    if from_zero:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=integer))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[["bottom", "left"]].set_visible(False)


def _upright(
    axes: Axes, label: str, count_label: str, form: Callable[[float], str] | None = None, integer: bool = True
) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel(count_label)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=integer))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value) if form else f"{value:,.6g}"))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=_MUTED)
    axes.spines["left"].set_visible(False)


def _render(figure: Figure, name: str, title: str, description: str) -> Plot:
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has fonts for what Matplotlib's own font lacks; only the measured width is a guess then.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Plot(svg=_for_page(text.getvalue(), name, title, description), title=title, description=description)


def _for_page(svg: str, name: str, title: str, description: str) -> str:
    """Turns Matplotlib's file into an element of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = re.sub(r" font-family: [^;\"]+;", "", svg)  # the page's font
    for color, variable in _CSS.items():
        svg = svg.replace(color, variable)
    view = re.search(r'viewBox="([^"]+)"', svg)
    assert view is not None, "Matplotlib's SVG has a view box"
    head = (
        f'<svg viewBox="{view[1]}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    return re.sub(r"\s*\n\s*", "\n", head + svg[svg.index(">") + 1 :]).strip()
