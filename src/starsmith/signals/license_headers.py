"""What a file says of its own licence in the comments at its top.

Two forms, both read from the first `HEAD_CHARS` characters alone, whatever the language:

* **Tags**: a comment line that begins with `SPDX-License-Identifier:` (the SPDX specification, annex E; REUSE).
  They are exact, so nothing else is read where one stands.
* **Prose**: the comments that have one of the words of `MENTION`. Of each comment the paragraphs from the first
  to the last with such a word, or with one of a licence's terms, are brought into a *normal form*: comment marks,
  copyright and author lines cut, white space joined. Files of one project then share one form, and each distinct
  form is scanned once.

Comments are found by their marks at the beginning of lines, the marks of all common languages at once; a mark
that only some languages have (`--`, `%`, `'`) costs at most a form that names no licence. Text outside comments
is never read, so that code which handles licences has no header.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["HEAD_CHARS", "MENTION", "Header", "header"]

HEAD_CHARS = 4_096
"""Where a header must begin."""
MAX_CHARS = 12_288
"""Where it is cut."""

MENTION = (
    r"(?i)licen[cs]|spdx|copyleft|public domain|\b[al]?gpl|permission (is|to|notice)|redistributions? (and use|of)"
    r"|redistribute it|proprietary|free software"
)
"""For a search; means the same in Python's `re` and in RE2 (Arrow), so that texts can be chosen in one pass."""

_MENTION = re.compile(MENTION)
_TERMS = re.compile(rf"{MENTION}|warrant|\bas[ -]is\b|\bliab(?:le|ility)\b|conditions|notice|misrepresented")
"""Of the paragraphs that belong to a licence: its disclaimer and conditions need not have a word of `MENTION`."""
_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*(.{1,500})", re.IGNORECASE)
_TAG_END = re.compile(r"[ \t]*(?:\*+[/)]|-+>|-\}|[#%][}>]|\"\"\"|\'\'\'|\]\]|[;*]+)[ \t]*$")

_LINE_MARK = re.compile(
    r"(//+[!/]*|#+(?![!\[]|(?:if|else|elif|endif|include|import|define|undef|pragma|error)\b)|--+|;+|%+|!+"
    r"|\.\.(?=\s)(?!\s+(?:[_|[]|[\w-]+::))|'(?=\s)|\"(?=\s)|\\\\|(?:rem|dnl|@rem|::|@c|c)(?=\s|$))",
    re.IGNORECASE,
)
_BLOCKS = {
    "/*": "*/",
    "<!--": "-->",
    '"""': '"""',
    "'''": "'''",
    'r"""': '"""',
    "(*": "*)",
    "{-": "-}",
    "--[[": "]]",
    "{#": "#}",
    "{{!--": "--}}",
    "{{!": "}}",
    "<%--": "--%>",
    "<#": "#>",
    "#|": "|#",
    "=begin": "=end",
    "%{": "%}",
    "#=": "=#",
}
_OPENERS = tuple(sorted(_BLOCKS, key=len, reverse=True))
_BEFORE, _AFTER = " \t*#/=~_|+.;%!-", " \t*#/=~_|+;%-"
"""Frames and bullets around the words of a comment's line."""

_CREDIT = re.compile(
    r"(?:portions |@|all )?(?:"
    r"copyright(?:ed|s)?\b(?=[\s:,]*(?:\(c\)|©|\d|:|by\b|$|(?-i:[A-Z](?![A-Z])"
    r"(?!(?:icense|older|wner|otice|aw|tatement|nterest|nd|n)s?\b))))"
    r"|\(c\)\s*(?:copyright|\d{4})|©"
    r"|spdx-filecopyrighttext"
    r"|authors?\s*:|author\b\s|maintainers?\s*:|written by\b|created by\b|contributors?\s*:"
    r"|rights reserved\W*$"
    r")",
    re.IGNORECASE,
)
"""A line that names people or years; not one that speaks of copyright notices, holders or licences."""

_DATED = re.compile(
    r"(?:copyright\s*)?(?:\(c\)|©|copyright)\s*[\d, \u2013-]*\d{4}(?:\s*[-\u2013,]\s*(?:\d{4}|present))*",
    re.IGNORECASE,
)
"""The same in the middle of a line."""


@dataclass(frozen=True, slots=True)
class Header:
    """What was found; at most one of the two is not empty."""

    tags: tuple[str, ...] = ()
    """What stands behind each `SPDX-License-Identifier:`, once each, in order."""
    prose: str = ""
    """The normal form of the comments that speak of licences: a line for each paragraph."""


NOTHING = Header()


def header(text: str) -> Header:
    """The licence header of a text; `NOTHING` when no comment at its top speaks of licences."""
    if not _MENTION.search(text, 0, HEAD_CHARS):
        return NOTHING
    comments = [lines for lines in _comments(text[:MAX_CHARS]) if any(map(_MENTION.search, lines))]
    tags = [tag for lines in comments for line in lines for tag in _tags(line)]
    if tags:
        return Header(tags=tuple(dict.fromkeys(tags)))
    forms = [form for lines in comments for form in _normal_form(lines)]
    return Header(prose="\n".join(dict.fromkeys(forms)))


def _tags(line: str) -> Iterator[str]:
    match = _TAG.match(line)
    if match is not None:
        expression = _TAG_END.sub("", match[1]).strip()
        if expression:
            yield expression


def _comments(head: str) -> Iterator[list[str]]:
    """The comments that begin in the first `HEAD_CHARS`: their lines without marks; an empty one parts paragraphs.

    Line comments go on over empty lines, since many headers are parted so; code ends them.
    """
    lines: list[str] = []
    closer = ""
    place = 0
    for raw in head.splitlines(keepends=True):
        begins_late = place >= HEAD_CHARS
        place += len(raw)
        line = raw.strip()
        if closer:
            inside, found, _ = line.partition(closer)
            lines.append(_bare(inside))
            if found:
                yield lines
                lines, closer = [], ""
            continue
        opener = next((mark for mark in _OPENERS if line.startswith(mark)), "")
        if opener and not (lines and begins_late):
            if lines:
                yield lines
                lines = []
            if begins_late:
                return
            inside, found, _ = line[len(opener) :].partition(_BLOCKS[opener])
            lines.append(_bare(inside))
            if found:
                yield lines
                lines = []
            else:
                closer = _BLOCKS[opener]
            continue
        mark = _LINE_MARK.match(line)
        if mark is not None and (lines or not begins_late):
            lines.append(_bare(line[mark.end() :]))
        elif not line:
            if lines:
                lines.append("")
        else:
            if lines:
                yield lines
                lines = []
            if begins_late:
                return
    if lines:
        yield lines


def _bare(line: str) -> str:
    """A comment's line without frames and bullets of stars."""
    return line.lstrip(_BEFORE).rstrip(_AFTER)


def _normal_form(lines: list[str]) -> Iterator[str]:
    """The paragraphs from the first to the last of a licence, each on one line."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if not line:
            paragraphs.append([])
        elif not _CREDIT.match(line):
            paragraphs[-1].append(line)
    joined = [" ".join(_DATED.sub("", " ".join(words)).split()) for words in paragraphs if words]
    speaking = [number for number, words in enumerate(joined) if _TERMS.search(words)]
    if any(map(_MENTION.search, joined)):
        yield from joined[speaking[0] : speaking[-1] + 1]
