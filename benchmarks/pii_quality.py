"""Recall and precision of the search for personal data and secrets, by kind, with 95 % Wilson intervals.

Three measurements, none of which is the truth about code at large:

* `planted`: made-up values (`planted_values`) in lines put into real files of permissively licensed packages, a
  line a file. A finding counts when it is of the kind and covers the value with no more than quotes beside it. An
  upper bound of recall, for the lines are of forms that we thought of;
* `unplanted`: findings in the same files without those lines. Published packages hold no live keys or passwords,
  so there each finding of these kinds counts as false. Their authors' names and addresses are real, and whether a
  finding of the other kinds is true is for people to say: these rows are counts only;
* `labelled prose` (with `--samples FOLDER`): synthetic sentences of presidio-research, labelled by its
  generator. Prose, not code: names stand in no author position there, and rules leave them.

detect-secrets is measured on the same planted files for what it has: keys and passwords, found when it reports the
value on its line. The publisher of StarPII gives no figures for these data, so none stand here.
"""

import json
import random
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cache, corpora, peers, secrets, table
from benchmarks.planted_values import KINDS, Plant, plant
from starsmith.errors import MachineError
from starsmith.evaluation.statistics import wilson
from starsmith.signals import pii

_PLANTS = {"small": 60, "full": 300}
"""Of each kind."""
_SEED = 42
_SECONDS = 1_800.0
_PEER_KINDS = ("KEY", "PASSWORD")


def main() -> None:
    arguments = secrets.options(__doc__ or "")
    planted = _planted(arguments.scale)
    rows = [*_recall(planted), *_unplanted(planted)]
    labelled = None if arguments.samples is None else arguments.samples / "presidio-synth-first300.json"
    if labelled is not None and labelled.is_file():
        rows += _prose(labelled)
    else:
        print("no labelled prose: give --samples FOLDER with presidio-synth-first300.json")
    table.publish(rows, ("google-re2",), arguments.json)


@dataclass(frozen=True)
class Planted:
    """A file with a line put in."""

    name: str
    plain: str
    text: str
    plant: Plant
    line_number: int
    """Of the planted line, from 1."""

    @property
    def span(self) -> tuple[int, int]:
        """Where the value stands, in UTF-8 bytes."""
        before = "\n".join(self.text.split("\n")[: self.line_number - 1]) + "\n" * (self.line_number > 1)
        start = len(before.encode()) + len(self.plant.line[: self.plant.line.index(self.plant.value)].encode())
        return start, start + len(self.plant.value.encode())


def _planted(scale: corpora.Scale) -> list[Planted]:
    """Files of the corpus, each with a planted line at a drawn place."""
    number = _PLANTS[scale]
    contents = secrets.sample(corpora.build(scale), number * len(KINDS))
    texts = list(zip(secrets.file_names(contents), contents["text"].to_pylist(), strict=True))
    files = []
    for place in range(number * len(KINDS)):
        rng = random.Random(f"{_SEED} {place}")
        name, text = texts[place % len(texts)]
        value = plant(KINDS[place % len(KINDS)], rng)
        lines = text.split("\n")
        at = rng.randint(0, len(lines))
        planted = "\n".join([*lines[:at], value.line, *lines[at:]])
        files.append(Planted(f"{place:05d}-{name}", text, planted, value, at + 1))
    return files


def _recall(files: Sequence[Planted]) -> Iterator[table.Row]:
    try:
        peer: Collection[tuple[str, str]] | None = _detect_secrets(files)
    except MachineError as error:
        print(f"detect-secrets is absent: {error}")
        peer = None
    found = {file.name: _is_found(file) for file in files}
    for kind in KINDS:
        members = [file for file in files if file.plant.kind == kind]
        ours = _share(f"planted {kind}: recall", sum(found[file.name] for file in members), len(members))
        if peer is None or kind not in _PEER_KINDS:
            yield ours
            continue
        theirs = sum((file.name, file.plant.value) in peer for file in members)
        yield table.row(ours.name, ours.ours, ours.unit, peer=theirs / len(members), peer_name="detect-secrets")


def _is_found(file: Planted) -> bool:
    start, end = file.span
    return any(
        finding.kind == file.plant.kind
        and finding.start <= start
        and finding.end >= end
        and finding.end - finding.start <= end - start + 2
        for finding in pii.find(file.text.encode())
    )


def _detect_secrets(files: Sequence[Planted]) -> set[tuple[str, str]]:
    """The planted values that it reports on their lines, each with its file."""
    mine = {file.name: file for file in files if file.plant.kind in _PEER_KINDS}
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        secrets.write_files({name: file.text for name, file in mine.items()}, Path(folder))
        result = peers.run("detect-secrets", "secrets_detect_secrets.py", folder, timeout_seconds=_SECONDS)
    return {
        (name, mine[name].plant.value)
        for name, line, _, value in result["findings"]
        if line == mine[name].line_number and value is not None and mine[name].plant.value in value
    }


def _unplanted(files: Sequence[Planted]) -> Iterator[table.Row]:
    texts = {file.plain for file in files}
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    findings = [finding for text in texts for finding in pii.find(text.encode())]
    for kind in KINDS:
        number = sum(finding.kind == kind for finding in findings)
        counted = "false findings" if kind in _PEER_KINDS else "findings, true or not"
        yield table.row(f"unplanted {kind}: {counted} in {megabytes:.1f} MB", number, "findings")


def _prose(path: Path) -> Iterator[table.Row]:
    kinds = {"EMAIL_ADDRESS": "EMAIL", "IP_ADDRESS": "IP_ADDRESS", "PERSON": "NAME"}
    want, got = set(), set()
    for number, record in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        for span in record["spans"]:
            if span["entity_type"] in kinds:
                want.add((number, kinds[span["entity_type"]], span["entity_value"]))
        data = record["full_text"].encode()
        got |= {(number, f.kind, data[f.start : f.end].decode()) for f in pii.find(data)}
    for kind in kinds.values():
        wanted, gotten = ({one for one in every if one[1] == kind} for every in (want, got))
        yield _share(f"labelled prose {kind}: recall", len(wanted & gotten), len(wanted))
        yield _share(f"labelled prose {kind}: precision", len(wanted & gotten), len(gotten))


def _share(name: str, part: int, whole: int) -> table.Row:
    estimate = wilson(part, whole)
    return table.row(f"{name} ({estimate.low:.3f} to {estimate.high:.3f}, n = {whole})", estimate.value, "share")


if __name__ == "__main__":
    main()
