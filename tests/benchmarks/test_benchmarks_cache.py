"""What benchmarks build is whole or absent."""

import pytest

from benchmarks import cache


def test_built_once(tmp_path):
    calls = []

    def build(aside):
        calls.append(aside)
        (aside / "file").write_text("whole")

    for _ in range(2):
        assert (cache.built(tmp_path / "deep" / "place", build) / "file").read_text() == "whole"
    assert len(calls) == 1


def test_an_interrupted_build_leaves_nothing_that_counts(tmp_path):
    place = tmp_path / "place"

    def interrupted(aside):
        (aside / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.built(place, interrupted)
    assert not place.exists()
    cache.built(place, lambda aside: (aside / "whole").write_text("whole"))
    assert [file.name for file in place.iterdir()] == ["whole"]
