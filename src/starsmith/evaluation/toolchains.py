"""What compiles and runs a program of each language, and how to get it where it is absent.

The eighteen languages are MultiPL-E's (Cassano et al. 2022, with its short names), their commands those of its
evaluators, save that D is compiled with LDC (upstream calls `rdmd`) and that Go's tests are compiled and run as
two steps, so that a fault of compilation is told from a failed test. Versions are the system's: a verdict is kept
under the version that gave it.

An absent toolchain is no error. Whoever runs programs asks `find(language).version()` first, and names what is
skipped with `install`.

`RLIMIT_AS` bounds what a process may map. Virtual machines map far more than they use (Java, Go, node, mono and
Julia fail to start under it), so theirs is the launcher's watch over resident memory alone; so is every
compiler's. The same machines start threads of their own, which the limit of processes must not count.

Commands hold two places, `{program}` (the program's files, read-only) and `{work}` (its folder, where it may
write), which differ from level to level.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from starsmith.errors import InputError
from starsmith.evaluation.contract import Limits
from starsmith.evaluation.sandbox import interpreter

Command = tuple[str, ...]

ENVIRONMENTS_VARIABLE: Final = "STARSMITH_ENVIRONMENTS"
"""Names the folder that holds the named Python environments."""
RUST_WITH_CRATES: Final = "rs_crates"
CRATES: Final = ("md5", "rand", "regex")
DEBIAN_CRATES: Final = "apt-get install cargo librust-md5-dev librust-regex-dev"
COMPILING: Final = Limits(
    cpu_seconds=60.0,
    wall_seconds=180.0,
    memory_bytes=2 * 1024**3,
    file_bytes=256 * 1024**2,
    disk_bytes=512 * 1024**2,
    num_processes=128,
    num_open_files=1024,
)
"""What a compiler may use: it is ours, and the program decides only what it is fed."""
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")
_TIMEOUT_SECONDS: Final = 20.0
_TELLS_PACKAGES: Final = """
import platform, re, sys, zlib
from importlib.metadata import distributions
from pathlib import Path

def plain(name):
    return re.sub("[-_.]+", "-", name).lower()

found = {plain(each.name): each.version for each in distributions()}
for wanted in sys.argv[1:]:
    name, _, pinned = wanted.partition("==")
    there = found.get(plain(name))
    if there is None or (pinned and there.partition("+")[0] != pinned.partition("+")[0]):
        sys.exit(1)
data = sorted(map(str, Path(sys.prefix, "share").rglob("*")))
print(platform.python_version() + "." + str(zlib.crc32(repr((sorted(found.items()), data)).encode())))
"""
"""Fails where a package is absent, or another version is there; a build (`+cpu`) may be any. The version
is Python's, with a checksum of all packages and data sets, since a verdict rests on these."""


