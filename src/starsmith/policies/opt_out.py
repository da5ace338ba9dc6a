"""Who asked to be left out: the opt-out list and the public request formats (sections 3.5 and 7.3).

A list names one target a line:

    some-owner                        every repository of a user or organisation
    some-owner/a-repository           one repository
    some-owner/a-repository:/path     one file, or one folder and everything in it
    swh:1:cnt:<40 hex digits>         a content, wherever it stands; also dir (root directory), rev and snp

`#` starts a comment at the start of a line or after a space. Owners and repositories match without case, as
GitHub names do; paths match exactly. A repository is known by its name in the corpus and by the first two parts
of its web address, so a clone under a name of one's own does not escape. An owner is the part of a name before
its first slash.

Two public forms are read too (`parse_request`): the older issue ("I request that the following data is removed
from The Stack", then ` - owner/repo`, ` - all`) and the newer one with two headed boxes. What a request asks
beyond files (`Commits`, `GitHub issue`, `StackOverflow: name`), or for an account that is not its author's, is
handed back for a person to decide, never applied and never lost.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from starsmith.errors import InputError

_NAME = r"[A-Za-z0-9@_.][A-Za-z0-9@_.~+-]*"
_OWNER = re.compile(_NAME)
_REPOSITORY = re.compile(rf"{_NAME}(?:/{_NAME})+")
_PATH = re.compile(rf"({_NAME}(?:/{_NAME})*):(/.+)")
_SWHID = re.compile(r"swh:1:(cnt|dir|rev|snp):([0-9a-f]{40})(?:;.*)?", re.IGNORECASE)
_COMMENT = re.compile(r"(^|\s)#.*")
_NO_RESPONSE = "_no response_"
_CHECKBOX = re.compile(r"- \[[ xX]\]")
_HEADINGS = {"accounts": ("owner",), "specific repositories": ("repository",)}


@dataclass(frozen=True, order=True, kw_only=True)
class Target:
    kind: str
    """owner, repository, path, cnt, dir, rev or snp."""
    key: str
    """Lower-cased name, or hex hash."""
    path: str = ""
    """Only for a path: without a slash at its end."""

    def __str__(self) -> str:
        if self.kind in ("owner", "repository"):
            return self.key
        return f"{self.key}:{self.path}" if self.kind == "path" else f"swh:1:{self.kind}:{self.key}"


Targets = tuple[Target, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A public request, read."""

    targets: Targets
    held: tuple[str, ...]
    """Lines that a person must decide on, as written."""


def load(path: Path) -> Targets:
    """Reads a list from a file.

    Raises:
        InputError: the file is absent, not UTF-8, or has a line that is no target.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the opt-out list {path} (recipe key opt_out.file): {error}") from None
    return parse(text, name=str(path))


def parse(text: str, *, name: str = "opt-out list") -> Targets:
    """The targets of a list, sorted and distinct.

    Raises:
        InputError: every line that is no target, with its number.
    """
    targets = set()
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = _COMMENT.sub("", line).strip()
        if not line:
            continue
        target = parse_target(line)
        if target is None:
            faults.append(f"{name}, line {number}: {line!r} is no target")
        else:
            targets.add(target)
    if faults:
        allowed = "allowed: owner, owner/repo, owner/repo:/path, swh:1:(cnt|dir|rev|snp):<40 hex digits>"
        raise InputError("\n".join((*faults, allowed)))
    return tuple(sorted(targets))


def parse_target(text: str) -> Target | None:
    """One target, or None where the text is none."""
    if match := _SWHID.fullmatch(text):
        return Target(kind=match[1].lower(), key=match[2].lower())
    if match := _PATH.fullmatch(text):
        return Target(kind="path", key=match[1].lower(), path="/" + match[2].strip("/"))
    if _REPOSITORY.fullmatch(text):
        return Target(kind="repository", key=text.lower())
    if _OWNER.fullmatch(text):
        return Target(kind="owner", key=text.lower())
    return None


def parse_request(body: str, *, author: str) -> Request:
    """Reads a public request in either form.

    Args:
        body: the issue's text.
        author: the account that filed it; only its own name and repositories are applied, everything else
            is held.
    """
    targets = set()
    held = []
    for line, kinds in _request_lines(body):
        target = Target(kind="owner", key=author.lower()) if line.lower() == "all" else parse_target(line)
        if target is None or target.kind not in kinds or target.key.split("/")[0] != author.lower():
            held.append(line)
        else:
            targets.add(target)
    return Request(targets=tuple(sorted(targets)), held=tuple(held))


def _request_lines(body: str) -> list[tuple[str, tuple[str, ...]]]:
    """The items of a request and the kinds of target that may stand there (none: a person decides)."""
    items: list[tuple[str, tuple[str, ...]]] = []
    heading: str | None = None
    for line in (raw.strip() for raw in body.splitlines()):
        if line.startswith("#"):
            heading = line.lstrip("# ").lower()
        elif not line or line.lower() == _NO_RESPONSE or _CHECKBOX.match(line):
            continue
        elif heading is not None:
            kinds = next((kinds for start, kinds in _HEADINGS.items() if heading.startswith(start)), ())
            items.append((line.removeprefix("- "), kinds))
        elif line.startswith("- "):
            item = line.removeprefix("- ").strip()
            items.append((item, ("owner",) if item.lower() == "all" else ("repository",)))
    return items


def register(connection: duckdb.DuckDBPyConnection, targets: Iterable[Target] | None) -> None:
    """Creates the view `opted_out` (`file_id`, `target`) over `chosen_files`; a file that several targets name
    has the first of them in order of text."""
    rows = sorted(targets or ())
    columns = {
        "kind": [target.kind for target in rows],
        "key": [target.key for target in rows],
        "path": [target.path for target in rows],
        "target": [str(target) for target in rows],
    }
    schema = pa.schema([(name, pa.string()) for name in columns])
    connection.register("opt_out_targets", pa.table(columns, schema=schema))
    connection.execute(_OPTED_OUT_SQL)


_OPTED_OUT_SQL = """
    CREATE OR REPLACE TEMP VIEW opted_out AS
    WITH places AS (
        SELECT DISTINCT repo_name, origin FROM chosen_files
    ), names AS (
        SELECT repo_name, origin, lower(repo_name) AS name FROM places
        UNION
        SELECT repo_name, origin,
            regexp_extract(lower(origin), '^(?:https?|ssh|git)://[^/]+/([^/]+/[^/]+?)(?:\\.git)?/?$', 1)
        FROM places
    ), named AS (
        SELECT repo_name, origin, t.target, t.path FROM names JOIN opt_out_targets t
            ON t.kind IN ('repository', 'path') AND t.key = names.name
        UNION
        SELECT repo_name, origin, t.target, t.path FROM names JOIN opt_out_targets t
            ON t.kind = 'owner' AND t.key = split_part(names.name, '/', 1)
    ), identified AS (
        UNPIVOT (SELECT file_id, content_id AS cnt, directory_id AS dir, revision_id AS rev, snapshot_id AS snp
                 FROM chosen_files)
        ON cnt, dir, rev, snp INTO NAME kind VALUE key
    ), hits AS (
        SELECT f.file_id, n.target FROM chosen_files f JOIN named n
            ON f.repo_name = n.repo_name AND f.origin = n.origin
            AND (n.path = '' OR f.path = n.path OR starts_with(f.path, n.path || '/'))
        UNION ALL
        SELECT f.file_id, t.target FROM identified f JOIN opt_out_targets t USING (kind, key)
    )
    SELECT file_id, min(target) AS target FROM hits GROUP BY file_id
"""
