"""Harnesses: the same samples judged by us, by EvalPlus and by bigcode-evaluation-harness, in one run.

A sample is a whole program that no model wrote: the reference of each problem of HumanEval+ and MBPP+, changes
of it (one operator, comparison or number is another), and for a few problems programs that misbehave (loops,
early exits, greed, and three that forge a verdict, each written against one of the harnesses). All are made
from the data alone, so every run has the same.

Compared are wall time, processor time (of all processes) and verdicts, with two workers each:

* **EvalPlus** runs its own `evaluate` with its own limits (a second an input or four times the reference). It
  computes expected outputs once for a machine; that is timed by itself, beside our references.
* **bigcode-evaluation-harness** runs its own `compute_code_eval` over the tests that EvalPlus wrote for it
  (`*-OriginFmt.jsonl.gz`), with the time limits of its tasks (20 s and 10 s). It is on no package index: get
  `git clone https://github.com/bigcode-project/bigcode-evaluation-harness` and name the folder with `--bigcode` or
  the variable `BIGCODE_EVALUATION_HARNESS`; without it its rows are left out.

Neither peer confines what it runs; these samples are harmless, and a limit of memory is set for the second. We run
on each sandbox level that works here, compute the expected outputs anew in each program, and isolate every one.
Verdicts that differ are listed with why; one that the limits of either side do not explain is counted, and the
target is none.
"""

import argparse
import ast
import gzip
import json
import os
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import peers, table
from starsmith.errors import MachineError
from starsmith.evaluation.benchmarks import humaneval_plus, mbpp_plus
from starsmith.evaluation.benchmarks.evalplus_programs import EvalPlus
from starsmith.evaluation.benchmarks.humaneval_plus import HumanEvalPlus
from starsmith.evaluation.benchmarks.mbpp_plus import MbppPlus
from starsmith.evaluation.contract import Candidate, Limits, Problem, Score, content_key
from starsmith.evaluation.execution import Executor, limited, preflight
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox import selftest
from starsmith.evaluation.sandbox.pool import Level, Sandbox

VARIABLE = "BIGCODE_EVALUATION_HARNESS"
Peer = Literal["EvalPlus", "bigcode"]
ORDINARY = ("reference", "changed")
"""Timed by themselves: what loops takes its limit, 1 s an input in EvalPlus, 3 s here, 10 or 20 s in the other."""
NUM_WORKERS = 2
PEER_SECONDS = 3000.0
SIZES = {"small": (8, 1, 1), "full": (100, 1, 2)}
"""The first problems of a set, changed programs a problem, and problems that misbehaving programs are made for."""


@dataclass(frozen=True, kw_only=True)
class Set:
    benchmark: EvalPlus
    file: Path
    """Its problems."""
    short: str
    """As EvalPlus names it."""
    tests: str
    """The file with tests as programs, in the set's folder."""
    timeout_seconds: float
    """Of a program in bigcode-evaluation-harness."""


@dataclass(frozen=True)
class Sample:
    problem: str
    kind: str
    """`reference`, `changed`, or the name of what misbehaves."""
    text: str


@dataclass(frozen=True)
class Judged:
    """A harness's verdicts, in the order of the samples, and what they took."""

    verdicts: list[str]
    """`pass`, or what else it says."""
    wall_seconds: float
    cpu_seconds: float
    reference_seconds: float | None = None


