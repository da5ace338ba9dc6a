"""Problems planted in a corpus are found where they were planted, and their scores are left out."""

import functools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_cases import ScriptedBackend, document, source, write_documents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_cases import SHARED
from rich.text import Text

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import registry, runner, summary
from starsmith.evaluation.benchmarks.humaneval import HumanEval
from starsmith.evaluation.contamination import Contamination, NoCorpus
from starsmith.evaluation.contract import (
    Benchmark,
    Candidate,
    Completion,
    Estimate,
    MissingDataError,
    Problem,
    Score,
    no_progress,
)
from starsmith.policies.contamination import contamination_rules
from starsmith.signals import benchmark_texts, contamination
from starsmith.steps.problem_search import ParquetCorpus, parquet_corpus, texts_of

WORDS = [f"{first}{second}" for first in ("alpha", "beta", "gamma", "delta") for second in "klmnopqrstuvwxyz"]


def prose(seed: int, num_words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


@dataclass(frozen=True)
class Recital:
    """Asks for nothing that is executed: the completion is right when it is the problem's name."""

    problems: tuple[Problem, ...]
    name: str = "recital"
    version: str = "1"

    def load(self) -> list[Problem]:
        return list(self.problems)

    def checks(self, problem: Problem) -> list[Any]:
        return []

    def requests(self, problem: Problem) -> list[Any]:
        return []

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=completion.text)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Any]:
        return []

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[Any]) -> Score:
        raise NotImplementedError

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        return {}


class OwnTexts(Recital):
    def texts(self, problem: Problem) -> list[str]:
        return [problem.inputs["secret"]]


def corpus(*parts: Path, **settings_: Any) -> ParquetCorpus:
    return ParquetCorpus(parts=parts, digest="0", config=recipe.Decontamination(**settings_))


def search(searched: ParquetCorpus, *benchmarks: Benchmark) -> dict[str, Contamination]:
    return searched.search([(benchmark, benchmark.load()) for benchmark in benchmarks], no_progress)


def problem(number: int, **inputs: str) -> Problem:
    return Problem(id=f"p/{number}", inputs=inputs or {"question": prose(number)})


def test_a_planted_text_is_found_where_it_is(tmp_path: Path) -> None:
    before, planted = "é = 1\n" + source("a", 3), prose(1).replace(" ", "\n  ").upper()
    files = {"/clean.py": ("Python", source("b")), "/dirty.py": ("Python", before + planted + "\nend()\n")}
    part = write_documents(tmp_path / "0.parquet", [document("some/repo", "train", files)])
    found = search(corpus(part), Recital((problem(1), problem(2))))["recital"]
    assert found.num_checked == 2 and found.num_too_short == 0
    [(name, match)] = found.problems.items()
    assert name == "p/1" and (match.method, match.score, match.num_files) == ("text", 1.0, 1)
    assert (match.repo_name, match.path) == ("some/repo", "/dirty.py")
    text = files["/dirty.py"][1]
    assert text.encode()[match.start : match.end].decode() == planted
    [row] = [row for row in pq.read_table(part)["files"][0].as_py() if row["path"] == "/dirty.py"]
    assert match.document == f"swh:1:cnt:{row['released_id']}"
    assert found.corpus["num_texts"] == 2


def test_what_was_not_trained_on_is_not_searched(tmp_path: Path) -> None:
    rows = [document("held/out", "validation", {"/v.py": ("Python", prose(1))})]
    found = search(corpus(write_documents(tmp_path / "0.parquet", rows)), Recital((problem(1),)))["recital"]
    assert found.problems == {} and found.num_checked == 1 and found.corpus["num_texts"] == 0


def test_n_grams_count_from_the_recipes_share_on(tmp_path: Path) -> None:
    words = prose(1, 60).split()
    words[1] = words[-2] = "changed"  # of 48 n-grams of 13 words, 2 + 2 are broken at the ends
    part = write_documents(
        tmp_path / "0.parquet", [document("a/b", "train", {"/n.md": ("Markdown", " ".join(words))})]
    )
    asked = Recital((Problem(id="p/1", inputs={"question": prose(1, 60)}),))
    [match] = search(corpus(part), asked)["recital"].problems.values()
    assert match.method == "ngram" and match.score == pytest.approx(44 / 48)
    assert search(corpus(part, min_ngram_fraction=0.95), asked)["recital"].problems == {}
    assert search(corpus(part, ngram_words=0), asked)["recital"].problems == {}


