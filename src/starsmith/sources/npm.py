"""Tarballs from an npm registry, by name and version, scoped packages included.

The registry is the recipe's `index`, else what npm is configured with: `npm_config_registry`, then the
`registry=` (for a scope `@scope:registry=`) of the user's and the machine's `.npmrc`, then the default that
the package-URL library knows for npm, so that no address is written here. Tokens of `.npmrc` are not used:
a registry that wants one can be reached through a local mirror.

A version's document names the tarball and its digest (`integrity`, or `shasum` for packages of npm's first
years); a lock pins its SHA-256. As npm does, the first component of every path is dropped, whatever it is
called (`package/` in most tarballs).
"""

import base64
import binascii
import datetime
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from packageurl.contrib import purl2url

from starsmith.corpus.arrivals import Arrival, Target
from starsmith.errors import InputError, MachineError
from starsmith.recipe import Limits, PackageSource
from starsmith.sources import packages, registry
from starsmith.sources.packages import PackageFile
from starsmith.sources.registry import Digest, Patience, Registry


def resolve(spec: PackageSource, *, cache: Path, limits: Limits, patience: Patience | None = None) -> list[Target]:
    """One target per version. With a lock nothing is asked; without, the registry is.

    Raises:
        InputError: a package or version does not exist, or is not in the lock.
        MachineError: the registry does not answer.
    """
    files = packages.pinned(spec)
    if files is None:
        files = [find(text, index=spec.index, patience=patience) for text in dict.fromkeys(spec.packages)]
    return [packages.target(file) for file in files]


def read(target: Target, *, cache: Path, limits: Limits, patience: Patience | None = None) -> Iterator[Arrival]:
    """Streams a tarball, downloaded into the cache unless it is there.

    Raises:
        MachineError: the registry does not answer, or its file is not the one that was resolved.
    """
    file: PackageFile = target.spec
    path = download(file, cache=cache, max_bytes=limits.archive_bytes, patience=patience)
    yield from packages.read_package(file, path, limits=limits, is_top=lambda component: True)


def find(text: str, *, index: str | None = None, patience: Patience | None = None) -> PackageFile:
    """The tarball of a `name==version`, as the registry has it now, with the strongest digest it gives.

    Raises:
        InputError: there is no such package or version.
        MachineError: the registry does not answer, or not with a version's document.
    """
    name, version = packages.parse_package(text, "npm")
    if version is None:
        raise InputError(f"{text!r} has no version; write `{name}==VERSION`, or give a `lock` that has it")
    where = registry_of(index, name)
    document = _document(f"{where.url}/{name.replace('/', '%2f')}/{version}", f"{name} {version}", where, patience)
    dist = document.get("dist") if isinstance(document, dict) else None
    digest = _digest(dist) if isinstance(dist, dict) else None
    if digest is None or not isinstance(dist, dict) or not isinstance(dist.get("tarball"), str):
        raise MachineError(
            f"the {where.kind} at {where.url} names no tarball with a digest for {name} {version}; {where.remedy}"
        )
    url = _at_registry(dist["tarball"], where.url)
    return PackageFile(
        type="npm",
        name=name,
        version=version,
        filename=urlsplit(url).path.rpartition("/")[2],
        digest=digest,
        url=url,
        index=index,
    )


