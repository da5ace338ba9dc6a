"""The texts of evaluation sets that a training corpus must not contain (section 3.3).

A data folder has one subfolder for each set, named as in `SETS`; each set is one row of that table: the files it
is read from (official names and layouts, gzipped or not) and what of a record is text to look for:

| set | searched for |
|---|---|
| HumanEval, HumanEval+, HumanEval infilling | docstrings, solutions |
| MBPP (tasks 11-510, the test split), MBPP+ | docstrings, solutions |
| APPS, GSM8K (test splits), the PAL sets | questions |
| DS-1000 | prompts up to the solution |
| MultiPL-E HumanEval and MBPP | prompts, every language |
| HumanEvalPack | docstrings, solutions, and the buggy solutions that are to be fixed |
| SantaCoder FIM | solutions, every language |
| CanItEdit | the code before and after the edit |
| CRUXEval, Asleep at the Keyboard | the code that is asked about |
| RepoBench, CrossCodeEval | the `TAIL_LINES` before the line to complete, and the line |
| WinoBias | sentences, without their marks |

The first rows are the paper's. RepoBench and CrossCodeEval are cut from public repositories, so the whole file may
well be in a corpus; what must not be is the answer where it is asked for.

BOLD, RealToxicityPrompts and HONEST are left out unless asked for (`left_out_because`): they have no answer that
could be learnt, and their texts are the first words of sentences of Wikipedia and other pages, or everyday
phrases. To drop the files that have them is to drop those who wrote them first.

RepoBench v1.1 (Parquet), CrossCodeEval and MultiPL-E MBPP are read as their authors describe the files; their data
was not at hand when this was written.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from starsmith.errors import InputError
from starsmith.signals.benchmark_files import PLACE, Record, records

Text = tuple[str, str, str]
"""Problem, part, text as the set has it."""

PARTS = ("docstring", "solution", "question", "prompt")

TRIVIAL_SOLUTIONS = frozenset({"return x + y", "return len(string)", "return n**2", "return ''.join(strings)"})
"""HumanEval solutions that any program may have; allowed by the published pipeline."""

MBPP_TEST = range(11, 511)
"""Task numbers of MBPP's 500 test problems."""

TAIL_LINES = 10
"""Lines before a line to complete that make its place known."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSet:
    name: str
    folder: str
    """Name of the subfolder; one that continues with "-" counts too (`apps-sample`)."""
    texts: Callable[[Record], Iterator[Text]]
    files: tuple[str, ...] = ("**/*.jsonl", "**/*.parquet")
    """Globs in the folder, without a final `.gz`."""
    left_out: str = ""
    """Subfolder whose files are not read: training data."""
    columns: tuple[str, ...] = ()
    """What is read of Parquet files; all when empty."""
    lines: bool = False
    """Its files are plain text, a record a line."""
    is_translated: bool = False
    """Problems are there in several languages, under a number that all share."""
    left_out_because: str = ""
    """Why the set is searched for only on request."""


def _solution(problem: str, text: str, part: str = "solution") -> Iterator[Text]:
    if text.strip() not in TRIVIAL_SOLUTIONS:
        yield problem, part, text


def _humaneval(record: Record) -> Iterator[Text]:
    problem = str(record["task_id"])
    yield problem, "docstring", docstring(record["prompt"])
    yield from _solution(problem, record["canonical_solution"])


def _infilling(record: Record) -> Iterator[Text]:
    """Each record is a HumanEval program cut into three: `SingleLineInfilling/HumanEval/0/L0`."""
    kind, benchmark, number, *_ = str(record["task_id"]).split("/")
    program = record["prompt"] + record["canonical_solution"] + record["suffix"]
    problem = f"{benchmark}/{number}" if benchmark == "HumanEval" else f"{kind}/{benchmark}"
    yield problem, "docstring", docstring(program)
    yield from _solution(problem, re.split(r"\"\"\"|'''", program)[-1])


def _humanevalpack(record: Record) -> Iterator[Text]:
    problem = str(record["task_id"])
    yield problem, "docstring", record["docstring"]
    yield from _solution(problem, record["canonical_solution"])
    yield from _solution(problem, record["buggy_solution"], "prompt")


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
    yield str(record["problem_id"] if "problem_id" in record else record["id"]), "question", record["question"]


def _gsm8k(record: Record) -> Iterator[Text]:
    yield str(record[PLACE]), "question", record["question"]


def _pal(record: Record) -> Iterator[Text]:
    """Records of one question, and tasks in BIG-bench's form: one object with all of its examples."""
    place = str(record[PLACE])
    if "examples" in record:
        for number, example in enumerate(record["examples"]):
            question = record.get("task_prefix", "") + example["input"]
            yield f"{place.partition('/')[0]}/{number}", "question", question
    else:
        yield place, "question", record["input"] if "input" in record else record["problem"]


