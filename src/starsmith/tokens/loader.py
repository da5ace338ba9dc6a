"""The loader: batches that depend on the recipe and the shards, and on nothing else.

A fixed number S of virtual streams carries the documents. Row r of the global batch of step t comes from stream
(t*B + r) mod S, so what is trained at a step does not depend on how many ranks share the work. The state is four
small integers per stream and the step; it can be taken up at another world size, and resuming reads no more than
the file a stream stands in. A state of other shards or other settings is refused.

Every rank assembles the whole global batch and keeps its rows. The price is the work of assembling on every rank;
the gain is that each rank knows the global digest, the global lineage and the complete state without any exchange.

With fewer documents than streams, S is the number of documents.
"""

import dataclasses
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.tokens.keyed_random import Permutation
from starsmith.tokens.packing import Cursor, Row, Span, Stream, pack
from starsmith.tokens.rendering import RenderedDocument, Rendering
from starsmith.tokens.shards import Shards, Split

STATE_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of one rank, with the lineage of the whole global batch. Legend: B rows here, T inputs."""

    step: int
    rows: range
    """The numbers of these rows in the global batch."""
    tokens: NDArray[np.int64]
    """(B, T+1): inputs are `[:, :-1]`, targets `[:, 1:]`."""
    loss_mask: NDArray[np.bool_]
    """(B, T): targets that are trained."""
    documents: NDArray[np.int32]
    """(B, T): the attention document of each input, from 0 in each row; all 0 without document mask."""
    positions: NDArray[np.int32]
    """(B, T): position within the document's part in this row; 0 to T-1 without document mask."""
    epochs: NDArray[np.int64]
    """(B,): the epoch of each row's first token."""
    spans: list[Span]
    """Tile every row of the *global* batch; `row` counts in it."""
    digest: str
    """BLAKE2b of the global batch's tokens: equal digests are equal steps."""


