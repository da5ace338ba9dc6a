"""The road as a whole, on a small folder: reuse, reasons, interruption, and the same bytes for any workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from starsmith import plan, recipe
from starsmith.corpus.store import Result
from starsmith.errors import InputError

LEDGER = "policies/decisions"
MIT = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation
the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of
the Software.
"""


def write_corpus(folder: Path) -> None:
    """Two small repositories: modules that resemble each other, a long line, a binary, an e-mail address, and a
    file that stands twice."""
    function = "def add_{0}(first, second):\n    total = first + second\n    return total * {0}\n\n"
    for name in ("one", "two"):
        root = folder / name
        (root / "src").mkdir(parents=True)
        (root / "LICENSE").write_text(MIT)
        (root / "src" / "shared.py").write_text("".join(function.format(number) for number in range(30)))
        (root / "src" / f"{name}.py").write_text(
            f'"""Module {name}."""\nAUTHOR = "someone.{name}@company-mail.org"\n'
            + "".join(function.format(number * 7 + len(name)) for number in range(5, 25))
        )
        (root / "src" / "long.py").write_text(f"{name} = '" + "word " * 300 + "'\n" + "value = 1\n" * 40)
        (root / "blob.bin").write_bytes(b"\0\1\2" * 50 + name.encode())


def make_recipe(folder: Path, **changes: Any) -> recipe.Recipe:
    raw: dict[str, Any] = {
        "run": {"name": "small", "folder": str(folder / "runs"), "cache": str(folder / "cache"), "workers": 1},
        "sources": [
            {"type": "folder", "path": str(folder / "code" / name), "repo_name": name} for name in ("one", "two")
        ],
        "corpus": {"partitions": 16},
        "decontamination": {"packaged_humaneval": False},
    }
    for table, values in changes.items():
        raw[table] = {**raw.get(table, {}), **values}
    return recipe.parse(raw)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus, run once up to the ledger."""
    folder = tmp_path_factory.mktemp("plan")
    write_corpus(folder / "code")
    plan.execute(plan.make(make_recipe(folder), to=LEDGER))
    return folder


def digests(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.digest() for name, result in results.items()}


def states(planned: plan.Plan) -> dict[str, str]:
    return {step.step.name: step.state for step in planned.steps}


def test_a_second_run_does_nothing(corpus: Path) -> None:
    planned = plan.make(make_recipe(corpus), to=LEDGER)
    assert planned.pending == ()
    before = {place: place.stat().st_mtime_ns for place in (corpus / "runs" / "store").rglob("*.parquet")}
    plan.execute(planned)
    assert before == {place: place.stat().st_mtime_ns for place in (corpus / "runs" / "store").rglob("*.parquet")}
    assert len(list((corpus / "runs" / "small" / "history").glob("*.json"))) == 1


def test_a_changed_threshold_reruns_only_queries_and_says_why(corpus: Path) -> None:
    planned = plan.make(make_recipe(corpus, filters={"max_line_length": 500}), to=LEDGER)
    assert [step.step.name for step in planned.pending] == [LEDGER]
    [step] = planned.pending
    assert step.step.reads == "columns"
    assert "filters.max_line_length is 500, was 1000" in step.reason


def test_a_changed_license_policy_scans_nothing_again(corpus: Path) -> None:
    planned = plan.make(make_recipe(corpus, licenses={"keep": ["permissive"]}), to=LEDGER)
    assert [step.step.name for step in planned.pending] == [LEDGER]


def test_a_changed_file_reads_only_its_source_again(tmp_path: Path) -> None:
    write_corpus(tmp_path / "code")
    plan.execute(plan.make(make_recipe(tmp_path), to="contents"))
    (tmp_path / "code" / "one" / "src" / "one.py").write_text("changed = True\n" * 20)
    pending = [step.step.name for step in plan.make(make_recipe(tmp_path), to="contents").pending]
    assert pending == [name for name in pending if "one" in name or name == "contents"]
    assert len(pending) == 2


def test_the_ledger_holds_what_a_reader_of_the_corpus_would_expect(corpus: Path) -> None:
    found = plan.results(corpus / "runs" / "small")
    ledger = {
        (row["rule"], row["file_id"]) for row in found[LEDGER].read("decisions", ["rule", "file_id"]).to_pylist()
    }
    rules = [rule for rule, _ in ledger]
    assert sum(rule.startswith("binary") or rule == "status" for rule in rules) == 2
    assert {"max_line_length", "exact_duplicate", "near_duplicate", "pii"} <= set(rules)
    kept = found[LEDGER].read("kept", ["repo_name", "path", "license_type"]).to_pylist()
    modules = [row for row in kept if row["path"] in ("/src/one.py", "/src/two.py")]
    assert [row["license_type"] for row in modules] == ["permissive"]  # they differ in a name and some numbers
    assert sum(row["path"] == "/src/shared.py" for row in kept) == 1


def test_any_number_of_workers_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    one = plan.results(corpus / "runs" / "small")
    two = plan.execute(
        plan.make(make_recipe(corpus, run={"folder": str(tmp_path / "runs"), "workers": 2}), to=LEDGER)
    )
    assert digests(one) == digests(two)


def test_a_killed_run_continues_and_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    """Kills the run at several moments, each time further on, until it ends by itself."""
    script = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from starsmith import plan, recipe\n"
        "if __name__ == '__main__':\n"
        "    chosen = recipe.Recipe.model_validate(json.loads(sys.argv[1]))\n"
        "    plan.execute(plan.make(chosen, to='policies/decisions'))\n"
    )
    program = tmp_path / "run.py"
    program.write_text(script)
    changed = make_recipe(corpus, run={"folder": str(tmp_path / "runs")})
    command = [sys.executable, str(program), changed.model_dump_json()]
    for seconds in (2.5, 4.0, 6.0):
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert digests(plan.results(tmp_path / "runs" / "small")) == digests(plan.results(corpus / "runs" / "small"))


def test_an_unknown_step_or_run_is_named(corpus: Path) -> None:
    with pytest.raises(InputError, match="no step 'decisions'; the steps are"):
        plan.make(make_recipe(corpus), to="decisions")
    with pytest.raises(InputError, match="no finished run in"):
        plan.results(corpus / "runs" / "smal")
    with pytest.raises(InputError, match="has 1 finished runs"):
        plan.results(Path(f"{corpus}/runs/small@7"))


def test_a_source_named_twice_is_refused(corpus: Path) -> None:
    raw = make_recipe(corpus).model_dump(mode="json")
    raw["sources"].append(raw["sources"][0])
    with pytest.raises(InputError, match="twice"):
        plan.make(recipe.parse(raw), to=LEDGER)
