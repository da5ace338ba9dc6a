import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_cases import ScriptedBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import code_bleu, runner
from starsmith.evaluation.benchmarks.line_completion import edit_similarity, first_code_line, line_score
from starsmith.evaluation.benchmarks.repobench import DATA, PAPER, SETTINGS, RepoBench
from starsmith.evaluation.contract import Completion, MissingDataError, Problem, Request, Sampling
from starsmith.evaluation.data_flow import data_flow
from starsmith.evaluation.statistics import bootstrap_of_sums, bootstrap_ratio
from starsmith.signals import syntax

COLUMNS = pa.schema(
    [
        ("repo_name", pa.string()),
        ("file_path", pa.string()),
        (
            "context",
            pa.list_(pa.struct([("identifier", pa.string()), ("path", pa.string()), ("snippet", pa.string())])),
        ),
        ("import_statement", pa.string()),
        ("token_num", pa.int64()),
        ("cropped_code", pa.string()),
        ("all_code", pa.string()),
        ("next_line", pa.string()),
        ("gold_snippet_index", pa.int64()),
        ("created_at", pa.string()),
        ("level", pa.string()),
    ]
)
"""As the data set's card lists them."""


def row(number: int, level: str = "2k", next_line: str | None = None) -> dict[str, Any]:
    return {
        "repo_name": "someone/shop",
        "file_path": f"shop/order{number}.py",
        "context": [
            {"identifier": "Cart", "path": "shop/cart.py", "snippet": "class Cart:\n    items = ()"},
            {"identifier": "price", "path": "shop/price.py", "snippet": "def price(item):\n\n\n\n\n    return 1"},
        ],
        "import_statement": "from shop.cart import Cart\nfrom shop.price import price",
        "token_num": 900,
        "cropped_code": f"class Order{number}:\n    def __init__(self):\n\n",
        "all_code": "not read",
        "next_line": f"        self.cart = Cart({number})" if next_line is None else next_line,
        "gold_snippet_index": 0,
        "created_at": "2023-11-24 10:00:00+00:00",
        "level": level,
    }


def written(
    data: Path, rows: dict[str, list[dict[str, Any]]], language: str = "python", schema: pa.Schema = COLUMNS
) -> RepoBench:
    folder = data / DATA.folder / f"repobench_{language}_v1.1" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for setting in SETTINGS:
        table = pa.Table.from_pylist(rows.get(setting, []), schema=schema)
        pq.write_table(table, folder / f"{setting}-00000-of-00001-0123456789abcdef.parquet")
    return RepoBench(language=language, data=data)  # type: ignore[arg-type]


def shop(data: Path) -> RepoBench:
    return written(
        data,
        {
            "cross_file_first": [row(0), row(1, "24k"), row(2, "8k")],
            "cross_file_random": [row(0, "16k", "        return price(self.cart)")],
            "in_file": [row(0, "2k", "        self.done = False")],
        },
    )


def test_problems_of_the_papers_levels_are_mixed_over_settings(tmp_path: Path) -> None:
    benchmark = shop(tmp_path)
    problems = benchmark.load()
    assert [(problem.id, problem.group) for problem in problems] == [
        ("00000/cross_file_first", "cross_file_first/2k"),
        ("00000/cross_file_random", "cross_file_random/16k"),
        ("00000/in_file", "in_file/2k"),
        ("00002/cross_file_first", "cross_file_first/8k"),
    ]
    assert benchmark.name == "repobench_python"


