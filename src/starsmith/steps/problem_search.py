"""Problems of benchmarks looked for in what a model was trained on: the corpus side of `evaluation.contamination`.

The rule is that of curation (section 3.3, `signals.contamination` and `policies.contamination`): a whole text of
a problem counts wherever white space and case alone differ, and so does `min_ngram_fraction` of a text's word
n-grams; texts shorter than `min_chars` are not looked for, nor are the sets of web prose unless the recipe asks
for them. Which n-grams are too common to count depends on all benchmarks of an evaluation together, as it does
there.

What is looked for are the texts that a benchmark names; of one that names none, what its problems ask and what
answers them, by the usual names of such inputs. A corpus is read once, a few megabytes at a time, part by part on
several processes; of a run, the training split of its documents, after all edits.
"""

import functools
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from starsmith import recipe
from starsmith.corpus.engine import map_parallel
from starsmith.corpus.store import Result, canonical_digest, file_digest
from starsmith.errors import InputError
from starsmith.evaluation import registry
from starsmith.evaluation.contamination import Asked, Contamination, HasTexts, Match
from starsmith.evaluation.contract import Benchmark, Problem, Progress
from starsmith.signals import benchmark_texts, contamination

QUESTIONS: Final = ("docstring", "question", "text", "prompt", "code", "before")
ANSWERS: Final = ("canonical_solution", "solution", "after", "buggy_solution")
"""Inputs of a problem that are looked for where its benchmark names no texts."""
TEXT_COLUMNS: Final = ("content", "text")
"""Of a Parquet file that is no documents table, the first that it has is its text."""
_SWHID_COLUMNS: Final = ("released_id", "content_id")
_NAME_COLUMNS: Final = ("id", "hexsha", "blob_id")
_BATCH_BYTES: Final = 4 * 1024**2
_VERSION: Final = 1
"""Changes when the same problems could be found elsewhere in the same texts."""
_Place = tuple[str, float, str, str, str, int, int]
"""method, score, document, repo_name, path, start, end."""


@dataclass(frozen=True, kw_only=True)
class ParquetCorpus:
    """Texts in Parquet files: a run's documents, a released dataset, or any table with a column of texts."""

    parts: tuple[Path, ...]
    digest: str
    config: recipe.Decontamination
    not_searched: tuple[str, ...] = ()
    """What else the model was trained on."""
    workers: int = 1

    @property
    def identity(self) -> str:
        return canonical_digest([_VERSION, contamination.VERSION, self.digest, self._rule(), *self.not_searched])

    def _rule(self) -> dict[str, Any]:
        return {
            "min_chars": self.config.min_chars,
            "ngram_words": self.config.ngram_words,
            "min_ngram_fraction": self.config.min_ngram_fraction,
            "prose_sets": self.config.prose_sets,
        }

    def search(self, asked: Asked, progress: Progress) -> dict[str, Contamination]:
        """What is found of each benchmark. Raises InputError: a part is no Parquet file or has no texts."""
        left_out = {benchmark.name: self._left_out(benchmark.name) for benchmark, _ in asked}
        searched = [(benchmark, problems) for benchmark, problems in asked if not left_out[benchmark.name]]
        needles, found = _needles(searched, self.config.min_chars), _Found()
        with tempfile.TemporaryDirectory(prefix="starsmith-problems-") as folder:
            place = Path(folder) / "needles.parquet"
            pq.write_table(needles, place)
            jobs = [
                _Job(part, place, self.config.ngram_words, self.config.min_ngram_fraction)
                for part in sorted(self.parts)
            ]
            for own in map_parallel(
                _search_part,
                jobs if needles.num_rows else [],
                workers=self.workers,
                progress=lambda done, total, note="", /: progress(done, total),
            ):
                found.merge(own)
        corpus = {"digest": self.digest, "num_texts": found.num_texts, "not_searched": list(self.not_searched)}
        owned = {owner for owners in needles["owners"].to_pylist() for owner in owners}
        result = {}
        for benchmark, problems in asked:
            name = benchmark.name
            keys = {problem.id: _owner(name, problem.id) for problem in problems}
            num_checked = sum(key in owned for key in keys.values())
            result[name] = Contamination(
                reason=left_out[name],
                num_checked=num_checked,
                num_too_short=len(keys) - num_checked,
                problems={problem: found.match(key) for problem, key in keys.items() if key in found.best},
                rule=self._rule(),
                corpus=corpus,
            )
        return result

    def _left_out(self, benchmark: str) -> str:
        """Why a benchmark is not looked for."""
        known = _set_of(benchmark)
        if known is None or not known.left_out_because or self.config.prose_sets:
            return ""
        return f"{known.left_out_because} (decontamination.prose_sets looks for them all the same)"


