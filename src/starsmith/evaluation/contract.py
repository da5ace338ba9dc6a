"""The one contract of a benchmark, and of what answers it.

A benchmark is six functions that touch neither model, clock nor process:

    load        -> problems                     read from local data
    checks      -> candidates of known worth    run before any model is judged
    requests    -> what the model is asked
    extract     -> the answer in a completion   stop words, fences, signatures
    programs    -> what must be executed        none for benchmarks that only compare or measure
    score       -> one label and value          from the candidate and the results of its programs

and `aggregate`, which turns all scores into estimates. The runner stands between these stages, writes what
each produced under a key that is the hash of its input, and so can stop anywhere and continue.

Two kinds of failure are not the model's and are kept apart from wrong answers throughout: `sandbox_error`
(the machine failed) is never scored at all, and `timeout` is a class of its own, because a score that mixes
it with wrong answers depends on the speed of the machine.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from starsmith.errors import InputError

Label = Literal["pass", "wrong", "compile", "runtime", "timeout", "oom", "limit", "sandbox_error", "measured"]
"""`compile`: the program is not valid code; `runtime`: it raised; `limit`: it wrote more than it may;
`measured`: the benchmark measures and does not judge."""

Ended = Literal["exit", "compile", "timeout", "oom", "output", "disk", "processes", "sandbox_error"]
"""How a run ended: by itself; before it began, since a compiler refused it; or by a limit."""

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


def no_progress(done: int, total: int) -> None:
    """A `Progress` that says nothing."""


class MissingDataError(InputError):
    """A benchmark's file is not there."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a benchmark's completions are drawn: what a paper says, or what a recipe says instead."""

    samples: int = 1
    """Completions a problem (n of pass@k)."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 0.95
    max_new_tokens: int = 0
    """0 for what generates nothing."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Where a benchmark's problems lie: local files only, a folder a set."""

    folder: str
    """In the data folder."""
    files: tuple[str, ...]
    """All that it reads, by their paths in `folder`."""
    source: str
    """Where they come from and under what licence."""

    def file(self, data: Path | None, *names: str) -> Path:
        """The first of `names` that is there; they stand for one file (plain and compressed, say).

        Raises:
            MissingDataError: none is there; says which file, where from and where to put it.
        """
        if data is not None:
            for name in names:
                if (path := data / self.folder / name).is_file():
                    return path
        raise self.missing(data, *names)

    def missing(self, data: Path | None, *names: str) -> MissingDataError:
        """The error that says which file is absent, where it comes from and where to put it."""
        wanted = " or ".join(names)
        if data is None:
            where = f"put it into {self.folder}/ of a folder and name that folder (evaluation.data, or --data)"
        else:
            where = f"put it at {data / self.folder / names[0]}"
        return MissingDataError(f"no {wanted} of {self.folder}: {where}; it comes from {self.source}")