def test_the_prompt_is_the_authors(tmp_path: Path) -> None:
    benchmark = shop(tmp_path)
    (request,) = benchmark.requests(benchmark.load()[0])
    assert "".join((*request.context, request.prompt)) == (
        "# Repo Name: someone/shop\n"
        "# Path: shop/cart.py\nclass Cart:\n    items = ()\n\n"
        "# Path: shop/price.py\ndef price(item):\n\n    return 1\n\n"
        "# Path: shop/order0.py\nfrom shop.cart import Cart\nfrom shop.price import price\n"
        "class Order0:\n    def __init__(self):\n"
    )
    assert request.max_input_tokens == 15_800 and request.context_share == 0.0
    assert (request.max_new_tokens, request.temperature, request.top_p) == (128, 0.2, 0.95)
    java = written(tmp_path / "java", {"in_file": [row(0)]}, "java")
    (request,) = java.requests(java.load()[0])
    assert request.context[0].startswith("// Repo Name: someone/shop\n// Path: shop/cart.py\nclass Cart")
    assert request.prompt.startswith("// Path: shop/order0.py\n")
    samples = replace(java, sampling=Sampling(samples=3, temperature=0.2)).requests(java.load()[0])
    assert len({request.seed for request in samples}) == 3


@pytest.mark.parametrize(
    ("language", "completion", "line", "found"),
    [
        ("python", "\n\n    # why\n    x = 1\n    y = 2", "    x = 1", True),
        ("python", '    """Says\n    what."""\n\n    return 3', "    return 3", True),
        # The authors' rule takes a text that ends on its line for the beginning of one.
        ("python", '    """Says."""\n    return 3\n', '    """Says."""', False),
        ("python", "# only\n# comments", "# only", False),
        ("python", "", "", False),
        ("java", "\n/* a\n * b\n */\n// c\n  int x = 1;\n", "  int x = 1;", True),
        ("java", "# int", "# int", True),
    ],
)
def test_the_first_line_that_is_no_comment_is_the_answer(
    language: str, completion: str, line: str, found: bool, tmp_path: Path
) -> None:
    assert first_code_line(completion, language) == (line, found)
    benchmark = RepoBench(language=language)  # type: ignore[arg-type]
    candidate = benchmark.extract(Problem(id="x"), Completion(text=completion + "<file_sep>    z = 4"))
    assert (candidate.text, candidate.extracted) == (line, found)


