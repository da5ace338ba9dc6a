"""The levels that are used only when asked for: a container, and none.

What needs an engine runs where STARSMITH_TEST_IMAGE names an image that it holds.
"""

import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from sandbox_cases import SHORT, limits, processes_with, run

from starsmith import recipe
from starsmith.errors import InputError, MachineError
from starsmith.evaluation import runner
from starsmith.evaluation.contract import Program
from starsmith.evaluation.sandbox import container, selftest
from starsmith.evaluation.sandbox.container import Container
from starsmith.evaluation.sandbox.pool import Sandbox

DOCKER = Container("docker", "/usr/bin/docker", "python:3.11-slim", "sha256:1234")
PODMAN = Container("podman", "/usr/bin/podman", "python:3.11-slim", "5678")


def option(arguments: list[str], name: str) -> list[str]:
    return [value for word, value in itertools.pairwise(arguments) if word == name]


@pytest.mark.parametrize("chosen", [DOCKER, PODMAN])
def test_a_container_gives_nothing_away(chosen: Container) -> None:
    arguments = container.command(
        chosen, "starsmith-1", Path("/src/starsmith"), container.launcher_arguments("go")
    )
    assert arguments[:2] == [chosen.path, "run"]
    assert option(arguments, "--network") == ["none"] and option(arguments, "--cap-drop") == ["ALL"]
    assert option(arguments, "--security-opt") == ["no-new-privileges"] and option(arguments, "--user") == [
        "65534:65534"
    ]
    assert {"--read-only", "--rm", "--interactive"} <= set(arguments)
    assert option(arguments, "--memory") == option(arguments, "--memory-swap") == [str(container.MEMORY_BYTES)]
    assert option(arguments, "--pids-limit") == ["512"] and option(arguments, "--pull") == ["never"]
    assert option(arguments, "--volume") == ["/src/starsmith:/starsmith/starsmith:ro"], "and no other folder"
    assert option(arguments, "--log-driver") == ["none"], "what programs print is not kept by a daemon"
    assert option(arguments, "--name") == ["starsmith-1"]
    (memory,) = option(arguments, "--tmpfs")
    assert memory.startswith("/tmp:") and "nosuid" in memory and f"size={container.DISK_BYTES}" in memory
    assert arguments.index(chosen.image_id) < arguments.index("go"), "the launcher's arguments follow the image"
    assert not {"--privileged", "--cap-add", "--device", "--publish"} & set(arguments)
    secrets = [value for value in option(arguments, "--env") if value.partition("=")[0] in ("HOME", "USER")]
    assert secrets == []
    assert ("--read-only-tmpfs=false" in arguments) == (chosen.engine == "podman")


def engine(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_an_absent_engine_is_named_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MachineError, match=r"(?s)docker: not installed \(apt-get install docker.*podman: not inst"
    ):
        selftest.prepare("container")
    with pytest.raises(MachineError, match="docker: not installed") as caught:
        selftest.prepare("docker")
    assert "podman" not in str(caught.value)


