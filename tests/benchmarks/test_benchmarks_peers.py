"""A peer runs in its own environment, and whatever goes wrong there is one clear error here."""

import re
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from benchmarks import peers
from starsmith.errors import MachineError


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a peer's script, to be run by this Python."""
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    monkeypatch.setattr(peers, "environment", lambda name: Path(sys.executable))

    def write(text):
        (tmp_path / "script.py").write_text(text)
        return "script.py"

    return write


def test_the_last_line_is_the_answer(script):
    name = script("import json, sys\nprint('noise')\nprint(json.dumps({'arguments': sys.argv[1:]}))")
    assert peers.run("any", name, "one", "two words", timeout_seconds=60) == {"arguments": ["one", "two words"]}


@pytest.mark.parametrize("text", ["", "print('done')", "print([1, 2])"])
def test_no_answer_is_said(script, text):
    with pytest.raises(MachineError, match="should print a JSON object"):
        peers.run("any", script(text), timeout_seconds=60)


def test_a_failure_shows_what_the_peer_said(script):
    with pytest.raises(MachineError, match=r"(?s)failed \(exit status 1\).*ZeroDivisionError"):
        peers.run("any", script("1 / 0"), timeout_seconds=60)


def test_a_peer_that_hangs_is_ended_with_its_children(script, tmp_path):
    name = script(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    with pytest.raises(MachineError, match="took longer than 3 s"):
        peers.run("any", name, timeout_seconds=3)
    child = int((tmp_path / "child").read_text())
    with pytest.raises(psutil.NoSuchProcess):
        psutil.Process(child).wait(timeout=10)
        raise psutil.NoSuchProcess(child)


def test_an_environment_of_its_own(cache_folder, tmp_path, monkeypatch):
    place = tmp_path / "lonely-1.0-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as wheel:
        wheel.writestr("lonely.py", "ANSWER = 42\n")
        wheel.writestr("lonely-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lonely\nVersion: 1.0\n")
        wheel.writestr(
            "lonely-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("lonely-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(peers, "PEERS", {"lonely": ("--no-index", str(place))})
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    (tmp_path / "ask.py").write_text(
        "import importlib.util, json, lonely\n"
        "print(json.dumps({'answer': lonely.ANSWER, 'ours': importlib.util.find_spec('starsmith') is not None}))"
    )
    assert peers.run("lonely", "ask.py", timeout_seconds=60) == {"answer": 42, "ours": False}
    place.unlink()  # so that a second installation would fail
    assert peers.run("lonely", "ask.py", timeout_seconds=60)["answer"] == 42


def test_every_requirement_is_pinned():
    for name, requirements in peers.PEERS.items():
        for requirement in requirements:
            assert requirement.startswith("--") or re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+", requirement), (
                name
            )


def test_scripts_are_valid_python():
    for place in peers.SCRIPTS.glob("*.py"):
        compile(place.read_text(), str(place), "exec")


def test_a_peer_that_cannot_be_installed(cache_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PEERS", {"any": ("any==1",)})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(2):
        with pytest.raises(MachineError, match="installing peer any failed"):
            peers.run("any", "ask.py", timeout_seconds=60)
