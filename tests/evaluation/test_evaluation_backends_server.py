"""A server of our own on a local port, which drops, garbles and refuses as it is told."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from starsmith import recipe
from starsmith.errors import InputError, MachineError
from starsmith.evaluation import backends_server, runner
from starsmith.evaluation.backends_server import NUM_TRIES, ServerBackend
from starsmith.evaluation.contract import Request


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Any] = lambda body: said("def " + body["prompt"])
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.closes = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
            fault = self.server.faults.pop(0) if self.server.faults else ""
        try:
            self.reply(fault, body)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def reply(self, fault: str, body: dict[str, Any]) -> None:
        if fault == "drop":
            self.close_connection = True
            return
        if fault in ("hang", "drip", "flood"):
            self.endless(fault)
            return
        data = json.dumps(self.server.answer(body)).encode()
        data = {"garble": b"<html>", "lack": b"{}", "list": b"[]", "bytes": b"\xff\xfe"}.get(fault, data)
        self.send_response(int(fault) if fault.isdigit() else 200)
        self.send_header("Content-Length", str(len(data) + (10 if fault == "short" else 0)))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = fault == "short"

    def endless(self, fault: str) -> None:
        """Says nothing, or a little now and then, or more than anybody asked for, until the client leaves."""
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.closes.wait(0.02):
                if fault != "hang":
                    self.wfile.write(b" " * (1 if fault == "drip" else 1024**2))
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


def said(text: str, reason: str = "length") -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": reason}], "usage": {"completion_tokens": 3}}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.closes.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def backend(server: Server) -> Iterator[ServerBackend]:
    made = ServerBackend(
        f"http://127.0.0.1:{server.server_address[1]}/v1/", "tiny", concurrency=3, pause=lambda seconds: None
    )
    yield made
    made.close()


def asked(prompt: str = "x", **fields: Any) -> Request:
    return Request(problem=prompt, prompt=prompt, max_new_tokens=8, **fields)


def test_answers_come_in_order_a_few_at_once(server: Server, backend: ServerBackend) -> None:
    completions = backend.generate([asked(str(number)) for number in range(30)])
    assert [completion.text for completion in completions] == [f"def {number}" for number in range(30)]
    assert 1 <= server.most_under_way <= 3
    assert {completion.finish_reason for completion in completions} == {"length"}
    assert server.seen[0]["model"] == "tiny" and server.seen[0]["max_tokens"] == 8


def test_a_stop_that_the_server_passed_over_is_cut(server: Server, backend: ServerBackend) -> None:
    server.answer = lambda body: said("return 1<file_sep>more")
    [completion] = backend.generate([asked(stop=("<file_sep>",))])
    assert (completion.text, completion.finish_reason, completion.num_tokens) == ("return 1", "stop", 3)
    assert server.seen[0]["stop"] == ["<file_sep>"]


def test_a_hole_is_asked_for_in_text(server: Server, backend: ServerBackend) -> None:
    backend.generate([asked("a", suffix="b", before=("<file_sep>",))])
    assert server.seen[0]["prompt"] == "<file_sep><fim_prefix>a<fim_suffix>b<fim_middle>"


@pytest.mark.parametrize("fault", ["drop", "garble", "lack", "list", "bytes", "short", "429", "500", "503"])
def test_what_fails_is_tried_again(server: Server, backend: ServerBackend, fault: str) -> None:
    server.faults = [fault] * (NUM_TRIES - 1)
    [completion] = backend.generate([asked()])
    assert completion.text == "def x" and len(server.seen) == NUM_TRIES


def test_what_keeps_failing_is_told(server: Server, backend: ServerBackend) -> None:
    server.faults = ["drop"] * NUM_TRIES
    with pytest.raises(MachineError, match=r"127\.0\.0\.1.* tiny failed 5 times"):
        backend.generate([asked()])
    server.faults = ["lack"] * NUM_TRIES
    with pytest.raises(MachineError, match="not in the API's form: KeyError"):
        backend.generate([asked()])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hang", "timed out"),
        ("drip", r"does not end within 0\.2 s"),
        ("flood", "longer than 3000000 bytes"),
    ],
)
def test_an_answer_without_end_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    monkeypatch.setattr(backends_server, "MAX_ANSWER_BYTES", 3_000_000)
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    seconds = 10.0 if fault == "flood" else 0.2
    impatient = ServerBackend(address, "tiny", timeout_seconds=seconds, pause=lambda seconds: None)
    server.faults = [fault] * NUM_TRIES
    with pytest.raises(MachineError, match=told):
        impatient.generate([asked()])
    server.faults = [fault]
    assert impatient.generate([asked()])[0].text == "def x"
    impatient.close()


def test_an_evaluation_goes_on_where_the_server_failed(
    server: Server, backend: ServerBackend, heldout: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that were answered are not asked again, and the results are those of a server that never failed."""
    monkeypatch.setattr(runner, "_CHUNK_REQUESTS", 2)
    config = recipe.Evaluation(benchmarks=("fim_exact_match",), heldout_files=6)

    def failing(body: dict[str, Any]) -> Any:
        if len(server.seen) == 5:
            server.faults = ["garble"] * (3 * NUM_TRIES)
        return said("    return \ud800")

    server.answer = failing
    with pytest.raises(MachineError, match=f"failed {NUM_TRIES} times"):
        runner.evaluate(backend, config, heldout=heldout, folder=tmp_path / "failed")
    assert not (tmp_path / "failed" / "results.json").exists()
    server.faults, server.answer, before = [], lambda body: said("    return \ud800"), list(server.seen)
    runner.evaluate(backend, config, heldout=heldout, folder=tmp_path / "failed")
    prompts = [body["prompt"] for body in server.seen[len(before) :]]
    assert 0 < len(prompts) < 6 and not {body["prompt"] for body in before[:4]} & set(prompts)
    runner.evaluate(backend, config, heldout=heldout, folder=tmp_path / "whole")
    for name in ("results.json", "generations.jsonl"):
        assert (tmp_path / "failed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_refusal_is_not_tried_again(server: Server, backend: ServerBackend) -> None:
    server.faults, server.answer = ["404"], lambda body: {"error": "no model tiny"}
    with pytest.raises(InputError, match=r"status 404.*no model tiny"):
        backend.generate([asked()])
    assert len(server.seen) == 1


def test_the_likelihood_is_that_of_the_target_alone(server: Server, backend: ServerBackend) -> None:
    server.answer = lambda body: {
        "choices": [
            {"text": "abcd", "logprobs": {"token_logprobs": [None, -1.0, -2.0, -4.0], "text_offset": [0, 1, 2, 3]}}
        ]
    }
    [completion] = backend.log_likelihood([Request(problem="p", prompt="ab", target="cd")])
    assert completion.bits == pytest.approx(6 / math.log(2)) and completion.num_tokens == 2
    assert server.seen[0]["prompt"] == "abcd" and server.seen[0]["echo"] is True


def test_a_likelihood_that_is_no_number_is_none(server: Server, backend: ServerBackend) -> None:
    server.answer = lambda body: {
        "choices": [{"text": "", "logprobs": {"token_logprobs": [None, math.nan], "text_offset": [0, 1]}}]
    }
    with pytest.raises(MachineError, match="not a finite number"):
        backend.log_likelihood([Request(problem="p", prompt="a", target="b")])


def test_a_server_without_likelihood_says_so(server: Server, backend: ServerBackend) -> None:
    server.answer = lambda body: said("")
    with pytest.raises(InputError, match="gives no log-likelihood of a prompt"):
        backend.log_likelihood([Request(problem="p", prompt="ab", target="cd")])


def test_nobody_listens(server: Server) -> None:
    nobody = ServerBackend("http://127.0.0.1:1/v1", "tiny", pause=lambda seconds: None)
    with pytest.raises(MachineError, match="failed 5 times"):
        nobody.generate([asked()])
    nobody.close()
    with pytest.raises(InputError, match="no address of a server"):
        ServerBackend("localhost:8000", "tiny")
