"""A small tokenizer and a folder of shards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from token_documents import AWKWARD_TEXTS, SOURCES, make_document, table_of

from starsmith.tokens import shards
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_on_texts(SOURCES, vocab_size=1024)


@pytest.fixture(scope="session")
def documents() -> list[dict[str, Any]]:
    lines = SOURCES[1].splitlines(keepends=True)
    found = [
        make_document(
            f"owner/repo-{number}", ["".join(lines[start : start + 12]) for start in range(number, 120, 31)]
        )
        for number in range(9)
    ]
    found.append(make_document("owner/awkward", AWKWARD_TEXTS))
    found.append(make_document("owner/one-empty-file", [""]))
    found += [
        make_document(f"owner/held-out-{number}", ["".join(lines[200 : 240 + number])] * 2, split="validation")
        for number in range(3)
    ]
    return found


@pytest.fixture(scope="session")
def write_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def write(*tables: list[dict[str, Any]]) -> Path:
        folder = tmp_path_factory.mktemp("shards")
        shards.write_shards([table_of(table) for table in tables], tokenizer, folder)
        return folder

    return write


@pytest.fixture(scope="session")
def shard_folder(documents: list[dict[str, Any]], write_folder: Callable[..., Path]) -> Path:
    return write_folder(documents[:4], documents[4:])
