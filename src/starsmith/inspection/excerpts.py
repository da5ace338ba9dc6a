"""A few lines of a file, at the place that a rule objected to, fit to be shown to anyone.

Findings of personal data and secrets are covered with their kind, and texts that somebody asked to be left out,
or that a malware engine knows, are not shown at all. Everything is cut to `MAX_LINES` lines of `MAX_CHARS`
characters, and what was cut says so.
"""

from collections.abc import Iterable

from starsmith.corpus import query

MAX_LINES = 8
MAX_CHARS = 160
NEVER_SHOWN = frozenset({"opt_out", "malware"})
LONGEST_LINE = frozenset(
    {
        "max_average_line_length",
        "max_line_length",
        "max_line_length_markup",
        "max_encoded_match",
        "max_encoded_fraction",
    }
)
"""Rules that are shown at the longest line; the others at the beginning, at the match or at the finding."""

Span = tuple[int, int, str]
"""First byte, the byte after the last, and the words that cover it."""


def excerpts(tables: query.Tables, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The excerpt for each (rule, content_id) that has text and may be shown.

    Args:
        tables: `contents`, `pii` and `contamination`.
        wanted: rules and contents; a few hundred at most.
    """
    asked = sorted({pair for pair in wanted if pair[0] not in NEVER_SHOWN})
    if not asked:
        return {}
    needed = {name: tables.get(name, ()) for name in ("contents", "pii", "contamination")}
    chosen = f"content_id IN ({', '.join(sorted({query.literal(content_id) for _, content_id in asked}))})"
    with query.connect(needed) as connection:
        texts: dict[str, str] = dict(
            connection.sql(f"SELECT content_id, text FROM contents WHERE {chosen} AND text IS NOT NULL").fetchall()
        )
        covered = _grouped(
            connection.sql(
                f'SELECT content_id, start, "end", kind FROM pii WHERE {chosen} ORDER BY ALL'
            ).fetchall()
        )
        matched = _grouped(
            connection.sql(
                f'SELECT content_id, start, "end", benchmark FROM contamination WHERE {chosen} ORDER BY ALL'
            ).fetchall()
        )
    return {
        (rule, content_id): excerpt(
            texts[content_id].encode(), rule, covered.get(content_id, []), matched.get(content_id, [])
        )
        for rule, content_id in asked
        if content_id in texts
    }


def excerpt(text: bytes, rule: str, covered: list[Span], matched: list[Span]) -> str:
    """The lines around the place that a rule objected to.

    Args:
        text: in UTF-8.
        rule: its name in the policy.
        covered: findings of personal data, in order.
        matched: texts of benchmarks, in order.
    """
    place = 0
    if rule in LONGEST_LINE:
        place = _longest_line(text)
    elif rule == "contamination" and matched:
        place = matched[0][0]
    elif rule == "pii" and covered:
        place = covered[0][0]
    first = text.rfind(b"\n", 0, place) + 1
    if place - first > MAX_CHARS:  # deep in a long line
        first = place
    window = text[first : first + 4 * MAX_LINES * (MAX_CHARS + 1)]
    shown = _cover(window, [(start - first, end - first, kind) for start, end, kind in covered])
    lines = shown.decode(errors="replace").split("\n")
    cut = [_cut(line) for line in lines[:MAX_LINES]]
    more = len(lines) > MAX_LINES or first + len(window) < len(text)
    before = ["[...]"] if first else []
    return "\n".join([*before, *cut, *(["[...]"] if more else [])])


def _cover(window: bytes, spans: list[Span]) -> bytes:
    parts: list[bytes] = []
    position = 0
    for start, end, kind in spans:
        if end <= position or start >= len(window):
            continue
        parts += [window[position : max(start, position)], f"[{kind}]".encode()]
        position = min(end, len(window))
    return b"".join((*parts, window[position:]))


def _cut(line: str) -> str:
    return (
        line if len(line) <= MAX_CHARS else f"{line[:MAX_CHARS]} [... {len(line) - MAX_CHARS:,} more characters]"
    )


def _longest_line(text: bytes) -> int:
    lengths = [len(line) + 1 for line in text.split(b"\n")]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    return sum(lengths[:longest])


def _grouped(rows: list[tuple[str, int, int, str]]) -> dict[str, list[Span]]:
    grouped: dict[str, list[Span]] = {}
    for content_id, start, end, words in rows:
        grouped.setdefault(content_id, []).append((start, end, words))
    return grouped
