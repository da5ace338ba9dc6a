"""Instruction data: JSON Lines of conversations, encoded into shards beside those of documents.

A line is `{"instruction": ..., "response": ...}` or `{"messages": [{"role": "user", "content": ...}, {"role":
"assistant", ...}, ...]}`, other keys are not read. The template is the one StarCoder2-Instruct was trained with
(github.com/bigcode-project/starcoder2-self-align, src/star_align/prompt_template.py), turn after turn:

    <|endoftext|>SYSTEM\\n\\n### Instruction\\nTEXT\\n\\n### Response\\nTEXT<|endoftext|>\\n\\n### Instruction...

Prompt and response are encoded apart, as there. Responses and the ends that follow them are learned, prompts are
read only (`tokens.packing`). Text is text: the characters of a structure token in a line never become that token,
and the placeholders of redaction stand for themselves as they do in documents. FIM is for documents alone.

Each example has an identity of its own, the hash of its messages: the order of an epoch and lineage are keyed by
it, and a repeated example is taken once. Where it came from is the file's name and the line; its licence is not
known, and lineage says `unknown`. A line that is no conversation is counted with its reason and left out.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from starsmith.documents.special_tokens import END_OF_TEXT_ID
from starsmith.errors import InputError
from starsmith.tokens import shards
from starsmith.tokens.shards import Row
from starsmith.tokens.tokenizer import Ids, Tokenizer

PUBLISHED_SYSTEM = (
    "You are an exceptionally intelligent coding assistant that consistently delivers accurate and reliable "
    "responses to user instructions."
)
"""What StarCoder2-Instruct has before its first instruction."""

_EXAMPLES_PER_SHARD = 50_000
_EXAMPLES_PER_ENCODING = 256
_LINES_NAMED = 5


class Turn(NamedTuple):
    instruction: str
    response: str


class Example(NamedTuple):
    turns: tuple[Turn, ...]
    line: int
    """In its file, from 1."""

    @property
    def identity(self) -> str:
        """SHA-256 of the messages."""
        return hashlib.sha256(json.dumps(self.turns).encode()).hexdigest()


class BadLineError(ValueError):
    """A line that is no conversation; says why, in words that do not depend on the line."""


def encode(files: Sequence[Path], tokenizer: Tokenizer, folder: Path, *, system: str = "") -> dict[str, Any]:
    """Writes the shards of instruction data, and their manifest.

    Args:
        files: JSON Lines.
        tokenizer: that of the documents.
        folder: an existing folder, for nothing else.
        system: text before the first instruction.

    Returns:
        Counts of examples, turns and tokens (all, and those that are learned), the fingerprint of the shards, and
        for each file how many lines became examples, repeated one, or were bad and why.

    Raises:
        InputError: a file is absent or has no example, or there are no files.
    """
    if not files:
        raise InputError("no files of instruction data: set instructions.files")
    seen: set[bytes] = set()
    reports = [_FileReport(path) for path in files]
    examples = (
        (report, example) for report in reports for example in _distinct(read(report.path, report), report, seen)
    )
    counts = {"num_examples": 0, "num_turns": 0, "num_tokens": 0, "num_trained_tokens": 0}
    encoded = _encode(examples, tokenizer, system, counts)
    number = 0
    while first := next(encoded, None):
        chunk = chain([first], islice(encoded, _EXAMPLES_PER_SHARD - 1))
        shards.write_shard(chunk, tokenizer, folder, f"instructions-{number:05d}")
        number += 1
    tokenizer.save(folder / shards.TOKENIZER)
    manifest = shards.write_manifest(folder, folder / shards.TOKENIZER, holding="starsmith-instructions")
    return {**counts, "fingerprint": manifest["fingerprint"], "files": [report.facts() for report in reports]}


class _FileReport:
    """What became of the lines of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_examples = self.num_repeated = 0
        self.bad: dict[str, list[int]] = {}

    def refuse(self, line: int, reason: str) -> None:
        self.bad.setdefault(reason, []).append(line)

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.path.name,
            "num_examples": self.num_examples,
            "num_repeated": self.num_repeated,
            "num_bad": sum(map(len, self.bad.values())),
            "bad": {
                reason: {"count": len(lines), "lines": lines[:_LINES_NAMED]} for reason, lines in self.bad.items()
            },
        }

    def explain(self) -> str:
        return "; ".join(
            f"{len(lines)} {'line' if len(lines) == 1 else 'lines'} (the first: {lines[0]}) {reason}"
            for reason, lines in self.bad.items()
        )


