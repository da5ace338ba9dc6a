import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_cases import ScriptedBackend
from program_cases import written_rows

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import runner
from starsmith.evaluation.benchmarks.crosscodeeval import (
    LANGUAGES,
    MAX_PROMPT_TOKENS,
    CrossCodeEval,
    first_bracketed,
    first_statement,
)
from starsmith.evaluation.benchmarks.line_completion import identifier_measures, identifiers
from starsmith.evaluation.contract import Completion, MissingDataError, Request, Sampling
from starsmith.signals import syntax

FILE = "line_completion_rg1_openai_cosine_sim.jsonl"
PROMPT = "from shop.cart import Cart\n\n\ndef order(items):\n    cart = "
FRAGMENTS = (
    "# Here are some relevant code fragments from other files of the repo:\n\n"
    "# the below code fragment can be found in:\n# shop/cart.py\n# class Cart:\n#     pass\n\n"
)


def row(number: int, **changes: Any) -> dict[str, Any]:
    """As the authors' files hold it."""
    return {
        "prompt": PROMPT,
        "groundtruth": "Cart(items)",
        "right_context": "\n    return cart\n",
        "metadata": {
            "task_id": f"project_cc_python/{number}",
            "repository": "someone-shop-0123456",
            "file": "shop/order.py",
            "context_start_lineno": 0,
            "groundtruth_start_lineno": 4,
            "right_context_start_lineno": 5,
        },
        "crossfile_context": {
            "text": FRAGMENTS,
            "list": [{"retrieved_chunk": "class Cart:\n    pass", "filename": "shop/cart.py", "score": 0.8}],
        },
    } | changes


def written(data: Path, language: str, *rows: dict[str, Any]) -> CrossCodeEval:
    written_rows(data, f"crosscodeeval/{language}/{FILE}", rows)
    return CrossCodeEval(language=language, data=data)  # type: ignore[arg-type]


def test_the_prompt_is_the_authors(tmp_path: Path) -> None:
    benchmark = written(tmp_path, "python", row(1), row(0, crossfile_context=""), row(2, crossfile_context={}))
    problems = benchmark.load()
    assert [problem.id for problem in problems] == [f"project_cc_python/{n}" for n in range(3)]
    (request,) = benchmark.requests(problems[1])
    assert "".join((*request.context, request.prompt)) == f"{FRAGMENTS}\n{PROMPT}"
    assert [benchmark.requests(problems[n])[0].context for n in (0, 2)] == [("",), ("",)]
    assert request.max_prompt_tokens == MAX_PROMPT_TOKENS == 3_434
    assert (request.max_new_tokens, request.temperature, request.top_p) == (50, 0.2, 0.95)
    assert benchmark.texts(problems[0]) == [f"{PROMPT}Cart(items)"]
    alone = replace(benchmark, retrieval="none")
    with pytest.raises(MissingDataError, match=r"line_completion\.jsonl"):
        alone.load()
    bare = {name: value for name, value in row(0).items() if name != "crossfile_context"}
    written_rows(tmp_path, "crosscodeeval/python/line_completion.jsonl", [bare])
    assert alone.requests(alone.load()[0])[0].prompt == f"\n{PROMPT}"


def test_the_unpacked_archive_is_found(tmp_path: Path) -> None:
    written_rows(tmp_path, f"crosscodeeval/crosscodeeval_data/java/{FILE}", [row(0)])
    assert len(CrossCodeEval(language="java", data=tmp_path).load()) == 1


@pytest.mark.parametrize(
    ("completion", "statement"),
    [
        ("Cart(items)\n    return cart\n", "Cart(items)"),
        ("Cart(\n        items,\n    )  \n    return", "Cart(\n        items,\n    )"),
        ("Cart(items)  # made\nx", "Cart(items)  # made"),
        ("Cart(items)", "Cart(items)"),
        ("Cart(items", "Cart(items"),
        ("Cart((((\nx\n", "Cart((((\nx\n"),
        ("\nCart(items)\n", "\nCart(items)\n"),
        ("", ""),
    ],
)
def test_python_ends_where_the_file_parses(completion: str, statement: str) -> None:
    assert first_statement(PROMPT, completion) == statement


@pytest.mark.parametrize(
    ("completion", "statement"),
    [
        ("new Cart(items);\nreturn cart;", "new Cart(items);"),
        ("foo() {\n  bar();", "foo() {"),
        ("items) }", "items) }"),
        # A bracket at the very beginning is overlooked by the authors, and everything stays.
        ("; x; y", "; x; y"),
        ("no end\nat all", "no end\nat all"),
        ("", ""),
    ],
)
def test_other_languages_end_with_a_bracket_or_semicolon(completion: str, statement: str) -> None:
    assert first_bracketed(completion) == statement


