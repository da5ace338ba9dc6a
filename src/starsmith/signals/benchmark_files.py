"""Records of benchmark files, whatever form a set was published in.

`.jsonl`, `.json` (a list, an object, or a record a line, for some sets name JSON lines so), `.parquet` (chosen
columns only: some sets are a gigabyte of context that is not looked at), `.tsv` with a header, and plain text, a
record a line (`lines`) or a file (`.txt`). All but Parquet may be gzipped. Files of pickled objects are not
read: to open one is to run it.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Record = Mapping[str, Any]

PLACE = "__place__"
"""The key under which each record has its file's stem (of lines, the name) and its number in it."""


def records(path: Path, *, columns: Sequence[str] = (), lines: bool = False) -> Iterator[Record]:
    """The records of one file.

    Args:
        path: the file.
        columns: what is read of a Parquet file; all when empty.
        lines: each line of a plain text file is a record `{"text": ...}`.

    Raises:
        ValueError: the file is not of its form, or of none of these forms.
        OSError, EOFError, pyarrow.ArrowException: it cannot be read.
    """
    stem = path.name.removesuffix(".gz")
    if not lines:
        stem = stem.partition(".")[0]
    for number, row in enumerate(_rows(path, columns, lines)):
        if not isinstance(row, Mapping):
            raise ValueError(f"record {number} is not an object but {type(row).__name__}")
        yield {**row, PLACE: f"{stem}/{number}"}


def _rows(path: Path, columns: Sequence[str], lines: bool) -> Iterator[Any]:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1_000, columns=list(columns) or None):
                yield from batch.to_pylist()
        return
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    if lines:
        yield from ({"text": line} for line in text.split("\n") if line.strip())
    elif suffix == ".txt":
        yield {"problem_id": _text_file_problem(path), "question": text}
    elif suffix == ".tsv":
        yield from csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    elif suffix == ".jsonl":
        yield from _json_lines(text)
    elif suffix == ".json":
        yield from _json(text)
    else:
        raise ValueError("its name ends in none of .jsonl, .json, .parquet, .tsv, .txt")


def _json(text: str) -> Iterator[Any]:
    try:
        value = json.loads(text)
    except ValueError:
        yield from _json_lines(text)
        return
    yield from value if isinstance(value, list) else [value]


def _json_lines(text: str) -> Iterator[Any]:
    yield from (json.loads(line) for line in text.split("\n") if line.strip())


def _text_file_problem(path: Path) -> str:
    """`test/0001/question.txt` and `0001-question.txt` are both problem 0001."""
    return path.name.partition("-")[0] if "-" in path.name else path.parent.name
