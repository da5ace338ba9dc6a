"""Held-out documents."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation_cases import document, source, write_documents

from starsmith.errors import MachineError
from starsmith.evaluation.sandbox import selftest
from starsmith.evaluation.sandbox.pool import Sandbox


@pytest.fixture(scope="session")
def python_sandbox() -> Iterator[Sandbox]:
    """Two workers on the best level that this machine has."""
    try:
        level, _ = selftest.choose("auto")
    except MachineError as error:
        pytest.skip(str(error))
    with Sandbox(level, workers=2) as made:
        yield made


@pytest.fixture
def heldout(tmp_path: Path) -> list[Path]:
    """Two parts: 8 validation files in two languages, one of them twice, and training files beside them."""
    first = [
        document("a/val", "validation", {f"/f{n}.py": ("Python", source(f"alpha{n}")) for n in range(4)}),
        document("a/train", "train", {f"/t{n}.py": ("Python", source(f"train{n}")) for n in range(4)}),
    ]
    second = [
        document("b/val", "validation", {f"/g{n}.js": ("JavaScript", source(f"beta{n}")) for n in range(4)}),
        document("c/val", "validation", {"/copy.py": ("Python", source("alpha0")), "/empty.py": ("Python", "")}),
    ]
    return [
        write_documents(tmp_path / "part-0.parquet", first),
        write_documents(tmp_path / "part-1.parquet", second),
    ]
