"""Held-out documents."""

from pathlib import Path

import pytest
from evaluation_cases import document, source, write_documents


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
