"""Hostile programs in other languages, and programs that attack whoever compiles them, on every level that runs
them."""

import dataclasses
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_cases import SHORT, limits, opened, run, secret_in

from starsmith.evaluation import toolchains
from starsmith.evaluation.contract import Program
from starsmith.evaluation.sandbox import selftest
from starsmith.evaluation.sandbox.pool import Sandbox


@pytest.fixture(scope="module", params=selftest.LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with opened(request.param) as made:
        yield made


HOSTILE_CPP = r"""
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <unistd.h>
static void through(const char* what) { printf("through %s\n", what); }
int main() {
  const char* secret = "@SECRET@";
  for (int n = 1; n < 64; n++) signal(n, SIG_IGN);
  if (open(secret, O_RDONLY) >= 0) through("read");
  if (open(secret, O_WRONLY | O_TRUNC) >= 0) through("write");
  if (chmod(secret, 0) == 0) through("chmod");
  if (unlink(secret) == 0) through("unlink");
  symlink(secret, "link");
  if (open("link", O_RDONLY) >= 0) through("link");
  if (link(secret, "hard") == 0) through("hard link");
  if (open("/proc/1/root/etc/shadow", O_RDONLY) >= 0) through("root of init");
  char path[4096]; snprintf(path, sizeof path, "/proc/self/root%s", secret);
  if (open(path, O_RDONLY) >= 0) through("own root");
  if (open("../../../../../../../../etc/shadow", O_RDONLY) >= 0) through("dots");
  sockaddr_in to{}; to.sin_family = AF_INET; to.sin_port = htons(@PORT@);
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd >= 0 && connect(fd, (sockaddr*)&to, sizeof to) == 0) through("network");
  if (mount("/", "/tmp", nullptr, MS_BIND, nullptr) == 0) through("mount");
  if (ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0) through("trace");
  if (kill(@PID@, SIGKILL) == 0) through("kill");
  if (setuid(0) == 0) through("root");
  if (fork() == 0) {
    setsid();
    if (fork() == 0) { close(0); close(1); close(2); for (;;) sleep(1); }
    _exit(0);
  }
  puts("done");
}
"""
HOSTILE_SH = r"""
trap '' INT TERM HUP
exec 2>/dev/null
cat '@SECRET@' && echo through read
echo x > '@SECRET@' && echo through write
ln -s '@SECRET@' link && cat link && echo through link
cat /etc/shadow && echo through shadow
cat "/proc/self/root@SECRET@" && echo through root
(exec 3<>/dev/tcp/127.0.0.1/@PORT@) && echo through network
kill -9 @PID@ && echo through kill
touch /usr/written && echo through usr
rm -rf /usr /lib /program
(setsid bash -c 'while :; do sleep 1; done' &) >/dev/null
echo done
"""


@pytest.mark.parametrize(
    ("language", "name", "source"), [("cpp", "main.cpp", HOSTILE_CPP), ("sh", "main.sh", HOSTILE_SH)]
)
def test_hostile_programs_in_other_languages(
    sandbox: Sandbox, tmp_path: Path, language: str, name: str, source: str
) -> None:
    if toolchains.find(language).version() is None:
        pytest.skip(toolchains.find(language).install)
    secret = secret_in(tmp_path)
    victim = subprocess.Popen(["sleep", "60"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        for mark, value in (("SECRET", secret), ("PORT", server.getsockname()[1]), ("PID", victim.pid)):
            source = source.replace(f"@{mark}@", str(value))
        server.settimeout(0.1)
        (result,) = sandbox.run_programs([Program(language=language, files=((name, source),), limits=SHORT)])
        with pytest.raises(TimeoutError):
            server.accept()
    assert victim.poll() is None, "a process outside was killed"
    victim.kill()
    victim.wait()
    assert (result.ended, result.status, result.stdout) == ("exit", 0, "done\n"), result
    assert secret.read_text() == "sesame" and secret.stat().st_mode & 0o777 == 0o666
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert not Path("/usr/written").exists()
    (after,) = run(sandbox, "print('next')")
    assert after.stdout == "next\n"


GREEDY_CPP = {
    "forks": ("#include <unistd.h>\nint main() { for (;;) fork(); }", {"processes", "timeout", "oom"}),
    "memory": (
        "#include <cstdlib>\n#include <cstring>\nint main() { for (;;) { char* p = (char*)malloc(1 << 20);"
        " if (p) memset(p, 1, 1 << 20); } }",
        {"oom", "timeout"},
    ),
    "disk": (
        "#include <cstdio>\n#include <cstring>\nint main() { static char b[1 << 20]; memset(b, 1, sizeof b);"
        " for (int n = 0;; n++) { char p[32]; sprintf(p, \"f%d\", n);"
        " if (FILE* f = fopen(p, \"w\")) { fwrite(b, 1, sizeof b, f); fclose(f); } } }",
        {"disk", "timeout"},
    ),
    "output": ("#include <cstdio>\nint main() { for (;;) puts(\"x\"); }", {"output"}),
}  # fmt: skip


@pytest.mark.parametrize("name", GREEDY_CPP)
def test_a_compiled_program_takes_no_more_than_it_may(sandbox: Sandbox, name: str) -> None:
    if toolchains.find("cpp").version() is None:
        pytest.skip(toolchains.find("cpp").install)
    source, ends = GREEDY_CPP[name]
    chosen = limits(wall_seconds=3.0, memory_bytes=128 * 1024**2)
    before = shutil.disk_usage("/").free
    (result,) = sandbox.run_programs([Program(language="cpp", files=(("main.cpp", source),), limits=chosen)])
    assert result.ended in ends, result
    assert shutil.disk_usage("/").free > before - 2 * 1024**3, "what it wrote is gone"


READING_COMPILERS = {
    "include": ("cpp", "main.cpp", '#include "@SECRET@"\nint main() {}\n'),
    "include of passwords": ("cpp", "main.cpp", '#include "/etc/shadow"\nint main() {}\n'),
    "through /proc": ("cpp", "main.cpp", '#include "/proc/self/root@SECRET@"\nint main() {}\n'),
    "binary": (
        "cpp",
        "main.cpp",
        '#include <cstdio>\nasm(".data\\n.globl s\\ns: .incbin \\"@SECRET@\\"\\n.byte 0\\n.text\\n");\n'
        'extern "C" char s[];\nint main() { puts(s); }\n',
    ),
    "crate": ("rs", "main.rs", 'fn main() { println!("{}", include_str!("@SECRET@")); }\n'),
}


@pytest.mark.parametrize("name", READING_COMPILERS)
def test_a_compiler_reads_no_more_than_its_program(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    language, file, source = READING_COMPILERS[name]
    if toolchains.find(language).version() is None:
        pytest.skip(toolchains.find(language).install)
    source = source.replace("@SECRET@", str(secret_in(tmp_path)))
    (result,) = sandbox.run_programs([Program(language=language, files=((file, source),), limits=SHORT)])
    assert result.ended == "compile", result
    said = result.stdout + result.stderr + result.detail
    assert "sesame" not in said and "root:" not in said


GREEDY_SOURCES = {
    "templates without end": "template<int N> struct A { static const int v = A<N + 1>::v; };\nint x = A<0>::v;\n",
    "templates without number": (
        "template<int N, long M> struct F { static const int v = F<N - 1, 2 * M>::v + F<N - 1, 2 * M + 1>::v; };\n"
        "template<long M> struct F<0, M> { static const int v = 1; };\nint x = F<24, 1>::v;\n"
    ),
    "macros": "#define A(x) x x x x x x x x x x x x x x x x\nint x = 0 A(A(A(A(A(A(A(+1)))))));\n",
    "a file that includes itself": "#include __FILE__\n#include __FILE__\n",
    "a device": '#include "/dev/zero"\n',
    "a giant binary": "char data[4L << 30] = {1};\n",
    "a giant message": "int x = " + " + ".join(f"undefined_{n}" for n in range(20_000)) + ";\n",
}


@pytest.mark.parametrize("name", GREEDY_SOURCES)
def test_a_compiler_takes_no_more_than_it_may(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With limits that are cut, so that the test does not last as long as a compiler may."""
    if toolchains.find("cpp").version() is None:
        pytest.skip(toolchains.find("cpp").install)
    cut = {"cpu_seconds": 2.0, "wall_seconds": 10.0, "memory_bytes": 256 * 1024**2}
    cut |= {"disk_bytes": 32 * 1024**2, "file_bytes": 16 * 1024**2}
    monkeypatch.setattr(toolchains, "COMPILING", dataclasses.replace(toolchains.COMPILING, **cut))
    source = GREEDY_SOURCES[name] + "int main() {}\n"
    (result,) = sandbox.run_programs([Program(language="cpp", files=(("main.cpp", source),), limits=SHORT)])
    assert result.ended in ("compile", "timeout", "oom", "output", "disk"), result
    assert len(result.stdout) + len(result.stderr) <= 2 * SHORT.output_bytes
    (after,) = run(sandbox, "print('next')")
    assert after.stdout == "next\n"
