"""Bits per byte on held-out files: what a model needs to write down code it has never seen.

    sum over files of -log2 p(file) / sum over files of UTF-8 bytes

It compares models with different tokenizers, and a small model moves it long before it solves any problem. Each
file stands alone behind `<file_sep>`, as in a training document without metadata (section 4.3), so every token
of the file is predicted from something. How a file longer than the model's window is read is the back end's
(`backends.windows`): every token is counted once.

Of a long file the first `MAX_FILE_BYTES` are measured, up to a line's end. The interval is a bootstrap over
files.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    Estimate,
    Problem,
    Program,
    Request,
    RunResult,
    Score,
)
from starsmith.evaluation.heldout import choose_files
from starsmith.evaluation.statistics import bootstrap_ratio

MAX_FILE_BYTES: Final = 8_192


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    heldout: Sequence[Path]
    """Parquet parts of the documents table."""
    max_files: int = 100
    seed: int = 42

    name: str = "bits_per_byte"
    version: str = "1"

    def load(self) -> list[Problem]:
        files = choose_files(
            self.heldout,
            count=self.max_files,
            seed=self.seed,
            purpose=self.name,
            suits=lambda file: bool(file.text),
        )
        return [
            Problem(
                id=file.released_id,
                group=file.language,
                inputs={
                    "repo_name": file.repo_name,
                    "path": file.path,
                    "text": first_lines(file.text, MAX_FILE_BYTES),
                },
            )
            for file in files
        ]

    def checks(self, problem: Problem) -> list[Check]:
        return []

    def requests(self, problem: Problem) -> list[Request]:
        return [Request(problem=problem.id, before=("<file_sep>",), target=problem.inputs["text"])]

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        return Candidate(text=problem.inputs["text"], completion=completion)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return []

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        bits = candidate.completion.bits
        if bits is None:
            raise TypeError("the back end measured no log-likelihood")
        return Score(
            problem=problem.id,
            sample=sample,
            group=problem.group,
            label="measured",
            value=bits,
            weight=float(len(candidate.text.encode("utf-8", errors="surrogatepass"))),
        )

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """`bits_per_byte` of all files, and `bits_per_byte/LANGUAGE` of each language's."""
        groups: dict[str, list[Score]] = defaultdict(list)
        for score in sorted(scores, key=lambda score: score.problem):
            groups[self.name].append(score)
            groups[f"{self.name}/{score.group}"].append(score)
        return {
            name: bootstrap_ratio(
                [score.value for score in members], [score.weight for score in members], seed=seed
            )
            for name, members in sorted(groups.items())
        }


def first_lines(text: str, max_bytes: int) -> str:
    """The longest beginning of at most `max_bytes` in UTF-8 that ends with a line; of a single longer line, its
    beginning up to a character's end."""
    data = text.encode("utf-8", errors="surrogatepass")
    if len(data) <= max_bytes:
        return text
    end = data.rfind(b"\n", 0, max_bytes) + 1
    return data[: end or max_bytes].decode("utf-8", errors="ignore")
