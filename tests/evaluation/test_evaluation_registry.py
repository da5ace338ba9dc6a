import dataclasses
import importlib
from pathlib import Path

import pytest

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import published, registry
from starsmith.evaluation.contract import DataSet, MissingDataError, Sampling


@pytest.mark.parametrize("name", registry.BENCHMARKS)
def test_every_benchmark_is_made_under_its_name(name: str, tmp_path: Path) -> None:
    made = registry.make(name, recipe.Evaluation(data=tmp_path), [], 1)
    assert made.name == name and made.version
    entry = registry.BENCHMARKS[name]
    module = importlib.import_module(f"starsmith.evaluation.benchmarks.{entry.module}")
    names = {field.name for field in dataclasses.fields(made)}  # type: ignore[arg-type]
    assert entry.fields.keys() <= names
    if names & {"sampling", "max_new_tokens"}:
        assert getattr(module, entry.sampling).max_new_tokens > 0, "it generates, so it says how"


def test_the_recipe_replaces_what_the_paper_says_and_nothing_else() -> None:
    assert registry.sampling("humaneval", recipe.Evaluation()) == registry.sampling(
        "humaneval", recipe.Evaluation(temperature=0.0)
    )
    changed = registry.make("humaneval", recipe.Evaluation(samples=20, temperature=0.2), [], 1)
    assert changed.sampling == Sampling(samples=20, temperature=0.2, max_new_tokens=512)  # type: ignore[attr-defined]
    assert registry.sampling("bits_per_byte", recipe.Evaluation()) is None


def test_groups_and_names_are_chosen_once_in_order() -> None:
    chosen = registry.choose(["bits_per_byte", "all"])
    assert chosen[0] == registry.Choice(name="bits_per_byte", by_name=True)
    assert [choice.name for choice in chosen].count("bits_per_byte") == 1
    parts = {name for name, entry in registry.BENCHMARKS.items() if entry.by_name_only}
    assert {choice.name for choice in chosen} == set(registry.BENCHMARKS) - parts
    assert "multipl_e_mbpp_py" in parts and sum(name.startswith("multipl_e") for name in parts) == 2 * 19
    assert not parts & set(registry.GROUPS["paper"])
    assert "bits_per_byte" not in registry.GROUPS["paper"]
    later = {choice.name: choice.by_name for choice in registry.choose(["all", "humaneval"])}
    assert later["humaneval"] and not later["bits_per_byte"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no benchmark 'human-eval'; did you mean humaneval\?"):
        registry.choose(["human-eval"])
    with pytest.raises(InputError, match="no benchmark is named"):
        registry.choose([])


def test_a_missing_file_says_which_whence_and_where(tmp_path: Path) -> None:
    data = DataSet(folder="set", files=("a.jsonl",), source="example.org (MIT)")
    with pytest.raises(
        MissingDataError, match=r"no a\.jsonl or a\.jsonl\.gz of set: .*set/a\.jsonl.*example\.org"
    ):
        data.file(tmp_path, "a.jsonl", "a.jsonl.gz")
    with pytest.raises(MissingDataError, match="--data"):
        data.file(None, "a.jsonl")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl.gz").write_bytes(b"")
    assert data.file(tmp_path, "a.jsonl", "a.jsonl.gz") == tmp_path / "set" / "a.jsonl.gz"


def test_published_results_are_shares_each_once_with_a_source() -> None:
    keys = [(row.benchmark, row.metric, row.model) for row in published.PUBLISHED]
    assert len(set(keys)) == len(keys)
    assert all(0 < row.value < 1 and row.source for row in published.PUBLISHED)
    assert [row.model for row in published.of("humaneval")[:3]] == list(published.OURS)
    assert published.of("humaneval")[2].value == 0.463