def _ds1000(record: Record) -> Iterator[Text]:
    prompt = re.split("SOLUTION START|BEGIN SOLUTION", record["prompt"], maxsplit=1)[0]
    yield str(record["metadata"]["problem_id"]), "prompt", prompt


def _multipl_e(record: Record) -> Iterator[Text]:
    name = record["name"] if "name" in record else record["task_id"]
    yield f"{name} {record.get('language', '')}".strip(), "prompt", record["prompt"]


def _santacoder(record: Record) -> Iterator[Text]:
    """Each record is a program with one line cut out: `humaneval-HumanEval_59_largest.json-L26`."""
    problem = str(record["name"]).removeprefix("humaneval-").partition(".json")[0]
    program = "\n".join((record["prompt"], record["canonical_solution"], record["suffix"]))
    yield f"{problem} {record['language']}", "solution", program


def _canitedit(record: Record) -> Iterator[Text]:
    yield str(record["full_name"]), "prompt", record["before"]
    yield str(record["full_name"]), "solution", record["after"]


def _asleep(record: Record) -> Iterator[Text]:
    yield str(record["scenario_id"]), "prompt", record["prompt"]


def _cruxeval(record: Record) -> Iterator[Text]:
    yield str(record["id"]), "prompt", record["code"]


def _repobench(record: Record) -> Iterator[Text]:
    place = f"{record['repo_name']}/{record['file_path']}"
    yield place, "solution", f"{_tail(record['cropped_code'])}\n{record['next_line']}"


def _crosscodeeval(record: Record) -> Iterator[Text]:
    """The answer continues the prompt's last line."""
    yield str(record["metadata"]["task_id"]), "solution", _tail(record["prompt"]) + record["groundtruth"]


def _winobias(record: Record) -> Iterator[Text]:
    """`3 [The mechanic] gave the clerk a present because [he] won the lottery.`"""
    yield str(record[PLACE]), "prompt", re.sub(r"^\d+ |[\[\]]", "", record["text"])


def _bold(record: Record) -> Iterator[Text]:
    """One object: group, person or profession, prompts."""
    for group, names in record.items():
        if group != PLACE:
            for name, prompts in names.items():
                for number, prompt in enumerate(prompts):
                    yield f"{group}/{name}/{number}", "prompt", prompt


def _honest(record: Record) -> Iterator[Text]:
    yield str(record[PLACE]), "prompt", record["template_masked"].replace("[M]", "")


def _real_toxicity(record: Record) -> Iterator[Text]:
    yield f"{record['filename']}/{record['begin']}", "prompt", record["prompt"]["text"]


_JSON_TOO = ("**/*.jsonl", "**/*.json", "**/*.parquet")
_WEB_PROSE = "its prompts are sentences of web pages, which have no right continuation"

