"""What answers requests: a StarCoder2 model in a Hugging Face folder.

What does not fit into the model's window together with `max_new_tokens` is cut, always in the same way, and the
completion says how many tokens were lost: a prompt keeps its end; around a hole, prefix and suffix get half of
the room each, and what one does not need goes to the other, so that what is kept lies next to the hole. Other
files before the prompt (`Request.context`) keep their beginning, up to a line's end.

Special tokens are placed by number, and text is encoded so that it can never become one: a file that writes
about `<fim_middle>` is not a FIM prompt.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import tokenizers
import torch

from starsmith.errors import InputError
from starsmith.evaluation.contract import Backend, Completion, Request, cut_at_stop
from starsmith.model import generation, huggingface

_OVERLAP: Final = 4
"""A window repeats a quarter of the one before as context."""


class StarsmithBackend:
    """A folder that `transformers` could load too: config.json, safetensors and tokenizer.json."""

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 16) -> None:
        """Loads model and tokenizer.

        Raises:
            InputError: a file is absent, or tokenizer and model do not fit.
        """
        self.identity = folder_digest(folder)
        model, self._config = huggingface.load(folder)
        self._model = model.to(device).eval()
        self._device = device
        self._batch_size = batch_size
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        if tokenizer.get_vocab_size() > self._config.vocab_size:
            raise InputError(
                f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens and the model "
                f"{self._config.vocab_size}; they do not belong together"
            )
        self.contexts = Contexts(
            tokenizer, window=self._config.max_position_embeddings, eos_token_id=self._config.eos_token_id
        )

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completions in order. Requests of one prompt that lie side by side and are sampled share a batch."""
        completions: list[Completion] = []
        for greedy, group in itertools.groupby(requests, key=settings):
            members = list(group)
            if greedy[0] == 0:
                completions += self._complete(members, [self.contexts.context(request) for request in members], 1)
            else:
                for _, same in itertools.groupby(members, key=lambda request: (request.problem, request.prompt)):
                    samples = list(same)
                    completions += self._complete(samples, [self.contexts.context(samples[0])], len(samples))
        return completions

    def log_likelihood(self, requests: Sequence[Request]) -> list[Completion]:
        """How many bits each target costs, given what stands before it."""

        def log_probs(tokens_BT: torch.Tensor) -> torch.Tensor:
            return generation.token_log_probs(self._model, tokens_BT)

        return [self.contexts.measure(request, log_probs, self._device) for request in requests]

    def _complete(
        self, requests: list[Request], contexts: list[tuple[list[int], int]], num_samples: int
    ) -> list[Completion]:
        first = requests[0]
        results = generation.generate(
            self._model,
            [tokens for tokens, _ in contexts],
            max_new_tokens=first.max_new_tokens,
            temperature=first.temperature,
            top_p=first.top_p,
            eos_token_id=self._config.eos_token_id,
            seed=first.seed,
            stop=self.contexts.stop(first.stop),
            num_samples=num_samples,
            batch_size=self._batch_size,
        )
        cuts = [cut for _, cut in contexts for _ in range(num_samples)]
        return [
            Completion(
                text=cut_at_stop(self.contexts.decode(result.ids), request.stop),
                finish_reason=result.finish_reason,
                num_tokens=len(result.ids),
                num_cut_tokens=cut,
            )
            for request, result, cut in zip(requests, results, cuts, strict=True)
        ]