MISBEHAVING: Mapping[str, str] = {
    "syntax error": "def @E@(:\n    pass\n",
    "loops for ever": "def @E@(*arguments):\n    while True:\n        pass\n",
    "sys.exit(0) at its start": "import sys\nsys.exit(0)\n",
    "os._exit(0) at its start": "import os\nos._exit(0)\n",
    "os._exit(0) in the function": "import os\ndef @E@(*arguments):\n    os._exit(0)\n",
    "prints that it passed and leaves": "import os\nprint('passed', flush=True)\nos._exit(0)\n",
    "raises in the function": "def @E@(*arguments):\n    raise KeyError('no')\n",
    "is equal to everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\n"
        "    def __hash__(self):\n        return 0\n"
        "    def __iter__(self):\n        return iter(())\n    def __len__(self):\n        return 0\n"
        "def @E@(*arguments):\n    return Any()\n"
    ),
    "right, and takes 1 GiB": "@R@\n\n_taken = bytearray(1 << 30)\n",
    "right, and opens a file": "@R@\n\nwith open('scratch', 'w') as _file:\n    _file.write('x')\n",
    "right, and starts a process": "import subprocess\nsubprocess.run(['true'], check=True)\n@R@\n",
    "right, and prints": "print('x' * 1000)\n@R@\n",
    "forges bigcode's verdict": (
        "import os, sys\nframe = sys._getframe()\nwhile frame:\n    found = frame.f_locals.get('result')\n"
        "    if hasattr(found, 'append'):\n        found.append('passed')\n        os._exit(0)\n"
        "    frame = frame.f_back\n"
    ),
    "forges EvalPlus's verdict": (
        "import os, sys\nframe = sys._getframe()\nwhile frame:\n    own = frame.f_locals\n"
        "    if 'stat' in own and 'details' in own:\n"
        "        for n in range(len(own['details'])):\n            own['details'][n] = True\n"
        "        own['progress'].value = len(own['details'])\n        own['stat'].value = 0\n        os._exit(0)\n"
        "    frame = frame.f_back\n"
    ),
    "forges our verdict": (
        "import json, os, sys\nfolder = os.path.dirname(sys.argv[0])\n"
        "proof = json.load(open(os.path.join(folder, 'problem.json')))['proof']\n"
        "os.write(1, f'\\n{proof}\\n'.encode())\nos._exit(0)\n"
    ),
}  # fmt: skip
"""Name to source: @E@ is the function's name, @R@ the reference."""

_FORGED = "code in the process that reports the verdict can report what it likes, if it knows the harness"
WHY: Mapping[tuple[str, Peer], str] = {
    ("right, and takes 1 GiB", "EvalPlus"): "memory: 512 MiB here, 4 GiB there",
    ("right, and takes 1 GiB", "bigcode"): "memory: 512 MiB here, no limit there",
    (
        "right, and opens a file",
        "EvalPlus",
    ): "it takes `open` away; here a program has a folder of its own",
    ("right, and starts a process", "EvalPlus"): "it takes `Popen` away; here 16 processes are allowed",
    ("right, and starts a process", "bigcode"): "it takes `Popen` away; here 16 processes are allowed",
    ("forges bigcode's verdict", "bigcode"): _FORGED,
    ("forges EvalPlus's verdict", "EvalPlus"): _FORGED,
    ("forges our verdict", "EvalPlus"): _FORGED,
    ("forges our verdict", "bigcode"): _FORGED,
    ("HumanEval/32", "EvalPlus"): "its special case for this problem never counts an input as passed",
    ("HumanEval/32", "bigcode"): "the tests that EvalPlus wrote for it mix up input and answer",
}
"""By kind of sample, or by problem: no answer to HumanEval/32 passes there, not the reference either."""


