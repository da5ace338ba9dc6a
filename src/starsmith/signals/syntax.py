"""How much of a text is comment, and how much of it does not parse: tree-sitter's grammars of the main languages.

Two fractions, of bytes that are not white space: those inside comment nodes, and those inside the outermost
error nodes. tree-sitter recovers from errors, so a file in a dialect that a grammar does not know has small error
nodes, and a file of another language has large ones. A Python docstring is a string, not a comment.

The grammars come as wheels of their own (the extra `starsmith[quality]`); a language without one has no values.
Hostile input: the parser recurses over its own tree when it frees it, and overflows a usual stack on some 100 kB
of open brackets. So texts above `MAX_BYTES` are not parsed (they have no values), and parsing runs in a thread
with a stack that holds ten times what the worst nesting of that size was seen to need.
"""

import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from starsmith.errors import InputError

Outcome = TypeVar("Outcome")

MAX_BYTES = 256 * 1024
STACK_BYTES = 256 * 1024**2

GRAMMARS = {
    "C": ("tree_sitter_c", "language"),
    "C#": ("tree_sitter_c_sharp", "language"),
    "C++": ("tree_sitter_cpp", "language"),
    "CSS": ("tree_sitter_css", "language"),
    "Go": ("tree_sitter_go", "language"),
    "HTML": ("tree_sitter_html", "language"),
    "JSON": ("tree_sitter_json", "language"),
    "Java": ("tree_sitter_java", "language"),
    "JavaScript": ("tree_sitter_javascript", "language"),
    "Kotlin": ("tree_sitter_kotlin", "language"),
    "Lua": ("tree_sitter_lua", "language"),
    "PHP": ("tree_sitter_php", "language_php"),
    "Python": ("tree_sitter_python", "language"),
    "Ruby": ("tree_sitter_ruby", "language"),
    "Rust": ("tree_sitter_rust", "language"),
    "SQL": ("tree_sitter_sql", "language"),
    "Scala": ("tree_sitter_scala", "language"),
    "Shell": ("tree_sitter_bash", "language"),
    "Swift": ("tree_sitter_swift", "language"),
    "TSX": ("tree_sitter_typescript", "language_tsx"),
    "TypeScript": ("tree_sitter_typescript", "language_typescript"),
}
"""go-enry's name of a language to its module and the function in it."""

_WHITE_SPACE = np.isin(np.arange(256), list(b" \t\n\r\v\f"))


class Fractions(NamedTuple):
    comment: float
    parse_error: float


def check_installed(purpose: str = "the recipe's [quality] thresholds need") -> None:
    """Raises InputError, with the line that installs them, when the grammars are not there."""
    modules = ("tree_sitter", *(module for module, _ in GRAMMARS.values()))
    missing = sorted({module for module in modules if importlib.util.find_spec(module) is None})
    if missing:
        raise InputError(
            f"{purpose} tree-sitter grammars; not installed: {', '.join(missing)}. "
            "Install them with: pip install 'starsmith[quality]'"
        )


def versions() -> dict[str, str]:
    """What the values depend on beside the text."""
    import importlib.metadata

    modules = {"tree-sitter", *(module.replace("_", "-") for module, _ in GRAMMARS.values())}
    return {module: importlib.metadata.version(module) for module in sorted(modules)}


def fractions(text: bytes, language: str) -> Fractions | None:
    """The two fractions of a text; None when there is no grammar, the text is too long or only white space.

    Call it inside `with_large_stack`.

    Args:
        text: in UTF-8.
        language: go-enry's name.
    """
    if language not in GRAMMARS or len(text) > MAX_BYTES:
        return None
    solid = ~_WHITE_SPACE[np.frombuffer(text, np.uint8)]
    total = int(solid.sum())
    if total == 0:
        return None
    parser, comment_kinds = _tools(language)
    comments, errors = _spans(parser.parse(text), comment_kinds)
    return Fractions(*(int(solid[_mask(spans, len(text))].sum()) / total for spans in (comments, errors)))


def parse(text: bytes, language: str) -> Any:
    """The tree of a text in a language of `GRAMMARS`; of a long text call it inside `with_large_stack`."""
    return _tools(language)[0].parse(text)


def parses(text: bytes, language: str) -> bool:
    """Whether the tree has no error node. What the parser had to add to get there is none."""
    cursor = parse(text, language).walk()
    while True:
        if cursor.node.is_error:
            return False
        if cursor.node.has_error and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return True


def with_large_stack(function: Callable[[], Outcome]) -> Outcome:
    """Runs a function in a thread whose stack no nesting of `MAX_BYTES` overflows."""
    outcome: list[Outcome] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@functools.cache
def _tools(language: str) -> tuple[Any, frozenset[int]]:
    """The parser of a language, and which of its node kinds are comments."""
    from tree_sitter import Language, Parser

    module, function = GRAMMARS[language]
    grammar = Language(getattr(importlib.import_module(module), function)())
    comments = (
        number
        for number in range(grammar.node_kind_count)
        if (grammar.node_kind_for_id(number) or "").endswith("comment") and grammar.node_kind_is_named(number)
    )
    return Parser(grammar), frozenset(comments)


def _spans(tree: Any, comment_kinds: frozenset[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where comments and errors stand. A cursor walks each edge once; the library's queries need quadratic time on
    deep trees."""
    comments: list[tuple[int, int]] = []
    errors: list[tuple[int, int]] = []
    cursor = tree.walk()
    while True:
        node = cursor.node
        if node.kind_id in comment_kinds:
            comments.append((node.start_byte, node.end_byte))
        elif node.is_error:
            errors.append((node.start_byte, node.end_byte))
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return comments, errors


def _mask(spans: list[tuple[int, int]], num_bytes: int) -> NDArray[np.bool_]:
    """The bytes inside any of the spans, which may be nested."""
    steps = np.zeros(num_bytes + 1, np.int64)
    starts, ends = (np.array([span[side] for span in spans], np.int64) for side in (0, 1))
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.asarray(np.cumsum(steps[:-1]) > 0)
