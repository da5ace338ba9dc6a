"""Streams of rendered documents, and rows of fixed length cut from them.

A row holds T+1 tokens: T inputs, and as many targets one place on. The last token of a row is the first of the
stream's next row, so every token of a document is a target exactly once (but the very first, which nothing
precedes), a document that does not fit goes on in the next row, and nothing is padded or dropped.

A stream walks documents for ever, epoch after epoch. In epoch e it takes the documents at the places s, s+S, s+2S,
... of a permutation keyed by the epoch. Streams are not held in step: each spends the same number of tokens, and
one that has short documents enters the next epoch earlier. As the permutation deals documents anew in every epoch,
a document's share of the training tokens is its share of the corpus' tokens and not of its stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from starsmith.errors import InputError
from starsmith.tokens.fim import Kind
from starsmith.tokens.keyed_random import Permutation
from starsmith.tokens.rendering import Piece, RenderedDocument
from starsmith.tokens.shards import Document, File
from starsmith.tokens.tokenizer import Ids


class Cursor(NamedTuple):
    """The next token of a stream."""

    epoch: int = 0
    position: int = 0
    """Which document of the stream's in this epoch."""
    piece: int = 0
    offset: int = 0
    """Tokens into the piece."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Tokens `start` to `end` of a row, and where they come from.

    Tokens of kind `code` and `path` name their file; those of `repo_name` and `special` (separators, FIM
    sentinels, ends) name their document only: the other fields are None or empty.
    """

    row: int
    start: int
    end: int
    kind: Kind
    epoch: int
    document_id: str
    repo_name: str
    file_id: str | None = None
    content_id: str | None = None
    released_id: str | None = None
    path: str = ""
    license_type: str = ""
    detected_licenses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fragment:
    """Consecutive tokens of one kind and origin."""

    ids: Ids
    kind: Kind
    file: File | None
    document: Document
    place: tuple[int, int]
    """Epoch and position: fragments with equal places belong to one showing of a document."""


@dataclass(frozen=True)
class Row:
    """One packed sequence of T+1 tokens. Shapes: tokens (T+1,), the other arrays (T,)."""

    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    documents: NDArray[np.int32]
    positions: NDArray[np.int32]
    epochs: NDArray[np.int64]
    """(T+1,): the epoch of each token."""
    fragments: tuple[Fragment, ...]

    def spans(self, number: int) -> list[Span]:
        """Spans that tile the T+1 tokens of row `number`; neighbours of one kind and origin are joined."""
        spans: list[Span] = []
        start = 0
        last: tuple[object, ...] | None = None
        for fragment in self.fragments:
            end = start + len(fragment.ids)
            file = fragment.file if fragment.kind in ("code", "path") else None
            origin = (fragment.place, fragment.kind, file and file.file_id)
            if origin == last:
                start = spans.pop().start
            spans.append(_span(fragment, file, row=number, start=start, end=end))
            start, last = end, origin
        return spans