def test_an_engine_without_daemon_or_image_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    engine(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1")
    engine(tmp_path, "podman", "echo 'Error: inspecting object: my-image: image not known' >&2; exit 125")
    with pytest.raises(MachineError) as caught:
        selftest.prepare("container", image="my-image")
    told = str(caught.value)
    assert "docker: does not answer: Cannot connect" in told and "start its daemon" in told
    assert "podman: has no image my-image; get it with: podman pull my-image" in told


def test_a_container_that_cannot_start_is_no_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    engine(tmp_path, "docker", 'test "$1" = image && echo id && exit 0\necho "no runtime here" >&2; exit 125')
    with pytest.raises(MachineError, match=r"(?s)confines no program here.*status 125: no runtime here"):
        selftest.prepare("docker", image=f"broken-{tmp_path.name}")


def test_a_container_runs_python_alone() -> None:
    with Sandbox("container", workers=1, container=DOCKER) as sandbox:
        (result,) = sandbox.run_programs([Program(language="cpp", files=(("main.cpp", "int main() {}"),))])
    assert result.ended == "sandbox_error" and "Python alone" in result.detail
    config = recipe.Evaluation(sandbox="docker")
    assert runner._missing(["cpp", "python"], config) == {
        "cpp": "containers run Python alone: choose another sandbox"
    }


def test_a_recipe_names_what_there_is() -> None:
    fields = recipe.Evaluation.model_fields
    assert fields["sandbox_image"].default == container.DEFAULT_IMAGE
    assert set(get_args(fields["sandbox"].annotation)) == set(get_args(selftest.Wanted))


def test_images_are_part_of_a_verdicts_key() -> None:
    names = [Sandbox("container", workers=1, container=each).identity for each in (DOCKER, PODMAN)]
    assert len({*names, Sandbox("landlock", workers=1).identity}) == 3


def test_none_needs_its_word() -> None:
    with pytest.raises(InputError, match=r"generated_code_runs_unconfined = true.*--i-know-generated-code-runs"):
        selftest.prepare("none")
    with pytest.raises(InputError, match="unconfined"):
        selftest.prepare(recipe.Evaluation(sandbox="none").sandbox)


@pytest.mark.skipif(sys.platform != "linux", reason="programs without a sandbox run on Linux alone")
def test_none_still_limits_and_is_labelled() -> None:
    prepared = selftest.prepare("none", runs_unconfined=True)
    assert prepared.description() == {
        "level": "none", "refused": {}, "confined": False, "python": platform.python_version()
    }  # fmt: skip
    mark = f"unconfined{os.getpid()}"
    with prepared.open(workers=2) as sandbox:
        honest, loop, memory, output = run(
            sandbox,
            "print(open(__file__).read()[:5])",
            "while True: pass",
            "data = bytearray(300 << 20)",
            "while True: print('x' * 1000)",
            limits=limits(memory_bytes=200 * 1024**2),
        )
        daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\nprint('left')\n"
        (left,) = sandbox.run_programs([Program(files=((f"{mark}.py", daemon),), limits=SHORT)])
    assert honest.stdout == "print\n"
    assert [each.ended for each in (loop, output)] == ["timeout", "output"] and "MemoryError" in memory.stderr
    assert left.stdout == "left\n" and processes_with(mark) == []


def test_other_systems_are_sent_to_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    selftest.attempt.cache_clear()
    try:
        with pytest.raises(MachineError, match=r"(?s)needs Linux, this is Darwin.*--sandbox docker or") as caught:
            selftest.choose("auto")
        assert "apt-get" not in str(caught.value)
        with pytest.raises(MachineError, match=r"run on Linux alone.*--sandbox docker"):
            selftest.prepare("none", runs_unconfined=True)
    finally:
        selftest.attempt.cache_clear()


@pytest.fixture(scope="module")
def prepared() -> Iterator[selftest.Prepared]:
    if (image := os.environ.get("STARSMITH_TEST_IMAGE")) is None:
        pytest.skip("STARSMITH_TEST_IMAGE names no image")
    yield selftest.prepare("container", image=image)


def test_programs_of_one_container_do_not_meet(prepared: selftest.Prepared) -> None:
    write = (
        "import os\nfor folder in ('/tmp', '/dev/shm', '/var/tmp', '/run', '.'):\n"
        "    try: open(folder + '/left', 'w').write('x'); os.makedirs(folder + '/a/b')\n    except OSError: pass\n"
    )
    read = (
        "import os\nprint([f for f in ('/tmp', '/dev/shm', '/var/tmp', '/run') if os.path.exists(f + '/left')],"
        " os.listdir('.'))"
    )
    with prepared.open(workers=1) as sandbox:
        _, found = run(sandbox, write, read)
    assert found.stdout == "[] []\n", found


def test_a_container_is_ended_from_outside(prepared: selftest.Prepared) -> None:
    assert prepared.container is not None
    sandbox = prepared.open(workers=1)
    run(sandbox, "print(1)")
    worker = sandbox._workers[0]
    worker._running().kill()  # the client alone: the container lives on without it
    sandbox.close()
    listed = subprocess.run(
        [prepared.container.path, "ps", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert worker._name not in listed.stdout
