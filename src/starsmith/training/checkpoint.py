"""Checkpoints: whole or absent, verified before use, and read without running code.

A checkpoint is a folder `step-00000100` (100 steps are done) with the weights and the optimiser's moments as
safetensors, everything else as JSON, the lineage rows that are in no part yet, and a manifest with the size and
SHA-256 of each file. It is written as `step-00000100.partial`, synced, and renamed; a killed run therefore leaves
the older ones and at most a `.partial` folder, which nobody reads. A checkpoint whose files differ from its
manifest is named in a warning and the next older one is used.

Price: every checkpoint is read back once for its digests, and once more when it is resumed from.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from starsmith.corpus.store import file_digest
from starsmith.errors import MachineError

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
_FORMAT = 1
_MANIFEST = "manifest.json"
_WEIGHTS, _MOMENTS, _FACTS, _LINEAGE = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "lineage.parquet",
)
_SLACK_BYTES = 1 << 20  # headers, facts and lineage rows, when judging whether the disk will do


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The whole state of a run after `step` steps."""

    step: int
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    """JSON values: loader state, configurations, counters, random state."""
    lineage: pa.Table
    """Rows of steps since the last lineage part."""


def save(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint of the run; an older (damaged) one of the same step is replaced.

    Raises:
        MachineError: the disk is full or refuses; what was begun is removed and older checkpoints stay.
    """
    place = run / FOLDER / name_of(checkpoint.step)
    aside = place.with_name(f"{place.name}.partial")
    tensors = [*checkpoint.weights.values(), *checkpoint.moments.values()]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors) + _SLACK_BYTES
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        if shutil.disk_usage(place.parent).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        aside.mkdir()
        _write(aside, checkpoint)
        if place.exists():
            _remove(place)
        aside.rename(place)
        _sync(place.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise _refusal(place, num_bytes, error) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return place


def latest(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None; damaged ones are passed over with a warning each."""
    places = _places(run)
    for place in reversed(places.values()):
        fault = next(faults(place), None)
        if fault is None:
            return _read(place)
        logger.warning("checkpoint %s is damaged and not used: %s", place, fault)
    if places:
        logger.warning("no whole checkpoint is left in %s; training starts from the beginning", run / FOLDER)
    return None


def faults(place: Path) -> Iterator[str]:
    """Compares a checkpoint with its manifest; yields a sentence per difference."""
    try:
        manifest = json.loads((place / _MANIFEST).read_bytes())
        if manifest["format"] != _FORMAT:
            yield f"its format is {manifest['format']!r}, not {_FORMAT}"
            return
        files = {name: (int(known["bytes"]), str(known["sha256"])) for name, known in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"its manifest cannot be read ({error})"
        return
    for name in sorted({_WEIGHTS, _MOMENTS, _FACTS, _LINEAGE} - files.keys()):
        yield f"{name} is not in its manifest"
    for name, (num_bytes, digest) in sorted(files.items()):
        file = place / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != num_bytes:
            yield f"{name} has {file.stat().st_size:,} bytes instead of {num_bytes:,}"
        elif file_digest(file) != digest:
            yield f"{name} has other bytes than were written"


def prune(run: Path, step: int, *, keep: int, is_scheduled: Callable[[int], bool]) -> None:
    """Removes what the checkpoint of `step` makes superfluous.

    Stays: the newest `keep` scheduled checkpoints up to `step`, and `step` itself. Checkpoints outside the
    schedule (of runs told to stop) go, so that an interrupted run ends with the same checkpoints as any other.
    Later ones stay until they are overwritten: they are damaged, and not ours to judge twice.
    """
    places = {number: place for number, place in _places(run).items() if number <= step}
    kept = set(sorted(number for number in places if is_scheduled(number) or number == step)[-keep:])
    for number, place in places.items():
        if number not in kept:
            _remove(place)
    for leftover in (run / FOLDER).glob("*.partial*"):  # of killed runs
        shutil.rmtree(leftover)


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    save_file(_plain(checkpoint.weights), folder / _WEIGHTS, metadata={"format": "pt"})
    save_file(_plain(checkpoint.moments), folder / _MOMENTS, metadata={"format": "pt"})
    facts = {"step": checkpoint.step, **checkpoint.facts}
    (folder / _FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")
    pq.write_table(checkpoint.lineage, folder / _LINEAGE, compression="zstd")
    files = {}
    for file in sorted(folder.iterdir()):
        _sync(file)
        files[file.name] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
    manifest = {"format": _FORMAT, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    _sync(folder / _MANIFEST)
    _sync(folder)


def _read(place: Path) -> Checkpoint:
    facts = json.loads((place / _FACTS).read_bytes())
    return Checkpoint(
        step=facts.pop("step"),
        weights=load_file(place / _WEIGHTS),
        moments=load_file(place / _MOMENTS),
        facts=facts,
        lineage=pq.read_table(place / _LINEAGE),
    )


def _places(run: Path) -> dict[int, Path]:
    """Checkpoint folders by step, ascending."""
    found = {}
    for place in sorted((run / FOLDER).glob("step-*")):
        matched = re.fullmatch(r"step-(\d+)", place.name)
        if matched and place.is_dir():
            found[int(matched[1])] = place
    return found


def _remove(place: Path) -> None:
    """Renames first, so that a half-removed checkpoint is not taken for a damaged one."""
    aside = place.with_name(f"{place.name}.partial-removed")
    shutil.rmtree(aside, ignore_errors=True)
    place.rename(aside)
    shutil.rmtree(aside)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(place: Path, num_bytes: int, error: OSError | SafetensorError) -> MachineError:
    # safetensors writes in Rust and reports the system's error as text
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    is_full = any(getattr(error, "errno", None) == code or f"(os error {code})" in str(error) for code in codes)
    what = "the disk is full" if is_full else f"the disk refuses ({error})"
    return MachineError(
        f"{what}: could not write the checkpoint {place} of {num_bytes:,} bytes. Older checkpoints are whole; "
        "free some space (or lower training.keep_checkpoints) and run again to continue from the newest"
    )