class Stream:
    """One endless sequence of documents; its state is its `cursor`."""

    def __init__(
        self,
        number: int,
        *,
        num_streams: int,
        num_documents: int,
        permutation: Callable[[int], Permutation],
        render: Callable[[int, int], RenderedDocument],
    ) -> None:
        """
        Args:
            number: s, from 0 to num_streams - 1.
            num_streams: S, at most the number of documents.
            num_documents: D.
            permutation: of D documents, by epoch.
            render: the document with a number, in an epoch.
        """
        self._number = number
        self._num_streams = num_streams
        self._num_positions = len(range(number, num_documents, num_streams))
        self._permutation = permutation
        self._render = render
        self._rendered: tuple[tuple[int, int], RenderedDocument] | None = None
        self._piece: tuple[tuple[int, int, int], Piece] | None = None
        self._cursor = Cursor()

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    @cursor.setter
    def cursor(self, cursor: Cursor) -> None:
        if min(cursor) < 0 or cursor.position >= self._num_positions:
            raise InputError(f"stream {self._number} has no place {tuple(cursor)}: the loader state is damaged")
        self._cursor = cursor

    def read(self, num_tokens: int) -> list[Fragment]:
        """The next tokens; the cursor then stands on the last one of them."""
        fragments: list[Fragment] = []
        cursor, wanted = self._cursor, num_tokens
        while True:
            document = self._document(cursor)
            piece = self._load(document, cursor)
            if cursor.offset >= max(piece.num_tokens, 1):
                raise InputError(
                    f"stream {self._number} has no place {tuple(cursor)}: the loader state is damaged"
                )
            taken = min(wanted, piece.num_tokens - cursor.offset)
            fragments += _slice(piece, cursor.offset, cursor.offset + taken, document.document, cursor[:2])
            wanted -= taken
            if wanted == 0:
                self._cursor = cursor._replace(offset=cursor.offset + taken - 1)
                return fragments
            cursor = self._after(cursor, document)

    def _after(self, cursor: Cursor, document: RenderedDocument) -> Cursor:
        """The start of the next piece, document or epoch."""
        if cursor.piece + 1 < document.num_pieces:
            return Cursor(cursor.epoch, cursor.position, cursor.piece + 1)
        if cursor.position + 1 < self._num_positions:
            return Cursor(cursor.epoch, cursor.position + 1)
        return Cursor(cursor.epoch + 1)

    def _document(self, cursor: Cursor) -> RenderedDocument:
        place = (cursor.epoch, cursor.position)
        if self._rendered is None or self._rendered[0] != place:
            number = self._permutation(cursor.epoch)[self._number + cursor.position * self._num_streams]
            self._rendered = place, self._render(number, cursor.epoch)
        return self._rendered[1]

    def _load(self, document: RenderedDocument, cursor: Cursor) -> Piece:
        place = cursor[:3]
        if self._piece is None or self._piece[0] != place:
            if cursor.piece >= document.num_pieces:
                raise InputError(
                    f"stream {self._number} has no place {tuple(cursor)}: the loader state is damaged"
                )
            self._piece = place, document.piece(cursor.piece)
        return self._piece[1]


def pack(fragments: Sequence[Fragment], *, document_mask: bool) -> Row:
    """Lays fragments of T+1 tokens in all side by side.

    With `document_mask`, documents are numbered within the row, positions count from the document's first token
    in the row, and a target in another document than its input is not trained. Without, the row is one document.
    """
    lengths = [len(fragment.ids) for fragment in fragments]
    tokens = np.concatenate([fragment.ids for fragment in fragments]).astype(np.int64)
    changes = [now.place != before.place for before, now in pairwise(fragments)]
    documents = np.repeat(np.cumsum([False, *changes]), lengths).astype(np.int32)
    epochs = np.repeat(np.array([fragment.place[0] for fragment in fragments], dtype=np.int64), lengths)
    positions = np.arange(len(tokens), dtype=np.int32)
    if document_mask:
        loss_mask = documents[1:] == documents[:-1]
        first = np.flatnonzero(np.diff(documents, prepend=-1))
        positions -= first[documents].astype(np.int32)
    else:
        loss_mask = np.ones(len(tokens) - 1, dtype=np.bool_)
        documents = np.zeros_like(documents)
    return Row(tokens, loss_mask, documents[:-1], positions[:-1], epochs, tuple(fragments))


def _slice(piece: Piece, start: int, end: int, document: Document, place: tuple[int, int]) -> list[Fragment]:
    """The fragments of a piece between two tokens of it."""
    fragments = []
    before = 0
    for kind, ids in piece.parts:
        chosen = ids[max(start - before, 0) : max(end - before, 0)]
        if len(chosen):
            fragments.append(Fragment(chosen, kind, piece.file, document, place))
        before += len(ids)
    return fragments


def _span(fragment: Fragment, file: File | None, *, row: int, start: int, end: int) -> Span:
    described = {} if file is None else {
        "file_id": file.file_id,
        "content_id": file.content_id,
        "released_id": file.released_id,
        "path": file.path,
        "license_type": file.license_type,
        "detected_licenses": file.detected_licenses,
    }  # fmt: skip
    return Span(
        row=row,
        start=start,
        end=end,
        kind=fragment.kind,
        epoch=fragment.place[0],
        document_id=fragment.document.document_id,
        repo_name=fragment.document.repo_name,
        **described,  # type: ignore[arg-type]
    )
