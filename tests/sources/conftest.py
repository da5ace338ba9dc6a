"""A package registry on this machine, whose every answer a test decides."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


def archive_of(files: dict[str, bytes]) -> bytes:
    """A gzipped tar, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as out:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            out.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class FakeRegistry:
    url: str
    answers: dict[str, Handler] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def body(self, path: str, data: bytes, kind: str = "application/octet-stream", status: int = 200) -> None:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)

        self.answers[path] = answer

    def json(self, path: str, document: object) -> None:
        self.body(path, json.dumps(document).encode(), "application/json")

    def truncated(self, path: str, data: bytes) -> None:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[: len(data) // 2])
            request.close_connection = True

        self.answers[path] = answer

    def silent(self, path: str, seconds: float) -> None:
        self.answers[path] = lambda request: time.sleep(seconds)

    def in_turn(self, path: str, *set_answers: Callable[[], None]) -> None:
        """Each request gets the next answer; the last one stays."""
        handlers = []
        for set_answer in set_answers:
            set_answer()
            handlers.append(self.answers[path])
        self.answers[path] = lambda request: (handlers.pop(0) if len(handlers) > 1 else handlers[0])(request)

    def sdist(self, name: str, version: str, data: bytes, **changes: object) -> dict[str, object]:
        """A file of the simple API, and its body."""
        filename = f"{name}-{version}.tar.gz"
        self.body(f"/files/{filename}", data)
        return {
            "filename": filename,
            "url": f"../../files/{filename}",
            "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
            "upload-time": "2024-01-02T03:04:05.678901Z",
        } | changes


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    class RequestHandler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.asked.append(self.path)
            registry.accepted.append(self.headers.get("Accept", ""))
            handler = registry.answers.get(self.path)
            if handler is None:
                self.send_error(404)
            else:
                handler(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RequestHandler)
    server.daemon_threads = True
    registry = FakeRegistry(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield registry
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make_archive() -> Callable[[dict[str, bytes]], bytes]:
    return archive_of
