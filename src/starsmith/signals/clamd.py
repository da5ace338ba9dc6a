"""A client of ClamAV's daemon: what `clamd` says of bytes that are sent to it.

The protocol is that of the manual page clamd(8). Commands are prefixed with `z` and end with a NUL, as do the
replies. A connection is opened with `zIDSESSION`, so that one connection serves many scans; each reply then
begins with the number of its command, which is checked. `zINSTREAM` is followed by chunks, each a length of
4 bytes (network order) and its data, ended by a length of 0. The reply is `stream: OK`, `stream: NAME FOUND`
or `... ERROR`.

Only the first two are answers. Everything else (no daemon, no reply in time, a closed connection, other words,
a stream beyond clamd's `StreamMaxLength`) is a `MachineError`, because a content that was not scanned must not
pass for a clean one. Nothing is tried again: a daemon that fails once is for a person to look at.

clamd ends an idle session after its `CommandReadTimeout` (30 seconds by default), so sessions are for scanning
without pauses.
"""

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from starsmith.errors import InputError, MachineError

_CHUNK_BYTES = 1024 * 1024
_MAX_REPLY_BYTES = 4096
_VERSION = re.compile(r"ClamAV [0-9][^/\s]*(?:/[0-9]+/[^/]+)?")
"""`ClamAV 1.4.3`, then `/27102/Thu Nov 23 ...` where the official database is loaded."""
_VERDICT = re.compile(r"stream: (?:(OK)|(\S.*) FOUND)")
_HASH_AND_SIZE = re.compile(r"\([0-9a-f]{32}:[0-9]+\)$")
"""What clamd puts behind a signature's name with `ExtendedDetectionInfo`."""
_HOST_AND_PORT = re.compile(r"(?:\[([^\]]+)\]|([^/:\[\]]+)):([0-9]{1,5})")
_HOW_TO_FIX = (
    "see that clamd runs there and has loaded its signatures (docs/malware.md), or leave malware.clamd out of the "
    "recipe; nothing was recorded as scanned"
)


@dataclass(frozen=True)
class Address:
    """Where clamd listens."""

    path: str | None = None
    """A Unix socket."""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path if self.path is not None else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """A socket's path, `host:port` or `[IPv6]:port`.

    Raises:
        InputError: it is none of these.
    """
    if match := _HOST_AND_PORT.fullmatch(text):
        port = int(match[3])
        if 1 <= port <= 65_535:
            return Address(host=match[1] or match[2], port=port)
    elif text and "\0" not in text and len(text.encode()) < 108:  # the kernel's limit of a socket's path
        return Address(path=text)
    raise InputError(
        f"malware.clamd: {text!r} is no address of clamd; allowed: the path of its socket (LocalSocket in "
        f"clamd.conf, at most 107 bytes) or host:port (TCPAddr and TCPSocket)"
    )


class Session:
    """One connection to clamd, for one thread.

    Args:
        address: where clamd listens.
        timeout_seconds: the longest that connecting, and each command with its reply, may take.

    Raises:
        MachineError: here and in every method, whenever clamd does not answer as its protocol says.
    """

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._num_commands = 0
        self._received = b""
        self._socket = self._connect()
        try:
            with self._time_limit():
                self._send(b"zIDSESSION\0")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the answers are there; how the connection ends changes none
            self._socket.sendall(b"zEND\0")
        self._socket.close()

    def version(self) -> str:
        """clamd's version and that of its official signatures, as it writes them."""
        with self._time_limit():
            self._send(b"zVERSION\0")
            reply = self._reply()
        if _VERSION.fullmatch(reply) is None:
            self._fail(f"it answered {reply!r} to VERSION")
        return reply

    def scan(self, data: bytes) -> str | None:
        """The name of the first signature that clamd finds in some bytes, or None."""
        with self._time_limit():
            reply = self._send_stream(data)
        match = _VERDICT.fullmatch(reply)
        if match is None:
            self._fail(f"it answered {reply!r} to a stream of {len(data):,} bytes{_limit_hint(reply)}")
        return None if match[1] else _HASH_AND_SIZE.sub("", match[2])

    # ---- one command

    def _send_stream(self, data: bytes) -> str:
        """Sends a stream and returns the reply, which may come before clamd has read all of it."""
        try:
            self._send(_stream(data))
        except (BrokenPipeError, ConnectionResetError):
            return self._reply_before_closing(data)
        return self._reply()

    def _reply_before_closing(self, data: bytes) -> str:
        try:
            return self._reply()
        except (OSError, MachineError):
            self._fail(
                f"it closed the connection while {len(data):,} bytes were sent; its log says why, most often that "
                f"it was stopped, or that the stream is longer than StreamMaxLength in clamd.conf"
            )

    def _send(self, data: bytes) -> None:
        self._limit()
        self._socket.sendall(data)

    def _reply(self) -> str:
        self._num_commands += 1
        while b"\0" not in self._received:
            if len(self._received) > _MAX_REPLY_BYTES:
                self._fail(f"it answered with more than {_MAX_REPLY_BYTES:,} bytes")
            self._limit()
            part = self._socket.recv(_MAX_REPLY_BYTES)
            if not part:
                self._fail("it closed the connection instead of answering")
            self._received += part
        reply, _, self._received = self._received.partition(b"\0")
        number, separator, text = reply.decode("utf-8", "backslashreplace").partition(": ")
        if not separator or number != str(self._num_commands):
            shown = reply.decode("utf-8", "backslashreplace")
            self._fail(f"it answered {shown!r} where the reply to command {self._num_commands} was expected")
        return text

    # ---- time and failures

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Bounds a whole command; a socket's own timeout would begin anew with each packet."""
        self._deadline = time.monotonic() + self._timeout_seconds
        try:
            yield
        except TimeoutError:
            self._fail(
                f"it did not answer within {self._timeout_seconds:g} seconds (malware.timeout_seconds); a longer "
                f"time or fewer run.workers may help when it is only busy"
            )
        except OSError as error:
            self._fail(f"the connection broke: {error}")

    def _limit(self) -> None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining)

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            if address.path is None:
                return socket.create_connection((address.host, address.port), self._timeout_seconds)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._timeout_seconds)
                connection.connect(address.path)
            except OSError:
                connection.close()
                raise
            return connection
        except OSError as error:
            self._fail(f"cannot connect: {error}")

    def _fail(self, what: str) -> NoReturn:
        raise MachineError(f"ClamAV's daemon at {self._address} (malware.clamd): {what}.\nTo fix: {_HOW_TO_FIX}")


def _stream(data: bytes) -> bytes:
    """The command and its stream in one piece: sent in several, each would cost both sides a wake-up."""
    view = memoryview(data)
    parts: list[bytes | memoryview] = [b"zINSTREAM\0"]
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = view[start : start + _CHUNK_BYTES]
        parts += (struct.pack("!I", len(chunk)), chunk)
    return b"".join((*parts, struct.pack("!I", 0)))


def _limit_hint(reply: str) -> str:
    if "size limit exceeded" not in reply:
        return ""
    return "; raise StreamMaxLength in clamd.conf above the recipe's corpus.limits.file_bytes and restart clamd"