@dataclass(frozen=True)
class Step:
    """One command of a program: all but the last compile."""

    command: Command
    limits: Limits
    limits_address_space: bool


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    language: str
    """The short name."""
    title: str
    install: str
    """One line that installs it."""
    executables: tuple[str, ...]
    """All that must be there; the first tells the version."""
    asks_version: tuple[str, ...] = ("--version",)
    asks_library: tuple[str, ...] = ()
    """What the first executable can do only with the library that tests use; without it all answers would fail."""
    library: str = ""
    """That library's file."""
    makes_commands: Callable[[tuple[str, ...], tuple[str, ...]], tuple[Command, ...]]
    """From the paths of `executables` and the names of a program's files, the entry first."""
    limits_address_space: bool = True
    """False for a virtual machine: memory is watched as it becomes resident."""
    num_own_threads: int = 0
    """What the virtual machine starts for itself."""
    min_memory_bytes: int = 0
    """What an empty program needs, beyond which a benchmark's limit counts."""
    min_open_files: int = 1024
    """R and Java refuse to start with fewer."""
    folders: tuple[str, ...] = ()
    """Read-only beside /usr: configuration, libraries."""
    environment: tuple[tuple[str, str], ...] = ()

    def paths(self) -> tuple[str, ...] | None:
        """Where the executables are; None if one is absent."""
        found = tuple(_which(name) for name in self.executables)
        return None if None in found else tuple(path for path in found if path is not None)

    def version(self) -> str | None:
        """The version that is installed, None if the toolchain is missing."""
        return _version(self)

    def commands(self, files: Sequence[str]) -> tuple[Command, ...]:
        """What compiles and runs a program; the last one runs it.

        Raises:
            InputError: the toolchain is missing.
        """
        paths = self.paths()
        if paths is None:
            raise InputError(f"{self.title} is not installed, so its programs cannot be run; {self.install}")
        return self.makes_commands(paths, tuple(files))

    def steps(self, files: Sequence[str], limits: Limits) -> tuple[Step, ...]:
        """The commands, each with what it may use: `limits` are the program's own.

        Raises:
            InputError: the toolchain is missing.
        """
        *compiling, running = self.commands(files)
        own = replace(
            limits,
            num_processes=limits.num_processes + self.num_own_threads,
            memory_bytes=limits.memory_bytes + self.min_memory_bytes,
            num_open_files=max(limits.num_open_files, self.min_open_files),
        )
        return (
            *(Step(command, COMPILING, limits_address_space=False) for command in compiling),
            Step(running, own, self.limits_address_space),
        )

    def visible_folders(self) -> tuple[str, ...]:
        """Every folder beside /usr that a program of this language must read."""
        homes = {_home(path) for path in self.paths() or ()}
        return tuple(sorted(folder for folder in {*homes, *self.folders} if not interpreter.is_below_usr(folder)))


def find(language: str) -> Toolchain:
    """The toolchain of a language or of a named Python environment.

    Raises:
        InputError: there is no such language.
    """
    if (known := TOOLCHAINS.get(language) or TOOLS.get(language)) is not None:
        return known
    if language in ENVIRONMENTS:
        return python_environment(language, environments_folder() / language)
    if language == RUST_WITH_CRATES:
        return rust_with_crates(environments_folder() / language)
    raise InputError(
        f"no toolchain for {language!r}; known are {', '.join(TOOLCHAINS)} and the environments "
        f"{', '.join(ENVIRONMENTS)}"
    )


def missing(languages: Sequence[str]) -> dict[str, str]:
    """Of these languages, those that cannot be run here, with their install lines."""
    chains = {language: find(language) for language in dict.fromkeys(languages)}
    return {language: chain.install for language, chain in chains.items() if chain.version() is None}


