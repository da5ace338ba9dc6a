"""Copies of programs as they turn up in repositories: reformatted, commented, renamed, shortened."""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass

DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A Python function with what is asked of it in a docstring."""

    problem: str
    head: str
    """Up to and with the docstring."""
    body: str
    """What solves the problem."""

    @property
    def text(self) -> str:
        return self.head + self.body


def _spread(program: Program) -> str:
    return re.sub(r" +", "\t ", program.text).replace("\n", "\r\n\r\n")


def _as_comments(program: Program) -> str:
    return DOCSTRING.sub(lambda found: "\n" + re.sub("^", "# ", found[2], flags=re.MULTILINE), program.head) + (
        program.body
    )


def _commented(program: Program) -> str:
    """A comment behind each statement's line."""
    lines = program.text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(program.text).readline):
        if token.type == tokenize.NEWLINE:
            lines[token.start[0] - 1] += "  # then this"
    return "\n".join(lines)


def _renamed(program: Program) -> str:
    """Arguments and variables have other names, in code; the docstring keeps what it says."""
    tree = ast.walk(ast.parse(program.text))
    own = [
        node.arg if isinstance(node, ast.arg) else node.id
        for node in tree
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    ]
    names = {name: f"v{number}" for number, name in enumerate(dict.fromkeys(own))}
    lines = program.text.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(program.text).readline))
    for before, token in reversed(list(itertools.pairwise(tokens))):
        if token.type == tokenize.NAME and token.string in names and before.string != ".":
            line = lines[token.start[0] - 1]
            new = line[: token.start[1]] + names[token.string] + line[token.end[1] :]
            lines[token.start[0] - 1] = new
    return "".join(lines)


def _as_comments_and_renamed(program: Program) -> str:
    head_lines = program.head.count("\n")
    body = "".join(_renamed(program).splitlines(keepends=True)[head_lines:])
    return _as_comments(Program(problem=program.problem, head=program.head, body=body))


def _halves(program: Program) -> str:
    return program.head[: len(program.head) // 2] + "\n" + program.body[: len(program.body) // 2]


CHANGES: dict[str, Callable[[Program], str]] = {
    "unchanged": lambda program: program.text,
    "other white space": _spread,
    "upper case": lambda program: program.text.upper(),
    "docstring as # comments": _as_comments,
    "comments added": _commented,
    "variables renamed": _renamed,
    "docstring as # comments, variables renamed": _as_comments_and_renamed,
    "only the solution": lambda program: program.body,
    "half of docstring and solution": _halves,
}
