"""Tasks for `repository_completion` from Git repositories on this machine.

The newest commit of each is read as `ingest` reads it (`sources/git.py`), work tree or bare; what is not committed
is not there. Files go by enry's rules: languages that can be asked for, no generated or minified files and no
vendored ones. Beside the tasks stands `summary.json`: from which commits they are, how many there are of each
language and setting, and what was left out for which reason.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from starsmith import sources
from starsmith.corpus.arrivals import Incident, OversizedFile, Repository, SourceFile
from starsmith.corpus.store import write_atomically
from starsmith.errors import InputError
from starsmith.evaluation import repository_tasks
from starsmith.evaluation.benchmarks.repository_completion import DATA
from starsmith.evaluation.contract import Progress, no_progress
from starsmith.evaluation.repository_imports import GO_MODULE, GRAMMARS, Source
from starsmith.recipe import GitSource, Limits
from starsmith.signals import syntax
from starsmith.signals.language_flags import is_generated, path_flags
from starsmith.signals.language_strategies import language_of
from starsmith.sources.urls import is_remote

_MAX_LINE_CHARS: Final = 1_000
"""A file with a longer line is taken for data or minified, whatever its name; The Stack v2's limit is wider."""
_TOO_LONG: Final = f"longer than {syntax.MAX_BYTES // 1024} KiB"


@dataclass(frozen=True, kw_only=True)
class Summary:
    file: str
    """Of the tasks."""
    version: int
    seed: int
    repositories: list[dict[str, str | int]]
    """Name, commit and number of files and tasks of each."""
    tasks: dict[str, dict[str, int]]
    """By language and setting."""
    dropped_files: dict[str, int]
    dropped_lines: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _Read:
    name: str
    revision: str
    files: list[Source]
    go_modules: dict[str, str]
    dropped: Counter[str]


def make(
    repositories: Sequence[str],
    folder: Path,
    *,
    seed: int = 42,
    max_tasks: int = 100,
    progress: Progress = no_progress,
) -> Summary:
    """Writes the tasks of all repositories where `repository_completion` finds them with `--data FOLDER`.

    Args:
        repositories: folders of Git repositories, bare or not.
        folder: gets `repository-tasks/tasks.jsonl.gz` and `summary.json`.
        seed: decides which lines are taken.
        max_tasks: the most of each repository, language and setting.
        progress: told after each repository.

    Raises:
        InputError: a folder is no repository, or all of them together hold no task.
        MachineError: a repository is damaged at its commit, or the disk refuses.
    """
    syntax.check_installed("repository-tasks needs")
    dropped_files: Counter[str] = Counter()
    dropped_lines: Counter[str] = Counter()
    told: list[tuple[str, str, int]] = []
    tasks: list[repository_tasks.Task] = []
    for number, place in enumerate(repositories, start=1):
        read = _read(place)
        made = syntax.with_large_stack(
            lambda read=read: repository_tasks.make(  # type: ignore[misc]
                read.name, read.revision, read.files, read.go_modules, seed=seed, max_tasks=max_tasks
            )
        )
        dropped_files += read.dropped + made.dropped_files
        dropped_lines += made.dropped_lines
        told.append((read.name, read.revision, len(read.files)))
        tasks += made.tasks
        progress(number, len(repositories))
    kept, again = repository_tasks.distinct(tasks)
    dropped_lines += again
    if not kept:
        dropped = (dropped_files + dropped_lines).most_common(6)
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped) or "nothing, there is no file"
        raise InputError(
            f"no line of {', '.join(repositories)} can be asked for; languages are {', '.join(GRAMMARS)}; "
            f"left out were: {reasons}"
        )
    per_repository = Counter((task.repository, task.revision) for task in kept)
    counts: dict[str, dict[str, int]] = {}
    for task in kept:
        own = counts.setdefault(task.language, dict.fromkeys(repository_tasks.SETTINGS, 0))
        own[task.setting] += 1
    file = folder / DATA.folder / DATA.files[0]
    repository_tasks.write(file, kept)
    summary = Summary(
        file=str(file),
        version=repository_tasks.VERSION,
        seed=seed,
        repositories=[
            {
                "name": name,
                "revision": revision,
                "num_files": num_files,
                "num_tasks": per_repository[name, revision],
            }
            for name, revision, num_files in told
        ],
        tasks=dict(sorted(counts.items())),
        dropped_files=dict(dropped_files.most_common()),
        dropped_lines=dict(dropped_lines.most_common()),
    )
    held = asdict(summary) | {"file": file.name}
    write_atomically(file.with_name("summary.json"), (json.dumps(held, indent=1) + "\n").encode())
    return summary


def _read(place: str) -> _Read:
    """The files of a repository's newest commit that can be asked for."""
    if is_remote(place) and not Path(place).exists():
        raise InputError(f"{place} is not on this machine; clone it (git clone --depth 1) and name its folder")
    limits, cache = Limits(), Path()
    [target] = sources.resolve(GitSource(type="git", url=place), cache=cache, limits=limits)
    files: list[Source] = []
    go_modules: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    name = revision = ""
    for arrival in sources.read(target, cache=cache, limits=limits):
        if isinstance(arrival, SourceFile):
            path = arrival.path.removeprefix("/")
            if path.rpartition("/")[2] == GO_MODULE:
                go_modules[path] = arrival.data.decode(errors="replace")
            elif isinstance(source := _source(path, arrival.data), Source):
                files.append(source)
            else:
                dropped[source] += 1
        elif isinstance(arrival, OversizedFile):
            dropped[_TOO_LONG] += 1
        elif isinstance(arrival, Incident):
            dropped[f"not read: {arrival.kind}"] += 1
        elif isinstance(arrival, Repository):
            name, revision = arrival.repo_name, arrival.revision_id or ""
    return _Read(name=name, revision=revision, files=files, go_modules=go_modules, dropped=dropped)


def _source(path: str, data: bytes) -> Source | str:
    """A file that can be asked for, or why it cannot."""
    base = path.rpartition("/")[2]
    language = language_of(base, data)
    if language is None or language not in GRAMMARS:
        return "no language that is asked for"
    if path_flags([path])[0][0]:
        return "vendored"
    if len(data) > syntax.MAX_BYTES:
        return _TOO_LONG
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return "not UTF-8"
    if is_generated(base, data) or max(map(len, text.split("\n"))) > _MAX_LINE_CHARS:
        return "generated, minified or data"
    return Source(path, language, text)
