"""What a step is: a function with a name, a version, parameters and inputs, and the key made of these.

Equal keys mean equal results, so a committed result is reused and never remade. A key covers the keys of the
inputs, hence everything before it; `version` is raised by hand when the code of a step would give another
result. Whatever else a result depends on (a package's bytes, a benchmark list, a library's data) must be in
`params`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from starsmith.corpus.engine import Progress, silent
from starsmith.corpus.query import Tables
from starsmith.corpus.store import Draft, Result, canonical_digest

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A committed result of the same step and version, and of the parameters that matter."""

    result: Result
    inputs: Mapping[str, Result]
    """Those that are still in the store."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a running step may use."""

    inputs: Mapping[str, Result]
    draft: Draft
    workers: int
    earlier: Sequence[Earlier] = ()
    """For incremental steps, the latest first; whether there are any must not change a byte of the result."""
    progress: Progress = silent

    def tables(self) -> Tables:
        """Every Parquet table of the inputs, by name."""
        return tables_of(self.inputs)


@dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    """`room/what`; also its folder in the store."""
    version: int
    run: Callable[[Context], Facts]
    """Fills the draft and returns facts worth noting (JSON values)."""
    about: str
    """One line for people."""
    reads: Literal["sources", "text", "columns", "tokens", "results"]
    """What it has to read: a changed threshold must only cause steps that read columns until documents."""
    inputs: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    """Files that speak of time and are therefore not hashed."""
    incremental: bool = False
    """Takes over what earlier results of the same step hold."""
    earlier_params: tuple[str, ...] | None = None
    """The parameters in which these must be equal; all, if None."""
    distributed: bool = False
    """Runs on every rank of a launcher."""
    group: str | None = None
    """Steps of one group are independent, picklable, and run side by side."""

    def key(self, input_keys: Mapping[str, str]) -> str:
        return canonical_digest(self.identity(input_keys))[:20]

    def identity(self, input_keys: Mapping[str, str]) -> dict[str, Any]:
        return {
            "step": self.name,
            "version": self.version,
            "params": dict(self.params),
            "inputs": {name: input_keys[name] for name in self.inputs},
        }


def tables_of(results: Mapping[str, Result]) -> dict[str, list[Path]]:
    """Table name to parts, over several results; a table that two results hold is the later one's."""
    tables: dict[str, list[Path]] = {}
    for result in results.values():
        for table in sorted({name.partition("/")[0] for name in result.manifest["files"] if "/" in name}):
            parts = [part for part in result.parts(table) if part.suffix == ".parquet"]
            if parts:
                tables[table] = parts
    return tables


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value stands in a column, sorted by value: a fact worth noting."""
    found = {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
    return {str(name): found[name] for name in sorted(found)}
