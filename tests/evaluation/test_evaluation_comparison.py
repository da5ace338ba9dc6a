import json
from pathlib import Path

import pytest
from evaluation_cases import ScriptedBackend
from rich.console import Console
from typer.testing import CliRunner

from starsmith import recipe
from starsmith.cli import app
from starsmith.errors import InputError
from starsmith.evaluation import comparison, references, runner, summary
from starsmith.evaluation.benchmarks.humaneval import HumanEval
from starsmith.evaluation.statistics import mcnemar


def folder(place: Path, passed: list[bool], *, excluded: tuple[int, ...] = (), version: str = "1") -> Path:
    """A finished evaluation of a judged and a measured benchmark."""
    place.mkdir()
    benchmarks = {
        "judged": {
            "version": version,
            "problems": str(len(passed)),
            "excluded": {f"p{number}": "why" for number in excluded},
            "sampling": {"temperature": 0.0},
        },
        "measured": {"version": "1", "problems": "same", "excluded": {}, "sampling": None},
    }
    (place / "results.json").write_text(json.dumps({"benchmarks": benchmarks}))
    rows = [
        {"benchmark": "judged", "problem": f"p{number}", "sample": 0, "value": float(good), "weight": 1.0,
         "label": "pass" if good else "wrong"}
        for number, good in enumerate(passed)
    ] + [
        {"benchmark": "measured", "problem": f"m{number}", "sample": 0, "value": 10.0 * (1 + passed[0]),
         "weight": 5.0, "label": "measured"}
        for number in range(4)
    ]  # fmt: skip
    (place / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def test_problems_of_both_sides_are_paired(tmp_path: Path) -> None:
    old = folder(tmp_path / "old", [False] * 10 + [True] * 10)
    new = folder(tmp_path / "new", [True] * 9 + [False] + [True] * 10, excluded=(19,))
    found = comparison.compare(comparison.read(old), comparison.read(new))
    judged, measured = found.compared
    assert judged.paired.difference.n == 19
    assert (judged.only_old, judged.only_new) == (0, 9)
    assert judged.paired.test == "mcnemar" and judged.paired.p_value == mcnemar(0, 9)
    assert judged.paired.difference.value == pytest.approx(9 / 19)
    assert measured.metric == "value" and measured.paired.test == "bootstrap"
    assert measured.paired.difference.value == pytest.approx(2.0)
    assert any("1 problems counted on one side only" in note for note in found.notes)


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    old, new = folder(tmp_path / "old", [True]), folder(tmp_path / "new", [True, False], version="2")
    found = comparison.compare(comparison.read(old), comparison.read(new))
    assert [row.benchmark for row in found.compared] == ["measured"]
    assert any("versions 1 and 2" in note for note in found.notes)
    with pytest.raises(InputError, match="holds no finished evaluation"):
        comparison.read(tmp_path)
    (new / "results.json").write_text("{}")
    with pytest.raises(InputError, match="evaluate again"):
        comparison.read(new)


def test_samples_of_one_problem_count_as_one(tmp_path: Path) -> None:
    sides = [folder(tmp_path / name, [True]) for name in ("old", "new")]
    for side, goods in zip(sides, ([1, 0, 0, 0], [1, 1, 1, 0]), strict=True):
        rows = [
            {"benchmark": "judged", "problem": "p", "sample": n, "value": good, "weight": 1.0,
             "label": "pass" if good else "wrong"}
            for n, good in enumerate(goods)
        ]  # fmt: skip
        (side / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [row] = comparison.compare(*map(comparison.read, sides)).compared
    assert row.paired.difference.n == 1 and row.paired.difference.value == pytest.approx(0.5)
    assert row.only_old is None and row.paired.test == "bootstrap"


def test_the_verb_compares_what_the_runner_wrote(tmp_path: Path, heldout: list[Path]) -> None:
    config = recipe.Evaluation(benchmarks=("bits_per_byte",), heldout_files=5)
    for name, bits in (("old", 3.0), ("new", 2.0)):
        runner.evaluate(
            ScriptedBackend(lambda request: "", bits_per_byte=bits),
            config,
            heldout=heldout,
            folder=tmp_path / name,
        )
    command = ["compare", str(tmp_path / "old"), str(tmp_path / "new"), "--json"]
    called = CliRunner().invoke(app, command)
    assert called.exit_code == 0, called.output
    [row] = json.loads(called.output)["compared"]
    assert row["paired"]["difference"]["value"] == pytest.approx(-1.0) and row["paired"]["old"] == 3.0
    assert CliRunner().invoke(app, command[:-1]).exit_code == 0


def test_a_finished_evaluation_prints_with_what_it_rests_on(tmp_path: Path, heldout: list[Path]) -> None:
    config = recipe.Evaluation(benchmarks=("bits_per_byte", "fim_exact_match"), heldout_files=5)
    results = runner.evaluate(ScriptedBackend(lambda request: ""), config, heldout=heldout, folder=tmp_path)
    console = Console(record=True, width=200, file=(tmp_path / "sink").open("w"))
    for part in summary.results(results):
        console.print(part)
    console.file.close()
    text = console.export_text()
    assert "2.000 to 2.000" in text and "over JavaScript" in text
    assert "5 completions were empty" in text and "verdicts: wrong 5" in text
    narrow = Console(record=True, width=80, file=(tmp_path / "sink").open("w"))
    for part in summary.results(results):
        narrow.print(part)
    narrow.file.close()
    text = narrow.export_text()
    assert "bits_per_byte\n" in text.replace(" ", "") and "  exact_match " in text, "names stand whole"


def test_references_are_counted_and_a_lax_problem_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [problem for problem in HumanEval().load() if problem.id in ("HumanEval/0", "HumanEval/1")]
    lax = {**problems[1].inputs, "test": "def check(candidate):\n    pass\n"}
    problems[1] = type(problems[1])(id="lax", inputs=lax)
    monkeypatch.setattr(HumanEval, "load", lambda self: problems)
    found = references.check(recipe.Evaluation(benchmarks=("humaneval",)), heldout=[], folder=tmp_path)
    [row] = found.rows
    assert (row.num_references, row.num_references_passed) == (2, 2)
    assert (row.num_wrong_answers, row.num_wrong_answers_failed) == (4, 2)
    assert not found.good and "a wrong answer passes" in row.excluded["lax"]
    assert json.loads((tmp_path / "references.json").read_text())["rows"][0]["benchmark"] == "humaneval"
