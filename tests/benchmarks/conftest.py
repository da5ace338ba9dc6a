"""The benchmarks are a package beside `src/`, found from the repository's root."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """The benchmarks' cache, in a place of its own."""
    from benchmarks import cache

    monkeypatch.setattr(cache, "FOLDER", tmp_path / "cache" / "benchmarks")
    return cache.FOLDER