def test_the_best_match_is_shown_and_files_are_counted(tmp_path: Path) -> None:
    words = prose(1, 60).split()
    words[1] = "changed"
    whole, partly = prose(1, 60), " ".join(words)
    rows = [
        [document("a/near", "train", {"/near.py": ("Python", partly)})],
        [document("b/whole", "train", {"/one.py": ("Python", whole), "/two.py": ("Python", whole + whole)})],
    ]
    parts = [write_documents(tmp_path / f"{number}.parquet", row) for number, row in enumerate(rows)]
    asked = Recital((Problem(id="p/1", inputs={"question": prose(1, 60)}),))
    [match] = search(corpus(*parts), asked)["recital"].problems.values()
    assert match.method == "text" and match.num_files == 3 and match.repo_name == "b/whole"
    assert search(corpus(*reversed(parts)), asked) == search(corpus(*parts), asked)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=8, unique_by=lambda pair: pair[0]))
def test_the_same_for_any_parts_and_workers(tmp_path: Path, planted: list[tuple[int, int]]) -> None:
    texts = {number: [] for number in range(4)}  # type: dict[int, list[str]]
    for number, part in planted:
        texts[part].append(prose(number))
    files = {
        part: {f"/{part}/{place}.txt": ("Text", text) for place, text in enumerate(found)}
        for part, found in texts.items()
    }
    split = [
        write_documents(tmp_path / f"{part}.parquet", [document(f"r/{part}", "train", own)])
        for part, own in files.items()
    ]
    joined = write_documents(
        tmp_path / "joined.parquet", [document(f"r/{part}", "train", own) for part, own in files.items()]
    )
    asked = Recital(tuple(problem(number) for number in range(8)))
    found = search(corpus(*split), asked)
    assert found == search(corpus(joined), asked)
    assert set(found["recital"].problems) == {f"p/{number}" for number, _ in planted}


def test_workers_change_nothing(tmp_path: Path) -> None:
    parts = tuple(
        write_documents(tmp_path / f"{n}.parquet", [document(f"r/{n}", "train", {"/f": ("Text", prose(n % 3))})])
        for n in range(4)
    )
    asked = [(Recital(tuple(map(problem, range(4)))), list(map(problem, range(4))))]
    config = recipe.Decontamination()
    one, two = (
        ParquetCorpus(parts=parts, digest="0", config=config, workers=workers).search(asked, no_progress)
        for workers in (1, 2)
    )
    assert one == two and len(one["recital"].problems) == 3


def test_the_rule_is_that_of_curation(tmp_path: Path) -> None:
    """What curation's signal and policy find of HumanEval in the same texts is what is found here."""
    problems = HumanEval().load()
    rng, files = random.Random(3), {}
    for chosen in rng.sample(problems, 40):
        words = chosen.inputs["prompt"].split(" ")
        changed = [f"{word}x" if rng.random() < rng.choice((0.0, 0.01, 0.03)) else word for word in words]
        files[f"/{chosen.id}.py"] = ("Python", " ".join(changed) + rng.choice(("", chosen.inputs["test"])))
    part = write_documents(tmp_path / "0.parquet", [document("a/b", "train", files)])
    found = search(corpus(part), HumanEval())["humaneval"].problems

    needles = contamination.needles(None, packaged_humaneval=True, min_chars=40)
    rows = pq.read_table(part)["files"][0].as_py()
    contents = pa.table(
        {
            "content_id": [row["path"] for row in rows],
            "status": ["text"] * len(rows),
            "text": pa.array([row["text"] for row in rows], pa.large_string()),
        }
    )
    config = recipe.Decontamination()
    expected = {
        row["problem"]
        for row in contamination.measure(contents, needles, ngram_words=config.ngram_words).to_pylist()
        if row["method"] == "text" or row["score"] >= config.min_ngram_fraction
    }
    assert set(found) == expected and 10 < len(expected) <= 40
    [rule] = contamination_rules(config)
    assert f"c.method = 'text' OR c.score >= {config.min_ngram_fraction!r}" in rule.drops


@functools.cache
def curated(name: str) -> tuple[tuple[str, str, str], ...]:
    """What curation looks for of a set."""
    [known] = (each for each in benchmark_texts.SETS if each.name == name)
    return tuple(benchmark_texts.read(known, SHARED / known.folder))


