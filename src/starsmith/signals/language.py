"""The language of a file, and whether it is vendored, generated or documentation: go-enry, GitHub linguist's port.

As in The Stack v2 (section 1.3) enry sees the base name and the bytes. Here the bytes are the decoded text's
UTF-8, so that a Latin-1 file and its UTF-8 twin get one label; and a content with several names gets a label
for each name, where the published script took the first of the set. Vendored and documentation are rules on
the whole path, without its leading slash (enry's expressions are anchored at the root).

Labels and flags are enry's own, on the full bytes; `language_strategies` and `language_flags` find out where
enry's answer is settled without asking it, which is for most files.

enry is a Go runtime and must not be in a process that forks afterwards (the children hang): it is imported
inside the functions, which belong in spawned or forkserver workers.
"""

import importlib.metadata

import pyarrow as pa

from starsmith.corpus import schema
from starsmith.corpus.buffers import text_buffers
from starsmith.signals.language_flags import is_generated, path_flags
from starsmith.signals.language_strategies import language_of

VERSION = 1
"""Changes when any column could, the library's data aside (`data_version`)."""


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
    flags = path_flags([path.removeprefix("/") for path in paths])
    found = [by_name[key] for key in zip(content_ids, names, strict=True)]
    columns = {
        "file_id": order["file_id"],
        "content_id": order["content_id"],
        "name": names,
        "language": [language for language, _ in found],
        "is_vendor": [is_vendor for is_vendor, _ in flags],
        "is_generated": [is_generated for _, is_generated in found],
        "is_documentation": [is_documentation for _, is_documentation in flags],
    }
    return pa.table(columns, schema=schema.LANGUAGE)


def _measure_names(
    keys: set[tuple[str, str]], contents: pa.Table
) -> dict[tuple[str, str], tuple[str | None, bool]]:
    """Language and generated for each distinct (content_id, base name)."""
    texts = _texts(contents)
    result: dict[tuple[str, str], tuple[str | None, bool]] = {}
    last_id, data, is_text = "", b"", False
    for content_id, name in sorted(keys):
        if content_id != last_id:
            text = texts[content_id]
            last_id, data, is_text = content_id, bytes(text or b""), text is not None
        language = language_of(name, data) if is_text else None
        result[content_id, name] = language, is_generated(name, data)
    return result


def _texts(contents: pa.Table) -> dict[str, memoryview | None]:
    """The UTF-8 of each content, shared with the table; None where it is not text."""
    texts: dict[str, memoryview | None] = {}
    for batch in contents.select(["content_id", "status", "text"]).to_batches():
        offsets, data = text_buffers(batch["text"])
        ends, view = offsets.tolist(), data.data
        rows = zip(batch["content_id"].to_pylist(), batch["status"].to_pylist(), ends, ends[1:], strict=False)
        texts |= {
            content_id: view[start:end] if status == "text" else None for content_id, status, start, end in rows
        }
    return texts
