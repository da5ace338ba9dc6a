"""The language of a file, and whether it is vendored, generated or documentation: go-enry, GitHub linguist's port.

As in The Stack v2 (section 1.3) enry sees the base name and the bytes. Here the bytes are the decoded text's
UTF-8, so that a Latin-1 file and its UTF-8 twin get one label; and a content with several names gets a label
for each name, where the published script took the first of the set. Vendored and documentation are rules on
the whole path, without its leading slash (enry's expressions are anchored at the root).

enry stops at the first strategy that leaves one language (modeline, file name, shebang, extension, XML, manual
page, heuristics, classifier). Only heuristics and classifier read the whole text, and only for ambiguous
extensions; the classifier reads 100,000 bytes at most, as linguist's does. Nothing is cut here, so labels equal
`enry.get_language` on the full bytes; the price is about a second a MB for SQL and the like.

One thing is not taken as it comes: where the classifier finds two languages equally probable (texts of a few
unknown words, and languages with equally many training samples, such as `.srt` or `.ecl`), enry answers in the
order of a Go map, at random. Such ties go to the alphabetically first language.

enry is a Go runtime and must not be in a process that forks afterwards (the children hang): it is imported
inside the functions, which belong in spawned or forkserver workers.
"""

import functools
import importlib.metadata

import pyarrow as pa
import pyarrow.compute as pc

from starsmith.corpus import schema

VERSION = 1
"""Changes when any column could, the library's data aside (`data_version`)."""

_TIE_SAMPLES = 64
"""Times a possible tie is asked: either order of two comes up in at least a fifth of the answers."""


def data_version() -> str:
    """The enry release whose linguist data decides, without loading it."""
    return f"enry-python {importlib.metadata.version('enry-python')}"


def measure(files: pa.Table, contents: pa.Table) -> pa.Table:
    """The language and kind of each file.

    Args:
        files: at least file_id, content_id and path of `schema.FILES`.
        contents: at least content_id, status and text of `schema.CONTENTS`; has every content of `files`. A
            content that is not text has no language; its flags come from the path alone.

    Returns:
        `schema.LANGUAGE`, one row for each row of `files`, ordered by file_id.

    Raises:
        KeyError: a file's content is not in `contents`.
    """
    order = files.sort_by("file_id").select(["file_id", "content_id", "path"])
    content_ids, paths = order["content_id"].to_pylist(), order["path"].to_pylist()
    names = [path.rpartition("/")[2] for path in paths]
    by_name = _measure_names(set(zip(content_ids, names, strict=True)), contents)
    kinds = {path: _path_kind(path) for path in set(paths)}
    found = [by_name[key] for key in zip(content_ids, names, strict=True)]
    columns = {
        "file_id": order["file_id"],
        "content_id": order["content_id"],
        "name": names,
        "language": [language for language, _ in found],
        "is_vendor": [kinds[path][0] for path in paths],
        "is_generated": [is_generated for _, is_generated in found],
        "is_documentation": [kinds[path][1] for path in paths],
    }
    return pa.table(columns, schema=schema.LANGUAGE)


def language_of(name: str, data: bytes) -> str | None:
    """`enry.get_language`, with ties broken by name; None when enry has no answer."""
    import enry

    languages: list[str] = enry.get_languages(name, data)
    if len(languages) > 1 and _may_tie(name, tuple(sorted(languages))):
        return min(str(enry.get_language(name, data)) for _ in range(_TIE_SAMPLES))
    return languages[0] if languages else None


def _may_tie(name: str, languages: tuple[str, ...]) -> bool:
    """Whether two of these languages have equal prior probabilities; without that, no text ties them.

    Also true when the priors cannot be seen, because heuristics narrow even the text without evidence.
    """
    orders = {tuple(x for x in order if x in languages) for order in _orders_by_prior(_suffixes(name))}
    return len(orders) > 1 or len(min(orders, key=len)) < len(languages)


@functools.lru_cache(maxsize=4096)
def _orders_by_prior(name: str) -> frozenset[tuple[str, ...]]:
    """The orders in which the classifier puts the languages of a name for a text that says nothing."""
    import enry

    return frozenset(tuple(enry.get_languages(name, b"\n")) for _ in range(_TIE_SAMPLES))


def _suffixes(name: str) -> str:
    """All that enry's extension strategy looks at, so that `_orders_by_prior` is asked once an extension."""
    stem, dot, rest = name.partition(".")
    return f"x.{rest}" if dot else stem


def _measure_names(
    keys: set[tuple[str, str]], contents: pa.Table
) -> dict[tuple[str, str], tuple[str | None, bool]]:
    """Language and generated for each distinct (content_id, base name)."""
    import enry

    rows = {content_id: row for row, content_id in enumerate(contents["content_id"].to_pylist())}
    texts = contents["text"].cast(pa.large_binary())
    is_text = pc.equal(contents["status"], "text").to_pylist()
    result: dict[tuple[str, str], tuple[str | None, bool]] = {}
    row, data = -1, b""
    for content_id, name in sorted(keys):
        if rows[content_id] != row:
            row = rows[content_id]
            data = texts[row].as_py() if is_text[row] else b""
        language = language_of(name, data) if is_text[row] else None
        result[content_id, name] = language, enry.is_generated(name, data)
    return result


def _path_kind(path: str) -> tuple[bool, bool]:
    """Vendored, documentation."""
    import enry

    relative = path.removeprefix("/")
    return enry.is_vendor(relative), enry.is_documentation(relative)
