"""Shards: every file's tokens once, and an index that says whose they are.

Repository context, the order of files and FIM are drawn per epoch by the loader, so a shard keeps the parts and
not the sequences: for each document the tokens of the repository's name, and for each file those of its path with
the line feed that follows it, and those of its text. A folder of shards holds

* `NAME.tokens`: a header of 64 bytes and the ids, little-endian and memory-mapped;
* `NAME.index.arrow`: one row per document (`INDEX`), memory-mapped too;
* `tokenizer.json`: the tokenizer that made them, which char-level FIM needs;
* `tokens.json`: counts, the digest of every file, and the fingerprint of all of it.

Instruction data (`tokens.instructions`) lies in folders of the same form under another name of the format: an
example is a document, and a turn is a file whose path is the prompt and whose text is the response.

Shards are written one per part, by any number of processes, each under a temporary name and renamed when whole.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith.errors import InputError
from starsmith.tokens.tokenizer import Ids, Tokenizer

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

Holding = Literal["starsmith-tokens", "starsmith-instructions"]
"""The format of a folder: documents of the corpus, or examples of instruction data."""

MANIFEST = "tokens.json"
AGAIN = "remove the result that it is part of and run the recipe again, which encodes anew"
"""What helps when a folder of shards is not what was written."""
TOKENIZER = "tokenizer.json"
FORMAT_VERSION = 1

FILES = pa.struct(
    [
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("released_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("license_type", pa.string(), nullable=False),
        pa.field("detected_licenses", pa.list_(pa.string()), nullable=False),
        pa.field("text_bytes", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # path tokens, then text tokens
        pa.field("num_path_tokens", pa.int64(), nullable=False),
        pa.field("num_text_tokens", pa.int64(), nullable=False),
    ]
)

INDEX = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("directory_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # of the tokens of the repository's name
        pa.field("num_name_tokens", pa.int64(), nullable=False),
        pa.field("num_tokens", pa.int64(), nullable=False),  # name, paths and texts together
        pa.field("files", pa.list_(FILES), nullable=False),
    ]
)

_HEADER = struct.Struct("<8sIIQ32s8x")  # magic, version, bytes per token, tokens, tokenizer's SHA-256
_MAGIC = b"STARTOKS"
_TOKENS_SUFFIX = ".tokens"
_INDEX_SUFFIX = ".index.arrow"
_ROWS_PER_READ = 4


class File(NamedTuple):
    """One file of a document, with views of its tokens."""

    file_id: str
    content_id: str
    released_id: str
    path: str
    language: str | None
    license_type: str
    detected_licenses: tuple[str, ...]
    path_tokens: Ids
    """The path and a line feed; of a turn, the prompt."""
    text_tokens: Ids
    """Of a turn, the response and its end."""


class Document:
    """One document; its files are read when they are asked for, so opening a large repository costs nothing."""

    __slots__ = ("_files", "_shard", "document_id", "name_tokens", "num_tokens", "repo_name")

    def __init__(self, shard: "_Shard", row: int) -> None:
        self._shard = shard
        self._files = shard.files_of(row)
        self.document_id, self.repo_name, self.name_tokens, self.num_tokens = shard.document(row)

    @property
    def num_files(self) -> int:
        return len(self._files)

    def file(self, number: int) -> File:
        """The file with this number in the order of paths, from 0."""
        return self._shard.file(self._files[number])

    @property
    def files(self) -> tuple[File, ...]:
        """Sorted by path."""
        return tuple(map(self._shard.file, self._files))


def write_shards(
    documents: Iterable[pa.Table],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Writes one shard per table of `schema.DOCUMENTS`, then the manifest.

    Args:
        documents: the tables; a shard is named by the place of its table.
        tokenizer: what to encode with; a copy goes into the folder.
        folder: an existing folder.
        progress: called with the bytes of text of each shard once it is written.

    Returns:
        The manifest.
    """
    for number, table in enumerate(documents):
        encoded = _encode_rows([table], tokenizer)
        text_bytes = write_shard(encoded, tokenizer, folder, f"shard-{number:05d}")
        if progress is not None:
            progress(text_bytes)
    tokenizer.save(folder / TOKENIZER)
    return write_manifest(folder, folder / TOKENIZER)


