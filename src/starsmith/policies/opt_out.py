"""Who asked to be left out: the opt-out list, and what each of its lines matches (sections 3.5 and 7.3).

A list names one target a line; `#` starts a comment at the start of a line or after a space:

    some-owner                        every repository of a user or organisation
    some-owner/a-repository           one repository (or group of repositories, where a host nests them)
    some-owner/a-repository:/path     one file, or one folder and everything in it
    https://host/some-owner           as above, on one host only; also with a repository and a path
    pkg:pypi/a-package                a package of a registry, all versions; `pkg:npm/@scope` is a whole scope
    swh:1:cnt:<40 hex digits>         a content, wherever it stands; also dir (root directory), rev and snp
    swh:1:rev:<hash>;path=/folder     a file or folder below a commit, a root directory or a snapshot

A directory's SWHID is known to the corpus for roots only: the hash of a folder inside covers permissions and
entries that are not kept. Such a folder is named with its place, as the archive's own qualifiers do:
`swh:1:dir:<hash>;anchor=swh:1:rev:<hash>;path=/folder`, or with `origin=` in place of the anchor.

Without a host a name matches everywhere: leaving out another account of that name is the smaller harm. A
repository is known by its web address; the name it has in the corpus counts too, unless it is the end of that
address, so a clone under a name of one's own does not escape. An owner never means packages: `pypi` is an account,
not the registry.

Whether `Ann` and `ann` are one is the host's to say (`HOSTS`, `REGISTRIES`). Paths match exactly.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import duckdb
import pyarrow as pa

from starsmith.corpus import query
from starsmith.errors import InputError

HOSTS = {
    "github.com": "ignore_case",
    "gitlab.com": "ignore_case",
    "bitbucket.org": "ignore_case",
    "codeberg.org": "ignore_case",
    "gitea.com": "ignore_case",
    "salsa.debian.org": "ignore_case",
    "framagit.org": "ignore_case",
    "invent.kde.org": "ignore_case",
}
"""How hosts compare names. GitHub, GitLab, Bitbucket, Gitea and Forgejo (Codeberg) all keep the case that was
written and find a repository without it. Hosts named `gitlab.*`, `gitea.*` and `forgejo.*` are taken for what
they say; any other host may tell `Ann` from `ann` and is taken to. A repository without a host (a folder, a local
clone) has its name from the recipe, where The Stack v2's names, GitHub's, are written: without case."""

REGISTRIES = {"pypi": "pep503", "npm": "exact"}
"""How registries compare names. PyPI: without case, with runs of `-_.` equal to `-` (PEP 503). npm: new names have
no capitals, but old ones do and differ by them (`JSONStream` and `jsonstream` are two packages)."""

RULES = {
    "exact": "{0}",
    "ignore_case": "lower({0})",
    "pep503": "lower(regexp_replace({0}, '[-_.]+', '-', 'g'))",
}
"""SQL: the form in which two names that a rule takes for one are equal."""

ALLOWED = (
    "allowed: owner, owner/repo, owner/repo:/path, https://host/owner/repo, pkg:pypi/name, "
    "swh:1:(cnt|dir|rev|snp):<40 hex digits>, swh:1:(dir|rev|snp):<40 hex digits>;path=/path"
)

_NAME = r"[A-Za-z0-9@_.~][A-Za-z0-9@_.~+-]*"
_NAMES = re.compile(rf"{_NAME}(?:/{_NAME})*")
_URL = re.compile(
    r"(?:https?|ssh|git)://(?:[^/@\s]*@)?(?:www\.)?([A-Za-z0-9.-]+)(?::[0-9]+)?/(\S.*)", re.IGNORECASE
)
_PACKAGE = re.compile(rf"pkg:([a-z]+)/((?:(?:@|%40)[^/@\s]+/)?{_NAME}?)(?:@[^@/\s]+)?", re.IGNORECASE)
_SWHID = re.compile(r"swh:1:(cnt|dir|rev|snp):([0-9a-f]{40})((?:;[a-z]+=[^;\s]*)*)", re.IGNORECASE)
_COMMENT = re.compile(r"(^|\s)#.*")
_SAFE_IN_QUALIFIER = "/!$&'()*+,:=@~"


@dataclass(frozen=True, order=True, kw_only=True)
class Target:
    kind: str
    """owner, repository, package, cnt, dir, rev or snp."""
    key: str
    """A name as written (`owner`, `owner/repo`, `pypi/name`), or a hex hash."""
    path: str = ""
    """A file or folder below it; starts with "/" and does not end with it. Empty: everything."""
    host: str = ""
    """Lower-cased; empty: any."""

    def __str__(self) -> str:
        if self.kind in ("owner", "repository"):
            name = f"https://{self.host}/{self.key}" if self.host else self.key
            return f"{name}:{self.path}" if self.path else name
        if self.kind == "package":
            return f"pkg:{self.key}"
        qualifier = f";path={quote(self.path, safe=_SAFE_IN_QUALIFIER)}" if self.path else ""
        return f"swh:1:{self.kind}:{self.key}{qualifier}"

    @property
    def owner(self) -> str:
        """The account to which a repository or path belongs; empty for packages and SWHIDs."""
        return self.key.split("/")[0] if self.kind in ("owner", "repository") else ""


Targets = tuple[Target, ...]


# ---- reading


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
        raise InputError("\n".join((*faults, ALLOWED)))
    return tuple(sorted(targets))


def parse_target(text: str) -> Target | None:
    """One target, or None where the text is none."""
    if match := _SWHID.fullmatch(text):
        return _identified(match[1].lower(), match[2].lower(), match[3])
    if match := _PACKAGE.fullmatch(text):
        name = unquote(match[2]).rstrip("/")
        return Target(kind="package", key=f"{match[1].lower()}/{name}") if name else None
    if match := _URL.fullmatch(text):
        return _named(match[2], host=match[1].lower())
    return _named(text)


def _named(text: str, host: str = "") -> Target | None:
    """`owner`, `owner/repo` and `owner/repo:/path`; of a web address also with `.git` or a slash at its end."""
    name, has_path, path = text.partition(":/")
    if host:
        name = name.rstrip("/").removesuffix(".git")
        if host == "github.com" and name.count("/") > 1:
            return None  # a page of a repository, such as /tree/main/folder: whether only that is meant is unclear
    if has_path and (path.startswith("/") or not path.strip("/")):
        return None  # an address of some other kind, such as ftp://
    if _NAMES.fullmatch(name) is None:
        return None
    kind = "repository" if "/" in name or has_path else "owner"
    path = path.strip("/")
    return Target(kind=kind, key=name, path=f"/{path}" if path else "", host=host)


def _identified(kind: str, key: str, qualifiers: str) -> Target | None:
    """A SWHID; one of a directory that says where it stands is that place."""
    values = dict(qualifier.split("=", 1) for qualifier in qualifiers.lstrip(";").split(";") if qualifier)
    path = unquote(values.get("path", "")).strip("/")
    if kind == "cnt" or not path:
        return Target(kind=kind, key=key)
    path = f"/{path}"
    if kind == "dir" and "anchor" in values:
        anchor = _SWHID.fullmatch(values["anchor"])
        return None if anchor is None else Target(kind=anchor[1].lower(), key=anchor[2].lower(), path=path)
    if kind == "dir" and "origin" in values:
        origin = _URL.fullmatch(unquote(values["origin"]))
        return None if origin is None else _named(f"{origin[2].rstrip('/')}:{path}", host=origin[1].lower())
    return Target(kind=kind, key=key, path=path)


# ---- matching


def matches(tables: query.Tables, targets: Iterable[Target]) -> pa.Table:
    """Every file that each target names, whatever the ledger says of it.

    Returns:
        `file_id`, `target` (as text), sorted and distinct.
    """
    with query.connect({"files": tables.get("files", ())}) as connection:
        connection.execute("CREATE TEMP VIEW chosen_files AS SELECT * FROM files")
        register(connection, targets)
        schema = pa.schema([("file_id", pa.string()), ("target", pa.string())])
        return query.fetch(connection, "SELECT * FROM opt_out_matches ORDER BY file_id, target", schema)


def register(connection: duckdb.DuckDBPyConnection, targets: Iterable[Target] | None) -> None:
    """Creates two views over `chosen_files` (rows of `schema.FILES`): `opt_out_matches` (`file_id`, `target`), and
    `opted_out`, the same with only the first target of each file in order of text."""
    rows = [
        {
            "kind": target.kind,
            "key": target.key,
            "path": target.path,
            "host": target.host,
            "target": str(target),
        }
        for target in sorted(targets or ())
    ]
    connection.register("opt_out_targets", pa.Table.from_pylist(rows, schema=_TARGETS))
    hosts = {"host": list(HOSTS), "rule": list(HOSTS.values())}
    connection.register("opt_out_hosts", pa.table(hosts))
    connection.execute(_MATCHES_SQL)
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW opted_out AS "
        "SELECT file_id, min(target) AS target FROM opt_out_matches GROUP BY file_id"
    )


_TARGETS = pa.schema([(name, pa.string()) for name in ("kind", "key", "path", "host", "target")])


def _compared(rule: str, name: str) -> str:
    """SQL: a name in the form of the rule in another column."""
    cases = " ".join(f"WHEN {query.literal(known)} THEN {sql.format(name)}" for known, sql in RULES.items())
    return f"CASE {rule} {cases} END"


def _registry_rule(package_type: str) -> str:
    cases = " ".join(
        f"WHEN {query.literal(known)} THEN {query.literal(rule)}" for known, rule in REGISTRIES.items()
    )
    return f"CASE {package_type} {cases} ELSE 'exact' END"


_WEB = "'^(?i:https?|ssh|git)://(?:[^/@]*@)?(?:www\\.)?([^/:@]+)(?::[0-9]+)?/+(.+?)(?:\\.git)?/*$'"
_SCP = "'^(?:[^@/:]+@)?([^/:@]{2,}):([^/].*?)(?:\\.git)?/*$'"
_LIKE_HOSTS = "'^(?:gitlab|gitea|forgejo)\\.'"

_MATCHES_SQL = f"""
    CREATE OR REPLACE TEMP VIEW opt_out_matches AS
    WITH places AS (
        SELECT DISTINCT repo_name, origin, source,
            regexp_extract(origin, '^pkg:([^/]+)/', 1) AS package_type,
            if(regexp_matches(origin, {_WEB}), {_WEB}, if(source = 'git', {_SCP}, '^()()$')) AS form
        FROM chosen_files
    ), located AS (
        SELECT * EXCLUDE (form),
            lower(if(form = {_WEB}, regexp_extract(origin, {_WEB}, 1),
                if(form = {_SCP}, regexp_extract(origin, {_SCP}, 1), ''))) AS host,
            if(form = {_WEB}, regexp_extract(origin, {_WEB}, 2),
                if(form = {_SCP}, regexp_extract(origin, {_SCP}, 2), '')) AS web_name
        FROM places
    ), ruled AS (
        SELECT l.*, CASE WHEN package_type <> '' THEN {_registry_rule("package_type")}
            WHEN l.host = '' THEN 'ignore_case'
            WHEN h.rule IS NOT NULL THEN h.rule
            WHEN regexp_matches(l.host, {_LIKE_HOSTS}) THEN 'ignore_case' ELSE 'exact' END AS rule
        FROM located l LEFT JOIN opt_out_hosts h ON h.host = l.host
    ), named AS (
        SELECT *, web_name AS name FROM ruled WHERE web_name <> ''
        UNION ALL
        SELECT *, repo_name FROM ruled WHERE NOT ends_with('/' || lower(web_name), '/' || lower(repo_name))
    ), split AS (
        SELECT *, string_split(name, '/') AS parts FROM named
    ), prefixes AS (
        SELECT repo_name, origin, package_type, host, rule,
            unnest(list_transform(range(1, len(parts) + 1), lambda i: {{
                'depth': i, 'name': array_to_string(parts[1:i], '/'), 'is_whole': i = len(parts)
            }}), recursive := true)
        FROM split
    ), compared AS (
        SELECT repo_name, origin, host, package_type, depth, is_whole, rule,
            {_compared("rule", "name")} AS compared_name
        FROM prefixes WHERE package_type = '' OR depth > 1
    ), wanted AS (
        SELECT t.*, r.rule, {_compared("r.rule", "t.key")} AS compared_name
        FROM opt_out_targets t CROSS JOIN (SELECT unnest({list(RULES)!r}) AS rule) r
        WHERE t.kind IN ('owner', 'repository', 'package')
    ), hit_places AS (
        SELECT DISTINCT n.repo_name, n.origin, t.target, t.path
        FROM compared n JOIN wanted t USING (rule, compared_name)
        WHERE (t.host = '' OR t.host = n.host)
            AND (t.path = '' OR n.is_whole)
            AND CASE t.kind WHEN 'package' THEN n.package_type <> ''
                WHEN 'owner' THEN n.package_type = '' ELSE t.path <> '' OR n.depth > 1 END
    ), identified AS (
        UNPIVOT (SELECT file_id, path, content_id AS cnt, directory_id AS dir, revision_id AS rev,
                    snapshot_id AS snp FROM chosen_files)
        ON cnt, dir, rev, snp INTO NAME kind VALUE key
    )
    SELECT f.file_id, n.target FROM chosen_files f JOIN hit_places n
        ON f.repo_name = n.repo_name AND f.origin = n.origin
        AND (n.path = '' OR f.path = n.path OR starts_with(f.path, n.path || '/'))
    UNION
    SELECT f.file_id, t.target FROM identified f JOIN opt_out_targets t
        ON f.kind = t.kind AND f.key = t.key
        AND (t.path = '' OR f.path = t.path OR starts_with(f.path, t.path || '/'))
"""