SETS = (
    BenchmarkSet(name="humaneval", folder="humaneval", texts=_humaneval),
    BenchmarkSet(name="mbpp", folder="mbpp", texts=_mbpp),
    BenchmarkSet(
        name="apps",
        folder="apps",
        files=("**/*question.txt", "**/test.jsonl", "**/test*.parquet"),
        left_out="train",
        columns=("problem_id", "question"),
        texts=_apps,
    ),
    BenchmarkSet(name="gsm8k", folder="gsm8k", files=("**/test*.jsonl", "**/test*.parquet"), texts=_gsm8k),
    BenchmarkSet(name="ds1000", folder="ds1000", texts=_ds1000),
    BenchmarkSet(name="humanevalplus", folder="humanevalplus", texts=_humaneval),
    BenchmarkSet(name="mbppplus", folder="mbppplus", texts=_mbppplus),
    BenchmarkSet(name="humaneval-infilling", folder="humaneval-infilling", texts=_infilling),
    BenchmarkSet(name="humanevalpack", folder="humanevalpack", is_translated=True, texts=_humanevalpack),
    BenchmarkSet(
        name="multipl-e", folder="multipl-e-humaneval", files=_JSON_TOO, is_translated=True, texts=_multipl_e
    ),
    BenchmarkSet(
        name="multipl-e-mbpp", folder="multipl-e-mbpp", files=_JSON_TOO, is_translated=True, texts=_multipl_e
    ),
    BenchmarkSet(name="santacoder-fim", folder="santacoder-fim", is_translated=True, texts=_santacoder),
    BenchmarkSet(name="cruxeval", folder="cruxeval", texts=_cruxeval),
    BenchmarkSet(name="canitedit", folder="canitedit", texts=_canitedit),
    BenchmarkSet(name="gsm8k-pal", folder="gsm8k-pal", files=("*.jsonl", "*.json"), texts=_pal),
    BenchmarkSet(name="asleep", folder="asleep-at-the-keyboard", texts=_asleep),
    BenchmarkSet(
        name="repobench",
        folder="repobench",
        files=("**/*.parquet",),
        columns=("repo_name", "file_path", "cropped_code", "next_line"),
        texts=_repobench,
    ),
    BenchmarkSet(
        name="crosscodeeval", folder="crosscodeeval", files=("**/line_completion*.jsonl",), texts=_crosscodeeval
    ),
    BenchmarkSet(name="winobias", folder="winobias", files=("*_type*.txt.*",), lines=True, texts=_winobias),
    BenchmarkSet(
        name="bold", folder="bold", files=("**/*_prompt.json",), texts=_bold, left_out_because=_WEB_PROSE
    ),
    BenchmarkSet(
        name="realtoxicityprompts",
        folder="realtoxicityprompts",
        files=("**/*.jsonl",),
        texts=_real_toxicity,
        left_out_because=_WEB_PROSE,
    ),
    BenchmarkSet(
        name="honest",
        folder="honest",
        files=("**/*_template.tsv",),
        texts=_honest,
        left_out_because="its templates are everyday phrases (the woman should work as a ...)",
    ),
)

_BY_NAME = {benchmark.name: benchmark for benchmark in SETS}


def same_problem(benchmark: str, problem: str) -> str:
    """What a problem is called whatever language it is given in: equal for translations of one problem."""
    number = re.search(r"\d+", problem)
    known = _BY_NAME.get(benchmark)
    return number.group() if number and known is not None and known.is_translated else problem


def folder_of(benchmark: BenchmarkSet, data: Path) -> Path | None:
    """The set's subfolder of a data folder: the exact name, else the first that continues it with "-"."""
    exact = data / benchmark.folder
    if exact.is_dir():
        return exact
    taken = {other.folder for other in SETS}
    near = sorted(path for path in data.glob(f"{benchmark.folder}-*") if path.is_dir() and path.name not in taken)
    return near[0] if near else None


def read(benchmark: BenchmarkSet, place: Path) -> list[Text]:
    """All texts of a set, in the order of its files; a problem's text that several records have comes once.

    Args:
        benchmark: the set.
        place: its folder, or one of its files.

    Raises:
        InputError: there is no such file, or one that is not in the set's format.
    """
    paths = _files(benchmark, place) if place.is_dir() else [place]
    return list(dict.fromkeys(text for path in paths for text in _read_file(benchmark, path)))


def _files(benchmark: BenchmarkSet, folder: Path) -> list[Path]:
    globs = [glob for pattern in benchmark.files for glob in (pattern, f"{pattern}.gz")]
    there = {path for glob in globs for path in folder.glob(glob) if path.is_file()}
    paths = sorted(path for path in there if benchmark.left_out not in path.relative_to(folder).parts[:-1])
    if not paths:
        expected = " or ".join(pattern.removeprefix("**/") for pattern in benchmark.files)
        raise InputError(
            f"{folder} has no {benchmark.name} data: expected {expected}, gzipped or not; put the set's official "
            "files there, or remove the folder to leave the set out"
        )
    return paths


def _read_file(benchmark: BenchmarkSet, path: Path) -> list[Text]:
    try:
        found = records(path, columns=benchmark.columns, lines=benchmark.lines)
        texts = [text for record in found for text in benchmark.texts(record)]
        if not all(isinstance(text, str) for _, _, text in texts):
            raise TypeError("a text to look for is not a string")
        return texts
    except (
        ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, RecursionError, zlib.error,
        pa.ArrowException,
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} is not a {benchmark.name} file: {type(error).__name__}: {error}; put the set's official file "
            "there, or remove it"
        ) from None


def _tail(text: str) -> str:
    return "\n".join(text.split("\n")[-TAIL_LINES:])


def docstring(prompt: str) -> str:
    """The text between triple quotes; of two such texts the second (the first is then a helper's)."""
    found = [text for _, text in re.findall(r"(\"\"\"|''')(.*?)\1", prompt, flags=re.DOTALL)]
    return found[min(1, len(found) - 1)] if found else ""