@dataclass(frozen=True, kw_only=True)
class Problem:
    id: str
    """Unique in the benchmark; results are ordered by it."""
    group: str = ""
    """What results are broken down by: a language, a library, a weakness; "" for none."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """The benchmark's own fields."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to the model. With `suffix` it is an infilling; with `target` nothing is generated and the
    log-likelihood of the target is measured."""

    problem: str
    sample: int = 0
    before: tuple[str, ...] = ()
    """Special tokens by name, put in front as tokens (never as text)."""
    context: tuple[str, ...] = ()
    """Pieces of text that stand between `before` and the prompt, such as other files. Where all do not fit, whole
    lines are dropped from their end, while the prompt loses its beginning."""
    separator: str = ""
    """The special token that follows each piece of context; "" for none."""
    context_share: float = 0.0
    """Of the room, kept for the context if it needs so much; with 0 the prompt is served first."""
    prompt: str = ""
    marks: tuple[str, ...] = ()
    """Special tokens by name that are tokens where they stand in the prompt; all other text stays text."""
    max_prompt_tokens: int = 0
    """Of the prompt alone; 0 for as many as fit."""
    max_input_tokens: int = 0
    """Of context, prompt and suffix together; 0 for as many as fit."""
    suffix: str | None = None
    target: str | None = None
    stop: tuple[str, ...] = ()
    """Text or special tokens that end the completion and are not part of it."""
    max_new_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    """Keyed by the run's seed, the problem and the sample; the same for any batch."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    text: str = ""
    """Up to the first stop, the stop left out."""
    finish_reason: str = "stop"
    """eos (the end of text), stop, length (max_new_tokens), context (the model's window), or measured."""
    num_tokens: int = 0
    num_cut_tokens: int = 0
    """Tokens of the context that did not fit into the model's window."""
    bits: float | None = None
    """Minus the base-2 log-likelihood of the target."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    text: str
    completion: Completion = Completion()
    extracted: bool = True
    """False where the completion holds no answer in the form that was asked for; results count these."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A candidate whose verdict is known: a reference solution must pass, an empty one must not."""

    candidate: Candidate
    passes: bool


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use. CPU time decides; wall time is a safeguard for programs that sleep."""

    cpu_seconds: float = 3.0
    wall_seconds: float = 10.0
    memory_bytes: int = 512 * 1024**2
    """Of address space for one process, and of resident memory for all its processes together."""
    file_bytes: int = 16 * 1024**2
    """Of one file."""
    disk_bytes: int = 64 * 1024**2
    """Of all files together."""
    output_bytes: int = 1024**2
    """Of standard output and standard error together."""
    num_processes: int = 16
    num_open_files: int = 128


@dataclass(frozen=True, kw_only=True)
class Program:
    """Source files to be run in the sandbox: `files[0]` is the entry."""

    language: str = "python"
    """`python`, another language by MultiPL-E's short name, or a named Python environment."""
    files: tuple[tuple[str, str], ...]
    proof: str = ""
    """What standard output must end with for a run to count as passed. An exit status alone proves nothing:
    a program that leaves before its tests exits with 0 too."""
    limits: Limits = Limits()
    """What it may use where no reference of its problem was measured."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What happened to one program. Times are this machine's and never part of a result."""

    ended: Ended
    status: int = 0
    """The exit status, or minus the signal."""
    stdout: str = ""
    stderr: str = ""
    detail: str = ""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Score:
    problem: str
    sample: int
    group: str
    label: Label
    value: float
    """What the benchmark counts: 1 or 0 for right or not, or a measure such as bits."""
    weight: float = 1.0
    """What `value` is a share of, where that is not 1: bytes, for bits per byte."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval over n problems."""

    value: float
    low: float
    high: float
    n: int


class Benchmark(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Changes whenever the same completions may get other scores."""

    def load(self) -> list[Problem]:
        """The problems, ordered.

        Raises:
            MissingDataError: the data is absent (and where it should be).
            InputError: it is malformed (and which line).
        """

    def checks(self, problem: Problem) -> list[Check]: ...

    def requests(self, problem: Problem) -> list[Request]: ...

    def extract(self, problem: Problem, completion: Completion) -> Candidate: ...

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]: ...

    def score(
        self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]
    ) -> Score: ...

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """Of the scores of any of the problems: results hold each group by itself too."""


@runtime_checkable
class Remarking(Protocol):
    """A benchmark whose numbers need a word: which analyser or scorer judged, what none did."""

    def remarks(self, problems: Sequence[Problem]) -> list[str]: ...


class Backend(Protocol):
    """What answers. Both functions return one completion for each request, in order."""

    @property
    def identity(self) -> str:
        """Changes whenever the same request may get another answer: a digest of the weights."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]: ...

    def log_likelihood(self, requests: Sequence[Request]) -> list[Completion]: ...


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stops."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def content_key(*parts: Any) -> str:
    """The hash of values (dataclasses included) in 40 hex digits: the name under which a stage keeps a result."""
    plain = [asdict(part) if hasattr(part, "__dataclass_fields__") else part for part in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def sample_seed(seed: int, benchmark: str, problem: str, sample: int) -> int:
    """The seed of one completion: 63 bits that depend on nothing but its identity."""
    text = f"{seed}\0{benchmark}\0{problem}\0{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
