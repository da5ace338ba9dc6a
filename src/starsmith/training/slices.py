"""Slices of tensors: the rows that one rank holds, on their way to disk and back.

FSDP2 cuts a tensor along its first dimension as `torch.chunk` does: each of n ranks holds ceil(rows / n) rows, the
last ones fewer or none. So a slice is a range of rows, which is one run of bytes in the tensor, in host memory and
in a file, and a reader with other ranks takes from each file only the bytes it needs. Copies of a slice (the
replicas of HSDP, and tensors that are not sharded at all) are written once, by the first rank that has it.

Files are safetensors, written here rather than by the library so that they are hashed in the same pass and a full
disk is an error with a number; reading is the library's. Sorted as the library sorts, the same tensors are the
same bytes.

Price: tensors cut along another dimension, or along two, are refused. Saving costs one host copy of what the rank
holds (pinned for CUDA), which is kept from save to save: page-locking memory is slower than filling it.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from starsmith.errors import MachineError

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""The format's names."""
_SLAB_BYTES = 1 << 26  # a power of two: torch rounds pinned memory up to one


@dataclass(frozen=True)
class Slice:
    """The rows from `start` on that this rank holds of a tensor; a scalar counts as one row."""

    local: Tensor
    start: int
    is_first: bool
    """Whether no rank before this one holds the same rows."""

    @property
    def rows(self) -> int:
        return num_rows(self.local.shape)


class Written(TypedDict):
    """What a manifest says of a file."""

    bytes: int
    sha256: str


def slice_of(tensor: Tensor, rank: int) -> Slice:
    """What this rank holds of a tensor, without a copy; a plain tensor is held by every rank."""
    if not isinstance(tensor, DTensor):
        return Slice(tensor.detach(), 0, rank == 0)
    local: Tensor = tensor.to_local().detach()
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "the rank is outside of the tensor's mesh"
    start, is_first, num_cuts = 0, True, 0
    for placement, index, size in zip(tensor.placements, coordinate, tensor.device_mesh.shape, strict=True):
        if type(placement) is Shard and placement.dim == 0:
            start = min(index * -(-tensor.shape[0] // size), tensor.shape[0])
            num_cuts += 1
        else:
            assert isinstance(placement, Replicate), (
                f"a checkpoint holds no tensors that are placed as {placement}"
            )
            is_first &= index == 0
    assert num_cuts <= 1, "a checkpoint holds no tensors that are cut along two dimensions of a mesh"
    return Slice(local, start, is_first)


def num_rows(shape: Iterable[int]) -> int:
    return next(iter(shape), 1)


def file_order(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The order in which `header` describes tensors: wide types first, so that each is aligned."""
    return dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))


def header(tensors: Mapping[str, Tensor]) -> bytes:
    """The beginning of a safetensors file in which the bytes of the tensors follow one another.

    https://github.com/huggingface/safetensors#format: a length of eight bytes, then JSON, padded to a multiple of
    eight with spaces.
    """
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        described[name] = {"dtype": DTYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [start, end]}
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(place: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Writes and syncs a new file, hashing on the way."""
    digest, num_bytes = hashlib.sha256(), 0
    with place.open("xb") as stream:
        for chunk in chunks:
            stream.write(chunk)
            digest.update(chunk)
            num_bytes += len(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}


class HostCopy:
    """The bytes of tensors in host memory, one after the other."""

    def __init__(self) -> None:
        self._slabs: list[Tensor] = []
        self._num_bytes = 0

    def reserve(self, tensors: Iterable[Tensor]) -> int:
        """Takes the memory that `take` will need; returns the number of bytes.

        Raises:
            MachineError: the machine has not so much.
        """
        tensors = list(tensors)
        num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        is_pinned = any(tensor.is_cuda for tensor in tensors)
        try:
            while len(self._slabs) * _SLAB_BYTES < num_bytes:
                self._slabs.append(torch.empty(_SLAB_BYTES, dtype=torch.uint8, pin_memory=is_pinned))
        except RuntimeError as error:
            raise MachineError(
                f"not enough host memory for the copy that a checkpoint is written from ({num_bytes:,} bytes on "
                f"this rank): {error}. Use more ranks or a smaller model"
            ) from error
        return num_bytes

    def take(self, tensors: Iterable[Tensor]) -> None:
        """Copies the tensors, in order; they may be changed when this returns."""
        self._num_bytes = 0
        devices = set()
        for tensor in tensors:
            bytes_N = tensor.contiguous().view(-1).view(torch.uint8)
            devices.add(tensor.device)
            while len(bytes_N):
                slab, start = divmod(self._num_bytes, _SLAB_BYTES)
                room = self._slabs[slab][start : start + len(bytes_N)]
                room.copy_(bytes_N[: len(room)], non_blocking=True)
                self._num_bytes += len(room)
                bytes_N = bytes_N[len(room) :]
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    def chunks(self) -> Iterator[memoryview]:
        left = self._num_bytes
        for slab in self._slabs[: -(-left // _SLAB_BYTES)]:
            yield slab[:left].numpy().data
            left -= _SLAB_BYTES


class Reader(contextlib.ExitStack):
    """Rows of tensors in a folder's safetensors files; each is mapped once, and only what is asked for is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._open: dict[str, Any] = {}

    def rows(self, file: str, name: str, start: int, stop: int) -> Tensor:
        """A view of the mapped file, for copying from."""
        if file not in self._open:
            self._open[file] = self.enter_context(safe_open(self.folder / file, framework="pt"))
        rows = self._open[file].get_slice(name)
        if not rows.get_shape():
            return self._open[file].get_tensor(name)  # type: ignore[no-any-return]
        return rows[start:stop]  # type: ignore[no-any-return]
