"""`starsmith evaluate` as its users start it: every benchmark at hand, killed, interrupted, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program_cases import SHARED
from test_evaluation_backends import make_folder

from starsmith.errors import MachineError
from starsmith.evaluation import registry
from starsmith.evaluation.benchmarks.humaneval import HumanEval
from starsmith.evaluation.sandbox import selftest

STARSMITH = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's jobs may ignore it
    "from starsmith.cli import main; main()",
)
MANY = ("--benchmarks", "humaneval", "--max-problems", "24", "--samples", "8", "--temperature", "0.8")
NUM_ASKED = 24 * 8
TORN = '{"key": "torn", "value": {"te'
FEW = ("--max-problems", "1", "--samples", "1", "--max-new-tokens", "8")


@pytest.fixture(autouse=True, scope="module")
def _needs_a_sandbox() -> None:
    try:
        selftest.choose("auto")
    except MachineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("road") / "made")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*STARSMITH, "evaluate", *words],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def evaluated(folder: Path, *words: str) -> str:
    process = start(folder, *words)
    said, complained = process.communicate(timeout=300)
    assert process.returncode == 0, said + complained
    return said


def entries(journal: Path) -> list[str]:
    """The keys of a journal's whole lines, in order."""
    if not journal.is_file():
        return []
    lines = journal.read_text().split("\n")[:-1]
    return [json.loads(line)["key"] for line in lines if line and line != TORN]


def wait_until(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_killed_and_interrupted_it_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    """Killed while the model answers, its journal torn, interrupted while programs run, then left alone."""
    words = ("--model", str(model), *MANY, "--max-new-tokens", "48")
    out = tmp_path / "broken"
    generations = out / "cache" / "generations.jsonl"

    process = start(tmp_path, *words, "--out", "broken")
    wait_until(process, lambda: len(entries(generations)) > 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    answered = entries(generations)
    assert answered and not (out / "results.json").exists()
    with generations.open("a") as journal:
        journal.write(TORN)

    process = start(tmp_path, *words, "--out", "broken")
    wait_until(process, lambda: len(entries(generations)) == NUM_ASKED)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == "starsmith: interrupted; answers and verdicts are kept, the same command continues\n"

    evaluated(tmp_path, *words, "--out", "broken")
    evaluated(tmp_path, *words, "--out", "whole")
    for name in ("results.json", "generations.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    kept = entries(generations)
    assert kept[: len(answered)] == answered, "what was answered before the kill stays"
    assert len(kept) == len(set(kept)) == NUM_ASKED, "and nothing was answered twice"


def test_our_own_model_on_every_benchmark_at_hand(model: Path, tmp_path: Path) -> None:
    """Of a set without data here, the results say which file and where it comes from."""
    scorer = f"lexicon:{SHARED / 'honest' / 'hurtlex_EN.tsv.gz'}"
    words = ("--model", str(model), "--benchmarks", "all", *FEW, "--data", str(SHARED), "--toxicity", scorer)
    words += ("--out", "all")
    process = start(tmp_path, *words)
    generations = tmp_path / "all" / "cache" / "generations.jsonl"
    wait_until(process, lambda: len(entries(generations)) > 0 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = entries(generations)

    said = evaluated(tmp_path, *words)
    found = results(tmp_path / "all")
    assert found["benchmarks"].keys() | found["absent"].keys() == set(registry.GROUPS["all"])
    for name, reason in found["absent"].items():
        assert (str(SHARED) in reason and "it comes from" in reason) or "scorer" in reason
        assert f"not run: {name}: {reason}" in said
    for name, benchmark in found["benchmarks"].items():
        assert {"estimates", "labels", "contamination", "toolchains", "skipped"} <= benchmark.keys()
        if benchmark["num_problems"]:
            assert sum(benchmark["labels"].values()) > 0, f"{name} judged nothing"
        assert name in said
    page = (tmp_path / "all" / "report.html").read_text()
    for name in (*found["benchmarks"], *found["absent"]):
        assert f">{name.replace('_', ' ')}" in page, f"{name} is not on the page"
    answered = entries(generations)
    assert answered[: len(before)] == before and len(answered) == len(set(answered))
    if SHARED.is_dir():
        assert len(found["benchmarks"]) > len(found["absent"])


def test_a_corpus_that_holds_problems_is_told(model: Path, tmp_path: Path) -> None:
    first, second, *_ = HumanEval().load()
    texts = [second.inputs["prompt"] + second.inputs["canonical_solution"], "print('something else')"]
    pq.write_table(pa.table({"content": texts, "path": ["/leak.py", "/other.py"]}), tmp_path / "corpus.parquet")
    words = ("--model", str(model), "--benchmarks", "humaneval", *FEW, "--max-problems", "2")
    said = evaluated(tmp_path, *words, "--corpus", "corpus.parquet", "--out", "told")
    found = results(tmp_path / "told")["benchmarks"]["humaneval"]
    assert list(found["contamination"]["problems"]) == [second.id] != [first.id]
    assert found["contamination"]["problems"][second.id]["path"] == "/leak.py"
    assert (found["estimates"]["pass@1"]["n"], found["estimates_without_contaminated"]["pass@1"]["n"]) == (2, 1)
    assert f"contaminated: {second.id}: a whole text at bytes" in said
    assert found["toolchains"] == {"python": ".".join(map(str, sys.version_info[:3]))}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--device", "abacus"), "no device 'abacus' here"),
        (("--corpus", "nowhere"), "no finished run in nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    model: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    process = start(tmp_path, "--model", str(model), "--benchmarks", "humaneval", *FEW, *words)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 2 and said == ""
    assert told in complained and len(complained.splitlines()) <= 3 and "Traceback" not in complained
