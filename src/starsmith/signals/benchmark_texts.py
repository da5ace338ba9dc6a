"""The texts of evaluation sets that a training corpus must not contain (section 3.3).

A data folder has one subfolder for each set, named as in `SETS`; each set is one row of that table: the files it
is read from and what of a record is text to look for. Files may be `.jsonl`, `.json`, `.parquet` or `.txt`, and
gzipped. The paper's sets are HumanEval and MBPP (docstrings and solutions; of MBPP the 500 test problems), APPS
and GSM8K (test questions) and DS-1000 (prompts up to the solution); the other sets are read in the same spirit.

Sets of natural-language prompts about people (BOLD, HONEST, WinoBias, RealToxicityPrompts) and sets that are
HumanEval cut into spans (infilling, SantaCoder FIM) have no texts of their own to look for.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith.errors import InputError

Record = Mapping[str, Any]

Text = tuple[str, str, str]
"""Problem, part, text as the set has it."""

PARTS = ("docstring", "solution", "question", "prompt")

TRIVIAL_SOLUTIONS = frozenset({"return x + y", "return len(string)", "return n**2", "return ''.join(strings)"})
"""HumanEval solutions that any program may have; allowed by the published pipeline."""

MBPP_TEST = range(11, 511)
"""Task numbers of MBPP's 500 test problems."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSet:
    name: str
    folder: str
    """Name of the subfolder; one that continues with "-" counts too (`apps-sample`)."""
    files: str
    """Glob in the folder, without a final `.gz`."""
    left_out: str = ""
    """Subfolder whose files are not read: training data."""
    texts: Callable[[Record], Iterator[Text]]


def _humaneval(record: Record) -> Iterator[Text]:
    problem = str(record["task_id"])
    yield problem, "docstring", docstring(record["prompt"])
    if record["canonical_solution"].strip() not in TRIVIAL_SOLUTIONS:
        yield problem, "solution", record["canonical_solution"]


def _humanevalpack(record: Record) -> Iterator[Text]:
    problem = str(record["task_id"])
    yield problem, "docstring", record["docstring"]
    if record["canonical_solution"].strip() not in TRIVIAL_SOLUTIONS:
        yield problem, "solution", record["canonical_solution"]


def _mbpp(record: Record) -> Iterator[Text]:
    if int(record["task_id"]) in MBPP_TEST:
        yield str(record["task_id"]), "docstring", record["text"] if "text" in record else record["prompt"]
        yield str(record["task_id"]), "solution", record["code"]


def _mbppplus(record: Record) -> Iterator[Text]:
    """Both of its formats: prompts between triple quotes, and MBPP's own."""
    problem = str(record["task_id"]).removeprefix("Mbpp/")
    yield problem, "docstring", docstring(record["prompt"]) or record["prompt"]
    yield problem, "solution", record["canonical_solution"] if "canonical_solution" in record else record["code"]


def _apps(record: Record) -> Iterator[Text]:
    yield str(record["problem_id"]), "question", record["question"]


def _ds1000(record: Record) -> Iterator[Text]:
    prompt = re.split("SOLUTION START|BEGIN SOLUTION", record["prompt"], maxsplit=1)[0]
    yield str(record["metadata"]["problem_id"]), "prompt", prompt


def _multipl_e(record: Record) -> Iterator[Text]:
    yield (
        f"{record.get('name', record.get('task_id'))} {record.get('language', '')}".strip(),
        "prompt",
        record["prompt"],
    )


def _canitedit(record: Record) -> Iterator[Text]:
    yield str(record["full_name"]), "prompt", record["before"]
    yield str(record["full_name"]), "solution", record["after"]


def _asleep(record: Record) -> Iterator[Text]:
    yield str(record["scenario_id"]), "prompt", record["prompt"]


def _cruxeval(record: Record) -> Iterator[Text]:
    yield str(record["id"]), "prompt", record["code"]


def _numbered(*fields: str) -> Callable[[Record], Iterator[Text]]:
    """Questions without a name of their own: the file and line stand for it."""

    def texts(record: Record) -> Iterator[Text]:
        for field in fields:
            if field in record:
                yield str(record["__place__"]), "question", record[field]
                return
        raise KeyError(" or ".join(fields))

    return texts


