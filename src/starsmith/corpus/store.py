"""Results on disk: written aside, committed by one rename, never changed afterwards.

A result lies in `<root>/<step name>/<key>/` and exists once its `manifest.json` does. Every file in it is
written beside its place, synced and renamed, so a file that is there is whole; the manifest, with the size and
SHA-256 of every file, is written last in the same way. A killed writer therefore leaves either a committed
result or a draft whose finished files the next run may keep; readers open committed results only.

The manifest holds nothing of the machine or the clock, so that equal results have equal manifests. Files that
must speak of time (training metrics, timings) are committed as `logs`: listed, not hashed.

Price: results are immutable and accumulate; `Store.keys` and `Store.remove` let a caller clean up.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from starsmith.errors import InputError, MachineError

MANIFEST = "manifest.json"
_ROW_GROUP_ROWS = 16_384
_SCRATCH = ".scratch"


@contextlib.contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns a full disk or a forbidden place into a message that says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(place)).free
            raise MachineError(
                f"the disk is full: could not write {place} ({free:,} bytes are free there). Nothing "
                f"half-written is visible; free some space and run again, finished parts are kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise MachineError(f"may not write {place}: {error.strerror}; choose another [run] folder") from error
        raise


def write_atomically(place: Path, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all, even through a power cut."""
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(place)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(place.parent)


@dataclass(frozen=True)
class Result:
    """A committed result."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What the step noted about its result: counts, identifiers; JSON values."""
        return dict(self.manifest["facts"])

    def parts(self, table: str) -> list[Path]:
        """The Parquet parts of a table, in partition order; empty when the step wrote none."""
        names = sorted(name for name in self.manifest["files"] if name.startswith(f"{table}/"))
        return [self.folder / name for name in names]

    def partitions(self, table: str) -> dict[int, list[Path]]:
        """The parts of a table by partition number."""
        grouped: dict[int, list[Path]] = {}
        for part in self.parts(table):
            grouped.setdefault(int(part.stem.partition("-")[0]), []).append(part)
        return grouped

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A whole (narrow) table."""
        return pa.concat_tables([pq.read_table(part, columns=columns) for part in self.parts(table)])

    def digest(self) -> str:
        """One SHA-256 over the digests of all files: equal results are equal here, wherever they were made."""
        return canonical_digest(self.manifest["files"])

    def faults(self) -> Iterator[str]:
        """Compares every file with the manifest; yields a sentence per file that differs."""
        for name, known in self.manifest["files"].items():
            place = self.folder / name
            if not place.is_file():
                yield f"{place} is missing"
            elif place.stat().st_size != known["bytes"]:
                yield f"{place} has {place.stat().st_size:,} bytes instead of {known['bytes']:,}"
            elif file_digest(place) != known["sha256"]:
                yield f"{place} has other bytes than when it was committed"


class Draft:
    """A result being written. Finished parts survive a kill; `commit` makes the whole visible."""

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        """`shared`: another process of the same run has opened the draft, and cleaned it up."""
        self.folder = folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if shared:
            return
        for leftover in folder.rglob(".*.tmp"):
            leftover.unlink()
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)

    def part(self, table: str, partition: int, chunk: int = 0) -> Path:
        return self.folder / table / f"{partition:04d}-{chunk:04d}.parquet"

    def write(self, table: str, partition: int, rows: pa.Table, chunk: int = 0) -> Path:
        """Writes one part; the same rows give the same bytes."""
        place = self.part(table, partition, chunk)
        write_parquet(place, rows)
        return place

    def write_file(self, name: str, data: bytes) -> Path:
        place = self.folder / name
        write_atomically(place, data)
        return place

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder on the store's disk that is never part of the result, not even after a kill."""
        place = self.folder / _SCRATCH
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def clear(self) -> None:
        """Throws away what an earlier run left, for steps that cannot continue in the middle."""
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def commit(self, identity: Mapping[str, Any], facts: Mapping[str, Any], logs: Iterable[str] = ()) -> Result:
        """Hashes every file and writes the manifest: from here on the result exists.

        Args:
            identity: the step's name, key, version, parameters and input keys.
            facts: what the step notes about its result.
            logs: files (and folders, `name/`) that are listed but not hashed, because they speak of time.
        """
        with disk_errors(self.folder):
            skipped = set(logs)
            folders = tuple(name for name in skipped if name.endswith("/"))
            files = {}
            for place in sorted(self.folder.rglob("*")):
                name = place.relative_to(self.folder).as_posix()
                if place.is_file() and name not in skipped | {MANIFEST} and not name.startswith(folders):
                    files[name] = {"bytes": place.stat().st_size, "sha256": file_digest(place)}
            manifest = {**identity, "files": files, "logs": sorted(skipped), "facts": dict(facts)}
            data = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False).encode()
            write_atomically(self.folder / MANIFEST, data)
        return Result(self.folder, manifest)


class Store:
    """All results under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, key: str) -> Path:
        return self.root / name / key

    def find(self, name: str, key: str) -> Result | None:
        """The committed result, or None."""
        place = self.folder(name, key) / MANIFEST
        try:
            manifest = json.loads(place.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise InputError(f"{place} is damaged ({error}); remove its folder and run again") from None
        return Result(place.parent, manifest)

    def get(self, name: str, key: str) -> Result:
        result = self.find(name, key)
        if result is None:
            raise InputError(f"no result of step {name} under {self.folder(name, key)}; run the recipe first")
        return result

    def draft(self, name: str, key: str, *, shared: bool = False) -> Draft:
        return Draft(self.folder(name, key), shared=shared)

    def latest(self, name: str, is_wanted: Callable[[Mapping[str, Any]], bool], limit: int) -> list[Result]:
        """Committed results of a step, the latest first.

        Args:
            name: the step.
            is_wanted: asked of each manifest.
            limit: the most that are returned.
        """
        manifests = sorted(
            self.folder(name, "").glob(f"*/{MANIFEST}"), key=lambda place: place.stat().st_mtime_ns, reverse=True
        )
        found = []
        for place in manifests:
            result = self.find(name, place.parent.name)
            if result is not None and is_wanted(result.manifest):
                found.append(result)
                if len(found) == limit:
                    break
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the store for one writing run; a second run is told so at once instead of mixing drafts."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise MachineError(
                f"another run is writing to {self.root}; wait for it, or use another [run] folder"
            ) from None
        try:
            yield
        finally:
            lock.close()


@contextlib.contextmanager
def parquet_writer(place: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes Parquet with zstd, row group by row group; the file is there whole at the end, or not at all."""
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        try:
            with pq.ParquetWriter(aside, schema, compression="zstd", version="2.6") as writer:
                yield writer
            with aside.open("rb+") as stream:
                os.fsync(stream.fileno())
            aside.replace(place)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def write_parquet(place: Path, rows: pa.Table) -> None:
    """A whole table as Parquet; the same rows give the same bytes."""
    with parquet_writer(place, rows.schema) as writer:
        writer.write_table(rows.combine_chunks(), row_group_size=_ROW_GROUP_ROWS)


def file_digest(place: Path) -> str:
    with place.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_digest(value: Any) -> str:
    """SHA-256 of a JSON value in one canonical form; raises TypeError on what JSON cannot hold."""
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(data.encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(place: Path) -> Path:
    return next(parent for parent in (place, *place.absolute().parents) if parent.exists())
