"""Tasks of line completion made from the files of any repository, and the file they are kept in.

What RepoBench's authors did with repositories of their choice: a line is taken out of a file, and asked for with
what stands before it and with other files.

    cross_file_first    the first line that uses a name which the file imports from its repository
    cross_file_random   a later line that uses one
    in_file             a line that uses nothing of another file

A line can be asked for if it has 8 to 160 characters and a name, and is no import, comment or part of a text of
several lines; if it stands once in all the repository's files; and if no file that is shown holds it, alone or
inside a longer line: nothing that is shown holds the answer. Of each file one line of each setting is taken at
most. Which, and which files go where there are more than are wanted, is decided by a hash of the seed, the
repository's name and the place, so that it depends on nothing else.

Two kinds of other files go with a task. `imported` are the files that its file imports, in the order of the
imports, with nothing in them that the reference decided. `retrieved` are the five fragments that follow those
most like the ten lines before the one asked for (Jaccard similarity of words, fragments of ten lines), which is
CrossCodeEval's retrieval without the reference.

A file of tasks is JSON lines, compressed; each line has `version`, which is raised when a reader of the version
before would misread it, and the fields of `Task`.
"""

import gzip
import hashlib
import json
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from starsmith.errors import InputError, MachineError
from starsmith.evaluation.benchmarks.python_programs import read_rows
from starsmith.evaluation.repository_imports import Analysis, Source, analyse

