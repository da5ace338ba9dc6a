"""What the documents claim is checked: dependencies, verbs, commands."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_dependency_has_its_row_and_every_row_its_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        re.split(r"[=<>\[ ]", line)[0]
        for line in [*project["dependencies"], *project["optional-dependencies"]["development"]]
    }
    rows = re.findall(r"^\| ([a-zA-Z0-9_., -]+?) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    described = {name.strip() for row in rows for name in row.split(",")} - {"package", "program"}
    assert declared == described - {"bubblewrap", "chromium"}


def test_every_dependency_is_pinned_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    for line in [*project["dependencies"], *project["optional-dependencies"]["development"]]:
        name = re.split(r"[=<>\[ ]", line)[0].lower()
        assert name in locked or name.replace("-", "_") in locked, name


@pytest.mark.parametrize("document", ["README.md", "docs/getting-started.md"])
def test_every_command_of_the_documents_exists(document: str) -> None:
    """Each `starsmith VERB --option` in a code block is a verb and options that `--help` knows."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    commands = [
        shlex.split(line.removeprefix("$ "), comments=True)
        for block in blocks
        for line in block.splitlines()
        if "starsmith " in line
    ]
    assert commands
    for command in commands:
        words = command[command.index(next(word for word in command if word.endswith("starsmith"))) + 1 :]
        shown = subprocess.run(
            [sys.executable, "-m", "starsmith", words[0], "--help"], capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, f"{document}: no verb {words[0]}"
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.stdout, f"{document}: {words[0]} has no {option}"
