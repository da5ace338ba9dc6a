import copy
import shutil
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation_cases import ScriptedBackend
from program_cases import assert_known_worth, judged, labels, real_data, written_rows

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import references, runner, toolchains
from starsmith.evaluation.benchmarks.ds1000 import DS1000, ENVIRONMENT, STOPS
from starsmith.evaluation.contamination import HasTexts
from starsmith.evaluation.contract import Candidate, Completion, Limits, MissingDataError, Problem, Score
from starsmith.evaluation.sandbox.pool import Sandbox

TESTS = '''
import copy


def generate_test_case(test_case_id):
    values = [[3, 1, 2], [5, 5]][test_case_id - 1]
    return values, EXPECTED(copy.deepcopy(values))


def exec_test(result, ans):
    try:
        assert result == ans
        return 1
    except:
        return 0


exec_context = r"""
values = test_input
[insert]
"""


def test_execution(solution: str):
    code = exec_context.replace("[insert]", solution)
    for i in range(2):
        test_input, expected_result = generate_test_case(i + 1)
        test_env = {"test_input": test_input}
        exec(code, test_env)
        assert exec_test(test_env["result"], expected_result)
'''
LOOKS_FOR_SORTED = """

def test_string(solution: str):
    assert "sorted" in solution
"""


def row(number: int, library: str, expected: str, reference: str, tests: str = TESTS) -> dict[str, object]:
    return {
        "prompt": f"Problem:\nGive {expected} of values.\nA:\n<code>\nvalues = [3, 1, 2]\n</code>\n"
        "result = ... # put solution in this variable\nBEGIN SOLUTION\n<code>\n",
        "reference_code": reference,
        "code_context": tests.replace("EXPECTED", expected),
        "metadata": {"problem_id": number, "library": library, "test_case_cnt": 2},
    }