SETS = (
    BenchmarkSet(name="humaneval", folder="humaneval", files="*.jsonl", texts=_humaneval),
    BenchmarkSet(name="mbpp", folder="mbpp", files="*.jsonl", texts=_mbpp),
    BenchmarkSet(name="apps", folder="apps", files="**/*question.txt", left_out="train", texts=_apps),
    BenchmarkSet(name="gsm8k", folder="gsm8k", files="*test*", texts=_numbered("question")),
    BenchmarkSet(name="ds1000", folder="ds1000", files="*.jsonl", texts=_ds1000),
    BenchmarkSet(name="humanevalplus", folder="humanevalplus", files="*.jsonl", texts=_humaneval),
    BenchmarkSet(name="mbppplus", folder="mbppplus", files="*.jsonl", texts=_mbppplus),
    BenchmarkSet(name="humanevalpack", folder="humanevalpack", files="*.jsonl", texts=_humanevalpack),
    BenchmarkSet(name="multipl-e", folder="multipl-e-humaneval", files="*.jsonl", texts=_multipl_e),
    BenchmarkSet(name="cruxeval", folder="cruxeval", files="*.jsonl", texts=_cruxeval),
    BenchmarkSet(name="canitedit", folder="canitedit", files="*.jsonl", texts=_canitedit),
    BenchmarkSet(name="gsm8k-pal", folder="gsm8k-pal", files="*.jsonl", texts=_numbered("input", "problem")),
    BenchmarkSet(name="asleep", folder="asleep-at-the-keyboard", files="*.jsonl", texts=_asleep),
)


def folder_of(benchmark: BenchmarkSet, data: Path) -> Path | None:
    """The set's subfolder of a data folder: the exact name, else the first that continues it with "-"."""
    exact = data / benchmark.folder
    if exact.is_dir():
        return exact
    taken = {other.folder for other in SETS}
    near = sorted(path for path in data.glob(f"{benchmark.folder}-*") if path.is_dir() and path.name not in taken)
    return near[0] if near else None


def read_set(benchmark: BenchmarkSet, folder: Path) -> list[Text]:
    """All texts of a set, in the order of its files.

    Raises:
        InputError: there is no such file, or one that is not in the set's format.
    """
    pattern = benchmark.files
    there = {*folder.glob(pattern), *folder.glob(f"{pattern}.gz")}
    paths = sorted(path for path in there if benchmark.left_out not in path.relative_to(folder).parts[:-1])
    if not paths:
        raise InputError(
            f"{folder} has no {benchmark.name} data: expected {pattern} or {pattern}.gz; put the set's official "
            "file there, or remove the folder to leave the set out"
        )
    return [text for path in paths for text in read_file(benchmark, path)]


def read_file(benchmark: BenchmarkSet, path: Path) -> list[Text]:
    """All texts of one file of a set. Raises InputError as `read_set` does."""
    try:
        texts = [text for record in _records(path) for text in benchmark.texts(record)]
        if not all(isinstance(text, str) for _, _, text in texts):
            raise TypeError("a text to look for is not a string")
        return texts
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a {benchmark.name} file: {type(error).__name__}: {error}; put the set's official file "
            "there, or remove it"
        ) from None


def docstring(prompt: str) -> str:
    """The text between triple quotes; of two such texts the second (the first is then a helper's)."""
    found = [text for _, text in re.findall(r"(\"\"\"|''')(.*?)\1", prompt, flags=re.DOTALL)]
    return found[min(1, len(found) - 1)] if found else ""


def _records(path: Path) -> Iterator[Record]:
    """The records of a file; `__place__` is the file's stem and the record's number."""
    stem = path.name.partition(".")[0]
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if suffixes[-1:] == [".parquet"]:
        yield from ({**row, "__place__": f"{stem}/{n}"} for n, row in enumerate(pq.read_table(path).to_pylist()))
        return
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    if suffixes[-1:] == [".txt"]:
        yield {"problem_id": _text_file_problem(path), "question": text}
        return
    rows = (
        json.loads(text) if suffixes[-1:] == [".json"] else [json.loads(s) for s in text.split("\n") if s.strip()]
    )
    yield from ({**row, "__place__": f"{stem}/{number}"} for number, row in enumerate(rows))


def _text_file_problem(path: Path) -> str:
    """`test/0001/question.txt` and `0001-question.txt` are both problem 0001."""
    return path.name.partition("-")[0] if "-" in path.name else path.parent.name