VERSION: Final = 1
Setting = Literal["cross_file_first", "cross_file_random", "in_file"]
SETTINGS: Final[tuple[Setting, ...]] = get_args(Setting)
MIN_CHARS: Final = 8
MAX_CHARS: Final = 160
MIN_LINES_BEFORE: Final = 3
"""In a task's file, other than empty ones."""
MAX_IMPORTED_CHARS: Final = 65_536
"""Of all files that go with a task; more than that is left out, last file first."""
CHUNK_LINES: Final = 10
NUM_RETRIEVED: Final = 5
MAX_CHUNKS: Final = 2_000
"""Compared with a task: those of the nearest files."""
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class OtherFile:
    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Task:
    id: str
    language: str
    """go-enry's name."""
    setting: Setting
    repository: str
    revision: str
    """The commit."""
    path: str
    line: int
    """Counted from 1."""
    before: str
    """The file up to the line."""
    target: str
    """The line, without its end."""
    imported: tuple[OtherFile, ...]
    retrieved: tuple[OtherFile, ...]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one repository gave."""

    tasks: list[Task]
    dropped_files: Counter[str]
    dropped_lines: Counter[str]
    """Reason to how many; a line is counted under the first that holds."""


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    row: int
    setting: Setting


def make(
    repository: str,
    revision: str,
    sources: Sequence[Source],
    go_modules: Mapping[str, str],
    *,
    seed: int,
    max_tasks: int,
) -> Made:
    """The tasks of one repository, ordered by path and line. Call it inside `syntax.with_large_stack`.

    Args:
        repository: its name.
        revision: its commit.
        sources: its files in languages of `repository_imports.GRAMMARS`.
        go_modules: the texts of its go.mod files by path.
        seed: with the repository's name and a place, decides what is taken.
        max_tasks: the most of each language and setting.
    """
    dropped_files: Counter[str] = Counter()
    dropped_lines: Counter[str] = Counter()
    files: dict[str, Source] = {}
    texts: set[str] = set()
    for source in sorted(sources, key=lambda source: source.path):
        if source.text in texts:
            dropped_files["a copy of another file"] += 1
            continue
        texts.add(source.text)
        files[source.path] = source
    analyses = analyse(list(files.values()), go_modules)
    dropped_files["a syntax error"] += len(files) - len(analyses)
    lines = {path: files[path].text.split("\n") for path in files}
    counts = Counter(line.strip() for own in lines.values() for line in own)

    ranked: dict[tuple[str, Setting], list[tuple[int, _Place]]] = defaultdict(list)
    for path, analysis in analyses.items():
        found: dict[Setting, list[tuple[int, _Place]]] = defaultdict(list)
        for place in _places(path, lines[path], analysis, counts, dropped_lines):
            found[place.setting].append((_rank(seed, repository, place), place))
        for setting, places in found.items():
            dropped_lines["another line of this file and setting"] += len(places) - 1
            ranked[files[path].language, setting].append(min(places, key=lambda pair: pair[0]))

    chunks = _Chunks(files)
    tasks = []
    for (language, setting), places in ranked.items():
        num_taken = 0
        for _, place in sorted(places, key=lambda pair: pair[0]):
            if num_taken == max_tasks:
                dropped_lines[f"more than {max_tasks} of a language and setting"] += 1
                continue
            before, target = lines[place.path][: place.row], lines[place.path][place.row]
            imported = _imported(place.path, analyses[place.path], files)
            retrieved = chunks.like(before, place.path)
            if any(target.strip() in file.text for file in (*imported, *retrieved)):
                dropped_lines["in a file that is shown"] += 1
                continue
            num_taken += 1
            tasks.append(
                Task(
                    id=f"{repository}@{revision[:12]}:{place.path}:{place.row + 1}",
                    language=language,
                    setting=setting,
                    repository=repository,
                    revision=revision,
                    path=place.path,
                    line=place.row + 1,
                    before="\n".join(before) + "\n",
                    target=target,
                    imported=imported,
                    retrieved=retrieved,
                )
            )
    tasks.sort(key=lambda task: (task.path, task.line))
    return Made(tasks=tasks, dropped_files=+dropped_files, dropped_lines=+dropped_lines)


def distinct(tasks: Iterable[Task]) -> tuple[list[Task], Counter[str]]:
    """Tasks of several repositories, in order, each line that is asked for once in a language."""
    seen: set[tuple[str, str]] = set()
    kept: list[Task] = []
    dropped: Counter[str] = Counter()
    for task in tasks:
        key = (task.language, task.target.strip())
        if key in seen:
            dropped["the same line in another repository"] += 1
        else:
            seen.add(key)
            kept.append(task)
    return kept, dropped


def write(path: Path, tasks: Iterable[Task]) -> None:
    """The same bytes for the same tasks.

    Raises:
        MachineError: it cannot be written.
    """
    rows = (json.dumps({"version": VERSION, **asdict(task)}, ensure_ascii=False) for task in tasks)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            for row in rows:
                packed.write(row.encode() + b"\n")
        partial.replace(path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error}") from error


def read(path: Path) -> list[Task]:
    """What `write` wrote.

    Raises:
        InputError: the file cannot be read, or is of another version; names the line.
    """
    texts = dict.fromkeys(("id", "language", "setting", "repository", "revision", "path", "before", "target"), str)
    rows = read_rows(path, {"version": int} | texts | {"line": int, "imported": list, "retrieved": list})
    tasks = []
    for number, row in enumerate(rows, start=1):
        if row.pop("version") != VERSION:
            raise InputError(f"{path}, task {number}: it is not of version {VERSION}; make the tasks again")
        if row["setting"] not in SETTINGS:
            raise InputError(f"{path}, task {number}: no setting {row['setting']!r}, but {', '.join(SETTINGS)}")
        for name in ("imported", "retrieved"):
            row[name] = _others(row[name], f"{path}, task {number}: {name}")
        tasks.append(Task(**row))
    return tasks


def _others(rows: list[Any], place: str) -> tuple[OtherFile, ...]:
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("path", "text")):
            raise InputError(f"{place} must be objects with path and text")
    return tuple(OtherFile(path=row["path"], text=row["text"]) for row in rows)


def _places(
    path: str, lines: Sequence[str], analysis: Analysis, counts: Mapping[str, int], dropped: Counter[str]
) -> Iterator[_Place]:
    """Every line of a file that can be asked for."""
    used: set[str] = set()
    num_before = 0
    for row, line in enumerate(lines):
        bare = line.strip()
        names = analysis.names.get(row, frozenset())
        if row not in analysis.quiet and names:
            entries = {name: analysis.imported[name] for name in names if name in analysis.imported}
            foreign = bool(names & analysis.foreign) or any(entry.row >= row for entry in entries.values())
            reason = _reason(bare, num_before, counts)
            if entries and not foreign:
                setting: Setting = "cross_file_random" if entries.keys() <= used else "cross_file_first"
            elif not (entries or foreign or analysis.opaque):
                setting = "in_file"
            else:
                reason = reason or "what it needs of other files is not known"
            used |= entries.keys()
            if reason:
                dropped[reason] += 1
            else:
                yield _Place(path, row, setting)
        num_before += bool(bare)


def _reason(bare: str, num_before: int, counts: Mapping[str, int]) -> str:
    """Why a line cannot be asked for, whatever it uses; "" if it can."""
    if not MIN_CHARS <= len(bare) <= MAX_CHARS:
        return f"not of {MIN_CHARS} to {MAX_CHARS} characters"
    if num_before < MIN_LINES_BEFORE:
        return f"fewer than {MIN_LINES_BEFORE} lines before it"
    return "more than once in the repository" if counts[bare] > 1 else ""


def _imported(path: str, analysis: Analysis, files: Mapping[str, Source]) -> tuple[OtherFile, ...]:
    ordered = sorted(analysis.imported.values(), key=lambda entry: entry.row)
    paths = dict.fromkeys(other for entry in ordered for other in entry.paths if other != path)
    shown: list[OtherFile] = []
    room = MAX_IMPORTED_CHARS
    for other in paths:
        text = files[other].text
        if len(text) > room:
            text = text[: text.rfind("\n", 0, room) + 1]
        if not text:
            break
        shown.append(OtherFile(path=other, text=text))
        room -= len(text)
    return tuple(shown)


class _Chunks:
    """Every file in fragments of `CHUNK_LINES` lines that are not empty, with their words."""

    def __init__(self, files: Mapping[str, Source]) -> None:
        self._chunks: dict[str, list[tuple[str, frozenset[str]]]] = {}
        for path, source in files.items():
            lines = [line for line in source.text.split("\n") if line.strip()]
            texts = ("\n".join(lines[n : n + CHUNK_LINES]) for n in range(0, len(lines), CHUNK_LINES))
            self._chunks[path] = [(text, frozenset(_WORD.findall(text))) for text in texts]

    def like(self, before: Sequence[str], path: str) -> tuple[OtherFile, ...]:
        """The fragments after those of other files that are most like the last lines of a text."""
        query = frozenset(_WORD.findall("\n".join([line for line in before if line.strip()][-CHUNK_LINES:])))
        scored: list[tuple[float, str, int]] = []
        for other in sorted(self._chunks.keys() - {path}, key=lambda other: (_distance(path, other), other)):
            for number, (_, words) in enumerate(self._chunks[other]):
                if common := len(query & words):
                    scored.append((-common / len(query | words), other, number))
            if len(scored) >= MAX_CHUNKS:
                break
        found: dict[str, OtherFile] = {}
        for _, other, number in sorted(scored):
            chunks = self._chunks[other]
            text = chunks[min(number + 1, len(chunks) - 1)][0]
            found.setdefault(text, OtherFile(path=other, text=text + "\n"))
            if len(found) == NUM_RETRIEVED:
                break
        return tuple(found.values())


def _distance(left: str, right: str) -> int:
    """The folders between two files."""
    ours, theirs = posixpath.dirname(left).split("/"), posixpath.dirname(right).split("/")
    common = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    num_common = min(len(ours), len(theirs)) if common is None else common
    return len(ours) + len(theirs) - 2 * num_common


def _rank(seed: int, repository: str, place: _Place) -> int:
    text = f"{seed}\0{repository}\0{place.path}\0{place.row}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