def test_known_answers(tmp_path: Path) -> None:
    benchmark = shop(tmp_path)
    problem = benchmark.load()[0]
    for check in benchmark.checks(problem):
        score = benchmark.score(problem, 0, check.candidate, [])
        assert (score.label == "pass") == check.passes and score.value == float(check.passes)
    answers = {
        "        self.cart = Cart(0)  ": ("pass", 0.96),
        "self.cart = Cart(0)": ("pass", 0.83),
        "        self.cart=Cart(0)": ("wrong", 0.96),
        "        self.cart = Cart(1)\nx": ("wrong", 0.96),
        "        self.cart = " + "(" * 5_000: ("wrong", 0.01),
        "\ud800": ("wrong", 0.0),
        "y" * 2_000_000: ("wrong", 0.0),
    }
    for text, expected in answers.items():
        score = benchmark.score(problem, 0, benchmark.extract(problem, Completion(text=text)), [])
        assert (score.label, score.value) == expected, text


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab =(\n", max_size=30), st.text(alphabet="ab =(\n", max_size=30))
def test_edit_similarity_is_the_share_of_matching_characters(left: str, right: str) -> None:
    blocks = difflib.SequenceMatcher(None, left, right).get_matching_blocks()
    longest = 2 * sum(block.size for block in blocks) / max(len(left + right), 1)
    assert edit_similarity(left, right) == (1.0 if left == right else pytest.approx(longest, abs=0.005001))
    assert edit_similarity("", "a") == 0.0 and edit_similarity("", "") == 1.0


def test_estimates_are_of_all_of_each_setting_and_of_each_level(tmp_path: Path) -> None:
    benchmark = shop(tmp_path)
    groups = ("cross_file_first/2k", "cross_file_first/2k", "in_file/2k", "in_file/8k")
    values = ((True, 1.0), (False, 0.5), (False, 0.0), (True, 1.0))
    detail = " ".join(map(str, code_bleu.counts("a = b + c", "a = b + c", "python")))
    scores = [
        line_score(Problem(id=str(n), group=group), 0, exact=exact, similarity=similarity, detail=detail)
        for n, (group, (exact, similarity)) in enumerate(zip(groups, values, strict=True))
    ]
    found = {
        name: (each.value, each.n)
        for name, each in benchmark.aggregate(scores, seed=1).items()
        if "code_bleu" not in name
    }
    assert found == {
        "exact_match": (0.5, 4),
        "edit_similarity": (0.625, 4),
        "exact_match/cross_file_first": (0.5, 2),
        "edit_similarity/cross_file_first": (0.75, 2),
        "exact_match/in_file": (0.5, 2),
        "edit_similarity/in_file": (0.5, 2),
        "exact_match/2k": (pytest.approx(1 / 3), 3),
        "edit_similarity/2k": (0.5, 3),
        "exact_match/8k": (1.0, 1),
        "edit_similarity/8k": (1.0, 1),
    }
    assert benchmark.aggregate(scores[:2], seed=1).keys() == {"exact_match", "edit_similarity", "code_bleu"}
    again = replace(scores[0], sample=1, label="wrong", value=0.0)
    sampled = benchmark.aggregate([*scores, again], seed=1)
    assert sampled["exact_match"].n == 4 and sampled["exact_match"].value == pytest.approx(1.5 / 4)


def test_a_whole_evaluation(tmp_path: Path) -> None:
    shop(tmp_path)
    lines = {"00000/in_file": "        self.done = False", "00002/cross_file_first": "        self.cart = Cart(2)"}

    def script(request: Request) -> str:
        return f"        # a comment\n{lines.get(request.problem, '        pass')}\n        more()"

    config = recipe.Evaluation(benchmarks=("repobench_python",), data=tmp_path)
    results = runner.evaluate(ScriptedBackend(script), config, heldout=[], folder=tmp_path / "out")
    own = results["benchmarks"]["repobench_python"]
    assert own["estimates"]["exact_match"]["value"] == 0.5 and own["labels"] == {"pass": 2, "wrong": 2}
    assert own["estimates"]["exact_match/in_file"]["value"] == 1.0
    assert 0.0 < own["estimates"]["code_bleu"]["low"] <= own["estimates"]["code_bleu"]["value"] < 1.0
    assert own["group_estimates"]["cross_file_first/8k"]["exact_match"]["value"] == 1.0
    assert own["preflight"]["num_references_passed"] == own["preflight"]["num_empty_answers_failed"] == 4
    assert {row["model"] for row in own["published"]} >= {"StarCoder2-15B"}
    assert {row["metric"] for row in own["published"]} <= own["estimates"].keys()
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results))


CODE_BLEU = {
    "python": {
        ("x = 1", "x = 1"): 0.7643161313935813,
        ("    total += price(item) * 2", "    total += price(item, 2) * 2"): 0.21341325690337956,
        ("return self.cart.add(item)", "return self.cart.remove(item) # gone"): 0.5390091456582593,
        ("for i in range(3): x += i", "for j in range(4): x += j"): 0.5433575962762781,
        ("if not found:", "if not found and retry:"): 0.37462170514849713,
        ("pass", "raise ValueError('no')"): 0.25,
        ("a, b = b, a", "a, b = b, a"): 1.0,
        ("foo(", "foo(x, y=x)"): 0.25,
    },
    "java": {
        ("int x = a + b;", "int x = a + b;"): 1.0,
        ("return cart.add(item);", "return cart.remove(item); // gone"): 0.5390091456582593,
        ("for (int i = 0; i < n; i++) {", "for (int j = 0; j < n; j++) {"): 0.5407599170112963,
        ("if (x == null) {", "if (x != null) {"): 0.5814150209792306,
        ("count++;", "count = count + 1;"): 0.25,
        ("}", "throw new Error();"): 0.25,
        ('String s = "a" + t;', 'String s = "b" + t;'): 0.6270331870386536,
    },
}
"""What the package codebleu 0.7.0 gives, each pair alone."""
CODE_BLEU_OF_ALL = {"python": 0.4630801941725391, "java": 0.5304128682850361}
"""And all pairs together; of Python's it gives two values, since the order of its sets changes from run to run."""