def read(path: Path, report: _FileReport) -> Iterator[Example]:
    """The conversations of a file.

    Raises:
        InputError: the file is absent, or holds none.
    """
    found = False
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    example = Example(parse(line.removeprefix(b"\xef\xbb\xbf")), number)
                except BadLineError as error:
                    report.refuse(number, str(error))
                else:
                    found = True
                    yield example
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"no file of instruction data at {path}") from None
    if not found:
        raise InputError(
            f"{path} has no conversation in it: {report.explain() or 'it is empty'}. Each line must be a JSON "
            'object with "instruction" and "response", or with "messages"'
        )


def parse(line: bytes) -> tuple[Turn, ...]:
    """The turns of one line.

    Raises:
        BadLineError: it is no conversation.
    """
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        raise BadLineError("not UTF-8") from None
    except (ValueError, RecursionError):
        raise BadLineError("not JSON") from None
    if not isinstance(record, dict):
        raise BadLineError("not a JSON object")
    if ("messages" in record) == ("instruction" in record or "response" in record):
        raise BadLineError('needs either "messages" or "instruction" and "response"')
    if "messages" in record:
        return _turns_of(record["messages"])
    return (Turn(_text(record, "instruction"), _text(record, "response")),)


def _turns_of(messages: Any) -> tuple[Turn, ...]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadLineError('"messages" must be a list of objects')
    roles = [message.get("role") for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadLineError("roles must be user and assistant in turn, and end with assistant")
    texts = [_text(message, "content") for message in messages]
    return tuple(Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True))


def _text(record: dict[str, Any], key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise BadLineError(f'"{key}" must be a text')
    if not text.strip():
        raise BadLineError(f'"{key}" is empty')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadLineError(f'"{key}" holds half a surrogate pair') from None
    return text


def prompts(turns: Sequence[Turn], system: str) -> list[str]:
    """The text before each response, without the token that opens the conversation."""
    opening = f"{system}\n\n" if system else ""
    return [
        ("\n\n" if number else opening) + f"### Instruction\n{turn.instruction}\n\n### Response\n"
        for number, turn in enumerate(turns)
    ]


def _distinct(examples: Iterable[Example], report: _FileReport, seen: set[bytes]) -> Iterator[Example]:
    for example in examples:
        key = bytes.fromhex(example.identity)
        if key in seen:
            report.num_repeated += 1
        else:
            seen.add(key)
            report.num_examples += 1
            yield example


def _encode(
    examples: Iterator[tuple[_FileReport, Example]], tokenizer: Tokenizer, system: str, counts: dict[str, int]
) -> Iterator[tuple[list[Ids], Row]]:
    """Token arrays and index row of each example; adds to `counts`."""
    end = np.array([END_OF_TEXT_ID], dtype=tokenizer.dtype)
    while group := list(islice(examples, _EXAMPLES_PER_ENCODING)):
        texts = [
            text
            for _, example in group
            for pair in zip(prompts(example.turns, system), (turn.response for turn in example.turns), strict=True)
            for text in pair
        ]
        encoded = iter(tokenizer.encode(texts))
        for report, example in group:
            pieces = [end[:0]]  # an example has no repository's name
            turns = []
            for number, turn in enumerate(example.turns):
                prompt, response = next(encoded), np.concatenate([next(encoded), end])
                prompt = prompt if number else np.concatenate([end, prompt])
                pieces += [prompt, response]
                turns.append(_turn_row(example, number, turn, len(prompt), len(response)))
                counts["num_trained_tokens"] += len(response)
            counts["num_examples"] += 1
            counts["num_turns"] += len(turns)
            counts["num_tokens"] += sum(map(len, pieces))
            yield (
                pieces,
                {
                    "document_id": example.identity,
                    "repo_name": f"instructions/{report.path.name}",
                    "directory_id": "",
                    "split": "train",
                    "num_name_tokens": 0,
                    "files": turns,
                },
            )


def _turn_row(example: Example, number: int, turn: Turn, num_prompt: int, num_response: int) -> Row:
    return {
        "file_id": f"{example.identity}/{number}",
        "content_id": "",
        "released_id": "",
        "path": f"line {example.line}",
        "language": None,
        "license_type": "unknown",
        "detected_licenses": [],
        "text_bytes": len(turn.response.encode()),
        "num_path_tokens": num_prompt,
        "num_text_tokens": num_response,
    }