def main() -> None:
    arguments = _arguments()
    if arguments.data is None:
        raise SystemExit("python -m benchmarks.harnesses needs --data, a folder with humanevalplus/ and mbppplus/")
    sets = (
        Set(
            benchmark=HumanEvalPlus(data=arguments.data),
            file=humaneval_plus.DATA.file(arguments.data, "HumanEvalPlus.jsonl.gz"),
            short="humaneval",
            tests="humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz",
            timeout_seconds=20.0,
        ),
        Set(
            benchmark=MbppPlus(data=arguments.data),
            file=mbpp_plus.DATA.file(arguments.data, "MbppPlus.jsonl.gz"),
            short="mbpp",
            tests="mbppplus/MbppPlus-OriginFmt.jsonl.gz",
            timeout_seconds=10.0,
        ),
    )
    rows = [row for each in sets for row in _rows(each, arguments)]
    table.publish(rows, (), arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--data", type=Path, help="a folder of benchmark data, a subfolder a set")
    named = os.environ.get(VARIABLE)
    parser.add_argument(
        "--bigcode",
        type=Path,
        default=Path(named) if named else None,
        help="a checkout of bigcode-evaluation-harness",
    )
    return parser.parse_args()


def _rows(chosen: Set, arguments: argparse.Namespace) -> Iterator[table.Row]:
    num_problems, num_changed, num_misbehaving = SIZES[arguments.scale]
    problems = chosen.benchmark.load()[:num_problems]
    samples = make_samples(chosen.benchmark, problems, num_changed, num_misbehaving)
    ordinary = [sample for sample in samples if sample.kind in ORDINARY]
    misbehaving = [sample for sample in samples if sample.kind not in ORDINARY]
    yield from _compared(chosen, arguments, problems, ordinary, "references and changes")
    yield from _compared(chosen, arguments, problems[:num_misbehaving], misbehaving, "misbehaving")


def _compared(
    chosen: Set, arguments: argparse.Namespace, problems: Sequence[Problem], samples: Sequence[Sample], what: str
) -> Iterator[table.Row]:
    ours = {level: _ours(chosen.benchmark, problems, samples, level) for level in _levels()}
    theirs = _theirs(chosen, arguments, problems, samples)
    name = f"{chosen.benchmark.name}, {len(samples):,} {what}"
    for level, own in ours.items():
        for time_of, mine in (("wall", own.wall_seconds), ("processor", own.cpu_seconds)):
            if not theirs:
                yield table.row(f"{name}, {level}, {time_of}", mine, "s")
            for peer, other in theirs.items():
                taken = other.wall_seconds if time_of == "wall" else other.cpu_seconds
                yield table.row(f"{name}, {level}, {time_of}", mine, "s", peer=taken, peer_name=peer)
        outputs = theirs["EvalPlus"].reference_seconds if "EvalPlus" in theirs else None
        yield table.row(
            f"{name}, {level}, references once a machine", own.reference_seconds or 0.0, "s",
            peer=outputs, peer_name="EvalPlus's expected outputs",
        )  # fmt: skip
    first, *others = ours
    for level in others:
        unlike = sum(map(str.__ne__, ours[level].verdicts, ours[first].verdicts))
        yield table.row(f"{name}, labels on {level} unlike {first}'s", unlike, "samples", target=0)
    for peer, other in theirs.items():
        differing = list(disagreements(samples, ours[first].verdicts, other.verdicts, peer))
        print(f"\n{name}: {len(samples) - len(differing):,} verdicts equal {peer}'s, {len(differing)} differ:")
        for line, count in Counter(f"{text}: {why or 'NOT EXPLAINED'}" for text, why in differing).items():
            print(f"  {count} x {line}")
        unexplained = sum(why is None for _, why in differing)
        yield table.row(f"{name}, verdicts unlike {peer}'s", len(differing), "samples")
        yield table.row(f"{name}, of these not explained", unexplained, "samples", target=0)


def _theirs(
    chosen: Set, arguments: argparse.Namespace, problems: Sequence[Problem], samples: Sequence[Sample]
) -> dict[Peer, Judged]:
    """Of each peer that can be had."""
    found: dict[Peer, Judged] = {}
    try:
        found["EvalPlus"] = _evalplus(chosen, problems, samples)
    except MachineError as error:
        print(f"EvalPlus is absent: {error}")
    try:
        found["bigcode"] = _bigcode(chosen, arguments, samples)
    except MachineError as error:
        print(f"bigcode-evaluation-harness is absent: {error}")
    return found


def make_samples(
    benchmark: EvalPlus, problems: Sequence[Problem], num_changed: int, num_misbehaving: int
) -> list[Sample]:
    samples = []
    for number, problem in enumerate(problems):
        reference = next(check.candidate.text for check in benchmark.checks(problem) if check.passes)
        samples.append(Sample(problem.id, "reference", reference))
        samples += [Sample(problem.id, "changed", text) for text in changed(reference, problem.id, num_changed)]
        if number < num_misbehaving:
            places = {"@E@": problem.inputs["entry_point"], "@R@": reference}
            for kind, text in MISBEHAVING.items():
                for place, value in places.items():
                    text = text.replace(place, value)
                samples.append(Sample(problem.id, kind, text))
    return samples


def changed(source: str, seed: str, number: int) -> list[str]:
    """Up to `number` programs that differ from `source` in one operator, comparison or whole number."""
    places = [place for place, node in enumerate(ast.walk(ast.parse(source))) if _other(node)]
    places.sort(key=lambda place: content_key(seed, place))
    texts = []
    for chosen in places[:number]:
        tree = ast.parse(source)
        node = next(node for place, node in enumerate(ast.walk(tree)) if place == chosen)
        for name, value in _other(node).items():
            setattr(node, name, value)
        texts.append(ast.unparse(tree) + "\n")
    return texts


def _other(node: ast.AST) -> dict[str, Any]:
    """What makes a node mean something else; {} for nodes that are left alone."""
    operators: dict[type, ast.AST] = {
        ast.Add: ast.Sub(), ast.Sub: ast.Add(), ast.Mult: ast.Add(), ast.FloorDiv: ast.Sub(),
        ast.Mod: ast.FloorDiv(),
    }  # fmt: skip
    comparisons: dict[type, ast.AST] = {
        ast.Lt: ast.LtE(), ast.LtE: ast.Lt(), ast.Gt: ast.GtE(), ast.GtE: ast.Gt(), ast.Eq: ast.NotEq(),
        ast.NotEq: ast.Eq(), ast.In: ast.NotIn(), ast.NotIn: ast.In(),
    }  # fmt: skip
    match node:
        case ast.BinOp(op=operator) if type(operator) in operators:
            return {"op": operators[type(operator)]}
        case ast.Compare(ops=[first, *rest]) if type(first) in comparisons:
            return {"ops": [comparisons[type(first)], *rest]}
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return {"value": number + 1}
    return {}


def disagreements(
    samples: Sequence[Sample], ours: Sequence[str], theirs: Sequence[str], peer: Peer
) -> Iterator[tuple[str, str | None]]:
    """What differs, and why; None where nothing is known that explains it."""
    for sample, own, other in zip(samples, ours, theirs, strict=True):
        if (own == "pass") != (other == "pass"):
            why = WHY.get((sample.kind, peer)) or WHY.get((sample.problem, peer))
            if why is None and own in ("oom", "timeout", "limit"):
                why = f"a limit here ({own})"
            if why is None and other in ("timeout", "timed out"):
                why = "a time limit there"
            where = f" of {sample.problem}" if sample.kind in ORDINARY else ""
            yield f"{sample.kind}{where} is {own} here, {other[:60]} there", why


def _levels() -> list[Level]:
    return [level for level in selftest.LEVELS if not selftest.attempt(level).failures]


def _ours(benchmark: EvalPlus, problems: Sequence[Problem], samples: Sequence[Sample], level: Level) -> Judged:
    by_id = {problem.id: problem for problem in problems}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with Sandbox(level, workers=NUM_WORKERS) as sandbox:
            limits = preflight(benchmark, problems, Executor(sandbox, Journal(Path(folder) / "a.jsonl"))).limits
        reference_seconds = time.perf_counter() - started
        started, cpu = time.perf_counter(), _processor_seconds()
        with Sandbox(level, workers=NUM_WORKERS) as sandbox:
            executor = Executor(sandbox, Journal(Path(folder) / "b.jsonl"))
            scores = _scores(benchmark, by_id, samples, limits, executor)
        wall, cpu = time.perf_counter() - started, _processor_seconds() - cpu
    return Judged([score.label for score in scores], wall, cpu, reference_seconds)


def _scores(
    benchmark: EvalPlus,
    problems: Mapping[str, Problem],
    samples: Sequence[Sample],
    limits: Mapping[str, Limits],
    executor: Executor,
) -> list[Score]:
    candidates = [Candidate(text=sample.text) for sample in samples]
    planned = [
        [limited(program, limits.get(sample.problem, Limits())) for program in programs]
        for sample, candidate in zip(samples, candidates, strict=True)
        for programs in (benchmark.programs(problems[sample.problem], candidate),)
    ]
    results = iter(executor.run([program for programs in planned for program in programs]))
    return [
        benchmark.score(problems[sample.problem], 0, candidate, [next(results) for _ in programs])
        for sample, candidate, programs in zip(samples, candidates, planned, strict=True)
    ]


def _evalplus(chosen: Set, problems: Sequence[Problem], samples: Sequence[Sample]) -> Judged:
    wanted = {problem.id for problem in problems}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "problems.jsonl", [row for row in _read(chosen.file) if row["task_id"] in wanted])
        rows = [{"task_id": sample.problem, "solution": sample.text} for sample in samples]
        _write(folder / "samples.jsonl", rows)
        files = (str(folder / "problems.jsonl"), str(folder / "samples.jsonl"))
        found = peers.run(
            "evalplus", "harnesses_evalplus.py", chosen.short, *files, str(NUM_WORKERS),
            timeout_seconds=PEER_SECONDS,
        )  # fmt: skip
    verdicts = _in_order(samples, found["verdicts"])
    worst = [next((status for status in pair if status != "pass"), "pass") for pair in verdicts]
    return Judged(worst, found["wall"], found["cpu"], found["reference"])