def environments_folder() -> Path:
    """Where the named environments lie, one folder each."""
    if named := os.environ.get(ENVIRONMENTS_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "starsmith" / "environments"


def python_environment(name: str, folder: Path) -> Toolchain:
    """A virtual environment as a toolchain: its interpreter, its packages, nothing of ours.

    Its packages map more than they use (linear algebra, deep learning), and would start a thread a core; the
    largest are half a gigabyte when they have been imported. An environment with other packages than it should
    have is missing, since tests that compare with what a library returns hold for one version. Data sets that its
    libraries would download lie in its `share`.
    """
    executable = folder / "bin" / "python"
    packages = ENVIRONMENTS.get(name, "")
    shared = {"SEABORN_DATA": f"{folder}/share/seaborn", "SCIKIT_LEARN_DATA": f"{folder}/share/scikit-learn"}
    install = f"python3.11 -m venv {folder} && {executable} -m pip install {packages or 'PACKAGES'}"
    if download := _DOWNLOADS.get(name):
        places = " ".join(f"{variable}={place}" for variable, place in shared.items())
        install += f" && {places} {executable} -c '{download}'"
    base = os.path.realpath(executable)
    homes = [str(folder), *([_home(base), *_libraries_of(base)] if executable.exists() else [])]
    return Toolchain(
        language=name,
        title=f"Python environment {name}",
        install=install,
        executables=(str(executable),),
        asks_version=("-c", _TELLS_PACKAGES, *packages.split()),
        makes_commands=_python_of_environment,
        limits_address_space=False,
        num_own_threads=16,
        min_memory_bytes=1024 * _MEGABYTE,
        folders=tuple(homes),
        environment=(
            *((f"{pool}_NUM_THREADS", "1") for pool in ("OMP", "OPENBLAS", "MKL", "TF_INTRAOP", "TF_INTEROP")),
            ("TF_CPP_MIN_LOG_LEVEL", "3"),
            *shared.items(),
            ("MPLBACKEND", "Agg"),
            ("MPLCONFIGDIR", "{work}"),
        ),
    )


def rust_with_crates(folder: Path) -> Toolchain:
    """Rust with the libraries that `rust_crates` built in a folder, for the compiler that is installed."""
    rust = TOOLCHAINS["rs"]
    libraries = [("--extern", f"{name}={folder}/lib{name}.rlib") for name in CRATES]
    return replace(
        rust,
        language=RUST_WITH_CRATES,
        title="Rust with the crates of HumanEvalPack",
        install=f"{DEBIAN_CRATES} && {sys.executable} -m starsmith.evaluation.rust_crates",
        executables=("rustc", str(crates_ready(folder, rust.version() or "none"))),
        makes_commands=_rust(
            "-L", f"dependency={folder}/target/release/deps", *(word for pair in libraries for word in pair)
        ),
        folders=(str(folder),),
    )


def crates_ready(folder: Path, version: str) -> Path:
    """The file that says for which compiler the crates in a folder were built."""
    return folder / f"built-for-{version}"


@cache
def _version(chain: Toolchain) -> str | None:
    paths = chain.paths()
    if paths is None or (chain.library and not Path(chain.library).exists()):
        return None
    said = _said(paths[0], chain.asks_version)
    found = _VERSION.search(said) if said is not None else None
    if found is None or (chain.asks_library and _said(paths[0], chain.asks_library) is None):
        return None
    return found[0]


def _said(executable: str, options: Sequence[str]) -> str | None:
    """What it wrote; None if it failed."""
    try:
        done = subprocess.run(
            [executable, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _which(name: str) -> str | None:
    """The real program of that name: also beside our own Python, where wheels put theirs, and behind rustup's
    stand-in, which finds its toolchain through a home that a sandbox does not show."""
    if name == "python":
        return interpreter.find().executable
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is not None and os.path.realpath(found).endswith("/rustup"):
        return _behind_rustup(found)
    return found


@cache
def _behind_rustup(stand_in: str) -> str | None:
    done = subprocess.run(
        [stand_in, "--print", "sysroot"], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    path = Path(done.stdout.strip()) / "bin" / "rustc"
    return str(path) if done.returncode == 0 and path.is_file() else None


def _home(path: str) -> str:
    """The folder of an installation: the one above its `bin`."""
    folder = Path(os.path.realpath(path)).parent
    return str(folder.parent if folder.name == "bin" and folder.parent != Path("/") else folder)


def _libraries_of(python: str) -> list[str]:
    """The standard library of an interpreter that is not ours."""
    return [str(Path(python).parent.parent / "lib")]


def _driven(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    """A tool that a Python file runs; the last of the executables is Python."""
    *tools, _ = paths
    return ((*interpreter.find().command(f"{{program}}/{files[0]}"), *tools),)


def _script(*options: str) -> Callable[[tuple[str, ...], tuple[str, ...]], tuple[Command, ...]]:
    return lambda paths, files: ((paths[0], *options, f"{{program}}/{files[0]}"),)


def _compiled(*options: str) -> Callable[[tuple[str, ...], tuple[str, ...]], tuple[Command, ...]]:
    """`options` hold `{entry}`; the result is `{work}/main`."""
    return lambda paths, files: (
        (paths[0], *(option.replace("{entry}", f"{{program}}/{files[0]}") for option in options)),
        ("{work}/main",),
    )


def _cpp(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    """Linked with OpenSSL where it is there: a problem on digests uses it."""
    libraries = ("-lcrypto",) if Path("/usr/include/openssl/md5.h").exists() else ()
    return _compiled("-std=c++17", "-w", "{entry}", "-o", "{work}/main", *libraries)(paths, files)


def _rust(*options: str) -> Callable[[tuple[str, ...], tuple[str, ...]], tuple[Command, ...]]:
    return _compiled("--edition=2021", "-A", "warnings", *_SYSTEM_LINKER, *options, "{entry}", "-o", "{work}/main")


def _all(files: tuple[str, ...], suffix: str) -> Command:
    """Those of one suffix; what lies in folders is a library."""
    return tuple(f"{{program}}/{name}" for name in files if name.endswith(suffix) and "/" not in name)


_MACHINE: Final = ("-Xss64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1")
"""One collector thread, no files of its own, and a stack for deep recursion: as small as Java gets."""
_TUPLES: Final = "/usr/share/java/javatuples.jar"


def _java(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    javac, java = paths
    compiling = (javac, "-J-XX:+UseSerialGC", "-J-XX:-UsePerfData", "-encoding", "UTF-8", "-nowarn")
    return (
        (*compiling, "-cp", _TUPLES, "-d", "{work}", *_all(files, ".java")),
        (java, *_MACHINE, "-ea", "-cp", f"{{work}}:{_TUPLES}", PurePosixPath(files[0]).stem),
    )


def _scala(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    scalac, scala = paths
    machine = tuple(f"-J{option}" for option in _MACHINE)
    return (
        (scalac, "-nowarn", "-d", "{work}", *_all(files, ".scala")),
        (scala, *machine, "-nc", "-cp", "{work}", PurePosixPath(files[0]).stem),
    )


def _python(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    return (tuple(interpreter.find().command(f"{{program}}/{files[0]}")),)


def _python_of_environment(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    return ((paths[0], "-P", "-s", "-B", f"{{program}}/{files[0]}"),)


def _typescript(paths: tuple[str, ...], files: tuple[str, ...]) -> tuple[Command, ...]:
    tsc, node = paths
    options = ("--target", "esnext", "--module", "commonjs", "--skipLibCheck", "--outDir", "{work}")
    return (
        (tsc, *options, f"{{program}}/{files[0]}"),
        (node, f"{{work}}/{PurePosixPath(files[0]).stem}.js"),
    )


_MEGABYTE: Final = 1024**2
_NODE: Final = (("OPENSSL_CONF", "/dev/null"),)
"""It stops where the system's file may not be read."""
_SYSTEM_LINKER: Final = ("-C", "link-arg=-fuse-ld=bfd")
"""A toolchain of rustup brings a linker that the C compiler looks for in folders it may not search."""

TOOLCHAINS: Final[Mapping[str, Toolchain]] = MappingProxyType(
    {
        chain.language: chain
        for chain in (
            Toolchain(
                language="python",
                title="Python",
                install="it is the Python that runs Starsmith",
                executables=("python",),
                makes_commands=_python,
                min_open_files=0,
                folders=interpreter.find().folders,
            ),
            Toolchain(
                language="cpp",
                title="C++",
                install="apt-get install g++ libboost-dev libssl-dev",
                executables=("g++",),
                makes_commands=_cpp,
            ),
            Toolchain(
                language="cs",
                title="C#",
                install="apt-get install mono-mcs mono-runtime libmono-system-numerics4.0-cil",
                executables=("mono", "mcs"),
                library="/usr/lib/mono/4.5/System.Numerics.dll",
                makes_commands=lambda paths, files: (
                    (
                        paths[1],
                        "-d:DEBUG",
                        "-warn:0",
                        "-r:System.Numerics.dll",
                        "-out:{work}/main.exe",
                        *_all(files, ".cs"),
                    ),
                    (paths[0], "{work}/main.exe"),
                ),
                limits_address_space=False,
                num_own_threads=16,
                folders=("/etc/mono",),
                environment=(("MONO_TRACE_LISTENER", "Console.Error"),),
            ),
            Toolchain(
                language="d",
                title="D",
                install="apt-get install ldc",
                executables=("ldc2",),
                makes_commands=_compiled("-unittest", "{entry}", "-of={work}/main", "-od={work}"),
                folders=("/etc/ldc2.conf",),
            ),
            Toolchain(
                language="go",
                title="Go",
                install="apt-get install golang-go",
                executables=("go",),
                asks_version=("version",),
                makes_commands=lambda paths, files: (
                    (paths[0], "test", "-vet=off", "-c", "-o", "{work}/main", *_all(files, ".go")),
                    ("{work}/main",),
                ),
                limits_address_space=False,
                num_own_threads=16,
                environment=(
                    ("GOCACHE", "{work}/.cache"),
                    ("GOPATH", "{work}/.go:{program}"),
                    ("GO111MODULE", "off"),
                    ("GOTOOLCHAIN", "local"),
                    ("GOFLAGS", "-buildvcs=false"),
                ),
            ),
            Toolchain(
                language="java",
                title="Java",
                install="apt-get install openjdk-17-jdk-headless libjavatuples-java",
                executables=("javac", "java"),
                library=_TUPLES,
                makes_commands=_java,
                limits_address_space=False,
                num_own_threads=48,
                min_memory_bytes=256 * _MEGABYTE,
                folders=("/etc/java-17-openjdk",),
            ),
            Toolchain(
                language="jl",
                title="Julia",
                install="no package of Debian, npm or PyPI holds it: install from julialang.org",
                executables=("julia",),
                makes_commands=_script("--startup-file=no", "--threads=1"),
                limits_address_space=False,
                num_own_threads=16,
                min_memory_bytes=512 * _MEGABYTE,
            ),
            Toolchain(
                language="js",
                title="JavaScript",
                install="apt-get install nodejs",
                executables=("node",),
                makes_commands=_script(),
                limits_address_space=False,
                num_own_threads=16,
                min_memory_bytes=128 * _MEGABYTE,
                environment=_NODE,
            ),
            Toolchain(
                language="lua",
                title="Lua",
                install="apt-get install lua5.4 lua-unit",
                executables=("lua5.4",),
                asks_version=("-v",),
                asks_library=("-e", "require('luaunit')"),
                makes_commands=_script(),
            ),
            Toolchain(
                language="php",
                title="PHP",
                install="apt-get install php-cli",
                executables=("php",),
                makes_commands=_script("-d", "display_errors=stderr", "-d", "memory_limit=-1"),
                folders=("/etc/php",),
            ),
            Toolchain(
                language="pl",
                title="Perl",
                install="apt-get install perl libtest-deep-perl",
                executables=("perl",),
                asks_library=("-MTest::Deep", "-e", "1"),
                makes_commands=_script(),
                folders=("/etc/perl",),
            ),
            Toolchain(
                language="r",
                title="R",
                install="apt-get install r-base-core",
                executables=("Rscript",),
                makes_commands=_script("--vanilla"),
                folders=("/etc/R",),
            ),
            Toolchain(
                language="rb",
                title="Ruby",
                install="apt-get install ruby ruby-test-unit",
                executables=("ruby",),
                asks_library=("-e", "require 'test/unit/assertions'"),
                makes_commands=_script(),
                num_own_threads=2,
            ),
            Toolchain(
                language="rkt",
                title="Racket",
                install="apt-get install racket",
                executables=("racket",),
                asks_library=("-l", "racket/base", "-l", "rackunit"),
                makes_commands=_script(),
                limits_address_space=False,
                min_memory_bytes=256 * _MEGABYTE,
                folders=("/etc/racket",),
                environment=(("PLTADDONDIR", "{work}"), ("PLT_CS_COMPILE_LIMIT", "10000")),
            ),
            Toolchain(
                language="rs",
                title="Rust",
                install="apt-get install rustc",
                executables=("rustc",),
                makes_commands=_rust(),
                num_own_threads=1,
            ),
            Toolchain(
                language="scala",
                title="Scala",
                install="apt-get install scala",
                executables=("scalac", "scala"),
                asks_version=("-version",),
                makes_commands=_scala,
                limits_address_space=False,
                num_own_threads=48,
                min_memory_bytes=384 * _MEGABYTE,
                folders=("/etc/java-17-openjdk",),
            ),
            Toolchain(
                language="sh",
                title="Bash",
                install="apt-get install bash",
                executables=("bash",),
                makes_commands=_script(),
            ),
            Toolchain(
                language="swift",
                title="Swift",
                install="apt-get install swiftlang (Debian 13 and newer)",
                executables=("swiftc",),
                makes_commands=_compiled("{entry}", "-o", "{work}/main"),
                limits_address_space=False,
                num_own_threads=8,
            ),
            Toolchain(
                language="ts",
                title="TypeScript",
                install="apt-get install node-typescript nodejs",
                executables=("tsc", "node"),
                makes_commands=_typescript,
                limits_address_space=False,
                num_own_threads=16,
                min_memory_bytes=128 * _MEGABYTE,
                environment=_NODE,
            ),
        )
    }
)

ENVIRONMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bandit": "bandit==1.9.4",
        "canitedit": "numpy==1.26.4 pandas==2.2.3 scipy==1.14.1 scikit-learn==1.5.2 torch==2.13.0 "
        "z3-solver==4.13.3.0 autograd==1.7.0 flask==3.0.3",
        "ds1000": "numpy==1.26.4 pandas==1.5.3 matplotlib==3.8.4 scipy==1.12.0 seaborn==0.13.2 "
        "scikit-learn==1.4.0 statsmodels==0.14.1 torch==2.2.0 tensorflow-cpu==2.16.1 gensim==4.3.2 xgboost==2.0.3 "
        "PyYAML",
    }
)
"""Named Python environments, with the packages each holds."""
_DOWNLOADS: Final = {
    "ds1000": "import seaborn, sklearn.datasets; "
    '[seaborn.load_dataset(name) for name in ("exercise", "penguins", "planets", "tips")]; '
    "sklearn.datasets.fetch_california_housing()",
}
"""Python that fetches what an environment's programs would, had they a network."""

TOOLS: Final[Mapping[str, Toolchain]] = MappingProxyType(
    {
        chain.language: chain
        for chain in (
            Toolchain(
                language="clang",
                title="Clang's static analyser",
                install="apt-get install clang",
                executables=("clang", "python"),
                makes_commands=_driven,
                limits_address_space=False,
                num_own_threads=4,
            ),
            Toolchain(
                language="codeql",
                title="CodeQL",
                install="unpack the bundle of github.com/github/codeql-action and put its folder on PATH",
                executables=("codeql", "python"),
                asks_version=("version",),
                makes_commands=_driven,
                limits_address_space=False,
                num_own_threads=128,
                min_memory_bytes=4096 * _MEGABYTE,
            ),
            Toolchain(
                language="gcc",
                title="GCC's static analyser",
                install="apt-get install gcc libc6-dev",
                executables=("gcc", "python"),
                makes_commands=_driven,
                limits_address_space=False,
                num_own_threads=4,
            ),
        )
    }
)
"""What a Python file, a program's entry, is given the path of: analysers of other programs."""
