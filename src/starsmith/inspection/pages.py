"""What every page is made with: one template engine, text that stays text, numbers for people.

Code on these pages is hostile until proven otherwise: it comes from anybody's repository and from a model. All
text is escaped by the template engine; control and direction-changing characters are made visible (they can
make code read differently from what it is, CVE-2021-42574); and a content security policy lets a page load
nothing and run one script, known by its hash: the few lines that sort tables. A page is complete without it.
"""

import base64
import hashlib
import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from starsmith.inspection import plots

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number at the head of a page."""

    label: str
    value: str
    note: str = ""


def render(template: str, **values: Any) -> str:
    """A page from its template; the same values give the same text."""
    script = (_TEMPLATES / "sort_tables.js.jinja").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment().get_template(template).render(script=script, script_digest=digest, **values)


def environment() -> jinja2.Environment:
    """The engine with the pages' filters."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "bytes": plots.format_bytes,
        "count": plots.format_count,
        "number": format_number,
        "ln": math.log,
        "seconds": format_seconds,
        "visible": visible,
        "words": lambda name: str(name).replace("_", " "),
    }
    made.globals["share"] = format_share
    return made


def visible(text: object) -> str:
    """Text in which what would be invisible or change its direction stands as U+XXXX in brackets."""
    return "".join(_visible_char(char) for char in str(text))


def _visible_char(char: str) -> str:
    if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    return "" if char == "\r" else f"[U+{ord(char):04X}]"


def cut(text: str, max_chars: int) -> str:
    """Text that says how much of it is left out."""
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}\n[{len(text) - max_chars:,} more characters]"


def format_number(value: Any) -> str:
    """Whole numbers with thousands separators, others with four significant digits; the rest as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def format_seconds(value: float) -> str:
    """0.42 s, 12.3 s, 3 min 20 s, 5 h 07 min, 12 d 03 h."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    if value < 7_200:
        return f"{int(value + 0.5) // 60} min {int(value + 0.5) % 60:02d} s"
    minutes = int(value / 60 + 0.5)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1_440:,} d {minutes % 1_440 // 60:02d} h"


def format_share(part: float, whole: float) -> str:
    """The percentage, or a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "\u2013"
