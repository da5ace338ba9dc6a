"""RepoBench v1.1: the next line of a Python or Java file, given snippets of what it imports (Liu et al. 2024).

Three settings: the first use of something another file defines (`cross_file_first`), a later use of it
(`cross_file_random`), and a line that uses nothing of other files (`in_file`). Five levels, by the length of the
prompt in GPT-4's tokens, up to those that fit into 16,384; the data has longer ones, which section 6.8 of
"StarCoder 2 and The Stack v2" leaves out. Prompt, sampling and metrics are the authors': snippets and file with
their paths as comments, at most 15,800 tokens of which the snippets lose their last lines, and of the completion
the first line that is no comment. Estimates are over all problems, each setting and each level.

Exact match ignores white space. CodeBLEU is of all lines together, so its counts stand in a score's detail. One
part of the authors' rule is simpler here: of snippets that are cut, they keep one line fewer and then leave a
line empty.

The parts of the data set that the levels leave out are never held in memory; those that remain are some 500 MB
of text for each language.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starsmith.errors import InputError
from starsmith.evaluation import code_bleu
from starsmith.evaluation.benchmarks.line_completion import (
    MAX_CHARS,
    STOPS,
    LineCompletion,
    edit_similarity,
    first_code_line,
    line_estimates,
    line_score,
)
from starsmith.evaluation.contract import (
    Candidate,
    Completion,
    DataSet,
    Estimate,
    Problem,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
)
from starsmith.evaluation.statistics import bootstrap_of_sums
from starsmith.signals import syntax

Language = Literal["python", "java"]

PAPER: Final = Sampling(temperature=0.2, max_new_tokens=128)
"""Section 6.8, with the authors' temperature and top-p; one completion."""
MAX_INPUT_TOKENS: Final = 15_800
LANGUAGES: Final[tuple[Language, ...]] = ("python", "java")
SETTINGS: Final = ("cross_file_first", "cross_file_random", "in_file")
LEVELS: Final = ("2k", "4k", "8k", "12k", "16k")
DATA: Final = DataSet(
    folder="repobench",
    files=tuple(
        f"repobench_{language}_v1.1/data/{setting}-*.parquet" for language in LANGUAGES for setting in SETTINGS
    ),
    source="the Hub's data sets tianyang/repobench_python_v1.1 and repobench_java_v1.1 (Creative Commons)",
)
_TEXTS: Final = ("repo_name", "file_path", "import_statement", "cropped_code", "next_line", "level")
_EMPTY_LINES: Final = re.compile(r"\n{4,}")
_BATCH_ROWS: Final = 64


@dataclass(frozen=True, kw_only=True)
class RepoBench(LineCompletion):
    language: Language
    sampling: Sampling = PAPER

    @property
    def name(self) -> str:
        return f"repobench_{self.language}"

    def load(self) -> list[Problem]:
        syntax.check_installed(f"{self.name} needs")
        return sorted(
            (
                Problem(
                    id=f"{number:05d}/{setting}",
                    group=f"{setting}/{row['level']}",
                    inputs={
                        "context": snippets_prompt(row, self.language),
                        "prompt": file_prompt(row, self.language),
                        "middle": row["next_line"],
                    },
                )
                for setting in SETTINGS
                for number, row in self._rows(setting)
                if row["level"] in LEVELS
            ),
            key=lambda problem: problem.id,
        )

    def requests(self, problem: Problem) -> list[Request]:
        return self.asked(
            Request(
                problem=problem.id,
                context=(problem.inputs["context"],),
                prompt=problem.inputs["prompt"],
                max_input_tokens=MAX_INPUT_TOKENS,
                stop=STOPS,
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
            )
        )

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        line, found = first_code_line(cut_at_stop(completion.text, STOPS), self.language)
        return Candidate(text=line[:MAX_CHARS], completion=completion, extracted=found)

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        line, reference = candidate.text, problem.inputs["middle"]
        return line_score(
            problem,
            sample,
            exact=line.split() == reference.split(),
            similarity=edit_similarity(reference, line),
            detail=" ".join(f"{count:.6g}" for count in code_bleu.counts(line, reference, self.language)),
        )

    def estimates(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """`exact_match`, `edit_similarity` and `code_bleu`."""
        counts: dict[str, NDArray[np.float64]] = {}
        for score in scores:
            own = np.array(score.detail.split(), np.float64)
            counts[score.problem] = counts[score.problem] + own if score.problem in counts else own
        table = np.stack([own for _, own in sorted(counts.items())]) if counts else np.zeros((0, 0))
        bleu = bootstrap_of_sums(table, code_bleu.value, seed=seed)
        plain = [replace(score, detail="") for score in scores]
        return line_estimates(plain, seed=seed) | {"code_bleu": bleu}

    def _rows(self, setting: str) -> Iterator[tuple[int, dict[str, Any]]]:
        pattern = f"repobench_{self.language}_v1.1/data/{setting}-*.parquet"
        files = sorted((self.data / DATA.folder).glob(pattern)) if self.data is not None else []
        if not files:
            raise DATA.missing(self.data, pattern)
        number = 0
        for file in files:
            for row in _read(file):
                yield number, row
                number += 1


def snippets_prompt(row: dict[str, Any], language: Language) -> str:
    """The repository's name and the snippets, each under its path."""
    mark = "#" if language == "python" else "//"
    snippets = (f"{mark} Path: {snippet['path']}\n{snippet['snippet']}\n\n" for snippet in row["context"])
    return _EMPTY_LINES.sub("\n\n", f"{mark} Repo Name: {row['repo_name']}\n{''.join(snippets)}")


def file_prompt(row: dict[str, Any], language: Language) -> str:
    """The file's path, its imports and its last lines before the one that is asked for."""
    mark = "#" if language == "python" else "//"
    code = row["cropped_code"].rstrip()
    return _EMPTY_LINES.sub("\n\n", f"{mark} Path: {row['file_path']}\n{row['import_statement']}\n{code}\n")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file, a few at a time.

    Raises:
        InputError: it cannot be read, or is not of version 1.1.
    """
    try:
        with pq.ParquetFile(path) as table:
            schema = table.schema_arrow
            if missing := [name for name in (*_TEXTS, "context") if name not in schema.names]:
                raise InputError(f"{path}: no column {', '.join(missing)}, which RepoBench v1.1 has")
            if bad := [name for name in _TEXTS if not _is_text(schema.field(name).type)]:
                raise InputError(f"{path}: {', '.join(bad)} must be text")
            if not _holds_snippets(schema.field("context").type):
                raise InputError(f"{path}: context must be a list of snippets with path and snippet")
            for batch in table.iter_batches(_BATCH_ROWS, columns=[*_TEXTS, "context"]):
                for row in batch.to_pylist():
                    if empty := [name for name, value in row.items() if value is None]:
                        raise InputError(f"{path}: a row has no {', '.join(empty)}")
                    yield row
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_snippets(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    if not pa.types.is_struct(inner):
        return False
    fields = {inner.field(number).name: inner.field(number).type for number in range(inner.num_fields)}
    return all(name in fields and _is_text(fields[name]) for name in ("path", "snippet"))