@pytest.mark.parametrize("name", registry.GROUPS["all"])
def test_what_curation_would_drop_is_found_of_every_benchmark(tmp_path: Path, name: str) -> None:
    """A corpus of all texts that curation looks for: nearly every problem of the benchmark stands in it."""
    try:
        benchmark = registry.make(name, recipe.Evaluation(data=SHARED), [], 42)
        problems = benchmark.load()
    except MissingDataError as error:
        pytest.skip(str(error))
    known = [each for each in benchmark_texts.SETS if each.folder == registry.data_folder(name)]
    if not known or not (SHARED / known[0].folder).is_dir() or known[0].left_out_because:
        pytest.skip("curation looks for none of it")
    texts = [text for _, _, text in curated(known[0].name)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "curated.parquet")
    chosen = random.Random(1).sample(problems, min(len(problems), 40))
    found = parquet_corpus(tmp_path, 1).search([(benchmark, chosen)], no_progress)[name]
    assert found.num_checked >= 0.8 * len(chosen)
    assert len(found.problems) >= 0.95 * found.num_checked


def test_short_problems_are_not_looked_for_and_counted(tmp_path: Path) -> None:
    part = write_documents(tmp_path / "0.parquet", [document("a", "train", {"/f": ("Text", "return x")})])
    found = search(corpus(part), Recital((problem(1, question="return x"), problem(2))))["recital"]
    assert (found.num_checked, found.num_too_short, found.problems) == (1, 1, {})


def test_what_of_a_problem_is_looked_for() -> None:
    first = HumanEval().load()[0]
    texts = texts_of(HumanEval(), first)
    assert texts == [benchmark_texts.docstring(first.inputs["prompt"]), first.inputs["canonical_solution"]]
    hole = Problem(id="h", inputs={"prompt": "a = ", "canonical_solution": "1\n", "suffix": "b = 2\n"})
    assert texts_of(Recital(()), hole) == ["a = 1\nb = 2\n"]
    held_out = Problem(id="h", inputs={"prefix": "a = ", "middle": "1\n", "suffix": "b = 2\n", "path": "/x"})
    assert texts_of(Recital(()), held_out) == ["a = 1\nb = 2\n"]
    edit = Problem(id="e", inputs={"before": "old", "after": "new", "tests": "assert", "instruction": "do"})
    assert texts_of(Recital(()), edit) == ["old", "new"]
    assert texts_of(OwnTexts(()), Problem(id="o", inputs={"secret": "x", "prompt": "y"})) == ["x"]


def test_texts_without_any_place_in_unicode(tmp_path: Path) -> None:
    part = write_documents(tmp_path / "0.parquet", [document("a", "train", {"/f": ("Text", prose(2))})])
    found = search(corpus(part), Recital((problem(1, question=prose(1) + "\ud800"), problem(2))))["recital"]
    assert list(found.problems) == ["p/2"]


def test_sets_of_web_prose_are_left_out_as_curation_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = write_documents(tmp_path / "0.parquet", [document("a", "train", {"/f": ("Text", prose(1))})])
    monkeypatch.setattr("starsmith.evaluation.registry.data_folder", lambda name: "bold")
    found = search(corpus(part), Recital((problem(1),)))["recital"].to_dict()
    assert found["checked"] is False and "decontamination.prose_sets" in found["reason"]
    found = search(corpus(part, prose_sets=True), Recital((problem(1),)))["recital"].to_dict()
    assert found["checked"] and found["num_contaminated"] == 1


def test_parquet_files_of_others(tmp_path: Path) -> None:
    rows = {"content": [prose(1), None, prose(2)], "path": ["/a", "/b", "/c"], "hexsha": ["x", "y", "z"]}
    pq.write_table(pa.table(rows), tmp_path / "others.parquet")
    found = search(parquet_corpus(tmp_path, 1), Recital((problem(1), problem(2), problem(3))))["recital"]
    assert {name: (match.document, match.path) for name, match in found.problems.items()} == {
        "p/1": ("x", "/a"),
        "p/2": ("z", "/c"),
    }
    released = {
        "content": [prose(1), prose(2)],
        "released_id": ["a" * 40, "b" * 40],
        "split": ["validation", "train"],
        "repo_name": ["r/v", "r/t"],
    }
    pq.write_table(pa.table(released), tmp_path / "others.parquet")
    found = search(parquet_corpus(tmp_path / "others.parquet", 1), Recital((problem(1), problem(2))))["recital"]
    [match] = found.problems.values()
    assert (match.document, match.repo_name) == (f"swh:1:cnt:{'b' * 40}", "r/t")
    pq.write_table(pa.table({"text": [prose(1)]}), tmp_path / "others.parquet")
    found = search(parquet_corpus(tmp_path, 1), Recital((problem(1),)))["recital"]
    assert found.problems["p/1"].document == "others.parquet row 0"


