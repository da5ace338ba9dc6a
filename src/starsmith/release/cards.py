"""What both cards share: the template engine, and text that stays text in Markdown.

Names in a card come from anybody's repository. They are escaped so that they cannot become markup, a link or a
table cell, and code blocks get a fence longer than any run of backticks inside them. Nothing is read from the
clock: a card of the same run has the same bytes.
"""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = Path(__file__).parent / "templates"
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#|~!&$])")
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def render(template: str, **values: Any) -> str:
    """A card from its template; ends with one line break."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # noqa: S701  (Markdown, escaped by the filters below; HTML's escapes would show in code)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "md": escape,
        "code": code_span,
        "block": code_block,
        "yaml": quote_yaml,
        "count": lambda value: f"{value:,.0f}",
        "bytes": format_bytes,
        "number": format_number,
        "words": lambda name: str(name).replace("_", " "),
    }
    environment.globals["share"] = format_share
    return environment.get_template(template).render(**values).strip() + "\n"


def escape(text: object) -> str:
    """Text for running Markdown or a table cell: one line, and no markup in it."""
    return _MARKUP.sub(r"\\\1", _one_line(text))


def code_span(text: object) -> str:
    """Text as inline code, in a table cell too."""
    line = _one_line(text).replace("|", "\\|")
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def code_block(text: str, language: str = "") -> str:
    """Text as a fenced block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def quote_yaml(text: object) -> str:
    """A double-quoted YAML scalar (JSON's strings are YAML's)."""
    return json.dumps(str(text))


def format_bytes(value: float) -> str:
    """Bytes in decimal units: 3400000 -> 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def format_number(value: Any) -> str:
    """Whole numbers with thousands separators, others with four significant digits, the rest as escaped text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1_000 else f"{value:.4g}"


def format_share(part: float, whole: float) -> str:
    """The percentage, or a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "\u2013"


def _one_line(text: object) -> str:
    return "".join(
        " " if char in "\n\r\t" else f"U+{ord(char):04X}" if unicodedata.category(char) in _HIDDEN else char
        for char in str(text)
    )


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
