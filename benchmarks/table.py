"""The form of every benchmark: rows that set us beside a peer or a target, as a table and as JSON."""

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

Direction = Literal["at most", "at least"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. `ratio` is ours to the peer; `target` bounds `ours`, or the ratio where there is a peer."""

    name: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    target: float | None = None
    holds: bool | None = None


def row(
    name: str,
    ours: float,
    unit: str,
    *,
    peer: float | None = None,
    peer_name: str | None = None,
    target: float | None = None,
    direction: Direction = "at most",
) -> Row:
    """A row whose ratio and verdict follow from its numbers."""
    ratio = ours / peer if peer else None
    judged = ours if ratio is None else ratio
    holds = None if target is None else (judged <= target if direction == "at most" else judged >= target)
    return Row(
        name=name, ours=ours, unit=unit, peer=peer, peer_name=peer_name, ratio=ratio, target=target, holds=holds
    )


def options(description: str) -> argparse.Namespace:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--scale", choices=("small", "full"), default="full")
    return parser.parse_args()


def publish(rows: Sequence[Row], packages: Sequence[str], destination: Path | None) -> None:
    """Prints the table and, where asked, writes the JSON."""
    table = Table("what", "ours", "unit", "peer", "ratio", "target", "holds")
    for entry in rows:
        table.add_row(
            entry.name,
            f"{entry.ours:,.2f}",
            entry.unit,
            "" if entry.peer is None else f"{entry.peer:,.2f} ({entry.peer_name})",
            "" if entry.ratio is None else f"{entry.ratio:.2f}",
            "" if entry.target is None else f"{entry.target:g}",
            {None: "", True: "yes", False: "NO"}[entry.holds],
        )
    Console().print(table)
    if destination is not None:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": psutil.virtual_memory().total,
            "system": platform.platform(),
        }
        versions = {name: importlib.metadata.version(name) for name in ("starsmith", *packages)}
        report = {"rows": [asdict(entry) for entry in rows], "machine": machine, "versions": versions}
        destination.write_text(json.dumps(report, indent=1))