def encode_documents(part: Path, tokenizer_file: Path, folder: Path, name: str) -> int:
    """Writes the shard `name` of one Parquet part of documents; fit for a worker process.

    Returns:
        The bytes of text that were encoded.
    """
    tokenizer = Tokenizer.load(tokenizer_file)
    with pq.ParquetFile(part) as reader:
        batches = (pa.Table.from_batches([batch]) for batch in reader.iter_batches(_ROWS_PER_READ))
        return write_shard(_encode_rows(batches, tokenizer), tokenizer, folder, name)


def write_manifest(folder: Path, tokenizer_file: Path, *, holding: Holding = "starsmith-tokens") -> dict[str, Any]:
    """Closes a folder of shards: copies the tokenizer, counts, digests.

    Raises:
        InputError: a shard is incomplete, damaged, or made with another tokenizer.
    """
    tokenizer = Tokenizer.load(tokenizer_file)
    names = sorted(path.name.removesuffix(_TOKENS_SUFFIX) for path in folder.glob(f"*{_TOKENS_SUFFIX}"))
    shards = [_describe(folder, name, tokenizer) for name in names]
    described = {
        "format": holding,
        "version": FORMAT_VERSION,
        "tokenizer_sha256": tokenizer.digest,
        "vocab_size": tokenizer.vocab_size,
        "shards": shards,
    }
    splits = {
        split: {
            count: sum(shard["splits"][split][count] for shard in shards)
            for count in ("num_documents", "num_files", "num_tokens", "text_bytes")
        }
        for split in SPLITS
    }
    manifest = described | {"splits": splits, "fingerprint": _fingerprint(described)}
    tokenizer.save(folder / TOKENIZER)
    _replace(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


class Shards:
    """A folder of shards, open for reading. Nothing is loaded but the rows of each split."""

    def __init__(self, folder: Path, *, verify: bool = True, holding: Holding = "starsmith-tokens") -> None:
        """Opens and checks a folder.

        Args:
            folder: what `write_manifest` closed.
            verify: read every file once and compare its digest (about a second per gigabyte); headers and sizes
                are always checked.
            holding: what must be in it.

        Raises:
            InputError: the manifest is absent, or a shard is truncated, altered, or of another tokenizer.
        """
        manifest = _read_manifest(folder, holding)
        self.tokenizer = Tokenizer.load(folder / TOKENIZER)
        if self.tokenizer.digest != manifest["tokenizer_sha256"]:
            raise InputError(f"{folder / TOKENIZER} is not the tokenizer of these shards; {AGAIN}")
        self.manifest = manifest
        self.fingerprint: str = manifest["fingerprint"]
        self._shards: list[_Shard] = []
        for shard in manifest["shards"]:
            for name, expected in shard["files"].items():
                _check_file(folder / name, expected, verify=verify)
            tokens = _map_tokens(folder / (shard["name"] + _TOKENS_SUFFIX), self.tokenizer)
            self._shards.append(_Shard(tokens, _map_index(folder / (shard["name"] + _INDEX_SUFFIX))))
        self._rows = {split: [shard.rows(split) for shard in self._shards] for split in SPLITS}
        self._ends = {split: np.cumsum([len(rows) for rows in self._rows[split]]) for split in SPLITS}

    def num_documents(self, split: Split) -> int:
        ends = self._ends[split]
        return int(ends[-1]) if len(ends) else 0

    def document(self, split: Split, number: int) -> Document:
        """The document with this number, from 0, among those of a split."""
        shard = int(np.searchsorted(self._ends[split], number, side="right"))
        before = self._ends[split][shard - 1] if shard else 0
        return Document(self._shards[shard], int(self._rows[split][shard][number - before]))

    def repo_names(self, split: Split) -> pa.ChunkedArray:
        """Of all documents of a split, in the order of their numbers."""
        return pa.chunked_array(
            [shard.repo_names(rows) for shard, rows in zip(self._shards, self._rows[split], strict=True)],
            type=pa.string(),
        )


class _Shard:
    """The tokens and the index of one shard, column by column."""

    def __init__(self, tokens: Ids, index: pa.Table) -> None:
        self._tokens = tokens.view(np.ndarray)  # slices of a memmap cost several times those of a plain array
        columns = {name: index.column(name).combine_chunks() for name in INDEX.names}
        self._splits = columns["split"]
        self._document_ids, self._repo_names = columns["document_id"], columns["repo_name"]
        self._starts, self._name_lengths, self._lengths = (
            columns[key].to_numpy() for key in ("start", "num_name_tokens", "num_tokens")
        )
        self._first_file = columns["files"].offsets.to_numpy()
        files = {field.name: columns["files"].values.field(field.name) for field in FILES}
        self._strings = [files[name] for name in _FILE_STRINGS]
        self._licenses = files["detected_licenses"]
        self._file_starts, self._path_lengths, self._text_lengths = (
            files[key].to_numpy() for key in ("start", "num_path_tokens", "num_text_tokens")
        )

    def rows(self, split: Split) -> NDArray[np.int32]:
        return np.flatnonzero(pc.equal(self._splits, split).to_numpy(zero_copy_only=False)).astype(np.int32)

    def repo_names(self, rows: NDArray[np.int32]) -> Any:
        return self._repo_names.take(pa.array(rows))

    def document(self, row: int) -> tuple[str, str, Ids, int]:
        """Its identifier, its repository's name, the tokens of that name, and how many tokens it has."""
        start = self._starts[row]
        name = self._tokens[start : start + self._name_lengths[row]]
        return self._document_ids[row].as_py(), self._repo_names[row].as_py(), name, int(self._lengths[row])

    def files_of(self, row: int) -> range:
        return range(int(self._first_file[row]), int(self._first_file[row + 1]))

    def file(self, number: int) -> File:
        start = self._file_starts[number]
        middle = start + self._path_lengths[number]
        file_id, content_id, released_id, path, language, license_type = (
            strings[number].as_py() for strings in self._strings
        )
        return File(
            file_id=file_id,
            content_id=content_id,
            released_id=released_id,
            path=path,
            language=language,
            license_type=license_type,
            detected_licenses=tuple(self._licenses[number].as_py()),
            path_tokens=self._tokens[start:middle],
            text_tokens=self._tokens[middle : middle + self._text_lengths[number]],
        )


_FILE_STRINGS = ("file_id", "content_id", "released_id", "path", "language", "license_type")


Row = dict[str, Any]
"""A document's row of the index, but for `start` and `num_tokens`, and without `start` in its files."""


def write_shard(
    documents: Iterable[tuple[Sequence[Ids], Row]], tokenizer: Tokenizer, folder: Path, name: str
) -> int:
    """Writes one shard of encoded documents.

    Args:
        documents: for each document the tokens of its name, and of each file's path and text, and its row.
        tokenizer: what they were encoded with.
        folder: an existing folder.
        name: of the shard.

    Returns:
        The bytes of text in it.
    """
    rows: list[dict[str, Any]] = []
    num_tokens = 0
    partial = folder / f".{name}{_TOKENS_SUFFIX}.partial"
    with partial.open("wb") as file:
        file.write(bytes(_HEADER.size))
        for pieces, row in documents:
            for piece in pieces:
                file.write(piece.astype(piece.dtype.newbyteorder("<"), copy=False).data)
            rows.append(_placed(row, num_tokens))
            num_tokens += rows[-1]["num_tokens"]
        file.seek(0)
        itemsize = tokenizer.dtype.itemsize
        file.write(_HEADER.pack(_MAGIC, FORMAT_VERSION, itemsize, num_tokens, bytes.fromhex(tokenizer.digest)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, INDEX) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=INDEX))
    _replace(folder / (name + _INDEX_SUFFIX), sink.getvalue().to_pybytes())
    partial.replace(folder / (name + _TOKENS_SUFFIX))
    return sum(file["text_bytes"] for row in rows for file in row["files"])


