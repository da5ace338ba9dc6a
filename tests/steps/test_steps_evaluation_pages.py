import json
from pathlib import Path

import evaluation_inputs
import yaml
from html_page import Page

from starsmith.steps import evaluation_pages


def finished(folder: Path) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(evaluation_inputs.results()))
    lines = "".join(json.dumps(row) + "\n" for row in evaluation_inputs.failures())
    (folder / "failures.jsonl").write_text(lines)
    return folder


def test_page_table_and_block_stand_beside_the_results(tmp_path: Path) -> None:
    folder = finished(tmp_path / "evaluation")
    results = json.loads((folder / "results.json").read_text())
    evaluation_pages.write(folder, results, name="mini")
    assert sorted(path.name for path in folder.iterdir()) == [
        "failures.jsonl", "model-index.yml", "report.html", "results.json", "results.md"
    ]  # fmt: skip
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    evaluation_pages.write(folder, results, name="mini")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "made again, the same bytes"
    page = Page((folder / "report.html").read_text())
    assert page.unbalanced == [] and "HumanEval/2" in "".join(page.text)
    assert yaml.safe_load((folder / "model-index.yml").read_text())["model-index"][0]["name"] == "mini"
    assert (folder / "results.md").read_text().startswith("# mini: evaluation\n")


def test_an_evaluation_without_numbers_has_its_files_too(tmp_path: Path) -> None:
    folder = finished(tmp_path / "evaluation")
    (folder / "failures.jsonl").write_text("")
    evaluation_pages.write(folder, {"benchmarks": {}, "absent": {"mbpp": "no data"}}, name="mini")
    assert yaml.safe_load((folder / "model-index.yml").read_text()) is None
    assert "not run: mbpp: no data" in (folder / "results.md").read_text()
    assert "no data" in (folder / "report.html").read_text()
