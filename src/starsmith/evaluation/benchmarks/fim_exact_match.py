"""Fill-in-the-middle on held-out files: does the model write exactly what stood there?

As in SantaCoder's single-line infilling (section 6.7 of "StarCoder 2 and The Stack v2"), but on files of the
corpus that were held out of training: a whole line, or a short span inside one, is taken out of the middle and
asked for with `<fim_prefix>before<fim_suffix>after<fim_middle>`. The match is exact after white space is
stripped at both ends; edit similarity (1 - Levenshtein / longer length) is reported beside it, because it
moves earlier.
"""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starsmith.evaluation.benchmarks.santacoder_fim import STOPS
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    Estimate,
    Problem,
    Program,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
    sample_seed,
)
from starsmith.evaluation.heldout import HeldoutFile, choose_files
from starsmith.evaluation.statistics import bootstrap_ratio, wilson

SAMPLING: Final = Sampling(max_new_tokens=128)
"""Greedy: a match is exact or not, and 128 tokens are far more than the longest hole."""
_MIN_LINES: Final = 3
_MIN_LINE_CHARS: Final = 6
_MAX_LINE_CHARS: Final = 120
_MIN_SPAN_CHARS: Final = 4
_MAX_SPAN_CHARS: Final = 40
_MAX_SIDE_CHARS: Final = 16_384
"""Context kept on each side; far more than a model that is trained here can see."""
_MAX_COMPARED_CHARS: Final = 1_024


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A file with its middle taken out."""

    kind: str
    """line or span."""
    prefix: str
    middle: str
    suffix: str


@dataclass(frozen=True, kw_only=True)
class FimExactMatch:
    heldout: Sequence[Path]
    """Parquet parts of the documents table."""
    max_files: int = 100
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 0.95
    seed: int = 42

    name: str = "fim_exact_match"
    version: str = "1"

    def load(self) -> list[Problem]:
        files = choose_files(
            self.heldout,
            count=self.max_files,
            seed=self.seed,
            purpose=self.name,
            suits=lambda file: make_hole(file, self.seed) is not None,
        )
        problems = []
        for file in files:
            hole = make_hole(file, self.seed)
            assert hole is not None
            inputs = {"repo_name": file.repo_name, "path": file.path, **vars(hole)}
            problems.append(Problem(id=file.released_id, group=file.language, inputs=inputs))
        return problems

    def checks(self, problem: Problem) -> list[Check]:
        return []

    def requests(self, problem: Problem) -> list[Request]:
        return [
            Request(
                problem=problem.id,
                before=("<file_sep>",),
                prompt=problem.inputs["prefix"],
                suffix=problem.inputs["suffix"],
                stop=STOPS,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=sample_seed(self.seed, self.name, problem.id, 0),
            )
        ]

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=cut_at_stop(completion.text, STOPS), completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return []

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        """The value is the edit similarity; the label says whether the match is exact."""
        expected, got = problem.inputs["middle"].strip(), candidate.text.strip()
        return Score(
            problem=problem.id,
            sample=sample,
            group=problem.group,
            label="pass" if got == expected else "wrong",
            value=edit_similarity(got, expected),
            detail=problem.inputs["kind"],
        )

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """`exact_match` and `edit_similarity` of all, and exact match of each kind of hole and language."""
        if not scores:
            return {}
        ordered = sorted(scores, key=lambda score: score.problem)
        groups: dict[str, list[Score]] = defaultdict(list)
        for score in ordered:
            for name in ("exact_match", f"exact_match/{score.detail}", f"exact_match/{score.group}"):
                groups[name].append(score)
        estimates = {
            name: wilson(sum(score.label == "pass" for score in members), len(members))
            for name, members in sorted(groups.items())
        }
        similarities = [score.value for score in ordered]
        return estimates | {"edit_similarity": bootstrap_ratio(similarities, [1.0] * len(similarities), seed=seed)}


def make_hole(file: HeldoutFile, seed: int) -> Hole | None:
    """Takes a line or a span out of a file, chosen by a key of the run's seed and the file's content.

    Lines in question are neither first nor last, of 6 to 120 characters without their indentation, and hold a
    letter. A line is taken out without its newline, indentation included; a span starts and ends inside the
    line, on visible characters, and is never all of it.

    Returns:
        None where no line is in question.
    """
    lines = file.text.split("\n")
    if len(lines) < _MIN_LINES:
        return None
    numbers = [
        number
        for number, line in enumerate(lines[1:-1], start=1)
        if _MIN_LINE_CHARS <= len(line.strip()) <= _MAX_LINE_CHARS
        and len(line) <= 2 * _MAX_LINE_CHARS
        and any(map(str.isalpha, line))
    ]
    if not numbers:
        return None
    key = hashlib.sha256(f"{seed}\0hole\0{file.released_id}".encode()).digest()
    draw = random.Random(int.from_bytes(key[:8], "big"))
    number = draw.choice(numbers)
    start = sum(len(line) + 1 for line in lines[:number])
    kind = draw.choice(("line", "span"))
    first, last = (0, len(lines[number])) if kind == "line" else _span(lines[number], draw)
    prefix, middle = file.text[: start + first], file.text[start + first : start + last]
    suffix = file.text[start + last :]
    return Hole(kind=kind, prefix=prefix[-_MAX_SIDE_CHARS:], middle=middle, suffix=suffix[:_MAX_SIDE_CHARS])


def edit_similarity(left: str, right: str) -> float:
    """1 - Levenshtein distance / length of the longer, over at most 1,024 characters of each; 1 for two empty
    texts."""
    left, right = left[:_MAX_COMPARED_CHARS], right[:_MAX_COMPARED_CHARS]
    longer = max(len(left), len(right))
    if longer == 0:
        return 1.0
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return 1.0 - row[-1] / longer


def _span(line: str, draw: random.Random) -> tuple[int, int]:
    """First and last (exclusive) character of a span that starts at a word or sign and is not the whole line."""
    visible = [match.span() for match in re.finditer(r"\w+|[^\w\s]", line)]
    begin, end = visible[0][0], visible[-1][1]
    starts = [start for start, _ in visible if start + _MIN_SPAN_CHARS <= end]
    start = draw.choice(starts)
    stops = [
        stop
        for _, stop in visible
        if _MIN_SPAN_CHARS <= stop - start <= _MAX_SPAN_CHARS and (start, stop) != (begin, end)
    ]
    if stops:
        return start, draw.choice(stops)
    first, last = max(visible, key=lambda span: span[1] - span[0])
    first += (first, last) == (begin, end)
    return first, min(last, first + _MAX_SPAN_CHARS)