def _placed(row: Row, start: int) -> Row:
    """The row with the places of its tokens, which begin at `start`."""
    position = start + row["num_name_tokens"]
    files = []
    for file in row["files"]:
        files.append(file | {"start": position})
        position += file["num_path_tokens"] + file["num_text_tokens"]
    return row | {"start": start, "num_tokens": position - start, "files": files}


def _encode_rows(tables: Iterable[pa.Table], tokenizer: Tokenizer) -> Iterator[tuple[Sequence[Ids], Row]]:
    """One document at a time: Python objects of a whole table would take several times its memory."""
    for table in tables:
        for number in range(table.num_rows):
            [document] = table.slice(number, 1).to_pylist()
            yield _encode_document(document, tokenizer)


def _encode_document(document: dict[str, Any], tokenizer: Tokenizer) -> tuple[Sequence[Ids], Row]:
    """The document's token arrays in order, and its row."""
    texts = [document["repo_name"]]
    for file in document["files"]:
        texts += [file["path"] + "\n", file["text"]]
    encoded = tokenizer.encode(texts)
    files = [
        file
        | {
            "text_bytes": len(file["text"].encode()),
            "num_path_tokens": len(encoded[2 * number + 1]),
            "num_text_tokens": len(encoded[2 * number + 2]),
        }
        for number, file in enumerate(document["files"])
    ]
    return encoded, document | {"num_name_tokens": len(encoded[0]), "files": files}


