"""Speed of the search for personal data and secrets, and detect-secrets beside it on the same files.

All times are processor seconds of one core. Ours finds e-mail and IP addresses, names, passwords and keys, from
Arrow columns in memory; detect-secrets (default plugins and filters, in its own environment) finds keys and
passwords, from files. It is slow, so both are compared on a sample that it can finish. With `--samples FOLDER`,
`gitleaks.toml` in that folder is run as well: each rule as RE2, behind a search for its keywords, in process.
"""

import argparse
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ahocorasick_rs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import re2

from benchmarks import cache, corpora, peers, table
from starsmith.errors import MachineError
from starsmith.signals import pii

TARGET_MB_PER_SECOND = 60.0
TARGET_RATIO = 100.0
_SAMPLE_FILES = {"small": 60, "full": 400}
_MAX_SAMPLE_FILE_BYTES = 50_000
_SECONDS = 900.0


def main() -> None:
    arguments = options(__doc__ or "")
    corpus = corpora.build(arguments.scale)
    rows = [*_alone(corpus), *_beside(corpus, arguments)]
    table.publish(rows, ("numba", "google-re2"), arguments.json)


def options(description: str) -> argparse.Namespace:
    """The options of every benchmark, and a folder of labelled samples."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    parser.add_argument(
        "--samples", type=Path, help="a folder with gitleaks.toml and presidio-synth-first300.json"
    )
    return parser.parse_args()


def sample(corpus: corpora.BenchmarkCorpus, num_files: int) -> pa.Table:
    """So many contents of ordinary size: their texts and the extension of one of their names.

    Identifiers are hashes, so the first of each partition are a sample that depends on nothing else.
    """
    files = pa.concat_tables(pq.read_table(part, columns=["content_id", "path"]) for part in corpus.files)
    names = files.group_by("content_id").aggregate([("path", "min")])
    parts: list[pa.Table] = []
    share = -(-num_files // len(corpus.contents))
    for part in corpus.contents:
        contents = pq.read_table(part, columns=["content_id", "length_bytes", "status", "text"])
        is_ordinary = pc.and_(
            pc.equal(contents["status"], "text"), pc.less(contents["length_bytes"], _MAX_SAMPLE_FILE_BYTES)
        )
        parts.append(contents.filter(is_ordinary).slice(0, share))
    return pa.concat_tables(parts).slice(0, num_files).join(names, "content_id").sort_by("content_id")


def write_files(texts: dict[str, str], folder: Path) -> None:
    """Each text as a file of its name, as it is, for a peer that reads files."""
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())


def file_names(contents: pa.Table) -> list[str]:
    """For each row of a sample, its identifier with the extension of its path."""
    pairs = zip(contents["content_id"].to_pylist(), contents["path_min"].to_pylist(), strict=True)
    return [content_id + Path(path).suffix for content_id, path in pairs]


def _alone(corpus: corpora.BenchmarkCorpus) -> Iterator[table.Row]:
    seconds = 0.0
    num_bytes = num_contents = num_findings = 0
    pii.measure(pq.read_table(corpus.contents[0]))  # the kernel and the expressions compile once a process
    for part in corpus.contents:
        contents = pq.read_table(part)
        seconds += _seconds(contents)
        num_findings += pii.measure(contents).num_rows
        num_bytes += pc.sum(contents["length_bytes"]).as_py() or 0
        num_contents += contents.num_rows
    speed = num_bytes / 1e6 / seconds
    yield table.row("whole corpus", speed, "MB/s a core", target=TARGET_MB_PER_SECOND, direction="at least")
    yield table.row("whole corpus", num_contents / seconds, "files/s a core")
    yield table.row("whole corpus, findings", num_findings / (num_bytes / 1e6), "per MB")


def _seconds(contents: pa.Table) -> float:
    started = time.process_time()
    pii.measure(contents)
    return time.process_time() - started


def _beside(corpus: corpora.BenchmarkCorpus, arguments: argparse.Namespace) -> Iterator[table.Row]:
    contents = sample(corpus, _SAMPLE_FILES[arguments.scale])
    megabytes = pc.sum(contents["length_bytes"]).as_py() / 1e6
    seconds = min(_seconds(contents) for _ in range(3))
    try:
        peer = _detect_secrets(contents)
    except MachineError as error:
        print(f"detect-secrets is absent: {error}")
        peer = None
    for unit, amount in (("MB/s a core", megabytes), ("files/s a core", contents.num_rows)):
        yield table.row(
            "same files",
            amount / seconds,
            unit,
            peer=None if peer is None else amount / peer["seconds"],
            peer_name=None if peer is None else "detect-secrets",
            target=None if peer is None else TARGET_RATIO,
            direction="at least",
        )
    rules = None if arguments.samples is None else arguments.samples / "gitleaks.toml"
    if rules is not None and rules.is_file():
        theirs = _gitleaks_seconds(rules, contents["text"].to_pylist())
        name = "gitleaks rules in RE2"
        yield table.row("same files", megabytes / seconds, "MB/s a core", peer=megabytes / theirs, peer_name=name)


def _detect_secrets(contents: pa.Table) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        write_files(dict(zip(file_names(contents), contents["text"].to_pylist(), strict=True)), Path(folder))
        return peers.run("detect-secrets", "secrets_detect_secrets.py", folder, timeout_seconds=_SECONDS)


def _gitleaks_seconds(path: Path, texts: list[str]) -> float:
    """Every rule on the texts that have one of its keywords."""
    quiet = re2.Options()
    quiet.log_errors = False
    rules = [rule for rule in tomllib.loads(path.read_text(encoding="utf-8"))["rules"] if "regex" in rule]
    expressions = [re2.compile(rule["regex"].encode(), quiet) for rule in rules]
    owners = [
        (word.encode().lower(), number) for number, rule in enumerate(rules) for word in rule.get("keywords", ())
    ]
    always = {number for number, rule in enumerate(rules) if not rule.get("keywords")}
    words = ahocorasick_rs.BytesAhoCorasick([word for word, _ in owners])
    started = time.process_time()
    for text in texts:
        data = text.encode()
        hits = words.find_matches_as_indexes(data.lower(), overlapping=True)
        for number in sorted(always | {owners[hit][1] for hit, _, _ in hits}):
            for _ in expressions[number].finditer(data):
                pass
    return time.process_time() - started


if __name__ == "__main__":
    main()
