"""CrossCodeEval: statements in four languages that need another file of the repository (Ding et al. 2023).

Section 6.8 of "StarCoder 2 and The Stack v2" reports code match (exact match, edit similarity) and identifier
match (exact match, F1). The prompt is that of the authors' script, written when StarCoder2 was evaluated: the
retrieved fragments as comments, a newline, the file up to the cursor. In its window of 16,384 tokens, 12,800 are
the fragments' and what remains beside 50 new tokens and a reserve of 100 is the file's. In a smaller window the
fragments have a quarter, as in the authors' paper (512 of 2,048).

Files differ by how fragments were retrieved. The paper doesn't say which it used as far as is known; by default
they are those that OpenAI's embeddings found without seeing the reference (`rg1`).

A completion is cut as by the authors. In Java, TypeScript and C# it ends with the first `;`, `{` or `}` (unless
that is its first character); in Python, at the first line's end up to which file and completion parse. Then
comments are taken off, whatever the language, `#` and `//` both, and lines are compared without white space at
their ends.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from starsmith.errors import InputError
from starsmith.evaluation.benchmarks.line_completion import (
    MAX_CHARS,
    STOPS,
    LineCompletion,
    as_detail,
    edit_similarity,
    identifier_measures,
    line_score,
)
from starsmith.evaluation.benchmarks.python_programs import read_rows
from starsmith.evaluation.contract import (
    Candidate,
    Completion,
    DataSet,
    Problem,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
)
from starsmith.signals import syntax

Language = Literal["python", "java", "typescript", "csharp"]
Retrieval = Literal[
    "rg1_openai_cosine_sim",
    "rg1_unixcoder_cosine_sim",
    "rg1_bm25",
    "oracle_openai_cosine_sim",
    "oracle_unixcoder_cosine_sim",
    "oracle_bm25",
    "none",
]

PAPER: Final = Sampling(temperature=0.2, max_new_tokens=50)
"""The script's defaults: top-p 0.95, one completion."""
MAX_PROMPT_TOKENS: Final = 16_384 - 50 - 12_800 - 100
CONTEXT_SHARE: Final = 0.25
LANGUAGES: Final[tuple[Language, ...]] = ("python", "java", "typescript", "csharp")
DATA: Final = DataSet(
    folder="crosscodeeval",
    files=tuple(f"{language}/line_completion_rg1_openai_cosine_sim.jsonl" for language in LANGUAGES),
    source="github.com/amazon-science/cceval, data/crosscodeeval_data.tar.xz, unpacked (Apache-2.0)",
)
_FIELDS: Final = {"prompt": str, "groundtruth": str, "metadata": dict}
_COMMENT: Final = re.compile(r"#.*|//.*")


@dataclass(frozen=True, kw_only=True)
class CrossCodeEval(LineCompletion):
    language: Language
    retrieval: Retrieval = "rg1_openai_cosine_sim"
    """Which fragments of other files are shown."""
    sampling: Sampling = PAPER

    @property
    def name(self) -> str:
        return f"crosscodeeval_{self.language}"

    def load(self) -> list[Problem]:
        if self.language == "python":
            syntax.check_installed(f"{self.name} needs")
        part = "line_completion" if self.retrieval == "none" else f"line_completion_{self.retrieval}"
        file = f"{self.language}/{part}.jsonl"
        path = DATA.file(self.data, file, f"crosscodeeval_data/{file}")
        fields = _FIELDS if self.retrieval == "none" else _FIELDS | {"crossfile_context": (dict, str)}
        problems = [
            Problem(
                id=_identity(row["metadata"], path),
                group=self.language,
                inputs={
                    "prompt": row["prompt"],
                    "context": _fragments(row.get("crossfile_context") or {}, path),
                    "middle": row["groundtruth"],
                },
            )
            for row in read_rows(path, fields)
        ]
        return sorted(problems, key=lambda problem: problem.id)

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(
            Request(
                problem=problem.id,
                context=(problem.inputs["context"],),
                context_share=CONTEXT_SHARE,
                prompt="\n" + problem.inputs["prompt"],
                max_prompt_tokens=MAX_PROMPT_TOKENS,
                stop=STOPS,
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
            )
        )

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        text = cut_at_stop(completion.text, STOPS)[:MAX_CHARS]
        if self.language == "python":
            statement = first_statement(problem.inputs["prompt"], text)
        else:
            statement = first_bracketed(text)
        return Candidate(text=statement, completion=completion)

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        code, reference = (_COMMENT.sub("", text) for text in (candidate.text, problem.inputs["middle"]))
        return line_score(
            problem,
            sample,
            exact=_lines(code) == _lines(reference),
            similarity=edit_similarity(code.strip(), reference.strip()),
            detail=as_detail(identifier_measures(code, reference, self.language)),
        )


def first_bracketed(completion: str) -> str:
    """Up to the first `;`, `{` or `}`, itself included; everything where that is the first character."""
    end = next((place for place, character in enumerate(completion) if character in ";{}"), 0)
    return completion[: end + 1] if end else completion


def first_statement(prompt: str, completion: str) -> str:
    """Up to the first end of a line at which prompt and completion parse as Python; else everything."""
    before = prompt.encode(errors="replace")
    for end in (place for place, character in enumerate(completion) if character == "\n" and place):
        if syntax.parses(before + completion[:end].encode(errors="replace"), "Python"):
            return completion[:end].rstrip()
    return completion


def _lines(code: str) -> list[str]:
    return [line.strip() for line in code.split("\n") if line.strip()]


def _identity(metadata: dict[str, Any], path: Path) -> str:
    if not isinstance(identity := metadata.get("task_id"), str):
        raise InputError(f"{path}: metadata holds no task_id, but {json.dumps(metadata)[:200]}")
    return identity


def _fragments(context: dict[str, Any], path: Path) -> str:
    """The retrieved fragments as text; "" where nothing was found."""
    text = context.get("text", "")
    if not isinstance(text, str):
        raise InputError(f"{path}: crossfile_context.text must be str")
    return text
