"""Runs a token classifier over texts and lays what it finds beside the rules' findings (section 3.2).

The folder is one in Hugging Face's layout with a fast tokenizer and weights in safetensors; StarPII is one,
which its licence lets nobody ship, so the user brings it. No code of the folder is run. The arithmetic
is `starsmith.signals.pii_model`; here are only the model and its chunks: windows of the model's length that
overlap by an eighth. A text's chunks are computed by themselves, on one thread of the processor, so its findings
depend on nothing else.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from starsmith import recipe
from starsmith.errors import InputError, MachineError
from starsmith.signals import pii, pii_findings, pii_model
from starsmith.signals.pii_model import Chunk

MAX_CHUNK_PIECES = 1_024
_CHUNKS_PER_BATCH = 8


def measure(contents: pa.Table, config: recipe.Pii) -> pa.Table:
    """The findings of the rules and of the model `config.model`; of the rules alone where it names none.

    Args:
        contents: at least content_id and text of `schema.CONTENTS`.

    Returns:
        `schema.PII`, ordered by content_id and start; the spans of a content do not overlap.

    Raises:
        InputError: the folder has no such model.
        MachineError: transformers is not installed.
    """
    if config.model is None:
        return pii.measure(contents)
    classifier = load(config.model)
    rows: list[tuple[str, pii_findings.Finding]] = []
    for batch in contents.select(["content_id", "text"]).to_batches():
        for content_id, value in zip(*batch.columns, strict=True):
            text = value.as_py()
            if text:
                found = pii.find(text.encode()) + classifier.find(text, config.min_score)
                rows += [(content_id.as_py(), finding) for finding in pii_findings.merge(found)]
    return pii.findings_table(rows)


def parameters(config: recipe.Pii) -> dict[str, Any]:
    """What the findings depend on beside texts and rules; empty without a model."""
    if config.model is None:
        return {}
    return {"model": fingerprint(config.model), "min_score": config.min_score, "version": pii_model.VERSION}


def fingerprint(folder: Path) -> str:
    """Changes when the model does: SHA-256 over the names and bytes of the folder's files.

    Raises:
        InputError: the folder is absent or has no `config.json`.
    """
    _check(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"pii.model: {folder} is no model folder (no config.json). Give one with config.json, tokenizer.json "
            "and model.safetensors, or leave pii.model out to use the rules alone"
        )


class Classifier:
    """A token classifier and its tokenizer."""

    def __init__(self, tokenizer: Any, model: Any, labels: tuple[str, ...], chunk_pieces: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self.labels = labels
        self.chunk_pieces = chunk_pieces
        """Pieces of a chunk, its special tokens included."""

    def find(self, text: str, min_score: float) -> list[pii_findings.Finding]:
        """The model's entities in a text."""
        return pii_model.findings(text, self.labels, self.chunks(text), min_score)

    def chunks(self, text: str) -> list[Chunk]:
        """The model's probabilities for each window of a text."""
        encoded = self._tokenizer(
            text,
            truncation=True,
            max_length=self.chunk_pieces,
            stride=self.chunk_pieces // 8,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        chunks: list[Chunk] = []
        for first in range(0, len(ids), _CHUNKS_PER_BATCH):
            last = first + _CHUNKS_PER_BATCH
            for row, places in zip(self._probabilities(ids[first:last]), offsets[first:last], strict=True):
                chunks.append(Chunk(np.array(places, np.int64).reshape(-1, 2), row))
        return chunks

    def _probabilities(self, ids: list[list[int]]) -> list[Any]:
        """For each chunk of pieces, (num_pieces, num_labels)."""
        import torch

        longest = max(map(len, ids))
        padding = self._tokenizer.pad_token_id or 0
        inputs = torch.tensor([row + [padding] * (longest - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums in another order would round differently
        try:
            with torch.inference_mode():
                logits = self._model(input_ids=inputs, attention_mask=mask).logits
        finally:
            torch.set_num_threads(threads)
        shares = logits.double().softmax(dim=-1).numpy()
        return [share[: len(row)] for share, row in zip(shares, ids, strict=True)]


@functools.lru_cache(maxsize=1)
def load(folder: Path) -> Classifier:
    """The classifier of a folder, in memory once a process.

    Raises:
        InputError: the folder has no model, a slow tokenizer, or labels of no known kind.
        MachineError: transformers is not installed.
    """
    _check(folder)
    try:
        from transformers import AutoModelForTokenClassification, AutoTokenizer
    except ImportError:
        raise MachineError(
            "pii.model needs the package transformers, which is not installed: pip install "
            "'starsmith[pii-model]', or leave pii.model out to use the rules alone"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        model = AutoModelForTokenClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"pii.model: {folder} does not load as a token classifier: {error}") from None
    if not tokenizer.is_fast:
        raise InputError(
            f"pii.model: {folder} has no fast tokenizer (tokenizer.json), which tells where pieces are"
        )
    labels = tuple(model.config.id2label[number] for number in range(model.config.num_labels))
    if not any(label[2:] in pii_findings.KINDS or label in pii_findings.KINDS for label in labels):
        raise InputError(
            f"pii.model: the labels of {folder} are {', '.join(labels)}; at least one must be of "
            f"{', '.join(pii_findings.KINDS)}, as B-, I- or alone"
        )
    limits = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), MAX_CHUNK_PIECES)
    return Classifier(tokenizer, model.eval(), labels, int(min(limit for limit in limits if limit)))