def download(file: PackageFile, *, cache: Path, max_bytes: int, patience: Patience | None = None) -> Path:
    """The archive in the cache, fetched if need be; raises like `read`."""
    present = registry.cached(file.digest, cache)
    if present is not None:
        return present
    url = file.url or find(f"{file.name}=={file.version}", index=file.index, patience=patience).url
    assert url is not None
    return registry.fetch(
        url,
        digest=file.digest,
        cache=cache,
        max_bytes=max_bytes,
        subject=f"package {file.subject}",
        registry=registry_of(file.index, file.name),
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
    """Adds `name==version` packages to a lock file; each is downloaded, checked and pinned by SHA-256.

    Returns:
        all entries of the lock.
    """
    found = []
    for text in names:
        file = find(text, index=index, patience=patience)
        archive = download(file, cache=cache, max_bytes=limits.archive_bytes, patience=patience)
        digest = registry.digest_of(archive)
        if file.digest != digest:
            registry.adopt(archive, digest, cache)
            archive.unlink(missing_ok=True)
        found.append(
            PackageFile(
                type="npm",
                name=file.name,
                version=file.version,
                filename=file.filename,
                digest=digest,
                upload_time=_publication_time(file, patience),
                index=index,
            )
        )
    return packages.extend_lock(path, found)


def _publication_time(file: PackageFile, patience: Patience | None) -> datetime.datetime | None:
    """Only the document of all versions has it, and some mirrors leave it out."""
    where = registry_of(file.index, file.name)
    document = _document(f"{where.url}/{file.name.replace('/', '%2f')}", file.name, where, patience)
    try:
        return packages.parse_time(document["time"][file.version])
    except (TypeError, KeyError, ValueError):
        return None


def _document(url: str, package: str, where: Registry, patience: Patience | None) -> Any:
    subject = f"package {package}"
    document = registry.get_document(
        url, accept="application/json", subject=subject, registry=where, patience=patience
    )
    return registry.as_json(document, subject=subject, registry=where)


def _digest(dist: Mapping[str, Any]) -> Digest | None:
    """The strongest digest: `integrity` is a list of base64 ones (Subresource Integrity), `shasum` a hex SHA-1."""
    offered = {}
    for item in str(dist.get("integrity") or "").split():
        algorithm, _, encoded = item.partition("-")
        try:
            offered[algorithm] = base64.b64decode(encoded.split("?")[0], validate=True).hex()
        except (binascii.Error, ValueError):
            continue
    for algorithm, digits in (("sha512", 128), ("sha384", 96), ("sha256", 64)):
        if len(offered.get(algorithm, "")) == digits:
            return Digest(algorithm, offered[algorithm])
    shasum = str(dist.get("shasum") or "").lower()
    return Digest("sha1", shasum) if re.fullmatch(r"[0-9a-f]{40}", shasum) else None


def _at_registry(tarball: str, registry_url: str) -> str:
    """Mirrors pass documents on unchanged: a tarball at the default registry is asked for at ours, as npm does."""
    parts, ours = urlsplit(tarball), urlsplit(registry_url)
    if parts.hostname != urlsplit(_default_registry()).hostname:
        return tarball
    path = ours.path.rstrip("/") + parts.path
    return urlunsplit((ours.scheme, ours.netloc, path, parts.query, ""))


# --- which registry


def registry_of(index: str | None, name: str) -> Registry:
    """The registry that a recipe or, if it names none, the user's npm is set to for a package.

    Raises:
        InputError: the address is not http(s).
    """
    scope = name.partition("/")[0] if name.startswith("@") else None
    url = index or _configured(scope) or _default_registry()
    remedy = "to use another registry set `index` in the recipe's source or npm_config_registry"
    return Registry("npm registry", url.rstrip("/"), remedy)


def _configured(scope: str | None) -> str | None:
    settings = _npmrc_settings()
    if scope is not None and (found := settings.get(f"{scope}:registry")):
        return found
    for variable, value in os.environ.items():
        if variable.lower() == "npm_config_registry" and value:
            return value
    return settings.get("registry")


def _npmrc_settings() -> dict[str, str]:
    """The machine's and the user's `.npmrc`, the user's winning; quotes and `${VARIABLE}` resolved."""
    user = Path(os.environ.get("NPM_CONFIG_USERCONFIG") or Path.home() / ".npmrc")
    settings: dict[str, str] = {}
    for path in (Path("/etc/npmrc"), user):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            key, separator, value = line.partition("=")
            if separator and not line.lstrip().startswith(("#", ";")):
                plain = value.strip().strip("\"'")
                settings[key.strip()] = re.sub(
                    r"\$\{([^}]+)\}", lambda found: os.environ.get(found[1], found[0]), plain
                )
    return settings


def _default_registry() -> str:
    """Scheme and host of any npm package's download address, over TLS."""
    parts = urlsplit(str(purl2url.get_download_url("pkg:npm/npm@1.0.0")))
    return urlunsplit(("https", parts.netloc, "", "", ""))
