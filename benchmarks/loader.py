"""How fast training data are assembled, on one core, beside a loader that tokenises on the fly.

Documents are the standard library of the Python that runs this (about 30 MB of code), a package a repository, with
a tokenizer of 49,152 trained on them. Ours is `Loader.next_batch`: rows of 4,097 tokens with document mask,
positions, lineage of every token and a digest of every row, from shards that were encoded once; what that costs
is a row of its own. Times are processor seconds, so assembling ahead (`Prefetch`) would not change them.

The peer is what training scripts for such models do: a PyTorch `IterableDataset` that shuffles the files, encodes
each with Hugging Face `tokenizers`, transforms a chosen file by decoding its tokens and encoding three pieces,
joins all with the end token and cuts rows of equal length, behind a `DataLoader` without workers. It keeps no
lineage and no document mask, and resumes only by reading everything again.

Targets: 300,000 tokens/s without FIM and 150,000 with FIM between characters, so that one core feeds a node of
eight GPUs at 25,000 tokens/s each. Resuming is timed at the start and a million documents into every stream.
"""

import random
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers
import torch
from torch.utils.data import DataLoader, IterableDataset

from benchmarks import cache, table
from starsmith import recipe
from starsmith.corpus import schema
from starsmith.documents.special_tokens import END_OF_TEXT_ID, FIM_MIDDLE_ID, FIM_PREFIX_ID, FIM_SUFFIX_ID
from starsmith.tokens import shards
from starsmith.tokens.loader import Loader
from starsmith.tokens.prefetch import Prefetch
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts

TARGET_MILLIONS = {"no FIM": 0.3, "FIM between tokens": 0.3, "FIM between characters": 0.15}
TARGET_RATIO = 10.0
TARGET_WAIT_PERCENT = 1.0
_SETTINGS: dict[str, dict[str, Any]] = {
    "no FIM": {"fim_repository_rate": 0.0},
    "FIM between tokens": {"fim_split": "token"},
    "FIM between characters": {"fim_split": "char"},
}
_UNIT = "million tokens/s a core"
_BATCH_SIZE = 16
_NUM_BATCHES = {"small": 40, "full": 200}
_PEER_BATCHES = {"small": 12, "full": 60}
_FILES_PER_DOCUMENT = 40
_CONSUMED_TOKENS_PER_SECOND = 200_000
_VISITS = 1_000_000
_VERSION = 1


def main() -> None:
    chosen = table.options(__doc__ or "")
    folder = cache.built(cache.FOLDER / f"loader-{_VERSION}", build)
    torch.set_num_threads(1)
    rows = [table.row("encoding the shards, once", encoding(folder), _UNIT)]
    for name, settings in _SETTINGS.items():
        speed = ours(folder, settings, _NUM_BATCHES[chosen.scale])
        target = TARGET_MILLIONS[name]
        rows.append(table.row(name, speed, _UNIT, target=target, direction="at least"))
        if name != "FIM between tokens":
            fim_rate = 0.25 if name == "FIM between characters" else 0.0
            rows.append(
                table.row(
                    f"{name}, beside tokenising on the fly",
                    speed,
                    _UNIT,
                    peer=naive(folder, fim_rate, _PEER_BATCHES[chosen.scale]),
                    peer_name=f"PyTorch and tokenizers {tokenizers.__version__}",
                    target=TARGET_RATIO,
                    direction="at least",
                )
            )
    start, far = (resume_seconds(folder, visits) for visits in (0, _VISITS))
    rows.append(table.row("opening, resuming and the first batch, at the start", start * 1e3, "ms"))
    rows.append(table.row("the same a million documents into each stream", far * 1e3, "ms"))
    rows.append(
        table.row(
            f"wait of a consumer of {_CONSUMED_TOKENS_PER_SECOND:,} tokens/s",
            wait_percent(folder),
            "% of its time",
            target=TARGET_WAIT_PERCENT,
        )
    )
    table.publish(rows, ("numpy", "pyarrow", "tokenizers", "torch"), chosen.json)


def ours(folder: Path, settings: dict[str, Any], num_batches: int) -> float:
    """Million tokens a second."""
    loader = open_loader(folder, **settings)
    loader.next_batch()
    started = time.process_time()
    num_tokens = sum(loader.next_batch().loss_mask.size for _ in range(num_batches))
    return num_tokens / 1e6 / (time.process_time() - started)


def encoding(folder: Path) -> float:
    """Million tokens a second, from documents to shards."""
    tokenizer = Tokenizer.load(folder / shards.TOKENIZER)
    tokenizer.encode(["x = 1"])  # compiles
    documents = _documents()
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as place:
        started = time.process_time()
        manifest = shards.write_shards([documents], tokenizer, Path(place))
        return float(manifest["splits"]["train"]["num_tokens"] / 1e6 / (time.process_time() - started))