ROWS = [
    row(0, "Lists", "sorted", "result = sorted(values)", TESTS + LOOKS_FOR_SORTED),
    row(1, "Lists", "max", "result = max(values)"),
    row(2, "Sums", "sum", "result = 0\nfor value in values:\n    result += value\n"),
    row(
        3,
        "Sums",
        "len",
        "    return len(values)",
        TESTS.replace("\n[insert]\n", "\ndef f(values):\n[insert]\nresult = f(values)\n"),
    ),
]
PACKAGES = {
    name: pin for name, _, pin in (each.partition("==") for each in toolchains.ENVIRONMENTS[ENVIRONMENT].split())
}


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds an environment that claims to have every package and has none; the problems made here need none."""
    folder = tmp_path_factory.mktemp("environments")
    venv.create(folder / ENVIRONMENT, symlinks=True, with_pip=False)
    for name, version in PACKAGES.items():
        claim(folder, name, version or "1.0")
    return folder


def claim(environments: Path, name: str, version: str) -> None:
    packages = next((environments / ENVIRONMENT / "lib").iterdir()) / "site-packages"
    file_name = name.replace("-", "_")
    for old in packages.glob(f"{file_name}-*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    folder = packages / f"{file_name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def ds1000(environments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DS1000]:
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(environments))
    yield DS1000(data=written_rows(tmp_path, "ds1000/ds1000.jsonl", ROWS))


def test_the_prompt_is_the_data_s_and_sampling_the_paper_s(ds1000: DS1000) -> None:
    requests = ds1000.requests(ds1000.load()[0])
    assert len(requests) == 40 and len({request.seed for request in requests}) == 40
    (asked,) = {(each.prompt, each.stop, each.temperature, each.top_p, each.max_new_tokens) for each in requests}
    assert asked == (ROWS[0]["prompt"], ("</code>", "# SOLUTION END", "<file_sep>"), 0.2, 0.95, 1024)
    assert asked[1] == STOPS


def test_what_is_looked_for_in_a_corpus_ends_before_the_answer(ds1000: DS1000) -> None:
    assert isinstance(ds1000, HasTexts)
    (text,) = ds1000.texts(ds1000.load()[0])
    assert text.startswith("Problem:\nGive sorted") and text.endswith("# put solution in this variable\n")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("result = 1\n", "result = 1\n\n"),
        ("result = 1\n</code>\nAnd so on", "result = 1\n\n"),
        ("\n    return 1\n\n# SOLUTION END\nplt.show()", "\n    return 1\n\n\n"),
        ("result = 1\nEND SOLUTION\n", "result = 1\n"),
        ("<code>\nresult = 1", "\nresult = 1\n"),
        ("```python\nresult = 1\n```\nThat is it.", "\nresult = 1\n\n"),
        ("result = 1<file_sep>import os", "result = 1\n"),
    ],
)
def test_the_answer_ends_where_its_authors_end_it(ds1000: DS1000, completion: str, answer: str) -> None:
    assert ds1000.extract(ds1000.load()[0], Completion(text=completion)).text == answer


def test_answers_of_known_worth(python_sandbox: Sandbox, ds1000: DS1000) -> None:
    assert_known_worth(python_sandbox, ds1000, ds1000.load())


def test_each_label(python_sandbox: Sandbox, ds1000: DS1000) -> None:
    answers = {
        "result = sorted(values)": "pass",
        "print('shown')\nresult = sorted(values)": "pass",
        "import sys\nsys.stdout = None\nresult = sorted(values)": "pass",
        "values.sort()\nresult = values": "wrong",  # `test_string` looks for the word
        "result = sorted(values)[::-1]": "wrong",
        "result = sorted(values": "compile",
        "eval('sorted(')": "runtime",
        "values = undefined": "runtime",
        "ordered = sorted(values)": "runtime",
        "raise SystemExit  # sorted": "runtime",
        "import os\nos._exit(0)  # sorted": "runtime",
        "while True: sorted(values)": "timeout",
        "\ud800": "runtime",
        "# " + "sorted" * 300_000: "runtime",
    }
    assert labels(python_sandbox, ds1000, ds1000.load()[0], list(answers)) == list(answers.values())


def test_pass_at_1_of_all_and_of_each_library(ds1000: DS1000) -> None:
    passed = {"0": [1, 1], "1": [0, 1], "2": [0, 0], "3": [1, 0]}
    groups = {"0": "Lists", "1": "Lists", "2": "Lists", "3": "Sums"}
    scores = [
        Score(
            problem=problem,
            sample=sample,
            group=groups[problem],
            label="pass" if value else "wrong",
            value=float(value),
        )
        for problem, values in passed.items()
        for sample, value in enumerate(values)
    ]
    found = ds1000.aggregate(scores, seed=0)
    assert list(found) == ["pass@1", "pass@1/Lists", "pass@1/Sums"]
    assert {name: (each.value, each.n) for name, each in found.items()} == {
        "pass@1": (0.5, 4),  # over problems, not over libraries
        "pass@1/Lists": (0.5, 3),
        "pass@1/Sums": (0.5, 1),
    }


@pytest.fixture
def needs_a_sandbox(python_sandbox: Sandbox) -> None:
    """Skips where none works."""


@pytest.mark.usefixtures("needs_a_sandbox")
def test_an_evaluation_from_end_to_end(ds1000: DS1000, tmp_path: Path) -> None:
    answers = {"0": "result = sorted(values)", "1": "result = max(values)\n</code>", "2": "result = (", "3": ""}
    backend = ScriptedBackend(lambda request: answers[request.problem])
    config = recipe.Evaluation(benchmarks=("ds1000",), data=ds1000.data, samples=2)
    found = runner.evaluate(backend, config, heldout=[], folder=tmp_path / "out", workers=2)["benchmarks"][
        "ds1000"
    ]
    assert found["estimates"]["pass@1"]["value"] == 0.5 and found["groups"] == {"Lists": 2, "Sums": 2}
    assert found["group_estimates"]["Lists"]["pass@1"]["value"] == 1.0
    assert found["labels"] == {"compile": 4, "pass": 4} and found["skipped"] == {}
    assert found["preflight"]["num_references_passed"] == 4 and found["excluded"] == {}
    ours = {each["model"]: each["value"] for each in found["published"][:3]}
    assert ours == {"StarCoder2-3B": 0.25, "StarCoder2-7B": 0.278, "StarCoder2-15B": 0.338}


@pytest.mark.usefixtures("needs_a_sandbox")
def test_without_its_environment_it_is_skipped_and_named(
    ds1000: DS1000, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path / "none"))
    config = recipe.Evaluation(benchmarks=("ds1000",), data=ds1000.data, samples=1)
    backend = ScriptedBackend(lambda request: "")
    found = runner.evaluate(backend, config, heldout=[], folder=tmp_path / "out")["benchmarks"]["ds1000"]
    assert backend.num_asked == 0 and found["num_skipped_problems"] == 4 and found["estimates"] == {}
    assert "pip install numpy==1.26.4 pandas==1.5.3" in found["skipped"]["ds1000"]
    checked = references.check(config, heldout=[], folder=tmp_path / "references")
    assert "torch==2.2.0" in checked.skipped["ds1000"]["ds1000"] and not checked.rows[0].num_references


@pytest.mark.parametrize(("version", "is_there"), [("2.2.0", True), ("2.2.0+cpu", True), ("2.2.1", False)])
def test_an_environment_with_other_versions_is_missing(
    environments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_there: bool
) -> None:
    shutil.copytree(environments, tmp_path / "own", symlinks=True)
    claim(tmp_path / "own", "torch", version)
    monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(tmp_path / "own"))
    assert (toolchains.missing([ENVIRONMENT]) == {}) == is_there


def test_a_verdict_hangs_on_packages_and_data_sets(
    environments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = set()
    for name in ("as it is", "another package", "a data set"):
        folder = tmp_path / name
        shutil.copytree(environments, folder, symlinks=True)
        if name == "another package":
            claim(folder, "joblib", "1.3.2")
        elif name == "a data set":
            (folder / ENVIRONMENT / "share" / "seaborn").mkdir(parents=True)
            (folder / ENVIRONMENT / "share" / "seaborn" / "tips.csv").write_text("tip\n")
        monkeypatch.setenv(toolchains.ENVIRONMENTS_VARIABLE, str(folder))
        versions.add(toolchains.find(ENVIRONMENT).version())
    assert len(versions) == 3 and None not in versions


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"ds1000\.jsonl.*xlang-ai/DS-1000"):
        DS1000(data=tmp_path).load()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"code_context": None}, "line 1: code_context must be str"),
        ({"code_context": "import numpy"}, "problem 0: code_context must hold test_execution"),
        ({"metadata": {"lib": "Numpy"}}, "problem 0: metadata must hold library"),
    ],
)
def test_data_of_another_edition_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    data = written_rows(tmp_path, "ds1000/ds1000.jsonl", [copy.deepcopy(ROWS[0]) | change])
    with pytest.raises(InputError, match=says):
        DS1000(data=data).load()


def test_the_real_data_has_the_paper_s_libraries() -> None:
    problems = DS1000(data=real_data("ds1000")).load()
    assert Counter(problem.group for problem in problems) == {
        "Pandas": 291,
        "Numpy": 220,
        "Matplotlib": 155,
        "Sklearn": 115,
        "Scipy": 106,
        "Pytorch": 68,
        "Tensorflow": 45,
    }
    assert [problem.id for problem in problems] == [str(number) for number in range(1000)]


def test_real_problems_in_the_pinned_environment(python_sandbox: Sandbox) -> None:
    ds1000 = DS1000(data=real_data("ds1000"))
    if lines := toolchains.missing([ENVIRONMENT]):
        pytest.skip(f"no environment: {lines[ENVIRONMENT]}")
    first: dict[str, Problem] = {}
    for problem in ds1000.load():
        first.setdefault(problem.group, problem)
    assert_known_worth(python_sandbox, ds1000, list(first.values()))
    wrong = [
        (problem, Candidate(text=first["Numpy"].inputs["reference"]))
        for problem in (first["Pandas"], first["Scipy"])
    ]
    limits = Limits(cpu_seconds=30.0, wall_seconds=90.0)
    assert "pass" not in [score.label for score in judged(python_sandbox, ds1000, wrong, limits)]