def _bigcode(chosen: Set, arguments: argparse.Namespace, samples: Sequence[Sample]) -> Judged:
    checkout: Path | None = arguments.bigcode
    if checkout is None or not (checkout / "bigcode_eval/tasks/custom_metrics/code_eval.py").is_file():
        raise MachineError(
            f"no checkout at {checkout}; git clone https://github.com/bigcode-project/bigcode-evaluation-harness "
            f"and name its folder with --bigcode or {VARIABLE}"
        )
    path = arguments.data / chosen.tests
    if not path.is_file():
        raise MachineError(f"its tests are not there: {path}")
    tests = {}
    for row in _read(path):
        task = row["task_id"] if isinstance(row["task_id"], str) else f"Mbpp/{row['task_id']}"
        call = f"\ncheck({row['entry_point']})" if "entry_point" in row else ""
        tests[task] = f"\n{row['test']}{call}"
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"task_id": each.problem, "solution": each.text, "test": tests[each.problem]} for each in samples]
        _write(Path(folder) / "samples.jsonl", rows)
        found = peers.run(
            "bigcode-evaluation-harness", "harnesses_bigcode.py", str(checkout.resolve()),
            str(Path(folder) / "samples.jsonl"), str(chosen.timeout_seconds), str(NUM_WORKERS),
            timeout_seconds=PEER_SECONDS,
        )  # fmt: skip
    verdicts = ["pass" if each == "passed" else each for each in _in_order(samples, found["verdicts"])]
    print(f"bigcode-evaluation-harness at commit {_commit(checkout)}")
    return Judged(verdicts, found["wall"], found["cpu"])


def _in_order(samples: Sequence[Sample], verdicts: Mapping[str, Sequence[Any]]) -> list[Any]:
    """A problem's verdicts come in the order of its samples."""
    pending = {problem: iter(each) for problem, each in verdicts.items()}
    return [next(pending[sample.problem]) for sample in samples]


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _processor_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    main()
