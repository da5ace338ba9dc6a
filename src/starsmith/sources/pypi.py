"""Source distributions from a Python package index, by name and version.

The index is asked through the simple API, in JSON where it offers it (PEP 691, with PEP 700's upload times)
and otherwise in HTML (PEP 503), as many mirrors do; HTML knows no upload times. Of a version's files the
source distribution is taken, `.tar.gz` before others; wheels are builds and are not source.

The index is the recipe's `index`, else what pip is configured with: PIP_INDEX_URL, then `index-url` in pip's
configuration files, then pip's own default, read from pip itself so that it stays the user's choice of
client that decides, and no address is written here. `extra-index-url` is not followed: which of two indexes
answers would decide what is read.

A source distribution's top folder is `name-version/` (PEP 625); older ones spell it in other ways, so names
are compared without case and separators. Other folders at the top are kept as they are.
"""

import configparser
import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from starsmith.corpus.arrivals import Arrival, Target
from starsmith.errors import InputError, MachineError
from starsmith.recipe import Limits, PackageSource
from starsmith.sources import packages, registry
from starsmith.sources.packages import PackageFile, canonical_name
from starsmith.sources.registry import Digest, Document, Patience, Registry
from starsmith.sources.urls import without_credentials

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
"""Of source distributions, best first."""


def resolve(spec: PackageSource, *, cache: Path, limits: Limits, patience: Patience | None = None) -> list[Target]:
    """One target per version. With a lock nothing is asked; without, the index is.

    Raises:
        InputError: a package or version does not exist, has no source distribution, or is not in the lock.
        MachineError: the index does not answer.
    """
    files = packages.pinned(spec)
    if files is None:
        files = [find(text, index=spec.index, patience=patience) for text in dict.fromkeys(spec.packages)]
    return [packages.target(file) for file in files]


def read(target: Target, *, cache: Path, limits: Limits, patience: Patience | None = None) -> Iterator[Arrival]:
    """Streams a source distribution, downloaded into the cache unless it is there.

    Raises:
        MachineError: the index does not answer, or its file is not the one that was resolved.
    """
    file: PackageFile = target.spec
    path = download(file, cache=cache, max_bytes=limits.archive_bytes, patience=patience)
    stem = _squeezed(_stem(file.filename))
    yield from packages.read_package(
        file, path, limits=limits, is_top=lambda component: _squeezed(component) == stem
    )


def find(text: str, *, index: str | None = None, patience: Patience | None = None) -> PackageFile:
    """The source distribution of a `name==version`, as the index has it now.

    Raises:
        InputError: there is no such package, version or source distribution; the message says what there is.
        MachineError: the index does not answer.
    """
    name, version = packages.parse_package(text, "pypi")
    if version is None:
        raise InputError(f"{text!r} has no version; write `{name}==VERSION`, or give a `lock` that has it")
    where = index_of(index)
    subject = f"package {name}"
    document = registry.get_document(
        f"{where.url}/{name}/", accept=ACCEPT, subject=subject, registry=where, patience=patience
    )
    files = _files(document, subject, where)
    sources = [(_rank(f["filename"]), f) for f in files if _is_source_of(f["filename"], name, version)]
    if not sources:
        raise InputError(_nothing_found(files, name, version))
    _, chosen = min(sources, key=lambda ranked: (ranked[0], ranked[1]["filename"]))
    upload_time = chosen.get("upload-time")
    return PackageFile(
        type="pypi",
        name=name,
        version=version,
        filename=chosen["filename"],
        digest=Digest("sha256", chosen["hashes"]["sha256"].lower()),
        upload_time=packages.parse_time(upload_time) if upload_time else None,
        url=urljoin(document.url, chosen["url"]),
        index=index,
    )


def download(file: PackageFile, *, cache: Path, max_bytes: int, patience: Patience | None = None) -> Path:
    """The archive in the cache, fetched if need be; raises like `read`."""
    present = registry.cached(file.digest, cache)
    if present is not None:
        return present
    where = index_of(file.index)
    url = file.url
    if url is None:
        found = find(f"{file.name}=={file.version}", index=file.index, patience=patience)
        if (found.filename, found.digest) != (file.filename, file.digest):
            raise MachineError(
                f"{file.subject} is refused: the lock has {file.filename} with {file.digest}, the {where.kind} "
                f"now offers {found.filename} with {found.digest}. Renew the lock if the change is meant"
            )
        url = found.url
    assert url is not None
    return registry.fetch(
        url,
        digest=file.digest,
        cache=cache,
        max_bytes=max_bytes,
        subject=f"package {file.subject}",
        registry=where,
        patience=patience,
    )