class Contexts:
    """A model's tokenizer and window: how requests become tokens, and tokens text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, window: int, eos_token_id: int) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._window = window
        self._eos_token_id = eos_token_id

    def stop(self, stops: tuple[str, ...]) -> Callable[[list[int]], bool] | None:
        """Looks for a stop in the end of the decoded text; a token holds at least one byte."""
        if not stops:
            return None
        num_tokens = max(len(stop.encode()) for stop in stops)
        return lambda ids: any(stop in self.decode(ids[-num_tokens:]) for stop in stops)

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _marked(self, text: str, marks: tuple[str, ...]) -> list[int]:
        """Text in which `marks` are tokens; a foreign tokenizer that lacks one reads its name as text."""
        known = {name: token for name in marks if (token := self._tokenizer.token_to_id(name)) is not None}
        if not known:
            return self.encode(text)
        parts = re.split("(" + "|".join(map(re.escape, known)) + ")", text)
        return [token for part in parts for token in ([known[part]] if part in known else self.encode(part))]

    def _before(self, request: Request) -> list[int]:
        """Leading special tokens; a foreign tokenizer that lacks one gets its end-of-text token there."""
        return [self._token(name) for name in request.before]

    def _token(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        return self._eos_token_id if token is None else token

    def context(self, request: Request) -> tuple[list[int], int]:
        """The request's tokens and how many were cut off."""
        before = self._before(request)
        window = self._window
        num_special = len(before) + (0 if request.suffix is None else 3)
        room = window - request.max_new_tokens - num_special
        if room < 1:
            raise InputError(
                f"max_new_tokens {request.max_new_tokens} leaves no room for a prompt in a window of {window} "
                f"tokens; ask for at most {window - num_special - 1}"
            )
        room = min(room, request.max_input_tokens or room)
        pieces = self._pieces(request)
        num_context = sum(map(len, pieces))
        prefix, suffix = self._marked(request.prompt, request.marks), self.encode(request.suffix or "")
        num_kept = min(len(prefix) + len(suffix), request.max_prompt_tokens or room)
        num_kept = min(num_kept, room - min(num_context, int(room * request.context_share)))
        num_prefix, num_suffix = share_room(len(prefix), len(suffix), num_kept)
        num_cut = len(prefix) + len(suffix) - num_kept
        if num_context <= room - num_kept:
            context = [token for piece in pieces for token in piece]
            whole = self._marked("".join((*request.context, request.prompt)), request.marks)
            if not (num_cut or request.separator or request.suffix is not None) and len(whole) <= room:
                # As one text, since a token may reach from the context into the prompt.
                context, prefix, num_prefix = [], whole, len(whole)
        else:
            context = self._first_lines(request, pieces, room - num_kept)
            num_cut += num_context - len(context)
        kept_prefix = prefix[len(prefix) - num_prefix :]
        if request.suffix is None:
            return (before + context + kept_prefix) or [self._eos_token_id], num_cut
        fim_prefix, fim_suffix, fim_middle = map(self._special, ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"))
        tokens = [*before, *context, fim_prefix, *kept_prefix, fim_suffix, *suffix[:num_suffix], fim_middle]
        return tokens, num_cut

    def _pieces(self, request: Request) -> list[list[int]]:
        """Each piece of context with its separator."""
        separator = [self._token(request.separator)] if request.separator else []
        return [self.encode(piece) + separator for piece in request.context]

    def _first_lines(self, request: Request, pieces: list[list[int]], room: int) -> list[int]:
        """The context up to the last line's end that fits; a piece that is cut keeps its separator."""
        kept: list[int] = []
        for piece, tokens in zip(request.context, pieces, strict=True):
            if len(kept) + len(tokens) <= room:
                kept += tokens
                continue
            separator = tokens[-1:] if request.separator else []
            left = room - len(kept) - len(separator)
            if left > 0:
                end = self._tokenizer.encode(piece, add_special_tokens=False).offsets[left - 1][1]
                if lines := piece[: piece.rfind("\n", 0, end) + 1]:
                    kept += self.encode(lines)[:left] + separator
            break
        return kept

    def _special(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        if token is None:
            raise InputError(
                f"this tokenizer has no {name}, so the model cannot fill in the middle; leave fim_exact_match out "
                f"of evaluation.benchmarks"
            )
        return token

    def measure(
        self, request: Request, log_probs: Callable[[torch.Tensor], torch.Tensor], device: str
    ) -> Completion:
        """How many bits the target costs; `log_probs` is `generation.token_log_probs` of a model."""
        if request.target is None:
            raise TypeError("a request without a target has no likelihood")
        pieces = [token for piece in self._pieces(request) for token in piece]
        prompt = self._marked(request.prompt, request.marks)
        context = (self._before(request) + pieces + prompt) or [self._eos_token_id]
        target = self.encode(request.target)
        tokens = torch.tensor(context + target, device=device)
        bits = 0.0
        for start, end, first in windows(len(tokens), self._window, len(context)):
            found = log_probs(tokens[None, start:end])[0]
            bits -= float(found[first - start - 1 :].double().sum()) / math.log(2)
        return Completion(finish_reason="measured", num_tokens=len(target), bits=bits)


def open_backend(
    kind: Literal["starsmith", "transformers", "openai"],
    *,
    folder: Path | None = None,
    url: str | None = None,
    model_name: str | None = None,
    api_key: str | None = None,
    device: str = "cpu",
) -> Backend:
    """A back end by name; `device` is for those that run here.

    Raises:
        InputError: what it needs is not given, or a package is not installed, or there is no such device.
    """
    if kind == "openai":
        from starsmith.evaluation.backends_server import ServerBackend

        if url is None or model_name is None:
            raise InputError("the openai back end needs --url http://HOST:PORT/v1 and --model-name NAME")
        return ServerBackend(url, model_name, api_key=api_key)
    if folder is None:
        raise InputError(f"the {kind} back end needs the folder of a model: --model FOLDER")
    device = choose_device(device)
    if kind == "transformers":
        from starsmith.evaluation.backends_transformers import TransformersBackend

        return TransformersBackend(folder, device=device)
    return StarsmithBackend(folder, device=device)


def choose_device(wanted: str) -> str:
    """The device by that name; `auto` is a GPU where there is one.

    Raises:
        InputError: there is none such here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"no device {wanted!r} here ({first}); cpu is always there") from None
    return wanted


def windows(num_tokens: int, size: int, first: int) -> list[tuple[int, int, int]]:
    """How a long sequence is read: windows of at most `size` tokens, each after the first repeating the last
    quarter of the one before.

    Args:
        num_tokens: of context and target together.
        size: of the model's window; at least 2.
        first: the first token that is counted, at least 1 (the very first token is predicted from nothing).

    Returns:
        (start, end, first counted) of each window; every token from `first` on is counted exactly once, with at
        least a quarter of a window before it unless the sequence begins there.
    """
    overlap = max(1, size // _OVERLAP)
    found = []
    start, counted = first - overlap if first >= size else 0, first
    while counted < num_tokens:
        end = min(num_tokens, start + size)
        found.append((start, end, counted))
        start, counted = end - overlap, end
    return found


def share_room(num_prefix: int, num_suffix: int, room: int) -> tuple[int, int]:
    """Tokens of prefix and suffix that are kept when only `room` fit: half each, and what one leaves over."""
    half = room // 2
    kept_suffix = min(num_suffix, max(half, room - num_prefix))
    return min(num_prefix, room - kept_suffix), kept_suffix


def folder_digest(folder: Path) -> str:
    """The SHA-256 of a model's files that decide its answers, names included.

    Raises:
        InputError: there is no config.json.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no model: it has no config.json")
    digest = hashlib.sha256()
    names = ["config.json", "tokenizer.json", *sorted(path.name for path in folder.glob("*.safetensors"))]
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()


def settings(request: Request) -> tuple[float, float, int, tuple[str, ...]]:
    return request.temperature, request.top_p, request.max_new_tokens, request.stop


def load_tokenizer(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise InputError(f"no tokenizer at {path}")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path} is not a tokenizer: {error}") from None
    return tokenizer
