"""go-enry's own labels, mostly without go-enry: its strategies in its order, each as cheap as it can be exact.

enry asks modeline, file name, shebang, extension, XML declaration, manual page, heuristics and classifier in
turn; the first that leaves one language wins, and one that leaves several hands them on. What a strategy says
of a name alone is asked once and remembered (for extensions: once for each suffix). Modelines count in the
first and last five lines only, so only these are searched for what every modeline has, and enry is shown them
where it is there. Heuristics are shown the lines that may matter (`language_clues`). Only where all this
leaves a choice does enry get the whole text: for the classifier and for rare extensions.

Go is slow here because its regular expressions have no automaton (a C header costs over a millisecond) and
because each call copies its bytes.

One thing is not taken as it comes: where the classifier finds two languages equally probable (texts of a few
unknown words, and languages with equally many training samples, such as `.srt` or `.ecl`), enry answers in the
order of a Go map, at random. Such ties go to the alphabetically first language.
"""

import functools
import importlib.metadata

import re2

from starsmith.signals import language_clues

_BINARY_BYTES = 8_000
"""enry takes a text with a NUL in its first bytes for binary and gives it no language."""
_EDGE_LINES = 5
_SHEBANG_LINES = 5
_MAX_SHEBANG_BYTES = 256
_TIE_SAMPLES = 64
"""Times a possible tie is asked: either order of two comes up in at least a fifth of the answers."""

_TELLING_WORDS = tuple(
    b"mov movl movq move moveq jmp add ldr section .globl .text global proc procedure begin end END function def "
    b"var let local const class struct module import include require use using package namespace return if then "
    b"else for while do int char void float string self this new print printf echo write set get put true false "
    b"nil null list map fn sub my our open type val case match with where interface implementation @interface "
    b"@end @property extends public private static table title name version select from create insert update data "
    b"node item key value xml html div body a b c d e f g h i j k l m n o p q r s t u v w x y z".split()
)
"""Words of many languages, to shift the classifier's balance between two of them."""

_FILE_TYPE = r"(?i:filetype|ft|syntax)[\t\n\f\r ]*="
_MAY_HAVE_MODELINE = re2.compile(rf"-\*-|(?:vi|vim[<=>]?[0-9]*|ex)\s*:\s*.*{_FILE_TYPE}".encode())
"""The Emacs mark, or vim's word, a colon and a file type further on."""
_VIM_MODELINE = re2.compile(rb"(?m)(?:(?:\s|^)(?:vi|vim|vim[<=>]?[0-9]+)|ex)\s*:\s*(.*)$")
_VIM_FILE_TYPE = re2.compile(rf"{_FILE_TYPE}(\w+)(?:\s|:|$)".encode())


@functools.cache
def is_known_release() -> bool:
    """Whether the installed enry is the one whose strategies are repeated here; others are asked plainly."""
    return importlib.metadata.version("enry-python") == language_clues.RELEASE


def language_of(name: str, data: bytes) -> str | None:
    """`enry.get_language`, with ties broken by name; None when enry has no answer.

    Args:
        name: a base name.
        data: UTF-8 text.
    """
    if not name or "\0" in name or not is_known_release():
        return plain_language_of(name, data)
    if data.find(b"\0", 0, _BINARY_BYTES) >= 0:
        return None
    by_modeline = _by_modeline(_edges(data))
    if by_modeline:
        return by_modeline
    by_name = _by_name(name)
    if len(by_name) == 1:
        return by_name[0]
    by_shebang = _by_shebang(data) if data.startswith(b"#!") else ()
    if len(by_shebang) == 1:
        return by_shebang[0]
    suffixes = _suffixes(name)
    candidates = _by_extension(suffixes)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        return _by_heuristics(name, data) or plain_language_of(name, data)
    if by_name or by_shebang or _is_manual_page(suffixes) or b"xml version=" in first_lines(data, 2):
        return plain_language_of(name, data)
    return None


def plain_language_of(name: str, data: bytes) -> str | None:
    """The same answer from enry alone."""
    import enry

    languages: list[str] = enry.get_languages(name, data)
    if len(languages) > 1 and _may_tie(name, languages) and not _is_ahead(name, data, languages):
        return min(str(enry.get_language(name, data)) for _ in range(_TIE_SAMPLES))
    return languages[0] if languages else None


def _edges(data: bytes) -> bytes:
    """The first and last five lines as enry joins them (without a line end between); short texts whole."""
    head, foot = -1, len(data)
    for _ in range(_EDGE_LINES):
        head = data.find(b"\n", head + 1)
        if head < 0:
            return data
    for _ in range(_EDGE_LINES):
        foot = data.rfind(b"\n", head + 1, foot)
        if foot < 0:
            return data
    return data[:head] + data[foot + 1 :]


def _by_modeline(edges: bytes) -> str:
    """The language that a modeline names, or ""; Emacs' counts before vim's."""
    if _MAY_HAVE_MODELINE.search(edges) is None:
        return ""
    first = edges.find(b"-*-")
    if first >= 0:
        start = edges.rfind(b"\n", 0, first) + 1
        end = edges.find(b"\n", edges.rfind(b"-*-"))
        language = _ask_modeline(edges[start:] if end < 0 else edges[start:end])
        if language:
            return language
    return _by_vim_modeline(edges)


