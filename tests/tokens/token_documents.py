"""Documents for the tests of this room, with everything that has ever gone wrong in one."""

import argparse
import hashlib
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.tokens.loader import Loader

SOURCES = [Path(module.__file__).read_text(encoding="utf-8") for module in (argparse, textwrap)]

AWKWARD_TEXTS = [
    "",
    "\n",
    "x",
    "print('<|endoftext|>')  # <fim_prefix> and <file_sep> as text\n",
    "author = '<EMAIL>'; <NAME><NAME>\n",
    "naïve = '日本語 🎉'  # é\r\n",
    "   \t indented\n\n\n\n   more   \n",
    "def f(x):\n    return x + 12345\n" * 30,
]


def make_document(
    repo_name: str, texts: list[str], *, split: str = "train", path_prefix: str = "/src/"
) -> dict[str, Any]:
    directory_id = hashlib.sha1(repo_name.encode()).hexdigest()
    files = []
    for number, text in enumerate(texts):
        path = f"{path_prefix}file{number:04d}.py"
        identifier = hashlib.sha1(b"blob %d\0" % len(text.encode()) + text.encode()).hexdigest()
        files.append(
            {
                "file_id": schema.file_id(repo_name, directory_id, path),
                "content_id": hashlib.sha1(b"original " + text.encode()).hexdigest(),
                "released_id": identifier,
                "path": path,
                "language": "Python",
                "license_type": "permissive",
                "detected_licenses": ["MIT", "Apache-2.0"] if number % 2 else ["MIT"],
                "num_redactions": 0,
                "text": text,
            }
        )
    return {
        "document_id": hashlib.sha1(f"{repo_name}\0{directory_id}\0{0}".encode()).hexdigest(),
        "repo_name": repo_name,
        "directory_id": directory_id,
        "split": split,
        "files": files,
    }


def table_of(documents: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(documents, schema=schema.DOCUMENTS)


MIXTURE = [
    {"name": "even", "repositories": ["r*0", "r*2", "r*4"], "share": 0.25},
    {"name": "five", "repositories": ["r5", "r1"], "share": 0.2},
]


def open_loader(folder: Path, *, batch_size: int = 8, seed: int = 1, **options: Any) -> Loader:
    config = {"sequence_length": 32, "streams": 6} | options.pop("config", {})
    options = {"metadata_probability": 0.5} | options
    return Loader(folder, recipe.Tokens(**config), seed=seed, batch_size=batch_size, verify=False, **options)
