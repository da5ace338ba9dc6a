"""Checkpoints: whole or absent, verified before use, read without running code, written while training goes on.

A checkpoint is a folder `step-00000100` (100 steps are done). Each rank's slices of the weights and of the
optimiser's moments lie in a safetensors file of its own, everything else in JSON, the lineage rows that are in no
part yet in Parquet. The manifest, written last, holds size and SHA-256 of each file, where the rows of each tensor
lie, and a digest of itself. So a checkpoint can be read at any number of ranks, each taking the rows it needs.

`save` copies what the rank holds to host memory and returns; a thread writes. The ranks' threads meet in files
only, never in collectives, which belong to training: each leaves a note beside its file (size, digest, slices, or
why it failed), named after the attempt, so that notes of killed attempts mean nothing; the first rank's thread
waits for the notes, writes the manifest and renames `step-N.partial` to `step-N`. What went wrong on any rank is
raised on all of them by the next `save` or `finish`.

A kill at any moment leaves the newest committed checkpoint. A checkpoint whose files differ from its manifest is
named in a warning and the next older one is used.

Price: one host copy of the state (`slices.HostCopy`); a run killed while its newest checkpoint is still being
written continues from the one before, which is why the loop saves twice in an interval; each checkpoint is read
for its digests before it is used, the files shared out among the ranks.
"""

import errno
import itertools
import json
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from torch import Tensor

from starsmith.corpus.store import canonical_digest, file_digest
from starsmith.errors import InputError, MachineError
from starsmith.training.slices import (
    DTYPES,
    HostCopy,
    Reader,
    Written,
    file_order,
    header,
    num_rows,
    slice_of,
    write,
)
from starsmith.training.world import World

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
WEIGHTS = "model."
"""What the names of weights begin with, before the parameter's own name."""
_FORMAT = 2
_MANIFEST, _FACTS, _LINEAGE = "manifest.json", "state.json", "lineage.parquet"
_SLACK_BYTES = 1 << 20  # headers, facts and lineage rows, when judging whether the disk will do
_GRACE_SECONDS = 20.0  # launchers kill 30 seconds after they ask
_TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The whole state of a run after `step` steps, as one rank holds it."""

    step: int
    tensors: Mapping[str, Tensor]
    """Plain, or sharded along their first dimension; the same names on all ranks."""
    facts: Mapping[str, Any]
    """JSON values, the first rank's count: loader state, configurations, counters, random state."""
    lineage: pa.Table
    """Rows of steps since the last lineage part, the first rank's count."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a checkpoint."""

    dtype: torch.dtype
    shape: torch.Size
    slices: tuple[tuple[int, int, int], ...]
    """(rank that wrote it, first row, number of rows), ascending and without gaps."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A verified checkpoint on disk. Needs no process group."""

    step: int
    place: Path
    facts: Mapping[str, Any]
    lineage: pa.Table
    tensors: Mapping[str, Stored]

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies saved values into tensors, plain or sharded; each rank reads the rows that it holds.

        Raises:
            InputError: a tensor is not in the checkpoint, or of another shape or type; nothing was changed.
            MachineError: a file cannot be read.
        """
        for name, tensor in tensors.items():
            stored = self.tensors.get(name)
            if stored is None:
                raise InputError(f"the checkpoint {self.place} holds no {name}; use it with the model it is of")
            if (stored.shape, stored.dtype) != (tensor.shape, tensor.dtype):
                raise InputError(
                    f"{name} is {_kind(stored.dtype, stored.shape)} in the checkpoint {self.place}, but "
                    f"{_kind(tensor.dtype, tensor.shape)} here; use it with the model and precision it is of"
                )
        with Reader(self.place) as reader:
            for name, tensor in tensors.items():
                part = slice_of(tensor, rank=0)
                self._read(reader, name, part.local, part.start)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The whole weights one by one, by parameter name."""
        with Reader(self.place) as reader:
            for name, stored in self.tensors.items():
                if name.startswith(WEIGHTS):
                    whole = torch.empty(stored.shape, dtype=stored.dtype)
                    self._read(reader, name, whole, 0)
                    yield name.removeprefix(WEIGHTS), whole

    def _read(self, reader: Reader, name: str, target: Tensor, start: int) -> None:
        """Reads the rows from `start` on, as many as the target has."""
        stop, num_read = start + num_rows(target.shape), 0
        for rank, first, rows in self.tensors[name].slices:
            begin, end = max(start, first), min(stop, first + rows)
            if begin >= end:
                continue
            file = _file_of(rank)
            try:
                found = reader.rows(file, name, begin - first, end - first)
                (target[begin - start : end - start] if target.ndim else target).copy_(found)
            except (OSError, SafetensorError) as error:
                raise MachineError(f"cannot read {name} from {self.place / file}: {error}") from error
            num_read += end - begin
        assert num_read == stop - start, f"rows of {name} are missing in {self.place}"


