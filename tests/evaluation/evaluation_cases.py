"""Documents made by hand, and a back end that answers from a script."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith.corpus import schema
from starsmith.evaluation.contract import Completion, Request


class ScriptedBackend:
    """Answers a request with what the script says about it."""

    def __init__(self, script: Callable[[Request], str], *, bits_per_byte: float = 2.0) -> None:
        self.identity = "scripted"
        self.script = script
        self.bits_per_byte = bits_per_byte
        self.num_asked = 0

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.num_asked += len(requests)
        return [Completion(text=self.script(request), finish_reason="eos") for request in requests]

    def log_likelihood(self, requests: Sequence[Request]) -> list[Completion]:
        self.num_asked += len(requests)
        return [
            Completion(finish_reason="measured", bits=self.bits_per_byte * len((request.target or "").encode()))
            for request in requests
        ]


def document(repo_name: str, split: str, texts: dict[str, tuple[str | None, str]]) -> dict[str, object]:
    files = [
        {
            "file_id": schema.file_id(repo_name, "d", path),
            "content_id": hashlib.sha1(text.encode()).hexdigest(),
            "released_id": hashlib.sha1(text.encode()).hexdigest(),
            "path": path,
            "language": language,
            "license_type": "permissive",
            "detected_licenses": [],
            "num_redactions": 0,
            "text": text,
        }
        for path, (language, text) in texts.items()
    ]
    return {
        "document_id": hashlib.sha1(repo_name.encode()).hexdigest(),
        "repo_name": repo_name,
        "directory_id": "d",
        "split": split,
        "files": files,
    }


def write_documents(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.DOCUMENTS), path)
    return path


def source(name: str, num_lines: int = 12) -> str:
    return "".join(f"def {name}_{n}(value):\n    return value * {n} + offset\n" for n in range(num_lines))