def lock(
    names: tuple[str, ...],
    path: Path,
    *,
    cache: Path,
    limits: Limits,
    index: str | None = None,
    patience: Patience | None = None,
) -> list[PackageFile]:
    """Adds `name==version` packages to a lock file; each is downloaded and checked on the way.

    Returns:
        all entries of the lock.
    """
    found = [find(text, index=index, patience=patience) for text in names]
    for file in found:
        download(file, cache=cache, max_bytes=limits.archive_bytes, patience=patience)
    return packages.extend_lock(path, found)


# --- the index's answer


def _files(document: Document, subject: str, where: Registry) -> list[dict[str, Any]]:
    """The files that can be used, those with a name, a URL and a sha256, in the form of PEP 691."""
    if document.media_type.endswith("html"):
        page = _Links()
        page.feed(document.body.decode("utf-8", "replace"))
        page.close()
        return page.files
    answer = registry.as_json(document, subject=subject, registry=where)
    if not isinstance(answer, dict) or not isinstance(answer.get("files"), list):
        raise MachineError(
            f"the {where.kind} at {without_credentials(where.url)} does not speak the simple API "
            f"(PEP 691 or PEP 503) for {subject}; {where.remedy}"
        )
    return [
        file
        for file in answer["files"]
        if isinstance(file, dict)
        and isinstance(file.get("filename"), str)
        and isinstance(file.get("url"), str)
        and isinstance(file.get("hashes"), dict)
        and re.fullmatch(r"[0-9A-Fa-f]{64}", str(file["hashes"].get("sha256")))
    ]


class _Links(HTMLParser):
    """The anchors of PEP 503: a file's URL with its digest as the fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        url, _, fragment = (dict(attrs).get("href") or "").partition("#")
        digest = re.fullmatch(r"sha256=([0-9A-Fa-f]{64})", fragment)
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
        if tag == "a" and filename and digest:
            self.files.append({"filename": filename, "url": url, "hashes": {"sha256": digest[1]}})


def _stem(filename: str) -> str:
    for ending in ENDINGS:
        if filename.endswith(ending):
            return filename.removesuffix(ending)
    return filename


def _rank(filename: str) -> int:
    return next(rank for rank, ending in enumerate(ENDINGS) if filename.endswith(ending))


def _is_source_of(filename: str, name: str, version: str) -> bool:
    """Whether a file is `NAME-VERSION.ENDING`; names may hold "-" themselves, so every split is tried."""
    stem = _stem(filename)
    if stem == filename:
        return False
    splits = (match.start() for match in re.finditer("-", stem))
    return any(
        canonical_name("pypi", stem[:place]) == name and _same_version(stem[place + 1 :], version)
        for place in splits
    )


def _same_version(one: str, other: str) -> bool:
    """Equal but for the spellings that PEP 440 calls the same and file names really have."""

    def plain(version: str) -> str:
        return re.sub(r"[-_.+]+", ".", version.lower().removeprefix("v"))

    return plain(one) == plain(other)


def _squeezed(name: str) -> str:
    return re.sub(r"[-_.+]+", "", name).lower()


def _nothing_found(files: list[dict[str, Any]], name: str, version: str) -> str:
    names = [file["filename"] for file in files]
    of_version = [n for n in names if f"-{version}-" in n or _is_source_of(n, name, version)]
    if of_version:
        return (
            f"{name} {version} has no source distribution; the index has only {', '.join(of_version[:5])}"
            + (f" and {len(of_version) - 5} more" if len(of_version) > 5 else "")
            + ". Choose another version, or another package"
        )
    archives = sorted((n for n in names if _stem(n) != n), key=_natural_order)
    last = ", ".join(archives[-5:]) or "none"
    return f"the index has no {name} {version}; the last source distributions it lists are: {last}"


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Numbers by value, so that 1.10 comes after 1.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


# --- which index


def index_of(index: str | None) -> Registry:
    """The index that a recipe or, if it names none, the user's pip is set to.

    Raises:
        InputError: the address is not http(s).
        MachineError: nothing names an index.
    """
    remedy = "to use another index set `index` in the recipe's source or PIP_INDEX_URL"
    url = index or os.environ.get("PIP_INDEX_URL") or _configured_index() or _default_index(remedy)
    return Registry("Python package index", url.rstrip("/"), remedy)


def _configured_index() -> str | None:
    """`index-url` of pip's configuration files, in pip's order: later files win, and a command's section does."""
    found = None
    for path in _configuration_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise InputError(f"pip's configuration file {path} cannot be read: {error}") from None
        for section in ("global", "download"):
            found = parser.get(section, "index-url", fallback=None) or found
    return found


def _configuration_files() -> list[Path]:
    named = os.environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    shared = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    personal = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [
        *(Path(folder) / "pip" / "pip.conf" for folder in reversed(shared.split(":"))),
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        personal / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(named)] if named else []),
    ]


def _default_index(remedy: str) -> str:
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        raise MachineError(
            f"pip is not installed here and nothing names a Python package index; {remedy}"
        ) from None
    return str(PyPI.simple_url)