class Checkpoints:
    """The checkpoints of a run. As a context, it leaves no thread behind.

    All methods are collective: every rank calls them, in the same order.
    """

    def __init__(
        self,
        run: Path,
        world: World,
        *,
        keep: int,
        keep_every: int | None = None,
        is_scheduled: Callable[[int], bool],
        patience_seconds: float = 1800.0,
    ) -> None:
        """
        Args:
            run: the run's folder, on a filesystem that all ranks share.
            world: the ranks.
            keep: so many scheduled checkpoints stay, the newest.
            keep_every: the scheduled ones of steps that this divides stay too.
            is_scheduled: whether the checkpoint of a step is one that every run makes, stopped or not.
            patience_seconds: a save fails when a rank's file is not there so long after the first rank's.
        """
        self.folder, self.world = run / FOLDER, world
        self.keep, self.keep_every, self.is_scheduled = keep, keep_every, is_scheduled
        self.patience_seconds = patience_seconds
        self._copy = HostCopy()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._is_closing = threading.Event()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for this rank's thread, not for other ranks: they may be dead."""
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            logger.warning("%s", self._failure)

    def save(self, checkpoint: Checkpoint) -> None:
        """Begins to write a checkpoint; an older (damaged) one of the same step is replaced.

        Returns when this rank's part is copied: from then on the tensors may change. Waits for an earlier save.

        Raises:
            MachineError: on all ranks: the disk or the host's memory is full, or the earlier save failed. Older
                checkpoints stay.
        """
        self.finish()
        place = self.folder / name_of(checkpoint.step)
        parts = {name: slice_of(tensor, self.world.rank) for name, tensor in checkpoint.tensors.items()}
        own = file_order({name: part.local for name, part in parts.items() if part.is_first and part.rows})
        facts = json.dumps({"step": checkpoint.step, **checkpoint.facts}, indent=1, sort_keys=True).encode()
        num_bytes = sum(self.world.gather(self._copy.reserve(own.values()))) + len(facts) + _SLACK_BYTES
        attempt = _Attempt(
            step=checkpoint.step,
            place=place,
            identity=self._on_first(lambda: _begin(place, num_bytes), _task(place, num_bytes)),
            num_bytes=num_bytes,
            header=header(own),
            slices={name: (parts[name].start, parts[name].rows) for name in own},
            kinds={name: (DTYPES[tensor.dtype], [*tensor.shape]) for name, tensor in checkpoint.tensors.items()},
            facts=facts,
            lineage=checkpoint.lineage,
        )
        seen = self.world.gather((attempt.aside.is_dir(), str(attempt.aside)))
        for rank, (is_there, aside) in enumerate(seen):
            if not is_there:
                raise MachineError(
                    f"rank 0 made {seen[0][1]}, but on rank {rank} there is no {aside}: the run's folder must lie "
                    "on a filesystem that all ranks share"
                )
        self._copy.take(own.values())
        self._thread = threading.Thread(target=self._work, args=(attempt,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Waits until the last save is committed.

        Raises:
            MachineError: it could not be written, on whichever rank; older checkpoints stay.
        """
        if self._thread is not None:
            self._thread.join()
        thread_failure, self._thread, self._failure = self._failure, None, None
        failures = [text for text in self.world.gather(thread_failure and str(thread_failure)) if text]
        if thread_failure is not None and not isinstance(thread_failure, MachineError | OSError):
            raise thread_failure  # a defect of ours keeps its traceback
        if failures:
            raise MachineError(failures[0]) from thread_failure

    def latest(self) -> Saved | None:
        """The newest whole checkpoint, or None; damaged ones are passed over with a warning each."""
        steps = self._steps()
        saved = self._newest(steps)
        if steps and saved is None and self.world.is_first:
            logger.warning("no whole checkpoint is left in %s; training starts from the beginning", self.folder)
        return saved

    def at_or_before(self, step: int) -> Saved | None:
        """The newest whole checkpoint of at most `step` steps, or None."""
        return self._newest([number for number in self._steps() if number <= step])

    def drop_after(self, step: int) -> None:
        """Removes later checkpoints, so that a run that went back is not continued on the road it left."""

        def drop() -> None:
            for number, place in _places(self.folder).items():
                if number > step:
                    _remove(place)

        self.finish()
        self._on_first(drop, f"remove the checkpoints after step {step} in {self.folder}")

    def _steps(self) -> list[int]:
        """The steps of all checkpoints, ascending, after putting back what a kill left aside."""

        def look() -> list[int]:
            for replaced in self.folder.glob("*.replaced"):
                if not replaced.with_suffix("").exists():
                    replaced.rename(replaced.with_suffix(""))
            return [*_places(self.folder)]

        self.finish()
        return self._on_first(look, f"look through {self.folder}")

    def _newest(self, steps: list[int]) -> Saved | None:
        for step in reversed(steps):
            place = self.folder / name_of(step)
            own = next(faults(place, slice(self.world.rank, None, self.world.size)), None)
            found = [fault for fault in self.world.gather(own) if fault is not None]
            if not found:
                return _open(place)
            if self.world.is_first:
                logger.warning("checkpoint %s is damaged and not used: %s", place, found[0])
        return None

    def _on_first(self, act: Callable[[], Value], task: str) -> Value:
        """Lets the first rank act on the disk; all ranks get its result, or raise its error."""
        value, refusal = None, None
        if self.world.is_first:
            try:
                value = act()
            except OSError as error:
                refusal = f"{_reason(error)}: could not {task}"
        value, refusal = self.world.gather((value, refusal))[0]
        if refusal is not None:
            raise MachineError(refusal)
        return value  # type: ignore[no-any-return]

    def _work(self, attempt: "_Attempt") -> None:
        """The thread: writes this rank's file; the first rank then commits, the others leave it a note."""
        note = self._write(attempt)
        try:
            if self.world.is_first:
                self._commit(attempt, note)
            else:
                attempt.leave(note, self.world.rank)
        except Exception as error:
            self._failure = self._failure or error
            if self.world.is_first:
                shutil.rmtree(attempt.aside, ignore_errors=True)

    def _write(self, attempt: "_Attempt") -> dict[str, Any]:
        """Writes this rank's file, and says what it holds or why there is none."""
        file = attempt.aside / _file_of(self.world.rank)
        try:
            written = write(file, itertools.chain([attempt.header], self._copy.chunks()))
        except OSError as error:
            file.unlink(missing_ok=True)  # so that there is room for a note
            return {"error": _reason(error)}
        except Exception as error:
            self._failure = error
            return {"error": f"it failed ({error!r})"}
        return {"file": written, "slices": attempt.slices}

    def _commit(self, attempt: "_Attempt", note: dict[str, Any]) -> None:
        """Waits for all ranks, writes the manifest, makes the checkpoint visible and older ones superfluous."""
        notes = [note, *self._notes(attempt)]
        for rank, note in enumerate(notes):
            if "error" in note:
                where = f" on rank {rank}" if len(notes) > 1 else ""
                raise MachineError(f"{note['error']}{where}: could not {_task(attempt.place, attempt.num_bytes)}")
        try:
            attempt.complete(notes)
            _show(attempt.aside, attempt.place)
        except OSError as error:
            raise MachineError(f"{_reason(error)}: could not {_task(attempt.place, attempt.num_bytes)}") from error
        try:
            self._prune(attempt.step)
        except OSError as error:
            logger.warning("could not remove older checkpoints in %s: %s", self.folder, error)

    def _notes(self, attempt: "_Attempt") -> Iterator[dict[str, Any]]:
        """The notes of the other ranks, as they come."""
        deadline, closing, pause = time.monotonic() + self.patience_seconds, False, 0.005
        for rank in range(1, self.world.size):
            while (note := attempt.find(rank)) is None and time.monotonic() < deadline:
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
                if self._is_closing.is_set() and not closing:
                    closing, deadline = True, min(deadline, time.monotonic() + _GRACE_SECONDS)
            yield note or {"error": f"no file came within {self.patience_seconds:g} seconds"}

    def _prune(self, newest: int) -> None:
        """Removes what the newest checkpoint makes superfluous.

        Checkpoints outside the schedule (midway, or of runs told to stop) go with the next one, so that an
        interrupted run ends with the same checkpoints as any other. Later ones stay until they are overwritten:
        they are damaged, and not ours to judge twice.
        """
        places = {number: place for number, place in _places(self.folder).items() if number <= newest}
        scheduled = [number for number in places if self.is_scheduled(number)]
        kept = {newest, *scheduled[-self.keep :]}
        if self.keep_every is not None:
            kept.update(number for number in scheduled if number % self.keep_every == 0)
        for number, place in places.items():
            if number not in kept:
                _remove(place)
        for leftover in self.folder.glob("step-*.*"):  # of killed runs
            shutil.rmtree(leftover)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One attempt to write one checkpoint, as one rank sees it."""

    step: int
    place: Path
    identity: str
    """Random, and the same on all ranks."""
    num_bytes: int
    header: bytes
    slices: Mapping[str, tuple[int, int]]
    """First row and number of rows of each tensor in this rank's file."""
    kinds: Mapping[str, tuple[str, list[int]]]
    """Type and shape of each tensor."""
    facts: bytes
    lineage: pa.Table

    @property
    def aside(self) -> Path:
        return _aside(self.place)

    def leave(self, note: Mapping[str, Any], rank: int) -> None:
        """Tells the first rank how this rank's file came out; an empty note where the disk has no room for one."""
        draft = self._note_of(rank).with_suffix(".tmp")
        try:
            draft.write_text(json.dumps(note), encoding="utf-8")
            draft.replace(self._note_of(rank))
        except OSError:
            draft.unlink(missing_ok=True)
            self._note_of(rank).touch()

    def find(self, rank: int) -> dict[str, Any] | None:
        """The note of a rank, once it is there."""
        try:
            note = self._note_of(rank).read_bytes()
        except FileNotFoundError:
            return None
        return dict(json.loads(note)) if note else {"error": "the disk is full"}

    def complete(self, notes: list[dict[str, Any]]) -> None:
        """Writes what only the first rank writes, the manifest last."""
        files: dict[str, Written] = {_file_of(rank): note["file"] for rank, note in enumerate(notes)}
        rows = pa.BufferOutputStream()
        pq.write_table(self.lineage, rows, compression="zstd")
        files[_FACTS] = write(self.aside / _FACTS, [self.facts])
        files[_LINEAGE] = write(self.aside / _LINEAGE, [rows.getvalue().to_pybytes()])
        body = {
            "format": _FORMAT,
            "files": files,
            "tensors": {
                name: {"dtype": dtype, "shape": shape, "slices": _in_order(name, num_rows(shape), notes)}
                for name, (dtype, shape) in self.kinds.items()
            },
        }
        manifest = json.dumps({**body, "digest": canonical_digest(body)}, sort_keys=True, separators=(",", ":"))
        for left in self.aside.glob("rank-*.json"):  # also by ranks of killed attempts that are still there
            left.unlink()
        write(self.aside / _MANIFEST, [manifest.encode()])
        _sync(self.aside)

    def _note_of(self, rank: int) -> Path:
        return self.aside / f"rank-{rank:05d}.{self.identity}.json"


def faults(place: Path, share: slice = slice(None)) -> Iterator[str]:
    """Compares a checkpoint (or a share of its files) with its manifest; yields a sentence per difference."""
    try:
        files = _manifest(place)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"its manifest cannot be used ({error})"
        return
    for name, known in sorted(files.items())[share]:
        file = place / name
        try:
            num_bytes = file.stat().st_size
            if num_bytes != known["bytes"]:
                yield f"{name} has {num_bytes:,} bytes instead of {known['bytes']:,}"
            elif file_digest(file) != known["sha256"]:
                yield f"{name} has other bytes than were written"
        except FileNotFoundError:
            yield f"{name} is missing"
        except OSError as error:
            yield f"{name} cannot be read ({error})"


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def _begin(place: Path, num_bytes: int) -> str:
    """Makes an empty folder for an attempt, and its identity."""
    aside = _aside(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    if aside.exists():
        shutil.rmtree(aside)
    if shutil.disk_usage(place.parent).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    aside.mkdir()
    return secrets.token_hex(8)


def _show(aside: Path, place: Path) -> None:
    """Makes a finished checkpoint visible, where need be in place of another one of the same step."""
    replaced = place.with_name(f"{place.name}.replaced")
    if place.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        place.rename(replaced)
    aside.rename(place)
    _sync(place.parent)


def _in_order(name: str, rows: int, notes: list[dict[str, Any]]) -> list[list[int]]:
    """The slices of a tensor by row, as (rank, first row, number of rows)."""
    slices = [[rank, *note["slices"][name]] for rank, note in enumerate(notes) if name in note["slices"]]
    slices.sort(key=lambda part: part[1])
    end = 0
    for _, start, count in slices:
        assert start == end, (
            f"rows {min(start, end)} to {max(start, end)} of {name} were written twice or not at all"
        )
        end += count
    assert end == rows, f"{name} has {rows} rows, {end} were written"
    return slices


def _manifest(place: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((place / _MANIFEST).read_bytes())
    if manifest["format"] != _FORMAT:
        raise ValueError(f"its format is {manifest['format']!r}, not {_FORMAT}")
    if manifest.pop("digest") != canonical_digest(manifest):
        raise ValueError("it was changed")
    return manifest


def _open(place: Path) -> Saved:
    facts = json.loads((place / _FACTS).read_bytes())
    tensors = {
        name: Stored(_TORCH_DTYPES[known["dtype"]], torch.Size(known["shape"]), tuple(map(tuple, known["slices"])))
        for name, known in _manifest(place)["tensors"].items()
    }
    return Saved(
        step=facts.pop("step"), place=place, facts=facts, lineage=pq.read_table(place / _LINEAGE), tensors=tensors
    )


def _places(folder: Path) -> dict[int, Path]:
    """Checkpoint folders by step, ascending."""
    found = {}
    for place in sorted(folder.glob("step-*")):
        matched = re.fullmatch(r"step-(\d+)", place.name)
        if matched and place.is_dir():
            found[int(matched[1])] = place
    return found


def _remove(place: Path) -> None:
    """Renames first, so that a half-removed checkpoint is not taken for a damaged one."""
    aside = place.with_name(f"{place.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    place.rename(aside)
    shutil.rmtree(aside)


def _aside(place: Path) -> Path:
    return place.with_name(f"{place.name}.partial")


def _file_of(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _kind(dtype: torch.dtype, shape: torch.Size) -> str:
    return f"{str(dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}]"


def _reason(error: OSError) -> str:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "the disk is full" if is_full else f"the disk refuses ({error})"


def _task(place: Path, num_bytes: int) -> str:
    return (
        f"write the checkpoint {place} of {num_bytes:,} bytes. Older checkpoints are whole; free some space (or "
        "lower training.keep_checkpoints) and run again to continue from the newest"
    )
