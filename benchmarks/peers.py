"""Runs the tools that we measure ourselves against, each in an environment of its own.

A peer's packages may contradict ours, so they are never installed beside us: a name in `PEERS` is a virtual
environment in the cache, made on first use, and a script in `peer_scripts/` runs in it. The script imports only
the standard library and the peer, measures itself, and prints one JSON object as its last line.

A peer that cannot be installed or that fails is a `MachineError`; a benchmark then prints its own numbers and says
that the peer is absent, instead of dying.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import cache
from starsmith.corpus.store import canonical_digest
from starsmith.errors import MachineError

SCRIPTS = Path(__file__).with_name("peer_scripts")
INSTALL_SECONDS = 900.0
_SHOWN_CHARS = 2_000

PEERS: dict[str, tuple[str, ...]] = {
    "bigcode-evaluation-harness": ("numpy==2.4.6",),
    "datatrove": ("datatrove[processing]==0.10.1", "pyarrow==26.0.1"),
    "daft": ("daft==0.7.26",),
    "datatrove-spacy": ("datatrove[processing]==0.10.1", "pyarrow==26.0.1", "spacy==3.8.7"),
    "data-juicer": ("py-data-juicer==1.6.1", "aiohttp==3.14.5"),
    "detect-secrets": ("detect-secrets==1.5.0",),
    "evalplus": ("evalplus==0.3.1",),
    "rensa": ("rensa==0.5.0", "pyarrow==26.0.1"),
    "text-dedup": ("text-dedup==0.4.0",),
    "tiktoken": ("tiktoken==0.14.0",),
}
"""A peer's name to the arguments of `pip install`: pinned requirements, and options such as `--no-deps`."""


def run(name: str, script: str, *arguments: str, timeout_seconds: float) -> dict[str, Any]:
    """What `peer_scripts/<script>` prints as its last line, run in the environment of peer `name`.

    Args:
        name: a key of `PEERS`.
        script: a file in `peer_scripts/`.
        arguments: its command line.
        timeout_seconds: of the script alone; installing has its own limit.

    Raises:
        MachineError: the peer cannot be installed, or its script fails, is too slow or prints no JSON object.
    """
    command = [str(environment(name)), str(SCRIPTS / script), *arguments]
    output = _output(command, timeout_seconds, f"{script} of peer {name}")
    last = output.strip().rpartition("\n")[2]
    try:
        result = json.loads(last)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise MachineError(
            f"{script} of peer {name} should print a JSON object as its last line, and printed {last[:200]!r}"
        )
    return result


def environment(name: str) -> Path:
    """The Python of the peer's environment, installed if it is not there.

    Raises:
        MachineError: pip cannot install it.
    """
    requirements = PEERS[name]
    stamp = canonical_digest([requirements, sys.version])
    folder = (cache.FOLDER.parent / "peers" / name).absolute()
    python, ready = folder / "bin" / "python", folder / ".ready"
    with cache.locked(folder):
        if not (ready.is_file() and ready.read_text() == stamp):
            # made in its place: the scripts of a virtual environment do not survive a rename
            what = f"installing peer {name}"
            _output([sys.executable, "-m", "venv", "--clear", str(folder)], INSTALL_SECONDS, what)
            quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
            install = [str(python), "-m", "pip", "install", *quiet, *requirements]
            _output(install, INSTALL_SECONDS, what)
            ready.write_text(stamp)
    return python


def _output(command: list[str], timeout_seconds: float, what: str) -> str:
    """The standard output of a program; all its processes end with it."""
    kept_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {key: value for key, value in os.environ.items() if key not in kept_out}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise MachineError(f"{what} took longer than {timeout_seconds:g} s and was stopped") from None
        finally:
            _end_group(process.pid)
    if process.returncode != 0:
        shown = (errors or output).strip()[-_SHOWN_CHARS:]
        raise MachineError(f"{what} failed (exit status {process.returncode}):\n{shown}")
    return output


def _end_group(leader: int) -> None:
    """Ends a session's remaining processes; the leader alone may have left children behind."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