def _describe(folder: Path, name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """One shard's entry in the manifest."""
    tokens = _map_tokens(folder / (name + _TOKENS_SUFFIX), tokenizer)
    index = _map_index(folder / (name + _INDEX_SUFFIX))
    if (pc.sum(index.column("num_tokens")).as_py() or 0) != len(tokens):
        raise InputError(f"{folder / name}: index and tokens do not belong together; {AGAIN}")
    files = {
        path.name: {"length_bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in (folder / (name + _TOKENS_SUFFIX), folder / (name + _INDEX_SUFFIX))
    }
    return {"name": name, "files": files, "splits": {split: _counts(index, split) for split in SPLITS}}


def _counts(index: pa.Table, split: Split) -> dict[str, int]:
    chosen = index.filter(pc.equal(index.column("split"), split))
    files = pc.list_flatten(chosen.column("files"))
    return {
        "num_documents": chosen.num_rows,
        "num_files": len(files),
        "num_tokens": pc.sum(chosen.column("num_tokens")).as_py() or 0,
        "text_bytes": pc.sum(pc.struct_field(files, "text_bytes")).as_py() or 0,
    }


def _read_manifest(folder: Path, holding: Holding) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {MANIFEST} in {folder}: this is not a finished folder of token shards") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; {AGAIN}") from None
    if not isinstance(manifest, dict) or manifest.get("format") not in get_args(Holding):
        raise InputError(f"{path} is not a manifest of token shards")
    if manifest["format"] != holding:
        raise InputError(f"{path} describes {manifest['format']}, wanted is a folder of {holding}")
    if manifest.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {manifest.get('version')}, this Starsmith reads {FORMAT_VERSION}"
        )
    described = {
        key: manifest.get(key) for key in ("format", "version", "tokenizer_sha256", "vocab_size", "shards")
    }
    if manifest.get("fingerprint") != _fingerprint(described):
        raise InputError(f"{path} was altered: its fingerprint does not fit; {AGAIN}")
    return manifest


def _fingerprint(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, expected: dict[str, Any], *, verify: bool) -> None:
    if not path.exists():
        raise InputError(f"{path} is missing; {AGAIN}")
    length_bytes = path.stat().st_size
    if length_bytes != expected["length_bytes"]:
        raise InputError(
            f"{path} has {length_bytes} bytes, the manifest says {expected['length_bytes']}: truncated or "
            f"replaced; {AGAIN}"
        )
    if verify and _digest(path) != expected["sha256"]:
        raise InputError(f"{path} was altered: its SHA-256 is not the manifest's; {AGAIN}")


def _map_tokens(path: Path, tokenizer: Tokenizer) -> Ids:
    """The ids of a shard, memory-mapped, after a check of its header."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise InputError(f"{path} is not a token shard")
    _, version, itemsize, num_tokens, digest = _HEADER.unpack(head)
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format version {version}, this Starsmith reads {FORMAT_VERSION}")
    if digest.hex() != tokenizer.digest or itemsize != tokenizer.dtype.itemsize:
        raise InputError(f"{path} was made with another tokenizer (SHA-256 {digest.hex()}); {AGAIN}")
    if path.stat().st_size != _HEADER.size + num_tokens * itemsize:
        raise InputError(f"{path} is truncated: its header says {num_tokens} tokens; {AGAIN}")
    if num_tokens == 0:
        return np.zeros(0, dtype=tokenizer.dtype)
    return np.memmap(path, dtype=tokenizer.dtype.newbyteorder("<"), mode="r", offset=_HEADER.size)


def _map_index(path: Path) -> pa.Table:
    try:
        index = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the shard is incomplete; {AGAIN}") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is damaged: {error}; {AGAIN}") from None
    if not index.schema.equals(INDEX):
        raise InputError(f"{path} is not the index of a token shard")
    return index


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)
