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

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

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


def curves(
    name: str,
    title: str,
    description: str,
    lines: Sequence[Curve],
    *,
    axis: str,
    value_axis: str,
    form: Callable[[float], str] | None = None,
    second: Curve | None = None,
    from_zero: bool = False,
) -> Plot:
    """Lines over one horizontal axis; `second` has a value axis of its own on the right.

    A line of more than `MAX_POINTS` points is drawn as the means of so many equal runs of its points.
    """
    with _style():
        figure = _figure(3.2)
        axes = figure.subplots()
        for number, curve in enumerate(lines):
            x, y = thin(curve.x, curve.y)
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
        if from_zero:
            axes.set_ylim(bottom=0)
        if second is not None:
            right = axes.twinx()
            x, y = thin(second.x, second.y)
            right.plot(x, y, color=_MUTED, linewidth=1.1, linestyle=":", label=second.label)
            right.set_ylabel(second.label)
            right.set_ylim(bottom=0)
            right.tick_params(labelcolor=_MUTED, length=0)
            right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            right.spines[["top", "left", "right", "bottom"]].set_visible(False)
        if len(lines) + (second is not None) > 1:
            figure.legend(loc="outside upper left", ncols=3)
        return _render(figure, name, title, description)


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most `MAX_POINTS` points: means of equal runs; values that are not finite are left out."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    run = max(1, math.ceil(len(points) / MAX_POINTS))
    runs = [points[start : start + run] for start in range(0, len(points), run)]
    return [sum(a for a, _ in part) / len(part) for part in runs], [
        sum(b for _, b in part) / len(part) for part in runs
    ]


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_RC):
        yield


def _figure(height_inches: float) -> Figure:
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def _short(label: str) -> str:
    return label if len(label) <= _MAX_LABEL_CHARS else label[: _MAX_LABEL_CHARS - 1] + "\u2026"


def _value_axis(axes: Axes, label: str, form: Callable[[float], str]) -> None:
    axes.set_xlabel(label)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
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