def run_corpus(documents: Result, made: recipe.Recipe, workers: int) -> ParquetCorpus:
    """What a run's model was trained on."""
    others = []
    if made.instructions.files:
        others.append("instructions.files")
    if made.model.start is not None:
        others.append("what the model of model.start was trained on")
    return ParquetCorpus(
        parts=tuple(documents.parts("documents")),
        digest=documents.digest(),
        config=made.decontamination,
        not_searched=tuple(others),
        workers=workers,
    )


def parquet_corpus(place: Path, workers: int) -> ParquetCorpus:
    """A Parquet file, or all of a folder, searched by the rule's default settings.

    Raises:
        InputError: there is none.
    """
    parts = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    if not parts or not all(part.is_file() for part in parts):
        raise InputError(f"no corpus at {place}: give a run's folder, a Parquet file, or a folder of such files")
    digest = canonical_digest(sorted(file_digest(part) for part in parts))
    return ParquetCorpus(parts=tuple(parts), digest=digest, config=recipe.Decontamination(), workers=workers)


def texts_of(benchmark: Benchmark, problem: Problem) -> list[str]:
    """What of a problem is looked for.

    A prompt that has a docstring is looked for by that, for its signature may be anyone's; a hole together with
    what is around it.
    """
    if isinstance(benchmark, HasTexts):
        return benchmark.texts(problem)
    inputs = {name: value for name, value in problem.inputs.items() if isinstance(value, str)}
    if "suffix" in inputs:
        around = (("prompt", "prefix"), ("canonical_solution", "middle"), ("suffix",))
        return ["".join(next((inputs[name] for name in names if name in inputs), "") for names in around)]
    texts = [inputs[name] for name in (*QUESTIONS, *ANSWERS) if name in inputs and name != "prompt"]
    if "prompt" in inputs:
        texts.insert(0, benchmark_texts.docstring(inputs["prompt"]) or inputs["prompt"])
    return texts


def _set_of(benchmark: str) -> benchmark_texts.BenchmarkSet | None:
    """The set of `benchmark_texts` that a benchmark's problems are from."""
    folder = registry.data_folder(benchmark)
    return next((known for known in benchmark_texts.SETS if known.folder == folder), None)


def _owner(benchmark: str, problem: str) -> str:
    return f"{benchmark}\0{problem}"