def _by_vim_modeline(edges: bytes) -> str:
    """Of several modelines the last counts, and of several file types in it none, unless they agree."""
    modelines = _VIM_MODELINE.findall(edges)
    words = set(_VIM_FILE_TYPE.findall(modelines[-1])) if modelines else set()
    return _ask_modeline(b"vim: ft=" + words.pop()) if len(words) == 1 else ""


@functools.lru_cache(maxsize=4096)
def _ask_modeline(lines: bytes) -> str:
    import enry

    return str(enry.get_language_by_modeline(lines).language)


@functools.lru_cache(maxsize=65_536)
def _by_name(name: str) -> tuple[str, ...]:
    import enry

    return tuple(enry.get_languages_by_filename(name))


def _by_shebang(data: bytes) -> tuple[str, ...]:
    """What the first line names; only for `sh` does enry look at further lines."""
    line = first_lines(data, 1)
    if b"sh" in line or len(line) > _MAX_SHEBANG_BYTES:
        return _ask_shebang(first_lines(data, _SHEBANG_LINES))
    return _ask_plain_shebang(line)


@functools.lru_cache(maxsize=4096)
def _ask_plain_shebang(line: bytes) -> tuple[str, ...]:
    return _ask_shebang(line)


def _ask_shebang(lines: bytes) -> tuple[str, ...]:
    import enry

    return tuple(enry.get_languages_by_shebang("x", lines))


@functools.lru_cache(maxsize=65_536)
def _by_extension(suffixes: str) -> tuple[str, ...]:
    """All languages of the longest known extension; the public call tells the first of them only."""
    from enry.definitions import ffi, lib
    from enry.utils import go_str_slice_to_py

    found = lib.GetLanguagesByExtension(suffixes.encode(), b"", 0, ffi.NULL)
    return tuple(go_str_slice_to_py(lib, found))


@functools.lru_cache(maxsize=65_536)
def _is_manual_page(suffixes: str) -> bool:
    """For a name without candidates: whether it gets some as a manual page."""
    import enry

    return bool(enry.get_languages(suffixes, b"\n"))


def _by_heuristics(name: str, data: bytes) -> str:
    """The language of an ambiguous extension, or "" where only the whole text tells."""
    extension = name[name.rfind(".") :].lower()
    clues = language_clues.CLUES.get(extension)
    return "" if clues is None else language_clues.language_by_content(extension, data, clues)


def first_lines(data: bytes, count: int) -> bytes:
    """The first lines without the last one's end."""
    end = -1
    for _ in range(count):
        end = data.find(b"\n", end + 1)
        if end < 0:
            return data
    return data[:end]


def _may_tie(name: str, languages: list[str]) -> bool:
    """Whether the first two languages have equal prior probabilities; without that, no text ties them.

    Also true when the priors cannot be seen, because heuristics narrow even the text without evidence.
    """
    first, second = languages[:2]
    orders = {tuple(x for x in order if x in (first, second)) for order in _orders_by_prior(_suffixes(name))}
    return len(orders) > 1 or len(min(orders, key=len)) < 2


def _is_ahead(name: str, data: bytes, languages: list[str]) -> bool:
    """Whether the first language stays first with a word for the second put in front: then they do not tie.

    One question more, where a tie that is looked for by repetition takes many. (The word shifts the end of a
    text of 100,000 bytes, the classifier's limit, by its own length.)
    """
    import enry

    first, second = languages[:2]
    word = _word_for(_suffixes(name), second, first)
    if not word:
        return False
    order: list[str] = enry.get_languages(name, word + b"\n" + data)
    return first in order and second in order and order.index(first) < order.index(second)


@functools.lru_cache(maxsize=4096)
def _word_for(suffixes: str, language: str, other: str) -> bytes:
    """A word that makes one language more probable than another, if one of a few does."""
    import enry

    for word in _TELLING_WORDS:
        orders = {tuple(enry.get_languages(suffixes, word)) for _ in range(4)}
        if not all({language, other} <= set(order) and _precedes(order, language, other) for order in orders):
            continue
        orders = {tuple(enry.get_languages(suffixes, word)) for _ in range(_TIE_SAMPLES)}
        if all(_precedes(order, language, other) for order in orders):
            return word
    return b""


def _precedes(order: tuple[str, ...], one: str, other: str) -> bool:
    return order.index(one) < order.index(other)


@functools.lru_cache(maxsize=4096)
def _orders_by_prior(suffixes: str) -> frozenset[tuple[str, ...]]:
    """The orders in which the classifier puts the languages of a name for a text that says nothing."""
    import enry

    return frozenset(tuple(enry.get_languages(suffixes, b"\n")) for _ in range(_TIE_SAMPLES))


def _suffixes(name: str) -> str:
    """All that enry's extension and manual page strategies look at, for questions asked once a suffix."""
    stem, dot, rest = name.partition(".")
    return f"x.{rest}" if dot else stem
