"""A document as a sequence of tokens, in one epoch (section 4.3).

    <repo_name>name<file_sep>path1\\ncode1<file_sep>path2\\ncode2 ... <|endoftext|>
    <file_sep>code1<file_sep>code2 ... <|endoftext|>

Files come in random order. One coin decides whether name and paths are shown, one whether the repository takes
part in FIM at all, and then one per file whether it is transformed. All are keyed by seed, epoch and identity.

A rendered document is a list of pieces (name, each file, end), and each piece can be had without the others. A
cursor into a document is therefore two small numbers, and resuming inside a large repository renders one file.
The name and the end are pieces of their own and every file's piece starts with its separator, so no transformation
of a file can lose them.

An example of instruction data is rendered as it lies in its shard: a piece for each turn, nothing drawn.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from starsmith.documents.special_tokens import END_OF_TEXT_ID, FILE_SEP_ID, REPO_NAME_ID
from starsmith.tokens.fim import Part, infill
from starsmith.tokens.keyed_random import Draws
from starsmith.tokens.shards import Document, File
from starsmith.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What is drawn for a document, and how often."""

    seed: int
    metadata_probability: float
    fim_repository_rate: float
    fim_file_rate: float
    fim_spm_rate: float
    fim_split: Literal["char", "token"]


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of a document; `file` is None for its name and its end."""

    parts: tuple[Part, ...]
    file: File | None

    @property
    def num_tokens(self) -> int:
        return sum(len(ids) for _, ids in self.parts)


class Rendered(Protocol):
    """Something to train on, piece by piece."""

    @property
    def document_id(self) -> str: ...
    @property
    def repo_name(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def num_whole_tokens(self) -> int | None:
        """The tokens of what is not to be cut where a row can hold it; None where any cut will do."""

    @property
    def num_pieces(self) -> int: ...
    def piece(self, number: int) -> Piece: ...


class RenderedExample:
    """One conversation: each turn is a prompt, from which nothing is learned, and a response with its end."""

    def __init__(self, document: Document, epoch: int) -> None:
        self.document_id, self.repo_name, self.epoch = document.document_id, document.repo_name, epoch
        self.num_whole_tokens = document.num_tokens
        self._document = document

    @property
    def num_pieces(self) -> int:
        return self._document.num_files

    def piece(self, number: int) -> Piece:
        turn = self._document.file(number)
        return Piece((("prompt", turn.path_tokens), ("response", turn.text_tokens)), turn)


class RenderedDocument:
    """One document in one epoch."""

    num_whole_tokens = None

    def __init__(self, document: Document, epoch: int, rendering: Rendering, tokenizer: Tokenizer) -> None:
        draws = Draws(rendering.seed, "document", epoch, document.document_id)
        self.document_id, self.repo_name, self.epoch = document.document_id, document.repo_name, epoch
        self._document = document
        self.shows_metadata = draws.uniform() < rendering.metadata_probability
        self.takes_part_in_fim = draws.uniform() < rendering.fim_repository_rate
        self._order = draws.order(document.num_files)
        self._rendering = rendering
        self._tokenizer = tokenizer

    @property
    def num_pieces(self) -> int:
        return len(self._order) + 2

    def piece(self, number: int) -> Piece:
        """Piece 0 is the name (without tokens when metadata is hidden), the last one the end."""
        if number == 0:
            if not self.shows_metadata:
                return Piece((), None)
            return Piece((self._special(REPO_NAME_ID), ("repo_name", self._document.name_tokens)), None)
        if number == self.num_pieces - 1:
            return Piece((self._special(END_OF_TEXT_ID),), None)
        file = self._document.file(int(self._order[number - 1]))
        return Piece((self._special(FILE_SEP_ID), *self._region(file)), file)

    def _region(self, file: File) -> list[Part]:
        path = file.path_tokens if self.shows_metadata else file.path_tokens[:0]
        if self.takes_part_in_fim:
            draws = Draws(self._rendering.seed, "fim", self.epoch, self.document_id, file.file_id)
            chosen = draws.uniform() < self._rendering.fim_file_rate
            spm = draws.uniform() < self._rendering.fim_spm_rate
            if chosen:
                split = self._rendering.fim_split
                return infill(path, file.text_tokens, self._tokenizer, split=split, spm=spm, draws=draws)
        plain: list[Part] = [("path", path), ("code", file.text_tokens)]
        return [part for part in plain if len(part[1])]

    def _special(self, number: int) -> Part:
        return "special", np.array([number], dtype=self._tokenizer.dtype)
