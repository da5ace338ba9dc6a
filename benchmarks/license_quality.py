"""How often a licence is missed because ScanCode is not given everything, and how often we agree with packagers.

All inputs are the distributions that are installed beside us, so nothing is fetched. Three measurements, each with
a 95 % interval (Wilson):

* *Passages.* Licence-like texts, and the long descriptions in package metadata, which are READMEs. Where the
  passage is not the whole text, both are scanned; a miss is a licence that only the whole text names. Texts whose
  passage is the whole cannot miss, and count in the rate over all texts.
* *Headers*, in one file of eight, package metadata aside. For normal forms of headers, ScanCode on the first 4,096
  characters of the file finds the same or less; for files in which we see no header, it finds nothing there.
  Licences that code merely speaks of count against us here.
* *Declared licences.* Distributions whose metadata has a `License-Expression`: its keys are all found in the
  licence texts of the same distribution, and both give the same verdict, permissive or not.

ScanCode needs some minutes; `--scale small` takes few of each. Samples are chosen by hash, so they repeat.
"""

import hashlib
import importlib.metadata
import math
import resource
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

from benchmarks import table
from starsmith.corpus.license_paths import UNKNOWN_REFERENCE, is_license_like
from starsmith.policies.license_categories import NEUTRAL_LICENSES, permissive_licenses
from starsmith.signals import license_claims, license_headers, license_scanner, license_texts

TARGET_MISSED_PERCENT = 1.0
NUM_PASSAGES = {"small": 6, "full": 100}
NUM_HEADERS = {"small": 6, "full": 60}
NUM_DECLARED = {"small": 6, "full": 80}
_MAX_TEXT_BYTES = 100_000
_DEADLINE_SECONDS = 100
_HEADER_DIGITS = "01"
"""Headers are looked for in files whose path has one of these as the first of its digest's 16: one in eight."""
_SCANCODE = "scancode-toolkit-mini"
"""Its own files are rules, licence by licence, and no natural sample."""


@dataclass(frozen=True)
class Distribution:
    expression: frozenset[str]
    """The declared keys; empty when the metadata has no SPDX expression."""
    license_texts: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    texts: tuple[str, ...]
    """Distinct licence-like texts and long descriptions."""
    distributions: tuple[Distribution, ...]
    headers: Mapping[str, str]
    """Normal form to the head of one file that has it."""
    silent_heads: tuple[str, ...]
    """Heads of files in which we see no header."""


Answers = Mapping[str, frozenset[str]]
"""Text to the licences that ScanCode finds; those that were not scanned in time are absent."""


def main() -> None:
    chosen = table.options(__doc__ or "")
    inputs = read_inputs()
    altered = sample(
        [text for text in inputs.texts if license_texts.passage(text) != _whole(text)], NUM_PASSAGES[chosen.scale]
    )
    forms = sample(inputs.headers, NUM_HEADERS[chosen.scale])
    silent = sample(inputs.silent_heads, NUM_HEADERS[chosen.scale])
    declared = sorted(
        (found for found in inputs.distributions if found.expression and found.license_texts),
        key=lambda found: _digest("\0".join(found.license_texts)),
    )[: NUM_DECLARED[chosen.scale]]
    wanted = {
        *map(_whole, altered),
        *map(license_texts.passage, altered),
        *forms,
        *(inputs.headers[form] for form in forms),
        *silent,
        *(license_texts.passage(text) for found in declared for text in found.license_texts),
    }
    answers = scan(wanted - {""}) | {"": frozenset()}
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [
        *passage_rows(inputs, altered, answers),
        *header_rows(inputs, forms, silent, answers),
        *declared_rows(declared, answers),
        table.row("texts scanned", len(answers) - 1, "texts"),
        table.row("texts given up", len(wanted - {""}) + 1 - len(answers), "texts"),
        table.row("processor time of ScanCode", usage.ru_utime + usage.ru_stime, "s"),
    ]
    table.publish(rows, (_SCANCODE, "license-expression"), chosen.json)


def passage_rows(inputs: Inputs, altered: Sequence[str], answers: Answers) -> list[table.Row]:
    pairs = [
        (answers[_whole(text)], answers[license_texts.passage(text)])
        for text in altered
        if _whole(text) in answers and license_texts.passage(text) in answers
    ]
    missed = sum(bool(whole - found) for whole, found in pairs)
    num_altered = sum(license_texts.passage(text) != _whole(text) for text in inputs.texts)
    share = num_altered / len(inputs.texts)
    low, high = interval(missed, len(pairs))
    return [
        table.row("licence-like texts and descriptions, distinct", len(inputs.texts), "texts"),
        table.row("of these, texts whose passage is not the whole", num_altered, "texts"),
        table.row("of these, compared", len(pairs), "texts"),
        table.row("passages that miss a licence, of those compared", percent(missed, len(pairs)), "%"),
        table.row("passages that find one which the whole does not", sum(bool(f - w) for w, f in pairs), "texts"),
        table.row(
            "texts with a missed licence, of all",
            percent(missed, len(pairs)) * share,
            "%",
            target=TARGET_MISSED_PERCENT,
        ),
        table.row("... 95 % interval, low", 100 * low * share, "%"),
        table.row("... 95 % interval, high", 100 * high * share, "%"),
    ]