def open_loader(folder: Path, **settings: Any) -> Loader:
    config = recipe.Tokens(**settings)
    return Loader(folder, config, seed=1, batch_size=_BATCH_SIZE, metadata_probability=0.5, verify=False)


def resume_seconds(folder: Path, visits: int) -> float:
    """From a state to the first batch."""
    state = open_loader(folder).state()
    state["streams"] = [[number, visits, 0, 0] for number, *_ in state["streams"]]
    open_loader(folder).next_batch()  # the files are in memory either way
    started = time.process_time()
    loader = open_loader(folder)
    loader.load_state(state)
    loader.next_batch()
    return time.process_time() - started


def wait_percent(folder: Path) -> float:
    """Of a consumer that sleeps as long as training a batch would take, after its first batch."""
    waited = 0.0
    num_batches = 10
    with Prefetch(open_loader(folder)) as batches:
        batches.next_batch()
        started = time.perf_counter()
        for _ in range(num_batches):
            num_tokens = batches.next_batch().loss_mask.size
            waited += batches.wait_seconds
            time.sleep(num_tokens / _CONSUMED_TOKENS_PER_SECOND)
        return 100.0 * waited / (time.perf_counter() - started)


class OnTheFly(IterableDataset[torch.Tensor]):
    """Rows of equal length from texts, encoded as they come."""

    def __init__(self, texts: list[str], tokenizer: tokenizers.Tokenizer, fim_rate: float, length: int) -> None:
        self.texts, self.tokenizer, self.fim_rate, self.length = texts, tokenizer, fim_rate, length
        self.random = random.Random(1)

    def __iter__(self) -> Iterator[torch.Tensor]:
        waiting: list[int] = []
        while True:
            self.random.shuffle(self.texts)
            for text in self.texts:
                ids = self.encode(text)
                if self.random.random() < self.fim_rate:
                    ids = self.infill(ids)
                waiting += [*ids, END_OF_TEXT_ID]
                while len(waiting) >= self.length:
                    yield torch.tensor(waiting[: self.length])
                    del waiting[: self.length]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def infill(self, ids: list[int]) -> list[int]:
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        low, high = sorted(self.random.randint(0, len(text)) for _ in range(2))
        prefix, middle, suffix = map(self.encode, (text[:low], text[low:high], text[high:]))
        if self.random.random() < 0.5:
            return [FIM_PREFIX_ID, FIM_SUFFIX_ID, *suffix, FIM_MIDDLE_ID, *prefix, *middle]
        return [FIM_PREFIX_ID, *prefix, FIM_SUFFIX_ID, *suffix, FIM_MIDDLE_ID, *middle]


def naive(folder: Path, fim_rate: float, num_batches: int) -> float:
    """Million tokens a second of the peer."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / shards.TOKENIZER))
    length = recipe.Tokens().sequence_length
    texts = [text for files in repositories().values() for _, text in files]
    batches = iter(DataLoader(OnTheFly(texts, tokenizer, fim_rate, length + 1), batch_size=_BATCH_SIZE))
    next(batches)
    started = time.process_time()
    num_tokens = sum(next(batches)[:, 1:].numel() for _ in range(num_batches))
    return num_tokens / 1e6 / (time.process_time() - started)


def build(folder: Path) -> None:
    """Tokenizer and shards of the standard library."""
    documents = _documents()
    texts = (file["text"] for document in documents.to_pylist() for file in document["files"])
    shards.write_shards([documents], train_on_texts(texts, vocab_size=49_152), folder)


def _documents() -> pa.Table:
    documents = [
        _document(name, number, files[number : number + _FILES_PER_DOCUMENT])
        for name, files in repositories().items()
        for number in range(0, len(files), _FILES_PER_DOCUMENT)
    ]
    return pa.Table.from_pylist(documents, schema=schema.DOCUMENTS)


def repositories() -> dict[str, list[tuple[str, str]]]:
    """Path and text of each file of the standard library, by its package."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, list[tuple[str, str]]] = {}
    for place in sorted(root.rglob("*.py")):
        relative = place.relative_to(root)
        if "site-packages" in relative.parts:
            continue
        try:
            text = place.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # tests of other encodings
            continue
        package = relative.parts[0] if len(relative.parts) > 1 else "modules"
        found.setdefault(f"python/{package}", []).append((f"/{relative}", text))
    return found


def _document(name: str, part: int, files: list[tuple[str, str]]) -> dict[str, Any]:
    directory_id = _identifier(name)
    return {
        "document_id": _identifier(f"{name} {part}"),
        "repo_name": name,
        "directory_id": directory_id,
        "split": "train",
        "files": [
            {
                "file_id": schema.file_id(name, directory_id, path),
                "content_id": _identifier(text),
                "released_id": _identifier(text),
                "path": path,
                "language": "Python",
                "license_type": "permissive",
                "detected_licenses": ["PSF-2.0"],
                "num_redactions": 0,
                "text": text,
            }
            for path, text in files
        ],
    }


def _identifier(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
