"""What a stage has produced so far, one JSON object a line, so that a killed run goes on where it stopped.

Lines are only appended. A line that a kill cut off is not JSON and is passed over; what it stood for is done
again. The journal lies beside the results while the run lasts and goes when they are complete.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starsmith.errors import MachineError


class Journal:
    """Results by key, in memory and in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] = {}
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                try:
                    entry = json.loads(line)
                    self._entries[entry["key"]] = entry["value"]
                except (ValueError, TypeError, KeyError):
                    continue

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def add(self, entries: Mapping[str, Any]) -> None:
        """Appends entries and waits until the disk has them.

        Raises:
            MachineError: the disk refuses (full, read-only).
        """
        if not entries:
            return
        lines = [json.dumps({"key": key, "value": value}) for key, value in entries.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                # The newline in front ends a line that an earlier run left torn.
                file.write(("\n" + "\n".join(lines) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MachineError(f"{self._path} cannot be written: {error}") from error
        self._entries |= entries