class Loader:
    """Endless batches of one split."""

    def __init__(
        self,
        folder: Path,
        config: recipe.Tokens,
        *,
        seed: int,
        batch_size: int,
        metadata_probability: float,
        split: Split = "train",
        rank: int = 0,
        world_size: int = 1,
        verify: bool = True,
    ) -> None:
        """
        Args:
            folder: token shards.
            config: length of sequences, FIM, streams.
            seed: the root of all draws.
            batch_size: rows of the global batch, over all ranks.
            metadata_probability: how often a document shows its repository's name and paths.
            split: train or validation.
            rank: which part of each batch this process keeps.
            world_size: how many ranks there are; must divide `batch_size`.
            verify: compare the digests of the shards first.

        Raises:
            InputError: bad shards, or a batch that the ranks cannot share.
        """
        if batch_size < 1 or world_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise InputError(
                f"a batch of {batch_size} rows cannot be shared by rank {rank} of {world_size}: batch_size must "
                "be a multiple of the number of ranks, and the rank below it"
            )
        self.shards = Shards(folder, verify=verify)
        self._config = config
        self._seed = seed
        self._batch_size = batch_size
        self._metadata_probability = metadata_probability
        self._split: Split = split
        rows_per_rank = batch_size // world_size
        self._rows = range(rank * rows_per_rank, (rank + 1) * rows_per_rank)
        self._step = 0
        num_streams = min(config.streams, self.shards.num_documents(split))
        self._streams = self._open_streams(split, num_streams, fim=True)

    @property
    def vocab_size(self) -> int:
        return self.shards.tokenizer.vocab_size

    @property
    def step(self) -> int:
        """The step of the next batch."""
        return self._step

    def next_batch(self) -> Batch:
        """The next batch; epochs follow one another without end.

        Raises:
            InputError: the split has no documents.
        """
        if not self._streams:
            raise InputError(
                f"the {self._split} split has no documents: widen the sources or the filters, or change "
                "documents.validation_fraction"
            )
        step, num_streams = self._step, len(self._streams)
        streams = (self._streams[(step * self._batch_size + row) % num_streams] for row in range(self._batch_size))
        rows = [self._read_row(stream) for stream in streams]
        self._step += 1
        return _batch(rows, step=step, keep=self._rows, length=self._config.sequence_length)

    def sequences(self, split: Split = "validation", num: int = 16) -> Batch:
        """A fixed batch for measuring the loss: plain text without FIM, the same on every call and rank.

        The rows start in `num` different documents where there are as many. No text is measured twice: where a
        small split comes to its end the rest of the row is left out of the loss, and there may be fewer rows
        than asked for; none, if the split has no documents.
        """
        streams = self._open_streams(split, min(num, self.shards.num_documents(split)), fim=False)
        rows = []
        for number in range(num):
            if all(stream.cursor.epoch for stream in streams):
                break
            row = self._read_row(streams[number % len(streams)])
            once = row.loss_mask & (row.epochs[1:] == 0)
            if once.any():
                rows.append(dataclasses.replace(row, loss_mask=once))
        return _batch(rows, step=0, keep=range(len(rows)), length=self._config.sequence_length)

    def state(self) -> dict[str, Any]:
        """Where every stream stands, fit for JSON; the same on every rank."""
        settings = self._settings()
        return {
            "version": STATE_VERSION,
            "step": self._step,
            "streams": [list(stream.cursor) for stream in self._streams],
            "fingerprint": _fingerprint(settings),
            "settings": settings,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from a state, of any rank and world size.

        Raises:
            InputError: the state belongs to other shards or settings, or is damaged; the loader is unchanged.
        """
        settings = self._settings()
        if state.get("version") != STATE_VERSION or state.get("fingerprint") != _fingerprint(settings):
            raise InputError(
                f"the loader state does not fit: {_difference(state.get('settings'), settings)}. Continue with "
                "the settings and shards of the checkpoint, or start a new run."
            )
        try:
            step = int(state["step"])
            cursors = [Cursor(*map(int, cursor)) for cursor in state["streams"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the loader state is damaged: {error}") from None
        if len(cursors) != len(self._streams) or step < 0:
            raise InputError(f"the loader state is damaged: {len(cursors)} streams, must be {len(self._streams)}")
        before = [stream.cursor for stream in self._streams]
        try:
            for stream, cursor in zip(self._streams, cursors, strict=True):
                stream.cursor = cursor
        except InputError:
            for stream, cursor in zip(self._streams, before, strict=True):
                stream.cursor = cursor
            raise
        self._step = step

    def _read_row(self, stream: Stream) -> Row:
        fragments = stream.read(self._config.sequence_length + 1)
        return pack(fragments, document_mask=self._config.document_mask)

    def _open_streams(self, split: Split, num_streams: int, *, fim: bool) -> list[Stream]:
        config = self._config
        num_documents = self.shards.num_documents(split)
        rendering = Rendering(
            seed=self._seed,
            metadata_probability=self._metadata_probability,
            fim_repository_rate=config.fim_repository_rate if fim else 0.0,
            fim_file_rate=config.fim_file_rate,
            fim_spm_rate=config.fim_spm_rate,
            fim_split=config.fim_split,
        )

        @lru_cache(maxsize=16)
        def permutation(epoch: int) -> Permutation:
            return Permutation(num_documents, self._seed, "permutation", split, epoch)

        def render(number: int, epoch: int) -> RenderedDocument:
            return RenderedDocument(self.shards.document(split, number), epoch, rendering, self.shards.tokenizer)

        return [
            Stream(
                number,
                num_streams=num_streams,
                num_documents=num_documents,
                permutation=permutation,
                render=render,
            )
            for number in range(num_streams)
        ]

    def _settings(self) -> dict[str, Any]:
        """Everything that the batches depend on; ranks are not among it."""
        return {
            "shards": self.shards.fingerprint,
            "split": self._split,
            "seed": self._seed,
            "batch_size": self._batch_size,
            "metadata_probability": self._metadata_probability,
            **self._config.model_dump(mode="json"),
        }


def _batch(rows: list[Row], *, step: int, keep: range, length: int) -> Batch:
    """Stacks rows; `keep` are those whose arrays this rank needs."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(row.tokens.astype("<i8").tobytes())
    kept = [rows[number] for number in keep]
    return Batch(
        step=step,
        rows=keep,
        tokens=np.array([row.tokens for row in kept], dtype=np.int64).reshape(-1, length + 1),
        loss_mask=np.array([row.loss_mask for row in kept], dtype=np.bool_).reshape(-1, length),
        documents=np.array([row.documents for row in kept], dtype=np.int32).reshape(-1, length),
        positions=np.array([row.positions for row in kept], dtype=np.int32).reshape(-1, length),
        epochs=np.array([row.epochs[0] for row in kept], dtype=np.int64),
        spans=[span for number, row in enumerate(rows) for span in row.spans(number)],
        digest=digest.hexdigest(),
    )


def _fingerprint(settings: dict[str, Any]) -> str:
    described = json.dumps({"state": STATE_VERSION, **settings}, sort_keys=True)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


def _difference(theirs: Any, ours: dict[str, Any]) -> str:
    if not isinstance(theirs, dict):
        return "it has no settings"
    changed = [
        f"{key} is {ours.get(key)!r}, the state has {theirs.get(key)!r}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    return "; ".join(changed) or "its fingerprint is not that of its settings"
