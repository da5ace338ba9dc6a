"""How often the label of a file is the one that people gave it, beside the label by extension alone.

The samples are a folder with a folder for each language, given as `--samples DIR`: a checkout's `samples` of
github-linguist/linguist, or `tests/examplefiles` of pygments/pygments. Whose labels they are matters:

* Linguist's are its maintainers', and go-enry's classifier was trained on these same files, so its agreement
  there is an upper bound.
* Pygments' are its own maintainers', made for highlighting; nothing of go-enry was trained on them as such, but
  they are chosen to be difficult, and some name a dialect where linguist names the language.

A folder's name is a language or an alias that go-enry knows; folders that it does not know are left out and
counted. Expected outputs (`*.output`), texts that are not UTF-8 and files that are links are left out too.
Agreement is of files; the intervals are 95 % (Wilson). By extension alone takes go-enry's first language of the
extension, which is what tools without contents do.
"""

import argparse
import collections
import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import table
from starsmith.errors import InputError
from starsmith.signals import language_strategies

MAIN_LANGUAGES = (
    "Assembly", "C", "C#", "C++", "CSS", "Dart", "Go", "HTML", "Haskell", "Java", "JavaScript", "Julia", "Kotlin",
    "Lua", "Markdown", "Objective-C", "PHP", "Perl", "PowerShell", "Python", "R", "Ruby", "Rust", "SQL", "Scala",
    "Shell", "Swift", "TypeScript", "YAML",
)  # fmt: skip
_NUM_CONFUSIONS = 15
_MAX_FILE_BYTES = {"small": 20_000, "full": 1_000_000}
_Z = 1.959964
_LEFT_OUT = (".output",)
_FOLDER_ALIASES = {"csharp": "C#", "cpp": "C++", "fstar": "F*", "bash": "Shell"}
"""Names that go-enry has no alias for, or another one."""


@dataclass(frozen=True)
class Sample:
    label: str
    """go-enry's name of the language that the folder is named after."""
    name: str
    data: bytes


@dataclass(frozen=True)
class Judged:
    label: str
    ours: str
    by_extension: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument("--samples", type=Path, required=True, help="a folder with a folder for each language")
    chosen = parser.parse_args()
    folders = labelled_folders(chosen.samples)
    samples = read_samples(folders, _MAX_FILE_BYTES[chosen.scale])
    judged = [judge(sample) for sample in samples]
    unknown = sum(label is None for _, label in folders)
    rows = [*agreement_rows(judged), table.row("folders that go-enry has no name for", unknown, "folders")]
    table.publish(rows, ("enry-python",), chosen.json)
    _print_confusions(judged)


def labelled_folders(place: Path) -> list[tuple[Path, str | None]]:
    """The language folders of a place, each with go-enry's name or None.

    Raises:
        InputError: the place is not a folder, or no folder in it is named after a language.
    """
    if not place.is_dir():
        raise InputError(
            f"--samples {place} is not a folder. It takes a folder with a folder for each language, such as "
            "`samples` of a checkout of github-linguist/linguist or `tests/examplefiles` of pygments/pygments"
        )
    folders = [(folder, language_named(folder.name)) for folder in sorted(place.iterdir()) if folder.is_dir()]
    if all(label is None for _, label in folders):
        raise InputError(f"--samples {place} has no folder that is named after a language go-enry knows")
    return folders


def language_named(name: str) -> str | None:
    """go-enry's language for a name or an alias."""
    import enry

    plain = _FOLDER_ALIASES.get(name, name)
    if enry.get_language_type(plain) != "unknown":
        return plain
    return str(enry.get_language_by_modeline(f"-*- {plain} -*-".encode()).language) or None


def read_samples(folders: Iterable[tuple[Path, str | None]], max_bytes: int) -> Iterator[Sample]:
    """The texts of all folders with a label, sorted by path."""
    for folder, label in folders:
        for path in sorted(folder.rglob("*")) if label else ():
            if path.is_symlink() or not path.is_file() or path.suffix in _LEFT_OUT:
                continue
            data = path.read_bytes() if path.stat().st_size <= max_bytes else b""
            if label and data and _is_utf8(data):
                yield Sample(label, path.name, data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def judge(sample: Sample) -> Judged:
    import enry

    ours = language_strategies.language_of(sample.name, sample.data)
    return Judged(
        sample.label, ours or "none", str(enry.get_language_by_extension(sample.name).language) or "none"
    )


def agreement_rows(judged: Sequence[Judged]) -> list[table.Row]:
    """Agreement overall, per language (the mean of the languages' own), and of each main language."""
    by_label: dict[str, list[Judged]] = collections.defaultdict(list)
    for each in judged:
        by_label[each.label].append(each)
    means = [
        sum(
            sum(getattr(each, what) == each.label for each in members) / len(members)
            for members in by_label.values()
        )
        / max(len(by_label), 1)
        for what in ("ours", "by_extension")
    ]
    rows = [
        *_agreement("all files", judged),
        table.row("mean of languages", 100 * means[0], "%", peer=100 * means[1], peer_name="by extension"),
        table.row("languages", len(by_label), "languages"),
        table.row("files", len(judged), "files"),
    ]
    for label in MAIN_LANGUAGES:
        if label in by_label:
            rows += _agreement(f"{label} ({len(by_label[label])} files)", by_label[label])
    return rows


def _agreement(name: str, judged: Sequence[Judged]) -> list[table.Row]:
    ours = sum(each.ours == each.label for each in judged)
    peer = sum(each.by_extension == each.label for each in judged)
    num = max(len(judged), 1)
    low, high = wilson(ours, len(judged))
    interval = f"{name}: 95 % from {100 * low:.1f} to {100 * high:.1f}"
    return [table.row(interval, 100 * ours / num, "%", peer=100 * peer / num, peer_name="by extension")]


def wilson(num_right: int, num_trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion; (0, 1) for no trials."""
    if not num_trials:
        return 0.0, 1.0
    share, square = num_right / num_trials, _Z**2 / num_trials
    centre = (share + square / 2) / (1 + square)
    half = (share * (1 - share) * square + square**2 / 4) ** 0.5 / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _print_confusions(judged: Iterable[Judged]) -> None:
    confusions = collections.Counter((each.label, each.ours) for each in judged if each.ours != each.label)
    shown = Table("label", "ours", "files", title=f"most frequent confusions of {confusions.total()}")
    for (label, ours), count in sorted(confusions.items(), key=lambda item: (-item[1], item[0]))[:_NUM_CONFUSIONS]:
        shown.add_row(label, ours, str(count))
    console = Console()
    console.print(shown)
    console.print(f"enry-python {importlib.metadata.version('enry-python')}")


if __name__ == "__main__":
    main()
