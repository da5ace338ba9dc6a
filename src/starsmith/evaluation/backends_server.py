"""A model behind a server that speaks OpenAI's completions API: vLLM, llama.cpp's server, and others.

A server is not to be trusted with a night's work: connections that drop or hang, answers that do not end, are not
JSON or lack what was asked for, 429 and 5xx are tried again with growing pauses; what still fails is said in one
sentence, and what was answered before is in the journal. A 4xx answer is the request's fault and is told in the
server's words.

What the API cannot do is done in text, at a price. Special tokens go as text, so a prompt that writes about
`<fim_middle>` is taken for one; a hole is asked for with the markers that StarCoder models know. Stops are sent
and cut once more here, since servers differ in whether they stop at special tokens. Bounds in tokens need the
model's tokenizer, so contexts and prompts go whole, and a server may refuse them. The weights cannot be seen:
`identity` is address and name, and whoever puts other weights behind them must choose another folder.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx

from starsmith.errors import InputError, MachineError
from starsmith.evaluation.contract import Completion, Request, cut_at_stop

NUM_TRIES: Final = 5
MAX_ANSWER_BYTES: Final = 64 * 1024**2
_SHOWN_CHARS: Final = 300
_FINISH_REASONS: Final = {"length": "length", "stop": "stop"}


class _AgainError(Exception):
    """What may go well the next time."""


class ServerBackend:
    """Asks one request for each completion, several at once; answers are in the order asked."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_seconds: float = 600.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Args:
        url: up to and with the version, such as http://localhost:8000/v1.
        model: the name that the server knows it by.
        concurrency: requests under way at once.
        timeout_seconds: for the whole of an answer.
        pause: how to wait between tries.
        """
        if not url.startswith(("http://", "https://")):
            raise InputError(f"{url!r} is no address of a server; give one such as http://localhost:8000/v1")
        self.identity = f"{url.rstrip('/')} {model}"
        self._model = model
        self._concurrency = concurrency
        self._pause = pause
        self._timeout_seconds = timeout_seconds
        self._client = httpx.Client(
            base_url=url.rstrip("/") + "/",
            timeout=httpx.Timeout(timeout_seconds, connect=10.0),
            limits=httpx.Limits(max_connections=concurrency),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        )

    def close(self) -> None:
        self._client.close()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Raises:
        InputError: the server refuses a request.
        MachineError: it does not answer, or not in the API's form.
        """
        return self._map(self._generate, requests)

    def log_likelihood(self, requests: Sequence[Request]) -> list[Completion]:
        """Raises:
        InputError: the server refuses, or measures no prompts.
        MachineError: it does not answer, or not in the API's form.
        """
        return self._map(self._measure, requests)

    def _map(self, answer: Callable[[Request], Completion], requests: Sequence[Request]) -> list[Completion]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = [pool.submit(answer, request) for request in requests]
            try:
                return [future.result() for future in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _generate(self, request: Request) -> Completion:
        body: dict[str, Any] = {
            "prompt": _prompt(request),
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed % 2**31,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        return self._asked(body, lambda answer: _completion(answer, request))

    def _measure(self, request: Request) -> Completion:
        if request.target is None:
            raise TypeError("a request without a target has no likelihood")
        context = _prompt(request)
        body = {
            "prompt": context + request.target,
            "max_tokens": 0,
            "temperature": 0.0,
            "logprobs": 1,
            "echo": True,
        }
        return self._asked(body, lambda answer: self._bits(answer, len(context)))

    def _bits(self, answer: Any, start: int) -> Completion:
        """Counts every token that reaches into the target; one that began before it is counted too."""
        measured = answer["choices"][0].get("logprobs") or {}
        values, offsets = measured.get("token_logprobs"), measured.get("text_offset")
        if not values or not offsets:
            raise InputError(
                f"{self.identity} gives no log-likelihood of a prompt (`echo` with `logprobs`); vLLM does; or "
                "leave out the benchmarks that need it"
            )
        ends = [*offsets[1:], math.inf]
        counted = [value for value, end in zip(values, ends, strict=True) if end > start and value is not None]
        bits = -math.fsum(counted) / math.log(2)
        if not math.isfinite(bits):
            raise ValueError("the log-likelihood is not a finite number")
        return Completion(finish_reason="measured", num_tokens=len(counted), bits=bits)

    def _asked(self, body: dict[str, Any], read: Callable[[Any], Completion]) -> Completion:
        reason = ""
        for number in range(NUM_TRIES):
            if number:
                self._pause(0.5 * 2**number)
            try:
                return read(self._posted({"model": self._model, **body}))
            except (httpx.TransportError, _AgainError) as error:
                reason = str(error) or type(error).__name__
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                reason = f"its answer is not in the API's form: {error!r}"
        raise MachineError(f"{self.identity} failed {NUM_TRIES} times; the last time: {reason}")

    def _posted(self, body: dict[str, Any]) -> Any:
        deadline = time.monotonic() + self._timeout_seconds
        with self._client.stream("POST", "completions", json=body) as response:
            received = bytearray()
            for piece in response.iter_bytes():
                received += piece
                if time.monotonic() > deadline:
                    raise _AgainError(f"its answer does not end within {self._timeout_seconds:g} s")
                if len(received) > MAX_ANSWER_BYTES:
                    raise _AgainError(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        text = received.decode("utf-8", errors="replace")
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise _AgainError(f"status {status}: {text[:_SHOWN_CHARS]}")
        if status != 200:
            raise InputError(f"{self.identity} refuses with status {status}: {text[:_SHOWN_CHARS]}")
        return json.loads(text)


def _prompt(request: Request) -> str:
    before = "".join((*request.before, *(f"{piece}{request.separator}" for piece in request.context)))
    if request.suffix is None:
        return before + request.prompt
    return f"{before}<fim_prefix>{request.prompt}<fim_suffix>{request.suffix}<fim_middle>"


def _completion(answer: Any, request: Request) -> Completion:
    choice = answer["choices"][0]
    text = choice["text"]
    if not isinstance(text, str):
        raise TypeError("`text` is no text")
    cut = cut_at_stop(text, request.stop)
    reason = "stop" if len(cut) < len(text) else _FINISH_REASONS.get(choice.get("finish_reason"), "eos")
    return Completion(
        text=cut,
        finish_reason=reason,
        num_tokens=int((answer.get("usage") or {}).get("completion_tokens") or 0),
    )
