import copy
import html
import re
import shutil
import subprocess
from typing import Any

import evaluation_inputs
import pytest
from evaluation_inputs import HOSTILE_CODE, HOSTILE_NAME
from html_page import Page

from starsmith.inspection import evaluation_page, evaluation_results, pages
from starsmith.inspection.evaluation_page import render_evaluation
from starsmith.inspection.report import ReportInputs, render_report

VIEWS = evaluation_results.benchmarks(evaluation_inputs.results())


def render(results: dict[str, Any], failures: list[dict[str, Any]] | None = None) -> str:
    return render_evaluation(results, failures=failures or [], name="starcoder2-mini", starsmith_version="0.1.0")


@pytest.fixture(scope="module")
def text() -> str:
    return render(evaluation_inputs.results(), evaluation_inputs.failures())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def words(page: Page) -> str:
    return " ".join("".join(page.text).split())


def test_the_page_is_well_formed_and_points_to_itself_only(text: str, page: Page) -> None:
    assert page.unbalanced == [] and page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [f"benchmark-{number}" in ids for number in range(len(VIEWS))] == [True] * len(VIEWS)
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "img", "b")
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith("data:,") or value.removeprefix("#") in ids, (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
    assert len(page.all("script")) == 1 and not re.search(r"url\((?!#)", text)


def test_the_same_values_give_the_same_bytes(text: str) -> None:
    assert render(evaluation_inputs.results(), evaluation_inputs.failures()) == text


def test_every_measure_stands_there_with_its_interval_and_n(page: Page) -> None:
    shown = words(page)
    for benchmark in evaluation_inputs.results()["benchmarks"].values():
        for metric, found in benchmark["estimates"].items():
            interval = " to ".join(pages.format_number(found[end]) for end in ("low", "high"))
            assert metric in shown and f"{interval}{found['n']:,}" in shown, metric
    assert "nothing was measured" in shown


def test_published_results_stand_beside_ours_with_source_and_certainty(text: str, page: Page) -> None:
    shown = words(page)
    assert (
        "CodeLlama-34Bpass@10.482recalled: not compared with a second sourceStarCoder 2 and The Stack v2" in shown
    )
    row = re.search(r'<tr><th scope="row"><a href="#benchmark-0">humaneval.*?</tr>', text, re.DOTALL)
    assert row is not None and "0.317" in row[0] and "0.463" in row[0]
    assert "agrees with a second source" in row[0]
    part = re.search(r"<tr><td>pass@1/cpp.*?</tr>", text, re.DOTALL)
    assert part is not None and "0.15 ??" in part[0]


@pytest.mark.parametrize("language", evaluation_inputs.LANGUAGES)
def test_every_language_has_a_bar_and_its_published_sign(text: str, language: str) -> None:
    plot = re.search(r'<svg[^>]*aria-labelledby="groups-1-0-title.*?</svg>', text, re.DOTALL)
    assert plot is not None
    n = evaluation_inputs.results()["benchmarks"]["multipl_e_humaneval"]["groups"][language]
    assert f"{language} ({n})" in plot[0] and "StarCoder2-15B" in plot[0] and "pass@1" in plot[0]


def test_what_could_mislead_is_said(page: Page) -> None:
    shown = words(page)
    for told in (
        "163 of 164 reference solutions passed, 164 of 164 wrong answers failed",
        "timeout 2",
        "length 60, stop 104",
        "2 completions were empty.",
        "3 contexts did not fit",
        "the reference does not pass: timeout",
        "Skipped, and not part of any number: jl; its toolchain is absent. no Debian package",
        "159 problems were skipped",
        "ds1000: no ds1000.jsonl.gz of ds1000: put it at data/ds1000/ds1000.jsonl.gz",
        "Averages are over cpp (161), cs (160)",
        "1 of 160 problems stand in the training corpus; pass@1 is 0 (0 to",
        "repo name a/b; path /eval.py",
        "Contamination was not searched for: it is not known what the model was trained on.",
        "sandbox of level landlock, Python 3.11.2",
        "no user namespaces",
        "not comparable with CodeQL",
        "max new tokens512",
        "toolchain: python3.11.2",
        "limit: cpu seconds3.0",
        "0123456789abcdef",
    ):
        assert told in shown, told


@pytest.mark.parametrize("key", sorted({*evaluation_inputs.benchmark(), "contamination", "scorer"}))
def test_every_key_of_a_benchmark_reaches_the_page(key: str) -> None:
    plain = {"estimates": {"pass@1": evaluation_inputs.estimate(0.5, 77)}}
    found = evaluation_inputs.estimate(0.25, 7_654_321)
    marked: dict[str, Any] = {
        "estimates": {"m": found},
        "group_estimates": {"a": {"m": found}, "b": {"m": found}},
        "groups": {"java": 7_654_321},
        "labels": {"pass": 7_654_321},
        "finish_reasons": {"stop": 7_654_321},
        "skipped": {"jl": "7,654,321"},
        "excluded": {"p": "7,654,321"},
        "published": [evaluation_inputs.published("pass@1", "M", 7_654_321)],
        "examples": [evaluation_inputs.answer("p", "pass", "7,654,321")],
        "preflight": {**evaluation_inputs.benchmark()["preflight"], "num_references": 7_654_321},
        "sampling": {"samples": "7,654,321"},
        "contamination": {"problems": {"p": {"path": "7,654,321"}}},
        "scorer": {"name": "7,654,321"},
        "remarks": ["7,654,321"],
        "version": "7,654,321",
        "problems": "7,654,321",
    }
    value = marked.get(key, 7_654_321)
    if key in ("num_problems", "num_available_problems", "num_counted_problems"):
        plain |= {"num_problems": 1, "num_available_problems": 2}
    assert "7,654,321" not in words(Page(render({"benchmarks": {"b": plain}})))
    assert "7,654,321" in words(Page(render({"benchmarks": {"b": {**plain, key: value}}}))), key


def test_what_measured_nothing_is_no_zero() -> None:
    nobody = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 0}
    text = render({"benchmarks": {"b": {"estimates": {"excess_code": nobody}}}})
    row = re.search(r"<td>excess_code</td>.*?</tr>", text)
    assert row is not None and row[0].count("&ndash;") == 2 and 'class="tiles"' not in text