@pytest.mark.parametrize("language", CODE_BLEU)
def test_code_bleu_is_its_authors(language: str) -> None:
    pairs = CODE_BLEU[language]
    counts = np.array([code_bleu.counts(*pair, language) for pair in pairs])  # type: ignore[arg-type]
    assert counts.shape == (len(pairs), code_bleu.NUM_COUNTS)
    assert code_bleu.value(counts) == pytest.approx(list(pairs.values()), abs=1e-12)
    assert float(code_bleu.value(counts.sum(axis=0))) == pytest.approx(CODE_BLEU_OF_ALL[language], abs=1e-12)
    same = np.array([code_bleu.counts(wanted, wanted, language) for _, wanted in pairs])  # type: ignore[arg-type]
    assert (code_bleu.value(same) >= code_bleu.value(counts) - 1e-12).all()


def test_data_flow_says_what_comes_from_what() -> None:
    def flow(text: str, language: str) -> list[tuple[str, str, tuple[str, ...]]]:
        tree = syntax.parse(text.encode(), code_bleu.GRAMMARS[language])
        return data_flow(tree.root_node, language)  # type: ignore[arg-type]

    assert flow("total = price + price", "python") == [
        ("var_1", "computedFrom", ("var_0", "var_0")),
        ("var_0", "comesFrom", ()),
        ("var_0", "comesFrom", ("var_0",)),
    ]
    assert flow("int t = p;", "java") == [("var_1", "comesFrom", ("var_0",)), ("var_0", "comesFrom", ())]
    assert flow("a = b", "python") == flow("x = y", "python") != flow("a == b", "python") == []
    # What one turn of a loop defines reaches the next; what a branch defines may reach what follows.
    assert ("var_1", "comesFrom", ("var_1",)) in flow("while x: y = f(y)", "python")
    assert flow("if (a) { b = a; } c = b;", "java")[-1] == ("var_1", "comesFrom", ("var_1",))
    assert flow("x = " + "(" * 2_000 + ")" * 2_000, "python") == [] == flow("a.b = 'c'", "python")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["python", "java"]))
def test_code_bleu_of_any_text_is_a_share(candidate: str, reference: str, language: str) -> None:
    found = np.array(code_bleu.counts(candidate, reference, language))  # type: ignore[arg-type]
    assert (found >= 0).all() and 0 <= float(code_bleu.value(found)) <= 1


def test_the_interval_of_a_measure_of_sums_is_that_of_a_mean_where_it_is_one() -> None:
    values = [0.0, 1.0, 0.5, 0.25] * 50
    plain = bootstrap_ratio(values, [1.0] * len(values), seed=3)
    table = np.array([[value, 1.0] for value in values])
    sums = bootstrap_of_sums(table, lambda sums: sums[..., 0] / sums[..., 1], seed=3)
    assert (sums.value, sums.n) == (plain.value, plain.n)
    assert (sums.low, sums.high) == pytest.approx((plain.low, plain.high), abs=0.01)
    assert bootstrap_of_sums(np.zeros((0, 0)), code_bleu.value, seed=1).n == 0


def test_bad_data_is_explained(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"repobench_java_v1\.1/data/cross_file_first-\*\.parquet.*tianyang/repobench"
    ):
        RepoBench(language="java", data=tmp_path).load()
    with pytest.raises(MissingDataError, match="--data"):
        RepoBench(language="java").load()
    older = pa.schema([field for field in COLUMNS if field.name != "level"])
    rows = {"in_file": [{name: value for name, value in row(0).items() if name != "level"}]}
    with pytest.raises(InputError, match=r"no column level, which RepoBench v1\.1 has"):
        written(tmp_path / "older", rows, schema=older).load()
    with pytest.raises(InputError, match="a row has no next_line"):
        written(tmp_path / "null", {"in_file": [row(0) | {"next_line": None}]}).load()
    flat = COLUMNS.set(COLUMNS.get_field_index("context"), pa.field("context", pa.string()))
    with pytest.raises(InputError, match="context must be a list of snippets"):
        written(tmp_path / "flat", {}, schema=flat).load()
    benchmark = shop(tmp_path / "torn")
    (file,) = (tmp_path / "torn").rglob("in_file-*.parquet")
    file.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        benchmark.load()
    assert PAPER.samples == 1
