"""A document's two published forms, and what is drawn anew in each epoch."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from token_documents import make_document

from starsmith.tokens.rendering import RenderedDocument, Rendering
from starsmith.tokens.shards import Document, Shards
from starsmith.tokens.tokenizer import Tokenizer

TEXTS = ["a = 1\n", "b = 2", "<file_sep>\n"]


@pytest.fixture(scope="module")
def document(write_folder: Callable[..., Path]) -> Document:
    return Shards(write_folder([make_document("owner/name", TEXTS)])).document("train", 0)


def render(document: Document, tokenizer: Tokenizer, *, epoch: int = 0, shown: float = 0.5) -> RenderedDocument:
    rendering = Rendering(
        seed=1,
        metadata_probability=shown,
        fim_repository_rate=0.0,
        fim_file_rate=1.0,
        fim_spm_rate=0.5,
        fim_split="char",
    )
    return RenderedDocument(document, epoch, rendering, tokenizer)


def read(rendered: RenderedDocument, tokenizer: Tokenizer) -> str:
    pieces = (rendered.piece(number) for number in range(rendered.num_pieces))
    return b"".join(tokenizer.decode(ids) for piece in pieces for _, ids in piece.parts).decode()


def test_both_forms_are_the_published_ones(document: Document, tokenizer: Tokenizer) -> None:
    named = {f"/src/file{number:04d}.py\n{text}" for number, text in enumerate(TEXTS)}
    for shown, opening, files in ((1.0, "<repo_name>owner/name", named), (0.0, "", set(TEXTS))):
        forms = {
            f"{opening}{''.join('<file_sep>' + file for file in order)}<|endoftext|>"
            for order in itertools.permutations(files)
        }
        assert {
            read(render(document, tokenizer, epoch=epoch, shown=shown), tokenizer) for epoch in range(40)
        } == forms


def test_metadata_and_order_are_drawn_in_each_epoch(document: Document, tokenizer: Tokenizer) -> None:
    shown, orders = 0, Counter[tuple[str, ...]]()
    for epoch in range(600):
        rendered = render(document, tokenizer, epoch=epoch)
        shown += rendered.shows_metadata
        files = (rendered.piece(number).file for number in range(1, rendered.num_pieces - 1))
        orders[tuple(file.path for file in files if file is not None)] += 1
    assert abs(shown - 300) < 50  # four standard deviations
    assert len(orders) == 6
    assert sum((count - 100) ** 2 / 100 for count in orders.values()) < 20.5  # chi-square, 5 degrees, p = 0.001