def _needles(asked: Asked, min_chars: int) -> pa.Table:
    """`contamination.NEEDLES` with the problems that each belongs to: a benchmark's equal texts are one needle, so
    that the many holes of one program do not pass for many programs that have the same lines."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    first: dict[tuple[str, str], str] = {}
    for benchmark, problems in asked:
        known = _set_of(benchmark.name)
        for problem in problems:
            for text in dict.fromkeys(texts_of(benchmark, problem)):
                text = text.encode("utf-8", errors="replace").decode()  # lone surrogates stand in no file
                if len(contamination.normalise(text)) < min_chars:
                    continue
                key = (benchmark.name, text)
                shared = benchmark_texts.same_problem(known.name, problem.id) if known else problem.id
                first.setdefault(key, shared)
                owners[key].append(_owner(benchmark.name, problem.id))
    rows = [
        {"benchmark": name, "problem": first[name, text], "part": str(number), "text": text, "owners": own}
        for number, ((name, text), own) in enumerate(sorted(owners.items()))
    ]
    return pa.Table.from_pylist(
        rows, schema=contamination.NEEDLES.append(pa.field("owners", pa.list_(pa.string())))
    )


class _Found:
    """The best place of each problem, and in how many files it is."""

    def __init__(self) -> None:
        self.best: dict[str, _Place] = {}
        self.num_files: dict[str, int] = defaultdict(int)
        self.num_texts = 0

    def add(self, owner: str, place: _Place, num_files: int) -> None:
        self.best[owner] = min(self.best.get(owner, place), place, key=_rank)
        self.num_files[owner] += num_files

    def merge(self, other: "_Found") -> None:
        for owner, place in other.best.items():
            self.add(owner, place, other.num_files[owner])
        self.num_texts += other.num_texts

    def match(self, owner: str) -> Match:
        method, score, document, repo_name, path, start, end = self.best[owner]
        return Match(
            document=document,
            repo_name=repo_name,
            path=path,
            method=method,
            score=score,
            start=start,
            end=end,
            num_files=self.num_files[owner],
        )


def _rank(place: _Place) -> tuple[Any, ...]:
    """Whole texts before n-grams, then the largest share; the rest makes the choice the same for any order."""
    method, score, *rest = place
    return (method != "text", -score, *rest)


@dataclass(frozen=True)
class _Job:
    part: Path
    needles: Path
    ngram_words: int
    min_ngram_fraction: float


@functools.lru_cache(maxsize=1)
def _read_needles(place: Path) -> tuple[pa.Table, list[list[str]]]:
    table = pq.read_table(place)
    return table.select(contamination.NEEDLES.names), table["owners"].to_pylist()


def _search_part(job: _Job) -> _Found:
    needles, owners = _read_needles(job.needles)
    found = _Found()
    for texts in _batches(job.part):
        found.num_texts += texts.num_rows
        contents = pa.table(
            {
                "content_id": pa.array(map(str, range(texts.num_rows)), pa.string()),
                "status": pa.array(["text"] * texts.num_rows, pa.string()),
                "text": texts["text"],
            }
        )
        rows = contamination.measure(contents, needles, ngram_words=job.ngram_words).to_pylist()
        here: dict[tuple[int, str], _Place] = {}
        for row in rows:
            if row["method"] != "text" and row["score"] < job.min_ngram_fraction:
                continue
            number = int(row["content_id"])
            file = texts.slice(number, 1).select(["document", "repo_name", "path"]).to_pylist()[0]
            place = (row["method"], row["score"], *file.values(), row["start"], row["end"])
            for owner in owners[int(row["part"])]:
                here[number, owner] = min(here.get((number, owner), place), place, key=_rank)
        for (_, owner), place in here.items():
            found.add(owner, place, 1)
    return found


def _batches(part: Path) -> Iterator[pa.Table]:
    """document, repo_name, path and text of what a part holds for training, a few megabytes at a time."""
    waiting: list[pa.Table] = []
    size = 0
    for table in _tables(part):
        waiting.append(table)
        size += table.nbytes
        if size >= _BATCH_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _tables(part: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(part) as file:
            names = file.schema_arrow.names
            if "files" in names:
                columns = ["repo_name", "split", "files"]
                for batch in file.iter_batches(batch_size=4, columns=columns):
                    yield _files(pa.table(batch))
                return
            text = next((name for name in TEXT_COLUMNS if name in names), None)
            if text is None:
                raise InputError(
                    f"{part} has no column of texts; a corpus is a run's documents, or has a column "
                    f"{' or '.join(TEXT_COLUMNS)}; this has {', '.join(names)}"
                )
            told = [*_SWHID_COLUMNS, *_NAME_COLUMNS, "repo_name", "path", "split"]
            start = 0
            for batch in file.iter_batches(batch_size=64, columns=[text, *(set(told) & set(names))]):
                table = pa.table(batch)
                yield _rows(table, text, part, start)
                start += table.num_rows
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{part} cannot be read as a corpus: {type(error).__name__}: {error}") from None


def _files(documents: pa.Table) -> pa.Table:
    documents = documents.filter(pc.equal(documents["split"], "train")).combine_chunks()
    files = pc.list_flatten(documents["files"])
    ids, paths, texts = (pc.struct_field(files, name) for name in ("released_id", "path", "text"))
    return pa.table(
        {
            "document": pc.binary_join_element_wise("swh:1:cnt", ids, ":"),
            "repo_name": documents["repo_name"].take(pc.list_parent_indices(documents["files"])),
            "path": paths,
            "text": texts.cast(pa.large_string()),
        }
    )


def _rows(table: pa.Table, text: str, part: Path, start: int) -> pa.Table:
    """Rows of a table of texts; those of a validation split were not trained on."""
    swhid = next((name for name in _SWHID_COLUMNS if name in table.column_names), None)
    name = next((name for name in _NAME_COLUMNS if name in table.column_names), None)
    if swhid is not None:
        document = pc.binary_join_element_wise("swh:1:cnt", table[swhid].cast(pa.string()), ":")
    elif name is not None:
        document = table[name].cast(pa.string())
    else:
        rows = range(start, start + table.num_rows)
        document = pa.chunked_array([pa.array([f"{part.name} row {row}" for row in rows], pa.string())])
    empty = pa.chunked_array([pa.array([""] * table.num_rows, pa.string())])
    other = {
        column: table[column].cast(pa.string()) if column in table.column_names else empty
        for column in ("repo_name", "path")
    }
    texts = pa.table({"document": document, **other, "text": table[text].cast(pa.large_string())})
    texts = texts.set_column(0, "document", pc.fill_null(texts["document"], ""))
    for column in ("repo_name", "path", "text"):
        texts = texts.set_column(texts.column_names.index(column), column, pc.fill_null(texts[column], ""))
    if "split" in table.column_names:
        texts = texts.filter(pc.not_equal(pc.fill_null(table["split"], ""), "validation"))
    return texts
