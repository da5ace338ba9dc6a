"""Runs one static analyser on one program, inside the sandbox, and says what it found in one short line.

It is a program's entry there, beside `task.json` and the source, and knows nothing of us: the standard library
and the analyser are all it has. Analysers write reports of hundreds of kilobytes (GCC explains every path), and
what leaves the sandbox is kept only in part, so each report is reduced here to rules and lines. Its own proof
follows, as for any program.

Two analysers need help. GCC is run twice, since its path analysis sees what is written only without optimisation
and its overflow warnings see sizes only with it. Clang's taint analysis knows `getenv` as untrusted and, before
version 17, not a program's arguments: the source is included below a `main` that passes it an argument from there.
One checker of Clang's may find several weaknesses, which only its messages tell apart.
"""

import importlib
import json
import pathlib
import plistlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

Found = list[tuple[str, int]]
"""Rules and lines."""

_MAX_FINDINGS: Final = 40
_ARGUMENT: Final = """#include <stdlib.h>
#define main scenario_main
#include "{source}"
#undef main
int main(void) {{ char *arguments[] = {{"scenario", getenv("ARGUMENT"), 0}}; return scenario_main(2, arguments); }}
"""


def _ran(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _refused(done: subprocess.CompletedProcess[str]) -> NoReturn:
    sys.stderr.write(done.stderr[-2000:])
    sys.exit(2)


def compiled(tool: str, source: str) -> Found:
    """Whether GCC compiles it, as the scenarios' authors ask it to."""
    done = _ran([tool, "-g", "-O", "-c", source, "-o", "completion.o"])
    if done.returncode:
        _refused(done)
    return []


def gcc(tool: str, source: str) -> Found:
    found = []
    for options in (
        ("-O0", "-fanalyzer"),
        ("-O2", "-Wall", "-Wformat-overflow=2", "-Wstringop-overflow=4", "-Wuse-after-free=2"),
    ):
        done = _ran([tool, *options, "-fdiagnostics-format=json", "-c", source, "-o", "completion.o"])
        if done.returncode:
            _refused(done)
        for entry in json.loads(done.stderr.splitlines()[0]) if done.stderr.strip() else []:
            place = entry["locations"][0]["caret"] if entry.get("locations") else {}
            if place.get("file") == source and "option" in entry:
                found.append((entry["option"], place["line"]))
    return found


def clang(tool: str, source: str) -> Found:
    pathlib.Path("argument.c").write_text(_ARGUMENT.format(source=source))
    checkers = "core,unix,alpha.security.taint"
    for entry in ("argument.c", source):
        command = [tool, "--analyze", "-Xclang", f"-analyzer-checker={checkers}"]
        done = _ran([*command, "-Xclang", "-analyzer-output=plist-multi-file", "-o", "report.plist", entry])
        if done.returncode == 0:
            break
    else:
        _refused(done)
    report = plistlib.loads(pathlib.Path("report.plist").read_bytes())
    return [
        (f"{entry['check_name']}/{entry['description'].partition(' (')[0]}", entry["location"]["line"])
        for entry in report["diagnostics"]
        if report["files"][entry["location"]["file"]].endswith(source)
    ]


def bandit(_: str, source: str) -> Found:
    sys.argv = ["bandit", "-q", "--ignore-nosec", "-f", "json", "-o", "report.json", source]
    try:
        importlib.import_module("bandit.cli.main").main()
    except SystemExit as ended:
        if ended.code not in (0, 1):
            raise
    report = json.loads(pathlib.Path("report.json").read_text())
    if report["errors"]:
        raise SystemExit(f"bandit: {report['errors'][0]['reason']}")
    return [(f"{entry['test_id']}/{entry['issue_severity']}", entry["line_number"]) for entry in report["results"]]


def codeql(tool: str, source: str, language: str, query: str) -> Found:
    pathlib.Path("source").mkdir()
    pathlib.Path("source", source).write_bytes(pathlib.Path(source).read_bytes())
    create = [tool, "database", "create", "database", f"--language={language}", "--source-root=source"]
    if language == "cpp":
        create.append(f"--command=gcc -g -O -c {source} -o completion.o")
    analyze = [tool, "database", "analyze", "database", query]
    for command in (create, [*analyze, "--format=sarif-latest", "--output=report.sarif"]):
        done = _ran(command)
        if done.returncode:
            _refused(done)
    report = json.loads(pathlib.Path("report.sarif").read_text())
    return [
        (result["ruleId"], result["locations"][0]["physicalLocation"]["region"]["startLine"])
        for run in report["runs"]
        for result in run["results"]
    ]


def main() -> None:
    folder = pathlib.Path(__file__).parent
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    source = task["source"]
    pathlib.Path(source).write_bytes((folder / source).read_bytes())
    asks: dict[str, Callable[..., Found]] = {
        function.__name__: function for function in (compiled, gcc, clang, bandit, codeql)
    }
    tool = sys.argv[1] if len(sys.argv) > 1 else ""
    found = asks[task["asks"]](tool, source, *task["arguments"])
    print(json.dumps(sorted(set(found))[:_MAX_FINDINGS]))
    print(task["proof"])


if __name__ == "__main__":
    main()
