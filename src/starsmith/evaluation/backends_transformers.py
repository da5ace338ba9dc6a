"""Any causal language model in a folder that `transformers` loads, of whatever architecture.

Prompts, holes, cutting and stops are those of `backends.Contexts`, so numbers differ from our own back end's by
the model's arithmetic alone. Only tokenizers with a `tokenizer.json` are read: others cannot be told to leave
special tokens in a text alone. Code in the folder is never run.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from starsmith.errors import InputError
from starsmith.evaluation.backends import Contexts, folder_digest, load_tokenizer, settings
from starsmith.evaluation.contract import Completion, Request, cut_at_stop


class TransformersBackend:
    """Batches of prompts, padded on the left; the samples of one prompt share a batch and its seed."""

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 16) -> None:
        """Loads model and tokenizer.

        Raises:
            InputError: transformers is not installed, or cannot load what is there.
        """
        try:
            import transformers
        except ImportError:
            raise InputError("the transformers back end needs: pip install 'starsmith[transformers]'") from None
        self.identity = f"transformers {folder_digest(folder)}"
        try:
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: transformers cannot load it: {error}") from None
        self._model = model.to(device).eval()
        self._device, self._batch_size = device, batch_size
        eos = model.config.eos_token_id
        self._eos = [eos] if isinstance(eos, int) else list(eos or ())
        window = getattr(model.config, "max_position_embeddings", None) or getattr(
            model.config, "n_positions", None
        )
        if not self._eos or window is None:
            raise InputError(f"{folder}: config.json names no eos_token_id or no max_position_embeddings")
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._contexts = Contexts(tokenizer, window=window, eos_token_id=self._eos[0])

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Completions in order."""
        completions: list[Completion] = []
        for drawn, group in itertools.groupby(requests, key=settings):
            members = list(group)
            if drawn[0] == 0:
                for start in range(0, len(members), self._batch_size):
                    completions += self._complete(members[start : start + self._batch_size])
            else:
                for _, same in itertools.groupby(members, key=lambda request: (request.problem, request.prompt)):
                    samples = list(same)
                    for start in range(0, len(samples), self._batch_size):
                        completions += self._complete(samples[start : start + self._batch_size])
        return completions

    def log_likelihood(self, requests: Sequence[Request]) -> list[Completion]:
        """How many bits each target costs, given what stands before it."""
        return [self._contexts.measure(request, self._log_probs, self._device) for request in requests]

    @torch.inference_mode()
    def _log_probs(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        logits_BTV = self._model(tokens_BT[:, :-1]).logits.float()
        chosen_BT: torch.Tensor = logits_BTV.gather(2, tokens_BT[:, 1:, None]).squeeze(2)
        normaliser_BT: torch.Tensor = logits_BTV.logsumexp(dim=2)
        return chosen_BT - normaliser_BT

    @torch.inference_mode()
    def _complete(self, requests: list[Request]) -> list[Completion]:
        first = requests[0]
        contexts = [self._contexts.context(request) for request in requests]
        longest = max(len(tokens) for tokens, _ in contexts)
        padded = [[self._eos[0]] * (longest - len(tokens)) + tokens for tokens, _ in contexts]
        attended = [[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens, _ in contexts]
        sampled = {"do_sample": True, "temperature": first.temperature, "top_p": first.top_p, "top_k": 0}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(first.seed)
            ids_BT = self._model.generate(
                torch.tensor(padded, device=self._device),
                attention_mask=torch.tensor(attended, device=self._device),
                max_new_tokens=first.max_new_tokens,
                eos_token_id=self._eos,
                pad_token_id=self._eos[0],
                stopping_criteria=self._criteria(first.stop, longest),
                **(sampled if first.temperature > 0 else {"do_sample": False}),
            )
        found = zip(requests, ids_BT[:, longest:].tolist(), contexts, strict=True)
        return [self._completion(request, ids, cut) for request, ids, (_, cut) in found]

    def _criteria(self, stops: tuple[str, ...], start: int) -> Any:
        from transformers import StoppingCriteriaList

        stop = self._contexts.stop(stops)
        if stop is None:
            return StoppingCriteriaList()

        def ended(ids_BT: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            found = [stop(row) for row in ids_BT[:, start:].tolist()]
            return torch.tensor(found, dtype=torch.bool, device=ids_BT.device)

        return StoppingCriteriaList([ended])

    def _completion(self, request: Request, ids: list[int], cut: int) -> Completion:
        ends = [place for place, token in enumerate(ids) if token in self._eos]
        own = ids[: ends[0]] if ends else ids
        text = self._contexts.decode(own)
        kept = cut_at_stop(text, request.stop)
        reason = "stop" if len(kept) < len(text) else "eos" if ends else "length"
        return Completion(text=kept, finish_reason=reason, num_tokens=len(own), num_cut_tokens=cut)
