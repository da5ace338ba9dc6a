"""A small tokenizer and a folder of shards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from token_documents import AWKWARD_TEXTS, SOURCES, make_document, table_of

from starsmith.tokens import instructions, shards
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


@pytest.fixture(scope="session")
def example_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of conversations of one and of two turns."""
    lines = [line for line in SOURCES[1].splitlines() if line.strip()]
    folder = tmp_path_factory.mktemp("instructions")
    records = []
    for number in range(0, 40, 4):
        texts = lines[number : number + 2 + number % 8 // 2]
        roles = ("user", "assistant") * 2
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        records.append(json.dumps({"messages": messages}))
    (folder / "data.jsonl").write_text("\n".join(records))
    instructions.encode([folder / "data.jsonl"], tokenizer, folder)
    return folder
