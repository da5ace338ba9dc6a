"""What the documents claim is checked: dependencies, verbs, commands."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    if re.search(r"^(\$ )?(\S*/)?starsmith ", path.read_text(), re.MULTILINE)
)
"""Those that show a command."""


def declared_dependencies() -> set[str]:
    """Names of the default install and of all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    names = {re.split(r"[=<>\[ ]", line)[0] for line in [*project["dependencies"], *extras]}
    return names - {project["name"]}


def test_every_dependency_has_its_row_and_every_row_its_dependency() -> None:
    rows = re.findall(r"^\| ([a-zA-Z0-9_., -]+?) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    described = {name.strip() for row in rows for name in row.split(",")} - {"package", "program"}
    assert declared_dependencies() == described - {"bubblewrap", "chromium", "clamav-daemon", "docker", "podman"}


def test_every_dependency_is_pinned_in_the_lock() -> None:
    locked = {line.split("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    for name in declared_dependencies():
        assert name.lower() in locked or name.lower().replace("-", "_") in locked, name


@pytest.mark.parametrize("document", DOCUMENTS)
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
        verb = words[:2] if words[0] == "opt-out" else words[:1]
        shown = subprocess.run(
            [sys.executable, "-m", "starsmith", *verb, "--help"], capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0, f"{document}: no verb {' '.join(verb)}"
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.stdout, f"{document}: {' '.join(verb)} has no {option}"
