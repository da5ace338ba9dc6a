"""Labels and flags beside go-enry called plainly, in one process; CPU time of one core.

Both see the same base names and bytes from memory. Ours are go-enry's own answers with fewer questions, so two
rows count the files on which they differ, and the target is none. Where go-enry's classifier finds two languages
equally probable it answers at random; ours then has to be the alphabetically first of its answers. Target:
10,000 files/s a core for the labels.

*Labels only* is the language; *with flags* is the whole step from tables to columns: vendored, documentation
and generated too. By extension only, which takes no content, is set beside them with its agreement.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import corpora, table
from starsmith.signals import language, language_flags, language_strategies

TARGET_FILES = 10_000.0
_TIE_SAMPLES = 100
T = TypeVar("T")


@dataclass(frozen=True)
class File:
    path: str
    """From its root, without a slash in front."""
    name: str
    data: bytes


def main() -> None:
    chosen = table.options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    language_strategies.language_of("warm.srt", b"up\n")  # loads Go
    total = Comparison.empty()
    for contents_place, files_place in zip(corpus.contents, corpus.files, strict=True):
        contents, files = pq.read_table(contents_place), pq.read_table(files_place)
        total = total.plus(compare(list(_texts(files, contents)), _seconds(language.measure, files, contents)))
    table.publish(_rows(total), ("enry-python", "google-re2", "pyarrow"), chosen.json)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    num_files: int
    measure_seconds: float
    """The whole step; the others are loops over names and bytes."""
    label_seconds: float
    enry_label_seconds: float
    enry_flag_seconds: float
    extension_seconds: float
    num_differing_labels: int
    num_differing_flags: int
    num_ties: int
    num_extension_agrees: int

    @classmethod
    def empty(cls) -> "Comparison":
        return cls(**dict.fromkeys(cls.__dataclass_fields__, 0))

    def plus(self, other: "Comparison") -> "Comparison":
        return Comparison(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})


def compare(files: Sequence[File], measure_seconds: float) -> Comparison:
    """Ours and enry's answers for some files, with the CPU time of each."""
    import enry

    labels, label_seconds = _timed(language_strategies.language_of, [(file.name, file.data) for file in files])
    flags = [
        (language_flags.is_generated(file.name, file.data), *path_flags)
        for file, path_flags in zip(files, language_flags.path_flags([file.path for file in files]), strict=True)
    ]
    by_extension, extension_seconds = _timed(enry.get_language_by_extension, [(file.name,) for file in files])
    enry_labels, enry_label_seconds = _timed(enry.get_language, [(file.name, file.data) for file in files])
    enry_flags, enry_flag_seconds = _timed(_enry_flags, [(file,) for file in files])
    unequal = [
        (file, ours)
        for file, ours, theirs in zip(files, labels, enry_labels, strict=True)
        if ours != (theirs or None)
    ]
    ties = [is_first_of_tie(file.name, file.data, ours) for file, ours in unequal]
    return Comparison(
        num_files=len(files),
        measure_seconds=measure_seconds,
        label_seconds=label_seconds,
        enry_label_seconds=enry_label_seconds,
        enry_flag_seconds=enry_flag_seconds,
        extension_seconds=extension_seconds,
        num_differing_labels=ties.count(False),
        num_differing_flags=sum(ours != theirs for ours, theirs in zip(flags, enry_flags, strict=True)),
        num_ties=ties.count(True),
        num_extension_agrees=sum(
            guess.language == theirs for guess, theirs in zip(by_extension, enry_labels, strict=True)
        ),
    )


def is_first_of_tie(name: str, data: bytes, label: str | None) -> bool:
    """Whether enry answers at random here, and the label is the first of its answers."""
    import enry

    answers = {str(enry.get_language(name, data)) for _ in range(_TIE_SAMPLES)}
    return len(answers) > 1 and label == min(answers)


def _enry_flags(file: File) -> tuple[bool, bool, bool]:
    import enry

    return enry.is_generated(file.name, file.data), enry.is_vendor(file.path), enry.is_documentation(file.path)


def _rows(total: Comparison) -> list[table.Row]:
    files = total.num_files
    enry_all_seconds = total.enry_label_seconds + total.enry_flag_seconds
    speed = files / total.label_seconds
    return [
        table.row("labels only", speed, "files/s a core", target=TARGET_FILES, direction="at least"),
        table.row(
            "labels only", speed, "files/s a core", peer=files / total.enry_label_seconds, peer_name="go-enry"
        ),
        table.row(
            "labels with flags",
            files / total.measure_seconds,
            "files/s a core",
            peer=files / enry_all_seconds,
            peer_name="go-enry",
        ),
        table.row("by extension only", files / total.extension_seconds, "files/s a core"),
        table.row("by extension only: agrees", 100 * total.num_extension_agrees / files, "% of files"),
        table.row("labels unlike go-enry's", total.num_differing_labels, "files", target=0),
        table.row("flags unlike go-enry's", total.num_differing_flags, "files", target=0),
        table.row("labels that go-enry draws at random, seen", total.num_ties, "files"),
        table.row("files compared", files, "files"),
    ]


def _texts(files: pa.Table, contents: pa.Table) -> Iterator[File]:
    rows = pc.index_in(files["content_id"], contents["content_id"].combine_chunks()).to_pylist()
    texts = [text.encode() for text in contents["text"].to_pylist()]
    for path, row in zip(files["path"].to_pylist(), rows, strict=True):
        yield File(path.removeprefix("/"), path.rpartition("/")[2], texts[row])


def _timed(function: Callable[..., T], arguments: Sequence[tuple[object, ...]]) -> tuple[list[T], float]:
    started = time.process_time()
    answers = [function(*each) for each in arguments]
    return answers, time.process_time() - started


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


if __name__ == "__main__":
    main()
