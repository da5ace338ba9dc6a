"""Which problems a model may have been trained on, as far as its corpus is known.

A score that rests on problems of the training corpus says how well a model remembers. So results name those
problems with the document and the place where each stands, and give every estimate once more without them.

How texts are compared is not this room's affair: a `Corpus` searches itself, by the rule with which the corpus was
curated, and says so. Of a model whose corpus nobody knows, results say that, and no second estimate is given: it
would pass for clean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from starsmith.evaluation.contract import Benchmark, Problem, Progress

Asked = Sequence[tuple[Benchmark, Sequence[Problem]]]
"""Benchmarks, each with those of its problems that are looked for."""


@runtime_checkable
class HasTexts(Protocol):
    """A benchmark that says itself what nobody may have been trained on: what a problem asks and what answers it,
    each a text of its own. Of other benchmarks, `Corpus` takes the inputs with the usual names."""

    def texts(self, problem: Problem) -> list[str]: ...


@dataclass(frozen=True, kw_only=True)
class Match:
    """The best match of a problem, and how many files have one."""

    document: str
    """The SWHID of the file's text; in a corpus without, what it names its texts by."""
    repo_name: str
    path: str
    method: str
    """`text`: a whole text of the problem; `ngram`: most of the n-grams of one."""
    score: float
    """Share of the text that is there."""
    start: int
    end: int
    """First and last place, in UTF-8 bytes of the file."""
    num_files: int


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What is known of one benchmark."""

    reason: str = ""
    """Why nothing is known; "" where the corpus was searched."""
    num_checked: int = 0
    num_too_short: int = 0
    """Problems without a text that is long enough to be looked for."""
    problems: Mapping[str, Match] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)
    """What counts as a match."""
    corpus: Mapping[str, Any] = field(default_factory=dict)
    """What was searched, and what else the model was trained on."""

    def to_dict(self) -> dict[str, Any]:
        """As results hold it."""
        if self.reason:
            return {"checked": False, "reason": self.reason}
        return {
            "checked": True,
            "num_checked": self.num_checked,
            "num_too_short": self.num_too_short,
            "num_contaminated": len(self.problems),
            "problems": {problem: asdict(match) for problem, match in sorted(self.problems.items())},
            "rule": dict(self.rule),
            "corpus": dict(self.corpus),
        }


class Corpus(Protocol):
    """What a model was trained on."""

    @property
    def identity(self) -> str:
        """Changes whenever the same problems may be found elsewhere: a digest of texts and rule."""

    def search(self, asked: Asked, progress: Progress) -> dict[str, Contamination]:
        """What is found of each benchmark, by its name; the texts are read once for all of them.

        Raises:
            InputError: the corpus cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class NoCorpus:
    """That of a model about whose training nothing is known."""

    reason: str = "it is not known what the model was trained on"

    @property
    def identity(self) -> str:
        return f"none: {self.reason}"

    def search(self, asked: Asked, progress: Progress) -> dict[str, Contamination]:
        return {benchmark.name: Contamination(reason=self.reason) for benchmark, _ in asked}
