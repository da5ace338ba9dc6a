"""YARA rules: reading, compiling with YARA-X, and what they find in bytes.

A rule set is one file, or every `*.yar` and `*.yara` file under a folder, in the order of their names. Each file
is a namespace of its own, so that two files may use one name for a rule. `include` is refused: a file that is
included would change what is found without changing the digest of the rules, by which a signal is known to be
out of date.

YARA-X (VirusTotal's successor of YARA, BSD licence) is an optional package.
"""

import functools
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

from starsmith.errors import InputError, MachineError

Sources = tuple[tuple[str, str], ...]
"""Name and text of each file of a rule set."""

_SUFFIXES = (".yar", ".yara")
_NUM_SHOWN_ERRORS = 5


def read(place: Path) -> Sources:
    """The files of a rule set, in the order of their names; names are relative to the folder.

    Raises:
        InputError: nothing is there, a file is not UTF-8, or a folder has no rules.
    """
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
        if not files:
            raise InputError(f"malware.yara_rules: {place} has no file that ends in {' or '.join(_SUFFIXES)}")
        return tuple((path.relative_to(place).as_posix(), _text(path)) for path in files)
    return ((place.name, _text(place)),)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"malware.yara_rules: cannot read {path} as UTF-8 text: {error}") from None


def digest(sources: Sources) -> str:
    """SHA-256 (hex) over names and texts."""
    whole = hashlib.sha256()
    for name, text in sources:
        for part in (name.encode("utf-8", "surrogateescape"), text.encode()):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def engine_version() -> str:
    """The installed YARA-X.

    Raises:
        MachineError: there is none.
    """
    try:
        return f"yara-x {importlib.metadata.version('yara-x')}"
    except importlib.metadata.PackageNotFoundError:
        raise _absent() from None


class Scanner:
    """Compiled rules, for one thread.

    Args:
        sources: from `read`.
        timeout_seconds: the longest that one scan may take.

    Raises:
        InputError: rules do not compile; every fault is named with file, line and column.
        MachineError: YARA-X is not installed.
    """

    def __init__(self, sources: Sources, timeout_seconds: int) -> None:
        self._engine = _engine()
        self._timeout_seconds = timeout_seconds
        self._scanner = self._engine.Scanner(_compile(sources))
        self._scanner.set_timeout(timeout_seconds)

    def scan(self, data: bytes) -> tuple[str, ...]:
        """The names of all rules that match, sorted; private rules are never named.

        Raises:
            MachineError: the scan failed or took too long.
        """
        try:
            results = self._scanner.scan(data)
        except self._engine.TimeoutError:
            raise MachineError(
                f"the YARA rules (malware.yara_rules) took more than {self._timeout_seconds} seconds for a text "
                f"of {len(data):,} bytes; raise malware.timeout_seconds, or leave out the slow rule"
            ) from None
        except self._engine.ScanError as error:
            raise MachineError(f"YARA-X could not scan a text of {len(data):,} bytes: {error}") from error
        return tuple(sorted({str(rule.identifier) for rule in results.matching_rules}))


@functools.lru_cache(maxsize=1)  # a process scans many batches, and a large set compiles for seconds
def _compile(sources: Sources) -> Any:
    engine = _engine()
    compiler = engine.Compiler(includes_enabled=False)
    for name, text in sources:
        compiler.new_namespace(name)
        try:
            compiler.add_source(text, origin=name)
        except engine.CompileError:
            continue  # the compiler keeps it among its errors, and finds those of the other files
    faults = compiler.errors()
    rules = compiler.build()
    del compiler  # it may only end in the thread that made it, and an exception would carry it elsewhere
    if faults:
        shown = "\n".join(_fault(fault) for fault in faults[:_NUM_SHOWN_ERRORS])
        more = len(faults) - _NUM_SHOWN_ERRORS
        raise InputError(
            f"malware.yara_rules: the rules do not compile:\n{shown}" + (f"\nand {more} more" if more > 0 else "")
        )
    return rules


def _fault(fault: dict[str, Any]) -> str:
    """One fault as `file:line:column: code title (details)`."""
    labels = fault.get("labels") or [{}]
    name = labels[0].get("code_origin") or "rules"
    details = "; ".join(label["text"] for label in labels if label.get("text"))
    if "include" in fault.get("title", ""):
        details += "; put the file it names beside it, in a folder that malware.yara_rules names"
    return f"{name}:{fault.get('line')}:{fault.get('column')}: {fault.get('title')} ({details})"


def _engine() -> Any:
    try:
        import yara_x
    except ImportError:
        raise _absent() from None
    return yara_x


def _absent() -> MachineError:
    return MachineError(
        "malware.yara_rules needs YARA-X, which is not installed; install it with "
        "`pip install 'starsmith[malware]'` (or `pip install yara-x`), or leave malware.yara_rules out"
    )
