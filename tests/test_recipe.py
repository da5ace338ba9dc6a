"""The recipe names every fault with its place and the nearest valid key."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from starsmith import recipe
from starsmith.errors import InputError

MINIMAL: dict[str, Any] = {"run": {"name": "x"}, "sources": [{"type": "folder", "path": "."}]}


def fault(**tables: Any) -> str:
    with pytest.raises(InputError) as caught:
        recipe.parse({**MINIMAL, **tables}, name="r.toml")
    return str(caught.value)


def test_a_minimal_recipe_takes_the_published_values() -> None:
    got = recipe.parse(MINIMAL)
    assert got.filters.max_line_length == 1_000
    assert got.near_duplicates.threshold == 0.7
    assert got.tokenizer.vocab_size == 49_152
    assert got.model.hidden_size == 3072


def test_an_unknown_key_names_the_place_and_the_nearest_key() -> None:
    assert "unknown key filters.max_line; did you mean 'max_lines'?" in fault(filters={"max_line": 3})
    assert "unknown key corpus.limits.file_bite; did you mean 'file_bytes'?" in fault(
        corpus={"limits": {"file_bite": 1}}
    )
    assert "unknown key sources[0].pth; did you mean 'path'?" in fault(
        sources=[{"type": "folder", "path": ".", "pth": "."}]
    )
    assert "unknown key filter; did you mean 'filters'?" in fault(filter={})


def test_a_bad_value_says_what_was_got_and_what_is_allowed() -> None:
    text = fault(filters={"min_alpha_fraction": 3})
    assert "filters.min_alpha_fraction" in text
    assert "less than or equal to 1" in text
    assert "got 3" in text
    assert "bands * rows = 600 needs more than" in fault(near_duplicates={"bands": 100, "rows": 6})
    assert "'folder', 'git'" in fault(sources=[{"type": "floppy"}])


def test_a_missing_key_is_named() -> None:
    assert "sources[0].path is missing" in fault(sources=[{"type": "folder"}])


def test_every_fault_is_told_at_once() -> None:
    assert len(fault(filters={"a": 1, "b": 2}).splitlines()) == 2


def test_presets_are_the_published_shapes_and_can_be_overridden() -> None:
    got = recipe.parse({**MINIMAL, "model": {"preset": "15b", "num_hidden_layers": 2}})
    assert (got.model.hidden_size, got.model.num_hidden_layers, got.model.tie_word_embeddings) == (6144, 2, False)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    place = tmp_path / "r.toml"
    with pytest.raises(InputError, match="no recipe at"):
        recipe.load(place)
    place.write_text("[run\n")
    with pytest.raises(InputError, match="not valid TOML"):
        recipe.load(place)
    place.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not valid TOML"):
        recipe.load(place)


@pytest.mark.parametrize("place", sorted(Path("recipes").glob("*.toml")), ids=lambda place: place.name)
def test_the_shipped_recipes_are_valid(place: Path) -> None:
    if not place.name.endswith(".sources.toml"):
        recipe.load(place)


def test_the_resolved_recipe_reads_back_equal() -> None:
    got = recipe.parse(
        {
            **MINIMAL,
            "model": {"preset": "tiny"},
            "release": {"contact": 'a "quoted" \\ name\x7f\n'},
            "corpus": {"limits": {"file_bytes": 5}},
        }
    )
    assert recipe.parse(tomllib.loads(recipe.to_toml(got))) == got
