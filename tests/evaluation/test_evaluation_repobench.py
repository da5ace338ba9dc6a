import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_cases import ScriptedBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import runner
from starsmith.evaluation.benchmarks.line_completion import edit_similarity, first_code_line, line_score
from starsmith.evaluation.benchmarks.repobench import DATA, PAPER, SETTINGS, RepoBench
from starsmith.evaluation.contract import Completion, MissingDataError, Problem, Request, Sampling

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
    scores = [
        line_score(Problem(id=str(n), group=group), 0, exact=exact, similarity=similarity, measures={})
        for n, (group, (exact, similarity)) in enumerate(zip(groups, values, strict=True))
    ]
    found = {name: (each.value, each.n) for name, each in benchmark.aggregate(scores, seed=1).items()}
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
    assert benchmark.aggregate(scores[:2], seed=1).keys() == {"exact_match", "edit_similarity"}
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
    assert own["group_estimates"]["cross_file_first/8k"]["exact_match"]["value"] == 1.0
    assert own["preflight"]["num_references_passed"] == own["preflight"]["num_empty_answers_failed"] == 4
    assert {row["model"] for row in own["published"]} >= {"StarCoder2-15B"}
    assert {row["metric"] for row in own["published"]} <= own["estimates"].keys()
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results))


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
