"""What this machine can do, in one list: what is there, and what to install for the rest."""

import os
import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

_MIN_MEMORY_BYTES = 3_000_000_000
_MIN_DISK_BYTES = 5_000_000_000


@dataclass(frozen=True, kw_only=True)
class Finding:
    name: str
    good: bool
    detail: str
    needed: bool = False
    """Without it the main job cannot run."""


def examine(folder: Path = Path()) -> list[Finding]:
    """Looks at the machine; the sandbox levels are attacked for real, which takes some seconds."""
    return [*_hardware(folder), _accelerator(), *_sandboxes(), *_toolchains()]


def _hardware(folder: Path) -> list[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().available
    disk = shutil.disk_usage(folder).free
    return [
        Finding(
            name="Python", good=True, detail=f"{platform.python_version()} on {platform.platform()}", needed=True
        ),
        Finding(name="cores", good=cores >= 1, detail=str(cores), needed=True),
        Finding(
            name="memory",
            good=memory >= _MIN_MEMORY_BYTES,
            detail=f"{memory / 1e9:.1f} GB free; the quickstart needs {_MIN_MEMORY_BYTES / 1e9:.0f} GB",
            needed=True,
        ),
        Finding(
            name="disk",
            good=disk >= _MIN_DISK_BYTES,
            detail=f"{disk / 1e9:.1f} GB free here; the quickstart needs {_MIN_DISK_BYTES / 1e9:.0f} GB",
            needed=True,
        ),
    ]


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding(name="accelerator", good=True, detail=torch.cuda.get_device_name())
    return Finding(name="accelerator", good=False, detail="none; models train on the processor")


def _sandboxes() -> list[Finding]:
    from starsmith.evaluation.sandbox import selftest

    attempts = [selftest.attempt(level) for level in selftest.LEVELS]
    levels = [
        Finding(
            name=f"sandbox {attempt.level}",
            good=not attempt.failures,
            detail="stops every attack of the self-test" if not attempt.failures else "; ".join(attempt.failures),
        )
        for attempt in attempts
    ]
    working = next((level.name for level in levels if level.good), None)
    return [
        *levels,
        Finding(
            name="generated programs",
            good=working is not None,
            detail=f"run in {working}"
            if working
            else "cannot be run safely here, save in a container (--sandbox docker or podman)",
            needed=True,
        ),
    ]


def _toolchains() -> list[Finding]:
    """A line for each language of generated programs; an absent one costs only the problems in it."""
    from starsmith.evaluation import toolchains

    names = (*toolchains.TOOLCHAINS, toolchains.RUST_WITH_CRATES, *toolchains.ENVIRONMENTS, *toolchains.TOOLS)
    chains = [toolchains.find(name) for name in names]
    with ThreadPoolExecutor() as threads:
        versions = list(threads.map(lambda chain: chain.version(), chains))
    return [
        Finding(
            name=f"toolchain {chain.title}",
            good=version is not None,
            detail=version or f"what needs it is skipped; {chain.install}",
        )
        for chain, version in zip(chains, versions, strict=True)
    ]
