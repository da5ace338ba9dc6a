"""Streams of rendered documents, and rows of fixed length cut from them.

A row holds T+1 tokens: T inputs, and as many targets one place on. The last token of a row is the first of the
stream's next row, so every token of a document is a target exactly once (but the very first, which nothing
precedes), a document that does not fit goes on in the next row, and nothing is padded or dropped.

A conversation is not cut where a row can hold it: if it does not fit into what is left, the rest of the row is
padding, which is not trained, and the next row begins with it. So every response is learned in sight of its
prompt; of a conversation longer than a row, what goes on of a turn in the next row is read and not learned. The
price is half a conversation of padding a row, on average. Prompts are never trained.

The documents of a part of the mixture form one endless sequence, epoch after epoch, each epoch in an order of its
own. Stream s of S takes its places s, s+S, s+2S, ..., however many documents there are. Streams are not held in
step: each spends the same number of tokens, and one that has short documents goes further. As every epoch deals
documents anew, a document's share of the training tokens is its share of the part's tokens and not of its stream.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from starsmith.documents.special_tokens import END_OF_TEXT_ID
from starsmith.errors import InputError
from starsmith.tokens.fim import Kind
from starsmith.tokens.rendering import Piece, Rendered
from starsmith.tokens.shards import File
from starsmith.tokens.tokenizer import Ids

SPANS = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),  # of the global batch
        pa.field("start", pa.int32(), nullable=False),  # tokens of the row
        pa.field("end", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # see `fim.Kind`
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("content_id", pa.string()),  # null where the span belongs to no file
        pa.field("released_id", pa.string()),
        pa.field("path", pa.string(), nullable=False),
        pa.field("license_type", pa.string(), nullable=False),
        pa.field("detected_licenses", pa.list_(pa.string()), nullable=False),
    ]
)
"""Tokens `start` to `end` of a row, and where they come from. Tokens of kind `code` and `path` name their file;
those of `repo_name` and `special` (separators, FIM sentinels, ends) their document only; `prompt` and `response`
name the line of their file of instruction data, and `padding` the conversation before it."""


_WITHOUT_FILE = ("repo_name", "special", "padding")


class Cursor(NamedTuple):
    """The next token of a stream."""

    visit: int = 0
    """How many documents the stream has left behind."""
    piece: int = 0
    offset: int = 0
    """Tokens into the piece."""


class Fragment(NamedTuple):
    """Consecutive tokens of one kind and origin."""

    ids: Ids
    kind: Kind
    file: File | None
    document: Rendered
    visit: int
    """Fragments of one visit belong to one showing of a document."""
    is_learned: bool
    """Whether its tokens are targets that count."""


class Row(NamedTuple):
    """One packed sequence of T+1 tokens. Shapes: tokens (T+1,), the other arrays (T,)."""

    tokens: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    documents: NDArray[np.int32]
    positions: NDArray[np.int32]
    epochs: NDArray[np.int64]
    """(T+1,): the epoch of each token."""
    fragments: Sequence[Fragment]


class Stream:
    """One endless sequence of documents; its state is its `cursor`."""

    def __init__(self, number: int, *, first: int, every: int, open_document: Callable[[int], Rendered]) -> None:
        """
        Args:
            number: of the stream, for messages.
            first: its first place in the sequence of its part.
            every: how many streams share that sequence.
            open_document: the document at a place of the sequence.
        """
        self._number = number
        self._first = first
        self._every = every
        self._open_document = open_document
        self._document: tuple[int, Rendered] | None = None
        self._piece: tuple[tuple[int, int], Piece] | None = None
        self._cursor = Cursor()

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    @cursor.setter
    def cursor(self, cursor: Cursor) -> None:
        if min(cursor) < 0:
            raise self._no_such(cursor)
        self._cursor = cursor

    @property
    def epoch(self) -> int:
        """Of the next token."""
        return self._visit(self._cursor.visit).epoch

    def read(self, num_tokens: int) -> list[Fragment]:
        """The next tokens; the cursor then stands on the last of them, or on a conversation that did not fit."""
        fragments: list[Fragment] = []
        cursor, wanted = self._cursor, num_tokens
        while True:
            document = self._visit(cursor.visit)
            piece = self._load(document, cursor)
            if cursor.offset >= max(piece.num_tokens, 1):
                raise self._no_such(cursor)
            if fragments and cursor[1:] == (0, 0) and (document.num_whole_tokens or 0) > wanted:
                fragments.append(_padding(wanted, fragments[-1]))
                self._cursor = cursor
                return fragments
            taken = min(wanted, piece.num_tokens - cursor.offset)
            fragments += _slice(piece, cursor.offset, cursor.offset + taken, document, cursor.visit)
            wanted -= taken
            if wanted == 0:
                ends = cursor.piece + 1 == document.num_pieces and cursor.offset + taken == piece.num_tokens
                if ends and document.num_whole_tokens is not None:  # nothing is predicted from an end
                    self._cursor = Cursor(cursor.visit + 1)
                else:
                    self._cursor = cursor._replace(offset=cursor.offset + taken - 1)
                return fragments
            if cursor.piece + 1 < document.num_pieces:
                cursor = Cursor(cursor.visit, cursor.piece + 1)
            else:
                cursor = Cursor(cursor.visit + 1)

    def _visit(self, visit: int) -> Rendered:
        if self._document is None or self._document[0] != visit:
            self._document = visit, self._open_document(self._first + visit * self._every)
        return self._document[1]

    def _load(self, document: Rendered, cursor: Cursor) -> Piece:
        place = cursor[:2]
        if self._piece is None or self._piece[0] != place:
            if cursor.piece >= document.num_pieces:
                raise self._no_such(cursor)
            self._piece = place, document.piece(cursor.piece)
        return self._piece[1]

    def _no_such(self, cursor: Cursor) -> InputError:
        return InputError(f"stream {self._number} has no place {tuple(cursor)}: the loader state is damaged")


def pack(fragments: Sequence[Fragment], *, document_mask: bool) -> Row:
    """Lays fragments of T+1 tokens in all side by side.

    With `document_mask`, documents are numbered within the row, positions count from the document's first token
    in the row, and a target in another document than its input is not trained. Without, the row is one document.
    """
    lengths = [len(fragment.ids) for fragment in fragments]
    tokens = np.concatenate([fragment.ids for fragment in fragments], dtype=np.int64, casting="safe")
    changes = [now.visit != before.visit for before, now in pairwise(fragments)]
    documents = np.repeat(np.cumsum([False, *changes], dtype=np.int32), lengths)
    epochs = np.repeat(np.array([fragment.document.epoch for fragment in fragments], dtype=np.int64), lengths)
    positions = np.arange(len(tokens), dtype=np.int32)
    loss_mask = np.repeat([fragment.is_learned for fragment in fragments], lengths)[1:]
    if document_mask:
        loss_mask &= documents[1:] == documents[:-1]
        first = np.flatnonzero(np.diff(documents, prepend=-1))
        positions -= first[documents].astype(np.int32)
    else:
        documents = np.zeros_like(documents)
    return Row(tokens, loss_mask, documents[:-1], positions[:-1], epochs, fragments)


def spans(rows: Sequence[Row], numbers: Sequence[int]) -> pa.Table:
    """Spans (`SPANS`) that tile the T+1 tokens of each row; neighbours of one kind and origin are joined.

    Args:
        rows: packed rows.
        numbers: of the rows in the global batch.
    """
    places: list[tuple[int, int, int]] = []
    origins: list[Fragment] = []
    for number, row in zip(numbers, rows, strict=True):
        start = 0
        last: Fragment | None = None
        for fragment in row.fragments:
            end = start + len(fragment.ids)
            if last is not None and _same_origin(last, fragment):
                places[-1] = number, places[-1][1], end
            else:
                places.append((number, start, end))
                origins.append(fragment)
            start, last = end, fragment
    row_numbers, starts, ends = np.array(places, dtype=np.int32).reshape(-1, 3).T
    files = [None if fragment.kind in _WITHOUT_FILE else fragment.file for fragment in origins]
    columns = [
        row_numbers,
        starts,
        ends,
        [fragment.kind for fragment in origins],
        [fragment.document.epoch for fragment in origins],
        [fragment.document.document_id for fragment in origins],
        [fragment.document.repo_name for fragment in origins],
        [file and (file.content_id or None) for file in files],
        [file and (file.released_id or None) for file in files],
        ["" if file is None else file.path for file in files],
        ["" if file is None else file.license_type for file in files],
        [() if file is None else file.detected_licenses for file in files],
    ]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SPANS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SPANS)


def _same_origin(one: Fragment, two: Fragment) -> bool:
    if one.visit != two.visit or one.kind != two.kind:
        return False
    return one.kind in _WITHOUT_FILE or one.file is two.file


def _slice(piece: Piece, start: int, end: int, document: Rendered, visit: int) -> list[Fragment]:
    """The fragments of a piece between two tokens of it."""
    fragments = []
    before = 0
    for kind, ids in piece.parts:
        chosen = ids[max(start - before, 0) : max(end - before, 0)]
        if len(chosen):
            is_learned = kind != "prompt" and (kind != "response" or start == 0)
            fragments.append(Fragment(chosen, kind, piece.file, document, visit, is_learned))
        before += len(ids)
    return fragments


def _padding(num_tokens: int, last: Fragment) -> Fragment:
    ids = np.full(num_tokens, END_OF_TEXT_ID, dtype=last.ids.dtype)
    return last._replace(ids=ids, kind="padding", file=None, is_learned=False)
