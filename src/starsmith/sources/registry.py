"""Asks a package registry over HTTP and keeps its files in the cache.

A file is known by its digest and by nothing else: it is downloaded beside its place, checked, synced and
renamed, and checked again each time it is used, so that a damaged cache repairs itself and a file whose
digest a lock pins needs no network once it is there. Transient faults (no connection, silence, a body that
breaks off, 429 and 5xx) are tried again with growing pauses, within a limit of attempts and of time; a body
with the wrong digest is tried once more and then refused.

TLS and proxies follow the environment (SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY, NO_PROXY). No registry's
address is written here: `pypi` and `npm` ask what the user's own client is configured with.
"""

import contextlib
import email.utils
import functools
import hashlib
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import httpx

from starsmith import __version__
from starsmith.errors import InputError, MachineError
from starsmith.sources.urls import without_credentials

DOCUMENT_BYTES = 256 * 1024 * 1024
"""The longest JSON document that is accepted; the largest real ones stay below 100 MB."""
_PIECE_BYTES = 64 * 1024
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a registry is waited for."""

    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    """Without any byte."""
    attempts: int = 4
    first_pause_seconds: float = 0.5
    """Before the second attempt; doubled before each further one."""
    longest_pause_seconds: float = 20.0
    """Also when the registry asks for more with Retry-After."""
    total_seconds: float = 600.0
    """For one file or document, attempts and pauses together."""


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Registry:
    """An address and what to tell people about it."""

    kind: str
    """As in a sentence: "Python package index"."""
    url: str
    remedy: str
    """How to use another one."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"the {self.kind} {without_credentials(self.url)!r} is not an http(s) URL; {self.remedy}"
            )


@dataclass(frozen=True, slots=True)
class Digest:
    algorithm: str
    """A name of hashlib: sha256, sha512, sha1."""
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class Document:
    body: bytes
    media_type: str
    """Lower case, without parameters."""
    url: str
    """Where it came from, after redirects."""


def get_document(
    url: str, *, accept: str, subject: str, registry: Registry, patience: Patience | None = None
) -> Document:
    """A document of a registry's interface; never cached.

    Args:
        url: the address.
        accept: the Accept header.
        subject: what is asked for, as in "package six"; stands in messages.
        registry: whose document it is.
        patience: `PATIENCE` unless given.

    Raises:
        InputError: the registry says that there is no such thing.
        MachineError: it does not answer or refuses.
    """

    def consume(response: httpx.Response, deadline: float) -> Document:
        pieces = _bounded(response.iter_bytes(_PIECE_BYTES), DOCUMENT_BYTES, deadline, subject)
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Document(b"".join(pieces), media_type, str(response.url))

    return _request(url, {"Accept": accept}, consume, subject, registry, patience or PATIENCE)


def as_json(document: Document, *, subject: str, registry: Registry) -> Any:
    """The document's JSON.

    Raises:
        MachineError: it is something else; often a proxy's or a portal's page.
    """
    try:
        return json.loads(document.body)
    except ValueError:
        raise MachineError(
            f"the {registry.kind} at {without_credentials(registry.url)} answered with "
            f"{document.media_type or 'an unnamed type'} instead of JSON for {subject}; {registry.remedy}"
        ) from None


def fetch(
    url: str,
    *,
    digest: Digest,
    cache: Path,
    max_bytes: int,
    subject: str,
    registry: Registry,
    patience: Patience | None = None,
) -> Path:
    """The file with this digest: from the cache if it is there and sound, else downloaded into it.

    Raises:
        InputError: the registry says that there is no such file.
        MachineError: it does not answer, sends other bytes than the digest names or more than `max_bytes`,
            or the cache cannot be written.
    """
    present = cached(digest, cache)
    if present is not None:
        return present

    def consume(response: httpx.Response, deadline: float) -> Path:
        with storing(digest, cache) as file:
            for piece in _bounded(response.iter_raw(_PIECE_BYTES), max_bytes, deadline, subject):
                file.write(piece)
        return place_of(digest, cache)

    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    return _request(url, headers, consume, subject, registry, patience or PATIENCE)


# --- the cache


def place_of(digest: Digest, cache: Path) -> Path:
    """Where the cache keeps a file."""
    return cache / "packages" / f"{digest.algorithm}-{digest.hex}"


def cached(digest: Digest, cache: Path) -> Path | None:
    """The cached file, or None; a file that no longer has its digest is removed."""
    place = place_of(digest, cache)
    try:
        found = digest_of(place, digest.algorithm)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MachineError(f"cannot read the cached file {place}: {error.strerror}; delete it") from error
    if found == digest:
        return place
    place.unlink(missing_ok=True)
    return None


def digest_of(path: Path, algorithm: str = "sha256") -> Digest:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return Digest(algorithm, hashlib.file_digest(file, algorithm).hexdigest())


class DamagedError(Exception):
    """A body does not have the digest that was announced."""


