import dataclasses
import json
from pathlib import Path
from typing import Any

import evaluation_inputs
import pytest
from evaluation_inputs import HOSTILE_CODE, HOSTILE_NAME
from html_page import Page
from typer.testing import CliRunner

from starsmith.cli import app
from starsmith.errors import InputError
from starsmith.inspection import pages
from starsmith.inspection.comparison_page import MAX_RUNS, ComparisonInputs, render_comparison

PAIRED = {
    "old": 0.25, "new": 0.5, "difference": {"value": 0.25, "low": 0.125, "high": 0.375, "n": 77},
    "p_value": 0.0625, "test": "mcnemar",
}  # fmt: skip


def changed_problem(text: str, detail: str = "") -> dict[str, Any]:
    old = {"text": "old answer", "label": "wrong", "detail": detail}
    return {"problem": "p/1", "solved_by": "new", "old": old, "new": {"text": text, "label": "pass", "detail": ""}}


def inputs(num_runs: int = 2, text: str = "new answer", name: str = "run") -> ComparisonInputs:
    others = [f"{name}-{number}" for number in range(1, num_runs)]
    row = {"benchmark": "humaneval", "metric": "passed", "paired": PAIRED, "only_old": 3, "only_new": 22}
    return ComparisonInputs(
        runs=[(run, evaluation_inputs.results()) for run in (f"{name}-0", *others)],
        compared=[
            {"old": f"{name}-0", "new": other, "compared": [row], "notes": ["mbpp: only in run-0"]}
            for other in others
        ],
        changed=[{"humaneval": [changed_problem(text)]} for _ in others],
    )


def words(page: Page) -> str:
    return " ".join("".join(page.text).split())


@pytest.mark.parametrize("num_runs", [1, 2, MAX_RUNS])
def test_every_run_and_every_difference_is_there(num_runs: int) -> None:
    text = render_comparison(inputs(num_runs))
    assert render_comparison(inputs(num_runs)) == text
    page = Page(text)
    assert page.unbalanced == [] and page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"].removeprefix("#") for attributes in page.all("a")} <= set(ids)
    shown = words(page)
    for number in range(num_runs):
        assert f"run-{number}" in shown
    for number in range(1, num_runs):
        assert f"run-{number} against run-0" in shown
    assert shown.count("+0.125 to +0.375") == num_runs - 1 == shown.count("old answer")
    assert "values-title" in text and ("differences-title" in text) == (num_runs > 1)


def test_more_runs_than_colours_are_refused() -> None:
    with pytest.raises(InputError, match="6 evaluations at most, got 7"):
        render_comparison(inputs(MAX_RUNS + 1))


def test_a_run_beside_itself_keeps_both_series() -> None:
    twice = dataclasses.replace(inputs(), runs=[("same", evaluation_inputs.results())] * 2)
    text = render_comparison(twice)
    assert "same (1)" in text and "same (2)" in text


def test_hostile_completions_stay_text() -> None:
    page = Page(render_comparison(inputs(text=HOSTILE_CODE, name=HOSTILE_NAME)))
    assert page.unbalanced == [] and len(page.all("script")) == 1 and page.all("img") == page.all("b") == []
    assert pages.visible(HOSTILE_CODE) in "".join(page.text)


def test_megabytes_are_cut() -> None:
    text = render_comparison(inputs(text="x" * 5_000_000))
    assert len(text) < 300_000 and "4,996,000 more characters" in text


def finished(place: Path, passed: list[bool]) -> str:
    """A finished evaluation of one benchmark."""
    place.mkdir()
    n = len(passed)
    found = evaluation_inputs.benchmark(
        estimates={"pass@1": evaluation_inputs.estimate(sum(passed) / n, n)}, num_problems=n
    )
    (place / "results.json").write_text(
        json.dumps({"model": "m", "sandbox": None, "benchmarks": {"judged": found}})
    )
    rows = [
        {"benchmark": "judged", "problem": f"p/{number}", "sample": 0, "value": float(good), "weight": 1.0,
         "label": "pass" if good else "wrong", "text": f"{place.name} wrote {number}", "detail": ""}
        for number, good in enumerate(passed)
    ]  # fmt: skip
    (place / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place)


def test_the_command_writes_a_page_of_several_runs(tmp_path: Path) -> None:
    old = finished(tmp_path / "old", [True] * 5 + [False] * 5)
    new = finished(tmp_path / "new", [False] + [True] * 5 + [False] * 4)
    third = finished(tmp_path / "third", [True] * 10)
    place = tmp_path / "pages" / "compared.html"
    ran = CliRunner().invoke(app, ["compare", old, new, third, "--out", str(place)])
    assert ran.exit_code == 0, ran.output
    assert str(place) in ran.output.replace("\n", "") and ran.output.count("old: ") == 2
    page = Page(place.read_text(encoding="utf-8"))
    shown = words(page)
    assert page.unbalanced == [] and f"{third} against {old}" in shown
    assert "p/0 only old" in shown and "p/5 only new" in shown and "p/9 only new" in shown
    assert "new wrote 5" in shown and "old wrote 5" in shown and "new wrote 7" not in shown


def test_json_of_two_is_one_comparison_and_of_more_a_list(tmp_path: Path) -> None:
    folders = [finished(tmp_path / name, [True, False]) for name in ("a", "b", "c")]
    two = json.loads(CliRunner().invoke(app, ["compare", *folders[:2], "--json"]).stdout)
    three = json.loads(CliRunner().invoke(app, ["compare", *folders, "--json"]).stdout)
    assert two["new"] == folders[1] and [found["new"] for found in three] == folders[1:]
