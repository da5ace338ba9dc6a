"""What the loop asks of a loader, and how it cuts what it gets into micro-batches."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Arrays(Protocol):
    """Packed rows. Shapes: tokens (B, T + 1), the others (B, T)."""

    @property
    def tokens(self) -> NDArray[np.int64]: ...
    @property
    def loss_mask(self) -> NDArray[np.bool_]: ...
    @property
    def documents(self) -> NDArray[np.int32]: ...
    @property
    def positions(self) -> NDArray[np.int32]: ...


class Batch(Arrays, Protocol):
    """The rows of this rank."""

    @property
    def spans(self) -> pa.Table: ...
    @property
    def row_digests(self) -> Sequence[bytes]: ...


class Loader(Protocol):
    """Endless batches. `load_state` raises InputError where the state is of other data or settings."""

    def next_batch(self) -> Batch: ...
    def skip(self, num_batches: int, /) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: Mapping[str, Any], /) -> None: ...


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a batch."""

    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    documents: NDArray[np.int32]
    positions: NDArray[np.int32]


def micro_batches(batch: Arrays, num_rows: int) -> Iterator[Rows]:
    """The batch, `num_rows` at a time; the last may have fewer."""
    for start in range(0, len(batch.tokens), num_rows):
        rows = slice(start, start + num_rows)
        yield Rows(batch.tokens[rows], batch.loss_mask[rows], batch.documents[rows], batch.positions[rows])


def without_targets(rows: Rows) -> Rows:
    """The same work, of which nothing counts."""
    return dataclasses.replace(rows, loss_mask=np.zeros_like(rows.loss_mask))
