"""From arrivals to tables: hashing, decoding, and storing each content once.

Every file that arrives becomes one row of `files` and, the first time its bytes are seen, one row of
`contents`, in the partition of its hash. The outcome of decoding is a column, not a drop: policies decide.
Following the published download script (section 1.1): more than `limits.file_bytes` is `too_large`, a NUL
byte makes a file `binary`, UTF-8 is tried first, then the guess of a detector; what neither decodes is
`undecodable`.

The detector is charset-normalizer on the first 64 KiB (the script's cchardet is no longer maintained), and only
its single best guess is tried, so the outcome depends on the bytes alone.
"""

from typing import Any

import charset_normalizer
import pyarrow as pa

from starsmith.corpus import schema, swhid
from starsmith.corpus.arrivals import Arrival, Incident, OversizedFile, Repository, SourceFile

_DETECTION_BYTES = 65_536


def decode(data: bytes) -> tuple[str, str | None, str | None]:
    """Status, source encoding and text of a file's bytes; the last two are None unless the status is `text`."""
    if not data:
        return "empty", None, None
    if b"\0" in data:
        return "binary", None, None
    try:
        return "text", "UTF-8", data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    guess = charset_normalizer.from_bytes(data[:_DETECTION_BYTES]).best()
    if guess is not None:
        try:
            text = data.decode(guess.encoding)
            text.encode("utf-8")  # some codecs yield lone surrogates, which no UTF-8 table can hold
            return "text", guess.encoding, text
        except (UnicodeError, LookupError):
            pass
    return "undecodable", None, None


class Tabulator:
    """Turns one target's arrivals into rows, holding at most a chunk of text at a time.

    Feed it with `add`; when `text_bytes` has grown enough, `take_contents` hands over the contents seen since
    (unique over the whole target, sorted by content_id). `files` and `incidents` are complete at the end.
    """

    def __init__(self) -> None:
        self.text_bytes = 0
        self._seen: set[str] = set()
        self._contents: list[dict[str, Any]] = []
        self._files: list[dict[str, Any]] = []
        self._incidents: list[dict[str, Any]] = []
        self._open_files: list[tuple[str, str, str, int]] = []  # path, content_id, blob_id, length
        self._open_incidents: list[Incident] = []

    def add(self, arrival: Arrival) -> None:
        match arrival:
            case SourceFile(path=path, data=data):
                content_id, blob_id = swhid.content_id(data), swhid.blob_id(data)
                self._open_files.append((path, content_id, blob_id, len(data)))
                if content_id not in self._seen:
                    self._keep(content_id, blob_id, len(data), *decode(data))
            case OversizedFile(path=path, content_id=content_id, blob_id=blob_id, length_bytes=length):
                self._open_files.append((path, content_id, blob_id, length))
                if content_id not in self._seen:
                    self._keep(content_id, blob_id, length, "too_large", None, None)
            case Incident():
                self._open_incidents.append(arrival)
            case Repository():
                self._files += [_file(arrival, *row) for row in self._open_files]
                self._incidents += [_incident(arrival, incident) for incident in self._open_incidents]
                self._open_files, self._open_incidents = [], []

    def take_contents(self) -> pa.Table:
        rows = sorted(self._contents, key=lambda row: str(row["content_id"]))
        self._contents, self.text_bytes = [], 0
        return pa.Table.from_pylist(rows, schema=schema.CONTENTS)

    def files(self) -> pa.Table:
        """Raises AssertionError when the stream did not end with the `Repository` its files belong to."""
        assert not self._open_files and not self._open_incidents, "a source must close its files"
        rows = sorted(self._files, key=lambda row: str(row["file_id"]))
        return pa.Table.from_pylist(rows, schema=schema.FILES)

    def incidents(self) -> pa.Table:
        rows = sorted(self._incidents, key=lambda row: (row["repo_name"], row["path"], row["kind"]))
        return pa.Table.from_pylist(rows, schema=schema.INCIDENTS)

    def _keep(
        self, content_id: str, blob_id: str, length: int, status: str, encoding: str | None, text: str | None
    ) -> None:
        self._seen.add(content_id)
        self.text_bytes += length if text is not None else 0
        self._contents.append(
            {
                "content_id": content_id,
                "blob_id": blob_id,
                "length_bytes": length,
                "status": status,
                "src_encoding": encoding,
                "text": text,
            }
        )


def _file(repository: Repository, path: str, content_id: str, blob_id: str, length_bytes: int) -> dict[str, Any]:
    known = {name: getattr(repository, name, None) for name in schema.FILES.names}
    return {
        **known,
        **repository.extra,
        "file_id": schema.file_id(repository.repo_name, repository.directory_id, path),
        "path": path,
        "content_id": content_id,
        "blob_id": blob_id,
        "length_bytes": length_bytes,
    }


def _incident(repository: Repository, incident: Incident) -> dict[str, Any]:
    return {
        "source": repository.source,
        "origin": repository.origin,
        "repo_name": repository.repo_name,
        "path": incident.path,
        "kind": incident.kind,
        "detail": incident.detail,
        "length_bytes": incident.length_bytes,
    }