def header_rows(inputs: Inputs, forms: Sequence[str], silent: Sequence[str], answers: Answers) -> list[table.Row]:
    pairs = [
        (answers[inputs.headers[form]], answers[form])
        for form in forms
        if form in answers and inputs.headers[form] in answers
    ]
    complete = sum(whole <= found for whole, found in pairs)
    quiet = [answers[head] for head in silent if head in answers]
    missed = sum(bool(found) for found in quiet)
    return [
        table.row("distinct normal forms of headers", len(inputs.headers), "forms"),
        table.row("headers with all licences of the file's head", percent(complete, len(pairs)), "%"),
        *_interval_rows(complete, len(pairs)),
        table.row("files without a header, ScanCode finds a licence", percent(missed, len(quiet)), "%"),
        *_interval_rows(missed, len(quiet)),
    ]


def declared_rows(declared: Sequence[Distribution], answers: Answers) -> list[table.Row]:
    compared = 0
    complete = 0
    alike = 0
    for found in declared:
        passages = [license_texts.passage(text) for text in found.license_texts]
        if not all(part in answers for part in passages):
            continue
        detected = frozenset().union(*(answers[part] for part in passages))
        compared += 1
        complete += found.expression <= detected
        alike += is_permissive(found.expression) == is_permissive(detected)
    return [
        table.row("distributions with a declared licence and its text", compared, "packages"),
        table.row("all declared licences found in the texts", percent(complete, compared), "%"),
        *_interval_rows(complete, compared),
        table.row("same verdict, permissive or not", percent(alike, compared), "%"),
        *_interval_rows(alike, compared),
    ]


def _interval_rows(number: int, total: int) -> list[table.Row]:
    low, high = interval(number, total)
    return [
        table.row("... 95 % interval, low", 100 * low, "%"),
        table.row("... 95 % interval, high", 100 * high, "%"),
    ]


def percent(number: int, total: int) -> float:
    return 100 * number / total if total else math.nan


def interval(number: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; the whole range when nothing was counted."""
    if not total:
        return 0.0, 1.0
    z = 1.959964
    centre = (number + z * z / 2) / (total + z * z)
    half = z * math.sqrt(number * (total - number) / total + z * z / 4) / (total + z * z)
    return max(0.0, centre - half), min(1.0, centre + half)


def is_permissive(licenses: Collection[str]) -> bool:
    """As the policy judges a set of licences."""
    counted = set(licenses) - NEUTRAL_LICENSES
    permissive = counted & permissive_licenses()
    return bool(permissive) and not counted - permissive - {UNKNOWN_REFERENCE}


def scan(texts: Iterable[str]) -> dict[str, frozenset[str]]:
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    outcomes = license_scanner.scan(
        ordered, license_texts.load_scancode, deadline_seconds=_DEADLINE_SECONDS, workers=2
    )
    return {ordered[found.number]: frozenset(found.answer[0]) for found in outcomes if found.status == "scanned"}


def sample(texts: Iterable[str], number: int) -> list[str]:
    return sorted(texts, key=_digest)[:number]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _whole(text: str) -> str:
    """The whole text in the form of a passage, so that only what is left out can make a difference."""
    return "\n".join(line.strip() for line in text.splitlines()).strip()


def read_inputs() -> Inputs:
    texts: dict[str, None] = {}
    distributions = []
    headers: dict[str, str] = {}
    silent: dict[str, None] = {}
    for installed in sorted(importlib.metadata.distributions(), key=lambda found: found.metadata["Name"]):
        if installed.metadata["Name"] == _SCANCODE:
            continue
        own = []
        for place in sorted(map(Path, map(str, map(installed.locate_file, installed.files or ())))):
            text = _read(place)
            if text is None:
                continue
            if is_license_like(f"/{place.name}"):
                texts[text] = None
                if place.parent.name.endswith(".dist-info") or ".dist-info/licenses" in place.as_posix():
                    own.append(text)
            is_metadata = ".dist-info/" in place.as_posix()
            if not is_metadata and _digest(place.as_posix().rpartition("/site-packages/")[2])[0] in _HEADER_DIGITS:
                _note_header(text, headers, silent)
        metadata = message_from_string(installed.read_text("METADATA") or "")
        description = metadata.get_payload()
        if isinstance(description, str) and 0 < len(description.encode("utf-8", "replace")) <= _MAX_TEXT_BYTES:
            texts[description] = None
        expression = license_claims.spdx_keys(metadata.get("License-Expression") or "")
        distributions.append(Distribution(frozenset(expression or ()), tuple(own)))
    return Inputs(tuple(texts), tuple(distributions), headers, tuple(silent))


def _note_header(text: str, headers: dict[str, str], silent: dict[str, None]) -> None:
    head = text[: license_headers.HEAD_CHARS]
    found = license_headers.header(text)
    if found.prose:
        headers.setdefault(found.prose, head)
    elif not found.tags and head.strip():
        silent[head] = None


def _read(place: Path) -> str | None:
    """A text of at most 100 kB, or None."""
    try:
        data = place.read_bytes() if place.stat().st_size <= _MAX_TEXT_BYTES else b"\0"
        return None if b"\0" in data else data.decode()
    except (OSError, UnicodeDecodeError):
        return None


if __name__ == "__main__":
    main()