def test_failures_open_with_prompt_completion_and_output(text: str, page: Page) -> None:
    opened = re.findall(r'<details class="answer">.*?</details>', text, re.DOTALL)
    assert len(opened) == len(evaluation_inputs.failures()) + 1
    assert "HumanEval/1" in opened[0] and "Traceback" in opened[0] and "def add(a, b):" in opened[0]
    assert "3 of 163 that did not pass" in words(page)
    assert "HumanEval/0" in opened[3] and "return a + b" in opened[3]


def test_hostile_completions_and_names_stay_text(text: str, page: Page) -> None:
    shown = "".join(page.text)
    assert shown.count(pages.visible(HOSTILE_CODE)) == 5, "prompt, completion, suffix, expected, output"
    assert HOSTILE_NAME in shown and "49" not in HOSTILE_NAME
    assert "[U+202E][U+0000][U+D800]" in shown and not {"\u202e", "\x00", "\ud800"} & set(text)
    text.encode("utf-8")


def test_hostile_results_stay_text() -> None:
    hostile: dict[str, Any] = copy.deepcopy(evaluation_inputs.results())
    found = hostile["benchmarks"].pop("humaneval")
    found["estimates"] = {HOSTILE_NAME: found["estimates"]["pass@1"]}
    for key in ("labels", "finish_reasons", "groups", "excluded", "skipped", "sampling", HOSTILE_NAME):
        found[key] = {HOSTILE_NAME: 3 if key in ("labels", "finish_reasons", "groups") else HOSTILE_CODE}
    for key in ("metric", "model", "source", "certainty"):
        found["published"][0][key] = HOSTILE_NAME
    found["contamination"] = {"checked": False, "reason": HOSTILE_CODE}
    found["group_estimates"] = {HOSTILE_NAME: {HOSTILE_NAME: found["estimates"][HOSTILE_NAME]}}
    hostile |= {"benchmarks": {HOSTILE_NAME: found}, "absent": {HOSTILE_NAME: HOSTILE_CODE}, "model": HOSTILE_CODE}
    made = Page(render(hostile))
    assert made.unbalanced == [] and made.open == [] and len(made.all("script")) == 1
    assert made.all("b") == [] == made.all("img")


def test_megabytes_are_cut_and_say_so(text: str) -> None:
    assert len(text) < 400_000
    assert f"[{3_000_000 - evaluation_page.MAX_TEXT_CHARS:,} more characters]" in text


def test_a_bare_result_and_none_at_all_make_a_page() -> None:
    assert "no benchmark was evaluated" in words(Page(render({})))
    bare = words(Page(render({"benchmarks": {"b": {"estimates": {}, "labels": {"wrong": 2}}}})))
    assert "2 did not pass; none of them was kept to be shown" in bare


def test_the_run_s_own_report_shows_the_same_and_points_to_the_page(page: Page) -> None:
    inputs = ReportInputs(
        run_name="run", evaluation=evaluation_inputs.results(), evaluation_page="evaluation/report.html"
    )
    report = Page(render_report(inputs))
    assert report.unbalanced == [] and report.open == []
    assert {"href": "evaluation/report.html"} in report.all("a")
    shown = words(report)
    assert "1 of 160 problems stand in the training corpus" in shown and "ts (144)" in shown


def test_a_browser_draws_it(text: str, tmp_path: Any) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium: apt-get install chromium")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--dump-dom", f"file://{tmp_path / 'page.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "inline script" not in done.stderr and "alert" not in done.stderr, "nothing had to be refused"
    drawn = html.unescape(done.stdout)
    assert drawn.count("<button") > 5, "tables can be sorted: the script ran"
    assert "<script>alert(1)</script>" not in done.stdout and "<script>alert(1)</script>" in drawn
