"""Registries that fail in every way, and a cache that is damaged."""

import errno
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from starsmith.errors import InputError, MachineError
from starsmith.sources import registry
from starsmith.sources.registry import Digest, Patience, Registry

QUICK = Patience(
    connect_seconds=1, silence_seconds=0.3, attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.02
)
DATA = b"the archive" * 10_000
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())


def fetch(fake: Any, cache: Path, path: str = "/f", **changes: Any) -> Path:
    options: dict[str, Any] = {
        "digest": DIGEST,
        "cache": cache,
        "max_bytes": 10**9,
        "subject": "package six 1.0",
        "registry": Registry("test index", fake.url, "Set `index`."),
        "patience": QUICK,
    }
    return registry.fetch(fake.url + path, **(options | changes))


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "packages").glob("*"))


def test_a_file_is_asked_for_once(fake: Any, tmp_path: Path) -> None:
    fake.body("/f", DATA)
    path = fetch(fake, tmp_path)
    assert path.read_bytes() == DATA
    assert fetch(fake, tmp_path) == path
    assert fake.asked == ["/f"]
    assert leftovers(tmp_path) == [f"sha256-{DIGEST.hex}"]


def test_a_damaged_cache_repairs_itself(fake: Any, tmp_path: Path) -> None:
    fake.body("/f", DATA)
    path = fetch(fake, tmp_path)
    path.write_bytes(DATA[:-1] + b"!")
    assert registry.cached(DIGEST, tmp_path) is None
    assert fetch(fake, tmp_path).read_bytes() == DATA
    assert fake.asked == ["/f", "/f"]


def test_what_is_cached_needs_no_network(fake: Any, tmp_path: Path) -> None:
    fake.body("/f", DATA)
    fetch(fake, tmp_path)
    fake.body("/f", b"", status=500)
    assert fetch(fake, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_transient_faults_are_tried_again(fake: Any, tmp_path: Path, status: int) -> None:
    fake.in_turn("/f", lambda: fake.body("/f", b"", status=status), lambda: fake.truncated("/f", DATA),
                 lambda: fake.body("/f", DATA))  # fmt: skip
    assert fetch(fake, tmp_path).read_bytes() == DATA
    assert len(fake.asked) == 3


@pytest.mark.parametrize("fault", ["500", "truncated", "silent"])
def test_lasting_faults_are_told(fake: Any, tmp_path: Path, fault: str) -> None:
    if fault == "500":
        fake.body("/f", b"", status=500)
    elif fault == "truncated":
        fake.truncated("/f", DATA)
    else:
        fake.silent("/f", 0.6)
    with pytest.raises(MachineError) as info:
        fetch(fake, tmp_path)
    message = str(info.value)
    assert "test index" in message
    assert "package six 1.0" in message
    assert "3 attempts" in message
    assert "Set `index`." in message
    assert len(fake.asked) == 3
    assert leftovers(tmp_path) == []


def test_no_server_at_all(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MachineError, match=r"did not give package six 1\.0: .*refused"):
        registry.fetch(
            f"http://user:secret@127.0.0.1:{port}/f",
            digest=DIGEST,
            cache=tmp_path,
            max_bytes=1,
            subject="package six 1.0",
            registry=Registry("index", f"http://user:secret@127.0.0.1:{port}", ""),
            patience=QUICK,
        )


def test_credentials_are_not_shown(fake: Any, tmp_path: Path) -> None:
    url = fake.url.replace("//", "//user:secret@")
    for path in ("/absent", "/refused"):
        fake.body("/refused", b"", status=403)
        with pytest.raises((InputError, MachineError)) as info:
            fetch(fake, tmp_path, path, registry=Registry("index", url, ""))
        assert "secret" not in str(info.value)


def test_a_wrong_hash_is_refused_after_a_second_look(fake: Any, tmp_path: Path) -> None:
    fake.body("/f", DATA + b"!")
    with pytest.raises(MachineError, match=r"is refused: its sha256 is [0-9a-f]{64} instead of " + DIGEST.hex):
        fetch(fake, tmp_path)
    assert len(fake.asked) == 2
    assert leftovers(tmp_path) == []


def test_a_hash_that_was_wrong_once_is_forgiven(fake: Any, tmp_path: Path) -> None:
    fake.in_turn("/f", lambda: fake.body("/f", DATA + b"!"), lambda: fake.body("/f", DATA))
    assert fetch(fake, tmp_path).read_bytes() == DATA


def test_a_body_without_end_is_cut_off(fake: Any, tmp_path: Path) -> None:
    fake.body("/f", DATA)
    with pytest.raises(MachineError, match="longer than 1,000 bytes"):
        fetch(fake, tmp_path, max_bytes=1000)
    assert leftovers(tmp_path) == []


def test_a_body_that_trickles_is_given_up(fake: Any, tmp_path: Path) -> None:
    fake.body("/f", DATA)
    with pytest.raises(MachineError, match="it took too long"):
        fetch(fake, tmp_path, patience=Patience(total_seconds=0.0))


def test_what_is_not_there(fake: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no package six 1\.0 .*404"):
        fetch(fake, tmp_path)
    assert len(fake.asked) == 1


def test_redirects_are_followed_but_not_for_ever(fake: Any, tmp_path: Path) -> None:
    def redirect(request: Any, to: str) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    fake.answers["/f"] = lambda request: redirect(request, "/g")
    fake.answers["/loop"] = lambda request: redirect(request, "/loop")
    fake.body("/g", DATA)
    assert fetch(fake, tmp_path).read_bytes() == DATA
    with pytest.raises(MachineError, match="redirect"):
        fetch(fake, tmp_path / "other", "/loop")


def test_a_full_disk(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fake.body("/f", DATA)
    monkeypatch.setattr(registry.os, "fsync", full)
    with pytest.raises(MachineError, match="No space left on device; free space there or set `cache`"):
        fetch(fake, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_server_that_asks_for_patience_is_not_believed_for_ever(fake: Any, tmp_path: Path) -> None:
    def busy(request: Any) -> None:
        request.send_response(429)
        request.send_header("Retry-After", "86400")
        request.send_header("Content-Length", "0")
        request.end_headers()

    fake.answers["/f"] = busy
    with pytest.raises(MachineError, match="answered 429"):
        fetch(fake, tmp_path)
    assert len(fake.asked) == 3


def test_an_answer_that_is_not_json(fake: Any) -> None:
    fake.body("/p", b"<html>", "Text/HTML; charset=utf-8")
    where = Registry("index", fake.url, "")
    document = registry.get_document(
        fake.url + "/p", accept="application/json", subject="p", registry=where, patience=QUICK
    )
    assert document == registry.Document(b"<html>", "text/html", fake.url + "/p")
    with pytest.raises(MachineError, match="answered with text/html instead of JSON"):
        registry.as_json(document, subject="p", registry=where)


@pytest.mark.parametrize("url", ["file:///x", "ftp://host/x", "host/x", ""])
def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises(InputError, match="is not an http"):
        Registry("index", url, "")


def test_adopted_files_must_be_the_right_ones(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    assert registry.adopt(tmp_path / "f", DIGEST, tmp_path).read_bytes() == DATA
    with pytest.raises(registry.DamagedError):
        registry.adopt(tmp_path / "f", Digest("sha256", "0" * 64), tmp_path)
    assert leftovers(tmp_path) == [f"sha256-{DIGEST.hex}"]