@contextlib.contextmanager
def storing(digest: Digest, cache: Path) -> Iterator[BinaryIO]:
    """A file to write; it takes its place in the cache when the block ends and its digest is right.

    Raises:
        DamagedError: the digest is another one; nothing is kept.
        MachineError: the cache cannot be written.
    """
    place = place_of(digest, cache)
    temporary = ""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent)
        with os.fdopen(descriptor, "w+b") as file:
            yield cast(BinaryIO, file)
            file.flush()
            file.seek(0)
            found = hashlib.file_digest(file, digest.algorithm).hexdigest()
            if found != digest.hex:
                raise DamagedError(f"its {digest.algorithm} is {found} instead of {digest.hex}")
            os.fsync(descriptor)
        Path(temporary).replace(place)
        temporary = ""
        _sync_folder(place.parent)
    except OSError as error:
        raise MachineError(
            f"cannot write the cache {place.parent}: {error.strerror}; free space there or set `cache` in [run]"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def adopt(path: Path, digest: Digest, cache: Path) -> Path:
    """Puts a file that was had by other means into the cache; raises like `storing`."""
    with path.open("rb") as source, storing(digest, cache) as file:
        while piece := source.read(_PIECE_BYTES):
            file.write(piece)
    return place_of(digest, cache)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- HTTP


class _TransientError(Exception):
    """Worth another attempt."""

    def __init__(self, detail: str, pause_seconds: float = 0.0) -> None:
        super().__init__(detail)
        self.pause_seconds = pause_seconds


def _request(
    url: str,
    headers: dict[str, str],
    consume: Callable[[httpx.Response, float], _T],
    subject: str,
    registry: Registry,
    patience: Patience,
) -> _T:
    deadline = time.monotonic() + patience.total_seconds
    shown = without_credentials(url)
    faults: list[str] = []
    damaged = 0
    with _client(patience) as client:
        for attempt in range(patience.attempts):
            try:
                return _attempt(client, url, headers, consume, deadline, subject, registry)
            except _TransientError as error:
                faults.append(str(error))
                asked = error.pause_seconds
            except DamagedError as error:
                faults.append(str(error))
                asked, damaged = 0.0, damaged + 1
                if damaged == 2:
                    raise MachineError(
                        f"{subject} from {shown} is refused: {error}. The file was changed at the registry or "
                        f"on the way; if the change is meant, renew the lock; {registry.remedy}"
                    ) from None
            pause = max(asked, patience.first_pause_seconds * 2**attempt)
            pause = min(pause, patience.longest_pause_seconds)
            if attempt + 1 == patience.attempts or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
    raise MachineError(
        f"the {registry.kind} at {without_credentials(registry.url)} did not give {subject}: {faults[-1]} "
        f"({len(faults)} attempts at {shown}). Check the network and HTTPS_PROXY; {registry.remedy}"
    )


def _client(patience: Patience) -> httpx.Client:
    timeout = httpx.Timeout(patience.silence_seconds, connect=patience.connect_seconds)
    agent = {"User-Agent": f"starsmith/{__version__}"}
    return httpx.Client(
        timeout=timeout, follow_redirects=True, max_redirects=5, headers=agent, verify=_tls_context()
    )


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """With SSL_CERT_FILE and SSL_CERT_DIR; made once, because reading the certificates takes a while."""
    return httpx.create_ssl_context()


def _attempt(
    client: httpx.Client,
    url: str,
    headers: dict[str, str],
    consume: Callable[[httpx.Response, float], _T],
    deadline: float,
    subject: str,
    registry: Registry,
) -> _T:
    shown = without_credentials(url)
    try:
        with client.stream("GET", url, headers=headers) as response:
            status = response.status_code
            if status in _TRANSIENT:
                raise _TransientError(f"it answered {status}", _retry_after(response))
            if status in (404, 410):
                raise InputError(
                    f"the {registry.kind} at {without_credentials(registry.url)} has no {subject} "
                    f"({shown} answered {status}); check the name and the version; {registry.remedy}"
                )
            if status != 200:
                raise MachineError(
                    f"the {registry.kind} at {without_credentials(registry.url)} refuses {subject} "
                    f"({shown} answered {status}); {registry.remedy}"
                )
            if url.startswith("https:") and response.url.scheme != "https":
                raise MachineError(f"{shown} leads from https to {response.url.scheme}; refused")
            return consume(response, deadline)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise MachineError(f"{shown} cannot be asked for {subject}: {error}; {registry.remedy}") from None
    except httpx.HTTPError as error:
        raise _TransientError(str(error) or type(error).__name__) from None


def _bounded(pieces: Iterator[bytes], max_bytes: int, deadline: float, subject: str) -> Iterator[bytes]:
    """Passes a body on until it is too long or takes too long, however slowly it trickles."""
    length_bytes = 0
    for piece in pieces:
        length_bytes += len(piece)
        if length_bytes > max_bytes:
            raise MachineError(f"{subject} is longer than {max_bytes:,} bytes; refused")
        if time.monotonic() > deadline:
            raise _TransientError(f"it took too long, {length_bytes:,} bytes came")
        yield piece


def _retry_after(response: httpx.Response) -> float:
    """The pause that the server asks for, in seconds; as a number or a date, both may be nonsense."""
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
