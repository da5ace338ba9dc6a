"""The loader: batches that depend on the recipe and the shards, and on nothing else.

A fixed number S of virtual streams carries the documents: the smallest multiple of the batch size B that is at
least what the recipe asks for. Row r of the global batch of step t comes from stream (t*B + r) mod S. So a row's
place in the batch decides which streams it is ever read from; a rank owns the streams of its rows for a whole run
and assembles nothing else, and what is trained at a step does not depend on how many ranks share the work.

The state of a rank is three small integers per stream of its own, and the step. The states of all ranks together
(`merge_states`) are taken up at any world size that divides the batch, and resuming reads no more than the files
in which streams stand. A state of other shards or other settings is refused.

Every row has a digest, and `global_digest` of all rows in order is that of the step: equal on every world size.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.tokens import mixture
from starsmith.tokens.keyed_random import Identity, Permutation
from starsmith.tokens.packing import Cursor, Row, Stream, pack, spans
from starsmith.tokens.rendering import Rendered, RenderedDocument, RenderedExample, Rendering
from starsmith.tokens.shards import AGAIN, Shards, Split

STATE_VERSION = 2
INSTRUCTIONS = "instructions"
"""The part of the mixture that is instruction data."""
REST = "rest"
"""The documents that no part of the mixture names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of one rank. Legend: B rows here, T inputs."""

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
    spans: pa.Table
    """`packing.SPANS`: they tile these rows, whose numbers are those in the global batch."""
    row_digests: tuple[bytes, ...]
    """Of each row's tokens and of which of them are trained."""

    @property
    def digest(self) -> str:
        """Of these rows; on one rank, of the step."""
        return global_digest(self.row_digests)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Documents that share streams, in one endless sequence of epochs."""

    name: str
    share: float
    """Of the rows; 0 when the shares of the others leave nothing."""
    num_documents: int
    num_streams: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """The documents of a part: numbers in the split of their shards, and how one is shown in an epoch."""

    share: float
    documents: Sequence[int] | NDArray[np.int64]
    identity: tuple[Identity, ...]
    """Keys the order of its epochs."""
    show: Callable[[int, int], Rendered]
    """The document with a number, in an epoch."""

    def open(self, place: int) -> Rendered:
        """The document at a place of the endless sequence."""
        epoch, position = divmod(place, len(self.documents))
        order = Permutation(len(self.documents), *self.identity, epoch)
        return self.show(int(self.documents[order[position]]), epoch)


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
        instructions: Path | None = None,
        instructions_share: float = 0.0,
        split: Split = "train",
        rank: int = 0,
        world_size: int = 1,
        verify: bool = True,
    ) -> None:
        """
        Args:
            folder: shards of documents.
            config: length of sequences, FIM, streams, mixture.
            seed: the root of all draws.
            batch_size: rows of the global batch, over all ranks.
            metadata_probability: how often a document shows its repository's name and paths.
            instructions: shards of instruction data.
            instructions_share: of the rows, that instruction data gets.
            split: train or validation.
            rank: which rows of each batch this process assembles.
            world_size: how many ranks there are; must divide `batch_size`.
            verify: compare the digests of the shards first.

        Raises:
            InputError: bad shards, a mixture that cannot be made of them, or a batch that the ranks cannot share.
        """
        if batch_size < 1 or world_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise InputError(
                f"a batch of {batch_size} rows cannot be shared by rank {rank} of {world_size}: batch_size must "
                "be a multiple of the number of ranks, and the rank below it"
            )
        self.shards = Shards(folder, verify=verify)
        self.examples = _open_examples(instructions, instructions_share, self.shards, verify=verify)
        self._config = config
        self._seed = seed
        self._batch_size = batch_size
        self._metadata_probability = metadata_probability
        self._instructions_share = instructions_share
        self._split: Split = split
        rows_per_rank = batch_size // world_size
        self._rows = range(rank * rows_per_rank, (rank + 1) * rows_per_rank)
        self._step = 0
        self.num_streams = -(-config.streams // batch_size) * batch_size
        self.parts, self._streams = self._deal(self._sources())
        self.wait_seconds = 0.0
        """How long the last batch kept its caller waiting."""

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
        started = time.perf_counter()
        rows = [self._read_row(stream) for stream in self._streams_of_step()]
        batch = _batch(rows, step=self._step, numbers=self._rows, length=self._config.sequence_length)
        self._step += 1
        self.wait_seconds = time.perf_counter() - started
        return batch

    def skip(self, num_batches: int) -> None:
        """Goes on as if so many batches had been read."""
        for _ in range(num_batches):
            for stream in self._streams_of_step():
                stream.read(self._config.sequence_length + 1)
            self._step += 1

    def sequences(self, split: Split = "validation", num: int = 16) -> Batch:
        """A fixed batch for measuring the loss: plain documents without FIM, the same on every call and rank.

        The rows start in `num` different documents where there are as many. No text is measured twice: where a
        small split comes to its end the rest of the row is left out of the loss, and there may be fewer rows
        than asked for; none, if the split has no documents.
        """
        source = self._natural(split, fim=False)
        num_streams = min(num, len(source.documents))
        streams = [
            Stream(number, first=number, every=num_streams, open_document=source.open)
            for number in range(num_streams)
        ]
        rows: list[Row] = []
        for number in range(num):
            if all(stream.epoch for stream in streams):
                break
            row = self._read_row(streams[number % num_streams])
            once = row.loss_mask & (row.epochs[1:] == 0)
            if once.any():
                rows.append(row._replace(loss_mask=once))
        return _batch(rows, step=0, numbers=range(len(rows)), length=self._config.sequence_length)

    def state(self) -> dict[str, Any]:
        """Where this rank's streams stand, fit for JSON; `merge_states` makes one of all ranks'."""
        return {
            "version": STATE_VERSION,
            "step": self._step,
            "streams": [[number, *self._streams[number].cursor] for number in sorted(self._streams)],
            "fingerprint": self._fingerprint,
            "settings": self._settings,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from the merged state of all ranks, of any world size.

        Raises:
            InputError: the state belongs to other shards or settings, or is damaged; the loader is unchanged.
        """
        if state.get("version") != STATE_VERSION or state.get("fingerprint") != self._fingerprint:
            raise InputError(
                f"the loader state does not fit: {_difference(state, self._settings)}. Continue with "
                "the settings and shards of the checkpoint, or start a new run."
            )
        try:
            step = int(state["step"])
            cursors = {
                int(number): Cursor(int(visit), int(piece), int(offset))
                for number, visit, piece, offset in state["streams"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the loader state is damaged: {error}") from None
        if step < 0 or not self._streams.keys() <= cursors.keys():
            raise InputError(
                f"the loader state is damaged: step {step}, {len(cursors)} streams of {self.num_streams}; it must "
                "hold those of all ranks"
            )
        before = {number: stream.cursor for number, stream in self._streams.items()}
        try:
            for number, stream in self._streams.items():
                stream.cursor = cursors[number]
        except InputError:
            for number, cursor in before.items():
                self._streams[number].cursor = cursor
            raise
        self._step = step

    def _streams_of_step(self) -> list[Stream]:
        """Those of this rank's rows."""
        if not self._streams:
            raise InputError(
                f"the {self._split} split has no documents: widen the sources or the filters, or change "
                "documents.validation_fraction"
            )
        first = self._step * self._batch_size
        return [self._streams[(first + row) % self.num_streams] for row in self._rows]

    def _read_row(self, stream: Stream) -> Row:
        fragments = stream.read(self._config.sequence_length + 1)
        return pack(fragments, document_mask=self._config.document_mask)

    def _natural(self, split: Split, *, fim: bool) -> _Source:
        """Every document of a split as often as every other."""
        config = self._config
        rendering = Rendering(
            seed=self._seed,
            metadata_probability=self._metadata_probability,
            fim_repository_rate=config.fim_repository_rate if fim else 0.0,
            fim_file_rate=config.fim_file_rate,
            fim_spm_rate=config.fim_spm_rate,
            fim_split=config.fim_split,
        )

        def show(number: int, epoch: int) -> Rendered:
            return RenderedDocument(self.shards.document(split, number), epoch, rendering, self.shards.tokenizer)

        documents = range(self.shards.num_documents(split))
        return _Source(1.0, documents, (self._seed, "permutation", split), show)

    def _sources(self) -> dict[str, _Source]:
        """The parts of the mixture by name, those without a share included."""
        natural = self._natural(self._split, fim=True)
        parts = self._config.mixture
        shares = {part.name: part.share for part in parts}
        rest = 1.0 - sum(shares.values()) - self._instructions_share
        if len(shares) < len(parts) or shares.keys() & {INSTRUCTIONS, REST} or rest < -1e-9:
            given = ", ".join(f"{part.name} {part.share:g}" for part in parts)
            raise InputError(
                f"the shares of the mixture ({given}) and of instructions ({self._instructions_share:g}) must add "
                f"up to at most 1, and names differ from each other and from {INSTRUCTIONS!r} and {REST!r}"
            )
        found: dict[str, _Source] = {}
        if parts:
            owners = mixture.part_of(self.shards.repo_names(self._split), parts)
            for number, name in enumerate(shares):
                found[name] = dataclasses.replace(
                    natural,
                    share=shares[name],
                    documents=np.flatnonzero(owners == number),
                    identity=(*natural.identity, name),
                )
            natural = dataclasses.replace(natural, documents=np.flatnonzero(owners == len(parts)))
        if self.examples is not None:
            examples, split = self.examples, self._split

            def show(number: int, epoch: int) -> Rendered:
                return RenderedExample(examples.document(split, number), epoch)

            found[INSTRUCTIONS] = _Source(
                self._instructions_share,
                range(examples.num_documents(split)),
                (*natural.identity, INSTRUCTIONS),
                show,
            )
        found[REST] = dataclasses.replace(natural, share=rest if rest > 1e-9 else 0.0)
        return found

    def _deal(self, sources: Mapping[str, _Source]) -> tuple[list[Part], dict[int, Stream]]:
        """The parts, and this rank's streams by number; no streams where the split has no documents at all."""
        if not any(len(source.documents) for source in sources.values()):
            return [], {}
        shares = {name: source.share for name, source in sources.items() if source.share > 0.0}
        for name in shares:
            if not len(sources[name].documents):
                raise InputError(
                    f"part {name!r} of the mixture has a share of {shares[name]:g} and no documents in the "
                    f"{self._split} split: change its patterns, or the shares so that it gets none"
                )
        owners = mixture.deal(shares, self.num_streams)
        names = list(shares)
        num_streams = dict.fromkeys(sources, 0) | dict(zip(names, map(int, np.bincount(owners)), strict=True))
        seen = dict.fromkeys(names, 0)
        streams = {}
        for number, owner in enumerate(owners):
            name = names[owner]
            if number % self._batch_size in self._rows:
                streams[number] = Stream(
                    number, first=seen[name], every=num_streams[name], open_document=sources[name].open
                )
            seen[name] += 1
        parts = [
            Part(
                name=name,
                share=source.share,
                num_documents=len(source.documents),
                num_streams=num_streams[name],
            )
            for name, source in sources.items()
        ]
        return parts, streams

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        """Everything that the batches depend on; ranks are not among it."""
        return {
            "shards": self.shards.fingerprint,
            "instructions": None if self.examples is None else self.examples.fingerprint,
            "instructions_share": self._instructions_share,
            "split": self._split,
            "seed": self._seed,
            "batch_size": self._batch_size,
            "metadata_probability": self._metadata_probability,
            **self._config.model_dump(mode="json"),
        }

    @functools.cached_property
    def _fingerprint(self) -> str:
        described = json.dumps({"state": STATE_VERSION, **self._settings}, sort_keys=True)
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


def global_digest(row_digests: Sequence[bytes]) -> str:
    """Of a global batch, from the digests of all its rows in order: equal digests are equal steps."""
    return hashlib.blake2b(b"".join(row_digests), digest_size=16).hexdigest()


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state of the states of all ranks at one step, whatever their order."""
    assert len({(state["step"], state["fingerprint"]) for state in states}) == 1
    return {**states[0], "streams": sorted(cursor for state in states for cursor in state["streams"])}


def _open_examples(folder: Path | None, share: float, documents: Shards, *, verify: bool) -> Shards | None:
    if (folder is None) != (share == 0.0):
        raise InputError(f"instruction data and its share belong together: folder {folder}, share {share:g}")
    if folder is None:
        return None
    examples = Shards(folder, verify=verify, holding="starsmith-instructions")
    if examples.tokenizer.digest != documents.tokenizer.digest:
        raise InputError(f"{folder} was made with another tokenizer than the documents; {AGAIN}")
    return examples


def _batch(rows: Sequence[Row], *, step: int, numbers: range, length: int) -> Batch:
    return Batch(
        step=step,
        rows=numbers,
        tokens=np.array([row.tokens for row in rows], dtype=np.int64).reshape(-1, length + 1),
        loss_mask=np.array([row.loss_mask for row in rows], dtype=np.bool_).reshape(-1, length),
        documents=np.array([row.documents for row in rows], dtype=np.int32).reshape(-1, length),
        positions=np.array([row.positions for row in rows], dtype=np.int32).reshape(-1, length),
        epochs=np.array([row.epochs[0] for row in rows], dtype=np.int64),
        spans=spans(rows, numbers),
        row_digests=tuple(map(_row_digest, rows)),
    )


def _row_digest(row: Row) -> bytes:
    digest = hashlib.blake2b(row.tokens.astype("<u4").tobytes(), digest_size=16)
    digest.update(np.packbits(row.loss_mask).tobytes())
    return digest.digest()


def _difference(state: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    theirs = state.get("settings")
    if state.get("version") != STATE_VERSION:
        return f"its version is {state.get('version')!r}, this Starsmith writes {STATE_VERSION}"
    if not isinstance(theirs, dict):
        return "it has no settings"
    changed = [
        f"{key} is {ours.get(key)!r}, the state has {theirs.get(key)!r}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    return "; ".join(changed) or "its fingerprint is not that of its settings"
