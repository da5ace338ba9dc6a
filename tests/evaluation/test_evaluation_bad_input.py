"""What a model may write, and what a data file may hold: survived, labelled, explained."""

import functools
import gzip
import json
from pathlib import Path

import pytest
from evaluation_cases import ScriptedBackend
from program_cases import SHARED

from starsmith import recipe
from starsmith.errors import InputError, MachineError
from starsmith.evaluation import registry
from starsmith.evaluation.contract import MissingDataError, Request
from starsmith.evaluation.runner import evaluate
from starsmith.evaluation.sandbox import selftest

WRITTEN = {
    "megabytes": lambda reference: reference + "    # " + "x" * 3_000_000 + "\n",
    "a megabyte of lines": lambda reference: reference + "    pass\n" * 100_000,
    "a lone surrogate": lambda reference: reference + "    '\ud800'\n",
    "a zero byte": lambda reference: reference + "    '\0'\n",
    "all controls": lambda reference: reference + "".join(map(chr, range(32))),
    "deep brackets": lambda reference: "\n    return " + "(" * 100_000,
    "endless output": lambda reference: "\n    while True: print('x' * 1000)\n",
    "binary output": lambda reference: "\n    import os\n    os.write(1, bytes(range(256)) * 4)\n" + reference,
    "nothing": lambda reference: "",
}  # type: dict[str, Callable[[str], str]]
LABELS = {
    "megabytes": {"pass"},
    "a megabyte of lines": {"pass", "oom", "timeout"},
    "a lone surrogate": {"compile", "runtime", "wrong", "pass"},
    "a zero byte": {"compile", "runtime", "wrong"},
    "all controls": {"compile", "runtime", "wrong", "pass"},
    "deep brackets": {"compile", "runtime", "oom"},
    "endless output": {"limit", "timeout"},
    "binary output": {"pass"},
    "nothing": {"wrong", "runtime", "compile"},
}


@pytest.fixture(scope="module")
def _needs_a_sandbox() -> None:
    try:
        selftest.choose("auto")
    except MachineError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_needs_a_sandbox")
def test_whatever_a_model_writes_gets_a_label(tmp_path: Path) -> None:
    config = recipe.Evaluation(benchmarks=("humaneval",), max_problems=len(WRITTEN))
    problems = registry.make("humaneval", config, [], 42).load()[: len(WRITTEN)]
    kinds = dict(zip((problem.id for problem in problems), WRITTEN, strict=True))
    references = {problem.id: "\n" + problem.inputs["canonical_solution"] for problem in problems}

    def script(request: Request) -> str:
        return WRITTEN[kinds[request.problem]](references[request.problem])

    backend = ScriptedBackend(script)
    results = evaluate(backend, config, heldout=[], folder=tmp_path, workers=2, cache=tmp_path / "cache")
    rows = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text().splitlines()]
    labels = {kinds[row["problem"]]: row["label"] for row in rows}
    assert {kind for kind, label in labels.items() if label not in LABELS[kind]} == set(), labels
    assert results["benchmarks"]["humaneval"]["excluded"] == {}
    assert (tmp_path / "cache" / "verdicts.jsonl").stat().st_size < 1_000_000, "verdicts keep the ends of outputs"
    again = evaluate(backend, config, heldout=[], folder=tmp_path / "2", workers=2, cache=tmp_path / "cache")
    assert again == results and backend.num_asked == len(WRITTEN), "what was journalled reads back the same"


SETS = [
    (name, folder)
    for name in registry.GROUPS["all"]
    if (folder := registry.data_folder(name)) is not None and (SHARED / folder).is_dir()
]
DAMAGE = {
    "empty": b"",
    "prose": b"Not here any more.\n",
    "other": b'{"version": 9}\n',
    "utf-16": b"\xff\xfe{\x00}",
}


def damaged(path: Path, what: str) -> bytes:
    """A file with the same name and another content."""
    raw = path.read_bytes()
    if what == "cut":
        return raw[: len(raw) // 2]
    return gzip.compress(DAMAGE[what]) if path.suffix == ".gz" else DAMAGE[what]


@functools.cache
def absent(name: str) -> str:
    """Why a benchmark is not at hand: another part of its set is, or it needs a scorer."""
    try:
        registry.make(name, recipe.Evaluation(data=SHARED), [], 42).load()
    except MissingDataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("what", [*DAMAGE, "cut"])
@pytest.mark.parametrize(("name", "folder"), SETS)
def test_data_files_of_another_version_are_named(tmp_path: Path, name: str, folder: str, what: str) -> None:
    """Every file of a set is replaced; a set is never read as fewer problems without a word."""
    if why := absent(name):
        pytest.skip(why)
    for path in sorted((SHARED / folder).rglob("*")):
        if path.is_file():
            place = tmp_path / folder / path.relative_to(SHARED / folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(damaged(path, what))
    for other in SHARED.iterdir():
        if other.is_dir() and other.name != folder:
            (tmp_path / other.name).symlink_to(other)
    with pytest.raises(InputError) as told:
        registry.make(name, recipe.Evaluation(data=tmp_path), [], 42).load()
    assert not isinstance(told.value, MissingDataError)
    assert str(tmp_path) in str(told.value) and len(str(told.value)) < 1_000
