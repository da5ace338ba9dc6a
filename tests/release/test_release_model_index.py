import dataclasses
import math
from typing import Any

import evaluation_inputs
import pytest
import yaml
from evaluation_inputs import HOSTILE_CODE, HOSTILE_NAME
from markdown_it import MarkdownIt

from starsmith import recipe
from starsmith.release.model_card import ModelCardInputs, render_model_card
from starsmith.release.model_index import render_model_index
from starsmith.release.results_table import render_results

RESULTS = evaluation_inputs.results()


def single(name: str, value: float, metric: str = "pass@1") -> dict[str, Any]:
    estimate = {"value": value, "low": value, "high": value, "n": 1}
    return {"benchmarks": {name: {"estimates": {metric: estimate}}}}


def test_the_block_is_the_hub_s() -> None:
    [index] = yaml.safe_load(render_model_index(RESULTS, name="mini"))["model-index"]
    assert index["name"] == "mini"
    first, whole, part = index["results"][:3]
    assert first == {
        "task": {"type": "text-generation"},
        "dataset": {"type": "openai/openai_humaneval", "name": "HumanEval"},
        "metrics": [{"type": "pass@1", "name": "pass@1", "value": 0.0061, "verified": False}],
    }
    assert whole["dataset"] == {"type": "nuprl/MultiPL-E", "name": "MultiPL-E HumanEval"}
    assert part["dataset"]["name"] == "MultiPL-E HumanEval (cpp)" and part["metrics"][0]["type"] == "pass@1"
    assert all(result["metrics"] for result in index["results"]), "what measured nothing is left out"
    assert len(index["results"]) == 1 + 1 + len(evaluation_inputs.LANGUAGES) + 1 + 1


def test_the_hub_s_own_library_reads_the_card() -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's library is not installed")
    inputs = ModelCardInputs(
        config=recipe.Release(model_name="mini"),
        model={"vocab_size": 8192},
        num_parameters=3_345_678,
        training=recipe.Training().model_dump(),
        evaluation=RESULTS,
    )
    card = render_model_card(inputs)
    assert "- humaneval: 1 of 160 problems stand in the training data; pass@1 without them 0 (0 to" in card
    assert "- asleep\\_at\\_the\\_keyboard: CWE-89 by bandit 1.8: not comparable with CodeQL\n" in card
    read = hub.ModelCard(card).data
    assert read.model_name == "mini"
    found = {(result.dataset_name, result.metric_type): result for result in read.eval_results}
    ours = RESULTS["benchmarks"]["multipl_e_humaneval"]["estimates"]
    assert found["HumanEval", "pass@1"].metric_value == 0.0061
    assert found["MultiPL-E HumanEval (ts)", "pass@1"].metric_value == pytest.approx(ours["pass@1/ts"]["value"])
    assert not any(result.verified for result in read.eval_results)
    bare = hub.ModelCard(render_model_card(dataclasses.replace(inputs, evaluation=None))).data
    assert bare.eval_results is None


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e-07, -2.5e-09, 123_456_789.0, 2.113, math.inf, math.nan])
def test_every_number_is_read_as_that_number(value: float) -> None:
    block = yaml.safe_load(render_model_index(single("humaneval", value), name="m"))
    read = block["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert isinstance(read, int | float)
    assert read == pytest.approx(value, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    "name", [HOSTILE_NAME, HOSTILE_CODE, "a: b # c", "'", "- x", "no", "1.0", "\n---\n", "\x85"]
)
def test_hostile_names_stay_scalars(name: str) -> None:
    [index] = yaml.safe_load(render_model_index(single(name, 0.5, metric=name), name=name))["model-index"]
    assert index["name"] == name
    dataset, metric = index["results"][0]["dataset"], index["results"][0]["metrics"][0]
    assert dataset["type"] == name and metric["name"] == name


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("humaneval", "HumanEval"),
        ("humaneval_plus", "HumanEval+"),
        ("humaneval_infilling_random_span", "HumanEval infilling, random span"),
        ("humanevalfix_tests", "HumanEvalFix, tests"),
        ("multipl_e_humaneval_lua", "MultiPL-E HumanEval, lua"),
        ("bits_per_byte", "bits per byte"),
    ],
)
def test_benchmarks_have_the_names_that_people_know(name: str, title: str) -> None:
    block = yaml.safe_load(render_model_index(single(name, 0.5), name="m"))
    assert block["model-index"][0]["results"][0]["dataset"]["name"] == title


def test_a_benchmark_of_one_part_names_it_once() -> None:
    found = single("multipl_e_humaneval_lua", 0.5, metric="pass@1/lua")
    [index] = yaml.safe_load(render_model_index(found, name="m"))["model-index"]
    assert index["results"][0]["dataset"]["name"] == "MultiPL-E HumanEval, lua"
    assert index["results"][0]["metrics"][0]["name"] == "pass@1"


def test_a_measure_that_is_no_part_s_keeps_its_name() -> None:
    found = single("humaneval_plus", 0.5, metric="base/pass@1")
    [index] = yaml.safe_load(render_model_index(found, name="m"))["model-index"]
    assert index["results"][0]["dataset"]["name"] == "HumanEval+"
    assert index["results"][0]["metrics"][0]["name"] == "base/pass@1"


def test_nothing_measured_is_no_block() -> None:
    nobody = single("humaneval", 0.0)
    nobody["benchmarks"]["humaneval"]["estimates"]["pass@1"]["n"] = 0
    assert render_model_index(nobody, name="m") == ""
    assert render_model_index(None, name="m") == "" == render_model_index({"benchmarks": {}}, name="m")


def test_the_table_has_the_terminal_s_rows() -> None:
    table = render_results(RESULTS, name="mini")
    assert render_results(RESULTS, name="mini") == table
    assert "| humaneval | pass@1 | 0.0061 | 0 to 0.02145 | 163 | 0.317 | - | 0.463 |" in table
    assert "| multipl\\_e\\_humaneval | pass@1/cpp |" in table and "| 0.15?? |" in table
    assert "| nothing | nothing was measured | - | - | 0 | - | - | - |" in table
    assert "pass@1 without contaminated problems: 0 \\(0 to" in table and "skipped: jl: no toolchain" in table
    assert "CWE-89 by bandit 1.8: not comparable with CodeQL" in table
    assert "not run: ds1000" in table and "sandbox of level landlock" in table
    rows = MarkdownIt("commonmark").enable("table").render(table).count("<tr>")
    assert rows == 1 + sum(max(len(found["estimates"]), 1) for found in RESULTS["benchmarks"].values())


def test_pipes_and_markup_stay_in_their_cells() -> None:
    name = f"a|b {HOSTILE_CODE}\n| x |"
    table = render_results({**single(name, 0.5, metric=name), "absent": {name: name}}, name=name)
    page = MarkdownIt("commonmark").enable("table").render(table)
    assert "<script" not in page and "<img" not in page
    assert page.count("<tr>") == 2 and page.count("<td") == 8
