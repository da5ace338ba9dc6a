"""Every attack is made on every level that this machine has.

A container is a level here where STARSMITH_TEST_IMAGE names an image (with Python 3.11 or newer) that Docker or
Podman holds already.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_cases import SHORT, limits, opened, processes_with, run, secret_in

from starsmith.errors import MachineError
from starsmith.evaluation.contract import Limits, Program
from starsmith.evaluation.sandbox import process_tree, selftest
from starsmith.evaluation.sandbox.pool import Sandbox


@pytest.fixture(scope="module", params=[*selftest.LEVELS, "container"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    if request.param == "container":
        if (image := os.environ.get("STARSMITH_TEST_IMAGE")) is None:
            pytest.skip("STARSMITH_TEST_IMAGE names no image")
        with selftest.prepare("container", image=image).open(workers=2) as made:
            yield made
        return
    with opened(request.param) as made:
        yield made


def another(sandbox: Sandbox) -> Sandbox:
    """A sandbox of the same level that starts anew."""
    return Sandbox(sandbox.level, workers=1, container=sandbox.container)


def test_an_honest_program_runs_with_the_standard_library_alone(sandbox: Sandbox) -> None:
    honest, crash, third_party = run(
        sandbox,
        "import sys, typing, collections, re, math\n"
        "print(sorted(sys.stdin.read()), 'numpy' in sys.modules)\n"
        "open('scratch', 'w').write('x'); print(open('scratch').read(), {'a', 'b', 'c'})",
        "raise ValueError('no')",
        "import pyarrow",
    )
    assert (honest.ended, honest.status, honest.stderr) == ("exit", 0, "")
    assert honest.stdout.startswith("[] False\nx {")
    assert crash.status == 1 and crash.stderr.endswith("ValueError: no\n")
    assert '"/program/main.py"' in crash.stderr
    assert "ModuleNotFoundError" in third_party.stderr


def test_results_keep_the_order_and_do_not_depend_on_workers(sandbox: Sandbox) -> None:
    sources = [f"print({n}, hash('text'), {{'x', 'y', 'z'}})" for n in range(6)]
    several = [result.stdout for result in run(sandbox, *sources)]
    assert [text.split()[0] for text in several] == [str(n) for n in range(6)]
    programs = [Program(files=(("main.py", source),), limits=SHORT) for source in sources]
    assert [result.stdout for result in sandbox.run_programs(programs, workers=1)] == several


def test_no_more_programs_run_at_once_than_there_are_workers(sandbox: Sandbox) -> None:
    source = "import time\nstart = time.monotonic(); time.sleep(0.1); print(start, time.monotonic())"
    spans = [tuple(map(float, result.stdout.split())) for result in run(sandbox, *[source] * 12)]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert 1 <= max(at_once) <= 2


def test_it_is_nobody_without_privileges(sandbox: Sandbox) -> None:
    source = (
        "import os\nprint(os.getresuid(), os.getgroups(), sorted(os.environ), [f for f in range(64) if ok(f)])"
    )
    probe = "def ok(f):\n    import os\n    try: os.fstat(f); return True\n    except OSError: return False\n"
    (result,) = run(sandbox, probe + source)
    assert result.status == 0, result.stderr
    if os.geteuid() == 0 or sandbox.level == "bubblewrap":
        assert "(0," not in result.stdout and " 0," not in result.stdout.split(")")[0]
    assert "[0, 1, 2]" in result.stdout, "no descriptor of ours reaches the program"
    assert "USER" not in result.stdout


def test_endless_loops_and_sleeps_time_out(sandbox: Sandbox) -> None:
    loop, sleep, stubborn = run(
        sandbox,
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal\nfor n in range(1, 64):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "while True: pass",
        limits=limits(wall_seconds=4.0),
    )
    assert [result.ended for result in (loop, sleep, stubborn)] == ["timeout"] * 3
    assert "wall" in sleep.detail


def test_a_fork_bomb_is_stopped_and_leaves_nothing(sandbox: Sandbox) -> None:
    mark = f"bomb{time.monotonic_ns()}"
    program = Program(
        files=((f"{mark}.py", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"),),
        limits=limits(wall_seconds=2.0),
    )
    (result,) = sandbox.run_programs([program])
    assert result.ended in ("processes", "timeout")
    assert processes_with(mark) == []


def test_daemons_die_with_the_program(sandbox: Sandbox) -> None:
    mark = f"daemon{time.monotonic_ns()}"
    source = (
        "import os, signal, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() != 0: os._exit(0)\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        os.closerange(0, 3)\n"
        "        time.sleep(300)\n"
        "print('left')\n"
    )
    program = Program(files=((f"{mark}.py", source),), limits=SHORT)
    (result,) = sandbox.run_programs([program])
    assert (result.ended, result.stdout) == ("exit", "left\n")
    assert processes_with(mark) == []


def test_memory_is_limited_for_one_process_and_for_all(sandbox: Sandbox) -> None:
    small = limits(memory_bytes=200 * 1024**2)
    one, many = run(
        sandbox,
        "data = bytearray(300 << 20)",
        "import os, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        data = bytearray(b'x') * (90 << 20)\n"
        "        time.sleep(30)\n"
        "time.sleep(30)\n",
        limits=small,
    )
    assert one.status != 0 and "MemoryError" in one.stderr
    assert many.ended == "oom"


def test_the_disk_is_limited(sandbox: Sandbox) -> None:
    fill = (
        "import time\n"
        "for n in range(100):\n"
        "    with open(f'file{n}', 'wb') as file: file.write(bytes(1 << 20))\n"
        "time.sleep(30)\n"
    )
    deleted = (
        "import os, time\n"
        "kept = []\n"
        "for n in range(60):\n"
        "    kept.append(open('file', 'wb', buffering=0)); kept[-1].write(bytes(1 << 20)); os.unlink('file')\n"
        "time.sleep(30)\n"
    )
    large = "open('file', 'wb').write(bytes(6 << 20)); open('more', 'wb').write(bytes(6 << 20))"
    results = run(sandbox, fill, deleted, large)
    for result in results[:2]:
        assert result.ended == "disk" or "No space left" in result.stderr, result
    assert "File too large" in results[2].stderr


def test_output_is_limited(sandbox: Sandbox) -> None:
    (result,) = run(sandbox, "while True: print('x' * 1000)")
    assert result.ended == "output"
    assert len(result.stdout) <= SHORT.output_bytes + 65_536


def test_nothing_outside_is_read_or_written(sandbox: Sandbox, tmp_path: Path) -> None:
    secret_in(tmp_path)
    attempts = {
        "read": f"open({str(tmp_path / 'secret')!r}).read()",
        "list": f"os.listdir({str(tmp_path)!r})",
        "write": f"open({str(tmp_path / 'new')!r}, 'w')",
        "append": f"open({str(tmp_path / 'secret')!r}, 'a').write('x')",
        "truncate": f"os.truncate({str(tmp_path / 'secret')!r}, 0)",
        "mode": f"os.chmod({str(tmp_path / 'secret')!r}, 0o600)",
        "times": f"os.utime({str(tmp_path / 'secret')!r}, (0, 0))",
        "remove": f"os.unlink({str(tmp_path / 'secret')!r})",
        "link": f"os.symlink({str(tmp_path / 'secret')!r}, 'link') or open('link').read()",
        "hard link": f"os.link({str(tmp_path / 'secret')!r}, 'hard') or open('hard').read()",
        "root": f"open('/proc/self/root' + {str(tmp_path / 'secret')!r}).read()",
        "parent": f"open('/proc/1/root' + {str(tmp_path / 'secret')!r}).read()",
        "environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read() or 1/0",
        "shadow": "open('/etc/shadow').read()",
        "passwords": "open('/etc/passwd').read()",
        "usr": "open('/usr/written', 'w')",
        "own source": "open(__file__, 'w')",
        "interpreter": "open(os.__file__, 'a')",
        "device": "os.mknod('device', 0o600 | 0o060000, os.makedev(8, 0))",
        "mount": "ctypes.CDLL(None).mount(b'/', b'.', None, 4096, None) and 1/0",
        "namespace": "ctypes.CDLL(None).unshare(0x10000000) and 1/0",
        "trace": "ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) and 1/0",
    }
    source = f"import ctypes, os\nfor name, attempt in {attempts!r}.items():\n" + (
        "    try:\n        eval(attempt); print('through', name)\n    except (OSError, ZeroDivisionError): pass\n"
    )
    (result,) = run(sandbox, source)
    assert (result.status, result.stdout) == (0, ""), result
    assert (tmp_path / "secret").read_text() == "sesame"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_no_network(sandbox: Sandbox, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.1)
        (result,) = run(
            sandbox,
            "import socket\n"
            "for family, kind in ((2, 1), (2, 2), (10, 1), (1, 1), (16, 3), (17, 3)):\n"
            "    try:\n"
            "        s = socket.socket(family, kind)\n"
            f"        s.connect(('127.0.0.1', {port})); print('through', family)\n"
            "    except (OSError, TypeError): pass\n"
            f"try: socket.create_connection(('127.0.0.1', {port}), timeout=1); print('through')\n"
            "except OSError: pass\n",
        )
        with pytest.raises(TimeoutError):
            server.accept()
    assert (result.status, result.stdout) == (0, ""), result


def test_other_processes_cannot_be_signalled(sandbox: Sandbox) -> None:
    (result, after) = run(
        sandbox,
        "import os, signal\n"
        f"for pid in (os.getppid(), {os.getpid()}, -1, 1):\n"
        "    if pid != -1 or os.getpid() > 50:  # -1 in a PID namespace would reach only ourselves\n"
        "        try: os.kill(pid, signal.SIGKILL)\n        except OSError: pass\n"
        "print('alive')\n",
        "print('next')",
    )
    assert result.ended in ("exit", "sandbox_error")
    assert after.stdout == "next\n"


def test_a_dead_launcher_is_an_error_of_the_sandbox_and_is_replaced(sandbox: Sandbox) -> None:
    worker = sandbox._workers[0]
    process = worker._running()
    process.kill()
    process.wait()
    first = worker.run(Program(files=(("main.py", "print(1)"),)))
    assert first.stdout == "1\n"
    killed = worker._running()
    program = Program(files=(("main.py", "import time\ntime.sleep(30)"),))
    timer = threading.Timer(0.5, killed.kill)
    timer.start()
    result = worker.run(program)
    timer.join()
    assert result.ended == "sandbox_error" and "launcher" in result.detail
    assert worker.run(Program(files=(("main.py", "print(2)"),))).stdout == "2\n"


def test_closing_ends_what_runs(sandbox: Sandbox) -> None:
    mark = f"closing{time.monotonic_ns()}"
    program = Program(files=((f"{mark}.py", "import time\ntime.sleep(60)"),), limits=Limits(wall_seconds=60.0))
    with another(sandbox) as own:
        thread = threading.Thread(target=own.run_programs, args=([program],))
        thread.start()
        deadline = time.monotonic() + 10
        while not processes_with(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        own.close()
        thread.join(timeout=15)
    assert not thread.is_alive()
    assert processes_with(mark) == []


def test_killing_the_caller_ends_everything(sandbox: Sandbox) -> None:
    mark = f"orphan{time.monotonic_ns()}"
    caller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from starsmith.evaluation.contract import Limits, Program\n"
            "from starsmith.evaluation.sandbox.container import Container\n"
            "from starsmith.evaluation.sandbox.pool import Sandbox\n"
            f"program = Program(files=(('{mark}.py', 'while True: pass'),), limits=Limits(cpu_seconds=60))\n"
            f"made = Sandbox({sandbox.level!r}, workers=1, container={sandbox.container!r})\n"
            "made.run_programs([program])\n",
        ]
    )
    deadline = time.monotonic() + 60  # a busy machine starts processes slowly
    while len(processes_with(f"{mark}.py")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes_with(f"{mark}.py")) >= 2, "the caller and its program"
    caller.kill()
    caller.wait()
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(mark) == []


def test_a_level_that_fails_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        selftest, "attempt", lambda level: selftest.Attempt(level, ("opens a socket",)), raising=True
    )
    with pytest.raises(MachineError, match=r"(?s)bubblewrap: opens a socket.*landlock: opens.*apt-get install"):
        selftest.choose("auto")


def test_auto_takes_the_first_level_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        selftest,
        "attempt",
        lambda level: selftest.Attempt(level, ("no namespaces",) if level == "bubblewrap" else ()),
    )
    level, tried = selftest.choose("auto")
    assert level == "landlock" and [attempt.level for attempt in tried] == ["bubblewrap", "landlock"]
    with pytest.raises(MachineError, match="no namespaces"):
        selftest.choose("bubblewrap")


LIKE_PYTHON = {
    "status": ("import sys\nsys.exit(7)", 7, "", ""),
    "message": ("raise SystemExit('no')", 1, "", "no\n"),
    "left": ("import sys\nprint('x')\nsys.exit()", 0, "x\n", ""),
    "main": (
        "import sys, pickle, dataclasses\n@dataclasses.dataclass\nclass A: n: int = 1\n"
        "assert pickle.loads(pickle.dumps(A())) == A() and sys.modules['__main__'].A is A\n"
        "print(__name__, sys.argv == [__file__], [m for m in sys.modules if 'starsmith' in m])",
        0, "__main__ True []\n", "",
    ),
    "recursion": ("def f(n): return n and f(n - 1)\nf(900)\nprint('deep')", 0, "deep\n", ""),
    "ends": (
        "import atexit, threading, time\natexit.register(print, 'exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "class A:\n    def __del__(self): print('gone')\na = A()\nprint('end')",
        0, "end\nthread\nexit\ngone\n", "",
    ),
    "hook": ("import sys\nsys.excepthook = lambda *a: print('hook', a[1])\n1/0", 1, "hook division by zero\n", ""),
    "path": ("import sys\nprint([p for p in sys.path if 'site-' in p or p.endswith('src')])", 0, "[]\n", ""),
    "forked": ("import os\nif os.fork() == 0: print('child')\nelse:\n    os.wait(); print('parent')", 0,
               "child\nparent\n", ""),
    "environment": ("import os\nprint(sorted(os.environ))", 0,
                    "['HOME', 'LANG', 'PATH', 'PYTHONHASHSEED', 'PYTHONUTF8', 'TMPDIR', 'TZ']\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", LIKE_PYTHON)
def test_a_program_cannot_tell_the_levels_apart(sandbox: Sandbox, name: str) -> None:
    source, status, output, error = LIKE_PYTHON[name]
    (result,) = run(sandbox, source)
    assert (result.ended, result.status, result.stderr) == ("exit", status, error)
    assert result.stdout.replace("PWD', '", "") == output


def test_faults_look_alike_on_every_level(sandbox: Sandbox) -> None:
    syntax, encoding, runtime, chained = run(
        sandbox,
        "def f(:\n    pass",
        "# coding: nonsense\nprint(1)",
        "def f():\n    raise ValueError('no')\nf()",
        "try: 1/0\nexcept ZeroDivisionError: raise KeyError('k')",
    )
    assert "Traceback" not in syntax.stderr and syntax.stderr.endswith("SyntaxError: invalid syntax\n")
    assert "Traceback" not in encoding.stderr and "SyntaxError" in encoding.stderr
    assert runtime.stderr == (
        'Traceback (most recent call last):\n  File "/program/main.py", line 3, in <module>\n    f()\n'
        "  File \"/program/main.py\", line 2, in f\n    raise ValueError('no')\nValueError: no\n"
    )
    assert "forked" not in chained.stderr and chained.stderr.count("Traceback") == 2


def test_no_secret_of_the_caller_is_in_a_programs_memory(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", "sesame-open-1234")
    source = (
        "import re\n"
        "found, secret = 0, re.compile(b'sesam[e]-open-[1]234')  # a pattern that does not match itself\n"
        "for line in open('/proc/self/maps'):\n"
        "    start, end = (int(part, 16) for part in line.split()[0].split('-'))\n"
        "    if 'r' not in line.split()[1] or '[v' in line: continue\n"
        "    with open('/proc/self/mem', 'rb', buffering=0) as memory:\n"
        "        memory.seek(start)\n"
        "        try: found += len(secret.findall(memory.read(end - start)))\n"
        "        except OSError: pass\n"
        "print(found)"
    )
    with another(sandbox) as own:
        (result,) = run(own, source)
    assert (result.ended, result.stdout) == ("exit", "0\n"), result


def test_the_tree_that_is_watched_is_the_tree_that_is_ended() -> None:
    """Below a process with a thread that has a child of its own."""
    source = (
        "import os, threading, time\n"
        "def child():\n    if os.fork() == 0:\n        os.fork(); time.sleep(30)\n    time.sleep(30)\n"
        "threading.Thread(target=child, daemon=True).start(); child()\n"
    )
    looks = (process_tree.descendants, process_tree.watched_descendants)
    with subprocess.Popen([sys.executable, "-c", source]) as process:
        deadline = time.monotonic() + 20
        while len(looks[0](process.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        trees = [{each.pid: (each.parent, each.num_threads) for each in look(process.pid)} for look in looks]
        for pid in trees[0]:
            os.kill(pid, signal.SIGKILL)
        process.kill()
    assert trees[0] == trees[1] and len(trees[0]) == 4