def test_identifiers_are_names_outside_strings_that_are_no_keywords() -> None:
    assert identifiers('for x in load(\'for y\', "z\\"w"): return _a1 + 2b', "python") == ["x", "load", "_a1"]
    assert identifiers("final Cart cart = new Cart(1, true);", "java") == ["Cart", "cart", "Cart", "true"]
    assert identifiers("let x: string = await f<any>()", "typescript") == ["x", "string", "await", "f", "any"]
    assert identifiers("var x = await F(null);", "csharp") == ["var", "x", "await", "F"]
    assert identifier_measures("a(b, c)", "a(b, d)", "python") == {
        "identifier_exact_match": 0.0,
        "identifier_f1": pytest.approx(2 / 3),
    }
    assert identifier_measures("b(a)", "a(b)", "java") == {"identifier_exact_match": 0.0, "identifier_f1": 1.0}
    assert identifier_measures("1", "2", "java") == {"identifier_exact_match": 1.0, "identifier_f1": 0.0}


@pytest.mark.parametrize("language", LANGUAGES)
def test_known_answers(tmp_path: Path, language: str) -> None:
    benchmark = written(
        tmp_path, language, row(0, groundtruth="Cart(items)  # made\n" if language == "python" else "Cart(items);")
    )
    (problem,) = benchmark.load()
    for check in benchmark.checks(problem):
        score = benchmark.score(problem, 0, check.candidate, [])
        assert (score.label == "pass") == check.passes
    texts = {
        problem.inputs["middle"] + "\nmore": ("pass", 1.0),
        "Cart(item);" if language != "python" else "Cart(item)": ("wrong", None),
        "\ud800": ("wrong", 0.0),
        "y" * 2_000_000: ("wrong", 0.0),
        "(" * 1_000_000: ("wrong", None),
    }
    for text, (label, value) in texts.items():
        score = benchmark.score(problem, 0, benchmark.extract(problem, Completion(text=text)), [])
        assert score.label == label and value in (score.value, None), text[:20]


def test_a_whole_evaluation_is_shown_by_measure(tmp_path: Path) -> None:
    written(tmp_path, "python", row(0), row(1, groundtruth="Basket(items)"))

    def script(request: Request) -> str:
        assert request.context == (FRAGMENTS,)
        return "Cart(items)\n    return cart"

    config = recipe.Evaluation(benchmarks=("crosscodeeval_python",), data=tmp_path)
    results = runner.evaluate(ScriptedBackend(script), config, heldout=[], folder=tmp_path / "out")
    own = results["benchmarks"]["crosscodeeval_python"]
    assert {name: round(each["value"], 4) for name, each in own["estimates"].items()} == {
        "exact_match": 0.5,
        "edit_similarity": pytest.approx((1 + 0.75) / 2),
        "identifier_exact_match": 0.5,
        "identifier_f1": 0.75,
    }
    assert own["preflight"]["num_references_passed"] == own["preflight"]["num_empty_answers_failed"] == 2
    rows = [json.loads(line) for line in (tmp_path / "out" / "generations.jsonl").read_text().splitlines()]
    assert rows[1]["detail"] == "identifier_exact_match=0 identifier_f1=0.5"


def test_bad_data_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDataError, match=rf"csharp/{FILE}.*amazon-science/cceval"):
        CrossCodeEval(language="csharp", data=tmp_path).load()
    no_truth = {name: value for name, value in row(0).items() if name != "groundtruth"}
    for broken, message in (
        (no_truth, "line 1: no field 'groundtruth'"),
        (row(0, prompt=None), "prompt must be str"),
        (row(0, metadata={"file": "x"}), "metadata holds no task_id"),
        (row(0, crossfile_context=["x"]), "crossfile_context must be dict or str"),
        (row(0, crossfile_context={"text": 1}), "crossfile_context.text must be str"),
    ):
        with pytest.raises(InputError, match=message):
            written(tmp_path, "java", broken).load()
    monkeypatch.setitem(syntax.GRAMMARS, "Nothing", ("no_such_module", "language"))
    with pytest.raises(InputError, match=r"crosscodeeval_python needs .* pip install 'starsmith\[quality\]'"):
        written(tmp_path, "python", row(0)).load()
    assert written(tmp_path, "java", row(0)).sampling == Sampling(temperature=0.2, max_new_tokens=50)