def test_what_is_no_corpus_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at"):
        parquet_corpus(tmp_path / "absent", 1)
    (tmp_path / "bad.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read as a corpus"):
        search(parquet_corpus(tmp_path, 1), Recital((problem(1),)))
    pq.write_table(pa.table({"other": [1]}), tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=r"no column of texts.*this has other"):
        search(parquet_corpus(tmp_path, 1), Recital((problem(1),)))


def evaluated(tmp_path: Path, heldout: Sequence[Path], searched: Any, folder: str = "out") -> dict[str, Any]:
    config = recipe.Evaluation(benchmarks=("bits_per_byte", "fim_exact_match"), heldout_files=8)
    backend = ScriptedBackend(lambda request: "return" if "alpha" in request.prompt else "")
    return runner.evaluate(
        backend, config, heldout=heldout, folder=tmp_path / folder, corpus=searched, cache=tmp_path / "cache"
    )


def lines(results: dict[str, Any]) -> str:
    return "\n".join(part.plain for part in summary.results(results) if isinstance(part, Text))


def test_scores_come_again_without_contaminated_problems(tmp_path: Path, heldout: list[Path]) -> None:
    rows = [document("leak/ed", "train", {"/l.py": ("Python", source("alpha1") + source("beta2"))})]
    leaked = corpus(*heldout, write_documents(tmp_path / "leak.parquet", rows))
    results = evaluated(tmp_path, heldout, leaked)
    bits = results["benchmarks"]["bits_per_byte"]
    assert bits["contamination"]["num_checked"] == 8 and bits["contamination"]["num_contaminated"] == 2
    assert {match["path"] for match in bits["contamination"]["problems"].values()} == {"/l.py"}
    assert bits["contamination"]["rule"]["min_ngram_fraction"] == 0.8
    assert bits["estimates"]["bits_per_byte"]["n"] == 8
    assert bits["estimates_without_contaminated"]["bits_per_byte"]["n"] == 6
    assert bits["estimates"].keys() == bits["estimates_without_contaminated"].keys()
    shown = lines(results)
    assert "contamination: 2 of 8 problems stand in the training corpus" in shown
    assert "without them: bits_per_byte 2.000 (2.000 to 2.000, n 6)" in shown
    assert "leak/ed /l.py swh:1:cnt:" in shown
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results


def test_a_clean_corpus_changes_no_estimate(tmp_path: Path, heldout: list[Path]) -> None:
    results = evaluated(tmp_path, heldout, corpus(*heldout))
    for found in results["benchmarks"].values():
        assert found["contamination"]["num_contaminated"] == 0
        assert found["estimates_without_contaminated"] == found["estimates"]


def test_a_model_whose_corpus_is_not_known_is_not_called_clean(tmp_path: Path, heldout: list[Path]) -> None:
    results = evaluated(tmp_path, heldout, NoCorpus(reason="nobody knows"))
    found = results["benchmarks"]["fim_exact_match"]
    assert found["contamination"] == {"checked": False, "reason": "nobody knows"}
    assert found["estimates_without_contaminated"] == {} and "contamination not checked: nobody knows" in lines(
        results
    )


def test_the_same_corpus_is_searched_once(
    tmp_path: Path, heldout: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluated(tmp_path, heldout, corpus(*heldout))

    def refuse(*_: object) -> None:
        raise AssertionError("searched again")

    searched: Callable[..., Any] = ParquetCorpus.search
    monkeypatch.setattr(ParquetCorpus, "search", refuse)
    assert evaluated(tmp_path, heldout, corpus(*heldout), "again") == first
    monkeypatch.setattr(ParquetCorpus, "search", searched)
    other = ParquetCorpus(parts=tuple(heldout), digest="1", config=recipe.Decontamination())
    assert evaluated(tmp_path, heldout, other, "other") != first
