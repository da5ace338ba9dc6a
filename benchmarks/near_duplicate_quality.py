"""What near-deduplication finds and what it merges falsely, against exact Jaccard similarity.

* **Real files.** The certificate that each run prints (`signals.near_duplicate_quality`), for our default and for
  the two published configurations: `stack-v2` bit by bit, and `stack-v3`. Recall is the share of pairs that end in
  one cluster; `as a pair` is the share that the search itself finds, without chains. False merges are pairs
  below the threshold that the search takes for similar. Each configuration is judged by its own shingles. The two
  sides of each 95 % interval stand in rows of their own.
* **Planted edits.** Real files and copies of them in which a known share of the lines is replaced by lines of
  other files. The exact similarity of each copy to its original is computed, and what the search says of the two.

The targets are those of our default: recall 0.99 from 0.7 on, 0.95 in 0.7-0.8, false merges at most 0.01.
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import corpora, table
from starsmith.corpus import schema, swhid
from starsmith.corpus.components import connected_components
from starsmith.recipe import NearDuplicates
from starsmith.signals import near_duplicate_quality, near_duplicate_signing, near_duplicates

PRESETS = ("starsmith", "stack-v2", "stack-v3")
PEER = "stack-v2"
TARGET_RECALL = 0.99
TARGET_RECALL_NEAR = 0.95
TARGET_FALSE = 0.01

EDITED_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2)
"""Of the lines of a file."""
_MIN_LINES = 40
_MAX_LINES = 2_000
_NUM_EDITED = {"small": 100, "full": 1_000}
"""Files of which each share is planted."""
_SEED = 42


class Planted(NamedTuple):
    original_id: str
    edited_id: str
    share: float


def main() -> None:
    arguments = table.options(__doc__.splitlines()[0])
    corpus = corpora.build(arguments.scale)
    rows = [*certificate_rows(corpus.contents), *planted_rows(corpus.contents, _NUM_EDITED[arguments.scale])]
    table.publish(rows, ("numpy", "numba", "pyarrow"), arguments.json)


def certificate_rows(parts: Sequence[Path]) -> Iterator[table.Row]:
    """The certificates of all presets, the published one as the peer of ours."""
    found = {preset: _certificate(parts, _config(preset)) for preset in PRESETS}
    for preset, ranges in found.items():
        targets = (
            (TARGET_RECALL, TARGET_RECALL_NEAR, TARGET_FALSE) if preset == "starsmith" else (None, None, None)
        )
        above, near, below = ranges[0.7, 1.0], ranges[0.7, 0.8], ranges[0.4, 0.7]
        yield _share(f"{preset}: recall from 0.7 on", above, "fraction", targets[0])
        yield _share(f"{preset}: recall in 0.7-0.8", near, "fraction", targets[1])
        yield _share(f"{preset}: false merges in 0.4-0.7", below, "fraction", targets[2], direction="at most")
        for name, counted in (("from 0.7 on", above), ("false merges", below)):
            yield _share(f"{preset}: {name}, 95 % interval from", counted, "interval_low")
            yield _share(f"{preset}: {name}, 95 % interval to", counted, "interval_high")
    for name, place in (("0.7-0.8", (0.7, 0.8)), ("0.8-0.9", (0.8, 0.9)), ("0.9-1.0", (0.9, 1.0))):
        ours, peer = (found[preset][place] for preset in ("starsmith", PEER))
        if ours["num_pairs"] and peer["num_pairs"]:
            yield table.row(
                f"recall in {name}, as a pair", ours["num_linked"] / ours["num_pairs"], "share",
                peer=peer["num_linked"] / peer["num_pairs"], peer_name=PEER,
            )  # fmt: skip


def _config(preset: str) -> NearDuplicates:
    return NearDuplicates.model_validate({"preset": preset})


def _certificate(parts: Sequence[Path], config: NearDuplicates) -> dict[tuple[float, float], dict[str, Any]]:
    pairs = near_duplicates.verified_pairs(parts, config, _SEED)
    rows = near_duplicate_quality.certify(parts, pairs, config, _SEED).to_pylist()
    return {(row["lower"], row["upper"]): row for row in rows}


def _share(
    name: str,
    counted: dict[str, Any],
    column: str,
    target: float | None = None,
    *,
    direction: table.Direction = "at least",
) -> table.Row:
    value = float("nan") if counted[column] is None else counted[column]
    unit = f"share of {counted['num_pairs']:,} pairs"
    return table.row(name, value, unit, target=target, direction=direction)


# ---- planted edits


def planted_rows(parts: Sequence[Path], num_files: int) -> Iterator[table.Row]:
    """Recall and false merges among files and their edited copies, for ours and the published configuration."""
    texts, planted = plant(_texts(parts, num_files), random.Random(_SEED))
    with tempfile.TemporaryDirectory(prefix="near-duplicate-quality-") as folder:
        part = Path(folder) / "planted.parquet"
        pq.write_table(_contents(texts), part)
        outcomes = {preset: _judged([part], planted, texts, _config(preset)) for preset in ("starsmith", PEER)}
    for share in EDITED_SHARES:
        ours, peer = (_joined(outcomes[preset], share, above=True) for preset in ("starsmith", PEER))
        if ours and peer:
            yield table.row(
                f"{share:.0%} of lines changed: recall of {ours[1]:,} pairs from 0.7 on", ours[0], "share",
                peer=peer[0], peer_name=PEER,
            )  # fmt: skip
    recall, false = (_joined(outcomes["starsmith"], None, above=above) for above in (True, False))
    if recall:
        yield table.row(
            "planted: recall from 0.7 on", recall[0], f"share of {recall[1]:,} pairs", target=TARGET_RECALL,
            direction="at least",
        )  # fmt: skip
    if false:
        yield table.row(
            "planted: false merges below 0.7", false[0], f"share of {false[1]:,} pairs", target=TARGET_FALSE
        )


def _texts(parts: Sequence[Path], num_files: int) -> list[str]:
    """Files of `_MIN_LINES` to `_MAX_LINES` lines, from all parts alike."""
    wanted = -(-num_files // len(parts))
    found = []
    for part in parts:
        texts = pq.read_table(part, columns=["text"])["text"].to_pylist()
        found += [text for text in texts if _MIN_LINES <= text.count("\n") <= _MAX_LINES][:wanted]
    return found[:num_files]


def plant(originals: Sequence[str], generator: random.Random) -> tuple[list[str], list[Planted]]:
    """The originals and, for each, one copy of each share; replaced lines come from other originals."""
    texts, planted = list(originals), []
    lines = [text.splitlines(keepends=True) for text in originals]
    for number, own in enumerate(lines):
        for share in EDITED_SHARES:
            edited = list(own)
            for place in generator.sample(range(len(own)), max(1, round(share * len(own)))):
                other = lines[generator.randrange(len(lines))]
                edited[place] = other[generator.randrange(len(other))]
            texts.append("".join(edited))
            planted.append(Planted(_id(originals[number]), _id(texts[-1]), share))
    return texts, planted


def _id(text: str) -> str:
    return swhid.content_id(text.encode())


def _contents(texts: Sequence[str]) -> pa.Table:
    rows = {
        _id(text): {"content_id": _id(text), "blob_id": "", "length_bytes": len(text.encode()), "status": "text"}
        | {"src_encoding": "utf-8", "text": text}
        for text in texts
    }
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=schema.CONTENTS)


class _Outcome(NamedTuple):
    share: float
    similarity: float
    is_joined: bool
    is_linked: bool


def _judged(
    parts: Sequence[Path], planted: Sequence[Planted], texts: Sequence[str], config: NearDuplicates
) -> list[_Outcome]:
    """What the search says of each planted pair, beside its exact similarity by the configuration's shingles."""
    pairs = near_duplicates.verified_pairs(parts, config, _SEED)
    links = set(zip(pairs["content_a"].to_pylist(), pairs["content_b"].to_pylist(), strict=True))
    components = connected_components(pairs["content_a"], pairs["content_b"])
    cluster = dict(zip(components["id"].to_pylist(), components["component"].to_pylist(), strict=True))
    hashes, starts = near_duplicate_signing.shingles(pa.array(texts, pa.large_string()), config, _SEED)
    sets = {
        _id(text): set(hashes[starts[number] : starts[number + 1]].tolist()) for number, text in enumerate(texts)
    }
    outcomes = []
    for original, edited, share in planted:
        both = sets[original] | sets[edited]
        if original == edited or not both:
            continue
        outcomes.append(
            _Outcome(
                share,
                len(sets[original] & sets[edited]) / len(both),
                cluster.get(original, original) == cluster.get(edited, edited),
                (min(original, edited), max(original, edited)) in links,
            )
        )
    return outcomes


def _joined(outcomes: Sequence[_Outcome], share: float | None, *, above: bool) -> tuple[float, int] | None:
    """Joined ones from the threshold on, or linked ones below it: their share, and of how many pairs."""
    counted = [
        outcome.is_joined if above else outcome.is_linked
        for outcome in outcomes
        if (share is None or outcome.share == share) and (outcome.similarity >= 0.7) == above
    ]
    return (sum(counted) / len(counted), len(counted)) if counted else None


if __name__ == "__main__":
    main()
