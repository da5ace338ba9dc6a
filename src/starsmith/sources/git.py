"""Git repositories, local (bare or not) or at a URL: the tree of the newest commit of one branch.

The rules are those of section 1.1 of the paper: the named branch, else HEAD, else main, else master; only
its latest commit; submodules are left out; the root's identifier is the commit's tree, never a checkout.
Repositories in the wild lack objects (partial clones, damaged packs), so an object that is not there is an
incident and the rest is read. Every blob is hashed again, because a damaged one may still unpack.

A URL is asked for its references when the plan is made (nothing is downloaded) and the one commit is fetched
into the cache when it is read. Dates come from the commit; our clock is not asked.

The fingerprint is the commit, the snapshot of all references and, for a local repository, which objects of
the tree are absent: a blob that arrives later changes what is read although the commit stays.
"""

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pygit2
from pygit2.enums import ObjectType

from starsmith.corpus import swhid
from starsmith.corpus.arrivals import Arrival, Incident, OversizedFile, Repository, SourceFile, Target
from starsmith.corpus.swhid import Branch
from starsmith.errors import InputError, MachineError
from starsmith.recipe import GitSource, Limits
from starsmith.sources.archive import printable
from starsmith.sources.urls import is_remote, repository_name, without_credentials

CONNECT_TIMEOUT_SECONDS = 20
SILENCE_TIMEOUT_SECONDS = 120

_OBJECT_KINDS = {
    ObjectType.COMMIT: "revision",
    ObjectType.TAG: "release",
    ObjectType.TREE: "directory",
    ObjectType.BLOB: "content",
}


@dataclass(frozen=True, slots=True)
class GitTarget:
    url: str
    remote: bool
    branch_name: str
    """In full, e.g. `refs/heads/main`, or `HEAD` when it is detached."""
    commit: str
    snapshot: str
    repo_name: str
    type: str = "git"


def resolve(spec: GitSource, *, cache: Path, limits: Limits) -> list[Target]:
    """The branch's newest commit as the one target.

    Raises:
        InputError: there is no repository, or it has no such branch or no commit.
        MachineError: the URL cannot be reached, or the repository is damaged at its references.
    """
    remote = is_remote(spec.url) and not Path(spec.url).exists()
    if remote:
        references = _remote_references(spec.url)
    else:
        repository = _open_local(spec.url)
        references = _local_references(repository)
    branch_name, commit = _main_branch(references, spec)
    git_target = GitTarget(
        url=spec.url,
        remote=remote,
        branch_name=branch_name,
        commit=commit,
        snapshot=swhid.snapshot_id(references),
        repo_name=spec.repo_name or repository_name(spec.url if remote else str(Path(spec.url).resolve())),
    )
    parts = [git_target.commit, git_target.snapshot, branch_name, git_target.repo_name]
    if not remote:
        parts += _absent_objects(repository, commit, limits)
    distinct = hashlib.sha256(f"{spec.url}\0{branch_name}".encode()).hexdigest()[:8]
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in git_target.repo_name)
    return [
        Target(
            label=f"git-{name}-{distinct}",
            origin=without_credentials(spec.url) if remote else Path(spec.url).as_posix(),
            fingerprint="git:" + hashlib.sha256("\0".join(parts).encode()).hexdigest(),
            spec=git_target,
        )
    ]


def read(target: Target, *, cache: Path, limits: Limits) -> Iterator[Arrival]:
    """Streams the files of the commit's tree in Git's order, and then the `Repository`.

    A blob beyond `limits.file_bytes` is held in memory while it is hashed: libgit2 unpacks objects whole.

    Raises:
        MachineError: the commit cannot be fetched, or it or its root tree is absent or damaged.
    """
    spec: GitTarget = target.spec
    repository = _fetched(spec, cache) if spec.remote else _open_local(spec.url)
    commit = _commit(repository, spec.commit, spec.url)
    yield from _read_tree(repository, commit.tree_id, limits)
    yield Repository(
        source="git",
        origin=target.origin,
        repo_name=spec.repo_name,
        directory_id=str(commit.tree_id),
        snapshot_id=spec.snapshot,
        revision_id=spec.commit,
        branch_name=spec.branch_name,
        revision_date=_date(commit, "author"),
        committer_date=_date(commit, "committer"),
    )


# --- references


def _open_local(url: str) -> pygit2.Repository:
    path = Path(url).expanduser()
    if not path.exists():
        raise InputError(f"the git source {url} does not exist; give `url` a repository's folder or its URL")
    try:
        return pygit2.Repository(str(path))
    except pygit2.GitError as error:
        if "owne" in str(error):
            raise MachineError(
                f"Git refuses {url} because it belongs to another user; "
                f"allow it with: git config --global --add safe.directory {path.resolve()}"
            ) from None
        raise InputError(f"{url} is not a Git repository: {error}") from None


def _local_references(repository: pygit2.Repository) -> dict[bytes, Branch]:
    references: dict[bytes, Branch] = {}
    symbolic: dict[bytes, bytes] = {}
    try:
        for reference in repository.references.iterator():
            name, points_to = reference.raw_name, reference.raw_target
            if isinstance(points_to, bytes):
                symbolic[name] = points_to
            else:
                references[name] = _reference(repository, points_to)
        head = repository.lookup_reference("HEAD")
    except (pygit2.GitError, KeyError, ValueError) as error:
        raise MachineError(
            f"the references of {repository.path} are damaged ({error}); `git fsck` in it says more"
        ) from None
    if isinstance(head.raw_target, bytes):
        symbolic[b"HEAD"] = head.raw_target
    else:
        references[b"HEAD"] = _reference(repository, head.raw_target)
    return _with_aliases(references, symbolic)


def _reference(repository: pygit2.Repository, oid: pygit2.Oid) -> Branch:
    try:
        kind, _ = repository.odb.read_header(oid)
    except (pygit2.GitError, KeyError):
        return Branch("dangling")
    return Branch(cast(Any, _OBJECT_KINDS[kind]), str(oid))


def _remote_references(url: str) -> dict[bytes, Branch]:
    """As the server advertises them; an annotated tag is told by the peeled line that follows it."""
    shown = without_credentials(url)
    _set_timeouts()
    try:
        heads = _scratch_remote(url).list_heads(proxy=True)
    except (pygit2.GitError, OSError, ValueError) as error:
        raise MachineError(
            f"cannot reach the git repository {shown}: {error}. Check the URL, the network and HTTPS_PROXY; "
            "a clone that you already have can be given as a local path"
        ) from None
    peeled = {head.name.removesuffix("^{}") for head in heads if head.name.endswith("^{}")}
    references: dict[bytes, Branch] = {}
    symbolic: dict[bytes, bytes] = {}
    for head in heads:
        if head.name.endswith("^{}"):
            continue
        name = head.name.encode("utf-8", "surrogateescape")
        if head.symref_target:
            symbolic[name] = head.symref_target.encode("utf-8", "surrogateescape")
        else:
            references[name] = Branch("release" if head.name in peeled else "revision", str(head.oid))
    return _with_aliases(references, symbolic)


def _with_aliases(references: dict[bytes, Branch], symbolic: dict[bytes, bytes]) -> dict[bytes, Branch]:
    """Adds the symbolic references that lead somewhere; the HEAD of an empty repository does not."""
    known = references | {
        name: Branch("alias", aim.decode("utf-8", "surrogateescape")) for name, aim in symbolic.items()
    }
    for name, aim in symbolic.items():
        if aim not in known or aim == name:
            known[name] = Branch("dangling")
    if known.get(b"HEAD") == Branch("dangling"):
        del known[b"HEAD"]
    return known


def _main_branch(references: dict[bytes, Branch], spec: GitSource) -> tuple[str, str]:
    shown = without_credentials(spec.url)
    heads = sorted(name.decode("utf-8", "replace") for name in references if name.startswith(b"refs/heads/"))
    if spec.branch is not None:
        candidates = [spec.branch if spec.branch.startswith("refs/") else f"refs/heads/{spec.branch}"]
    else:
        candidates = ["HEAD", "refs/heads/main", "refs/heads/master"]
    for candidate in candidates:
        found = references.get(candidate.encode())
        if found is not None and found.target_type == "alias":
            candidate = found.target
            found = references.get(candidate.encode("utf-8", "surrogateescape"))
        if found is not None and found.target_type == "revision":
            return candidate, found.target
        if found is not None and found.target_type == "dangling":
            raise MachineError(f"{candidate} of {shown} names a commit that is absent; `git fsck` says more")
    if not heads:
        raise InputError(f"the git repository {shown} has no branch with a commit")
    names = ", ".join(head.removeprefix("refs/heads/") for head in heads[:20])
    wanted = f"no branch {spec.branch!r}" if spec.branch else "neither HEAD nor main nor master"
    raise InputError(f"the git repository {shown} has {wanted}; set `branch` to one of: {names}")


# --- fetching


def _set_timeouts() -> None:
    settings = cast(Any, pygit2.settings)
    settings.server_connect_timeout = CONNECT_TIMEOUT_SECONDS * 1000
    settings.server_timeout = SILENCE_TIMEOUT_SECONDS * 1000


def _scratch_remote(url: str) -> Any:
    """A remote that belongs to no repository on disk."""
    return pygit2.Repository().remotes.create_anonymous(url)


def _fetched(spec: GitTarget, cache: Path) -> pygit2.Repository:
    """The bare repository in the cache that holds the commit, fetched without its history if it is not there."""
    shown = without_credentials(spec.url)
    place = cache / "git" / hashlib.sha256(spec.url.encode()).hexdigest()[:32]
    _set_timeouts()
    try:
        place.mkdir(parents=True, exist_ok=True)
        repository = pygit2.init_repository(str(place), bare=True)
        if repository.odb.exists(spec.commit):
            return repository
        source = spec.branch_name if spec.branch_name != "HEAD" else spec.commit
        # Local transport knows no shallow fetch; everything else needs one commit only.
        depth = 0 if spec.url.startswith("file:") else 1
        repository.remotes.create_anonymous(spec.url).fetch(
            [f"+{source}:refs/starsmith/{spec.commit}"], proxy=True, depth=depth
        )
    except (pygit2.GitError, OSError, ValueError) as error:
        raise MachineError(
            f"cannot fetch {spec.branch_name} of {shown} into {place}: {error}. "
            "What was fetched before is kept; run again when the repository answers"
        ) from None
    if not repository.odb.exists(spec.commit):
        raise MachineError(
            f"{spec.branch_name} of {shown} moved while it was read ({spec.commit} is gone); run again"
        )
    return repository


# --- reading


def _commit(repository: pygit2.Repository, identifier: str, url: str) -> pygit2.Commit:
    try:
        return repository[identifier].peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError) as error:
        raise MachineError(
            f"the commit {identifier} of {without_credentials(url)} is absent or damaged ({error}); "
            "`git fsck` says more, a fresh clone repairs it"
        ) from None


@dataclass(frozen=True, slots=True)
class _Entry:
    path: bytes
    mode: int
    oid: pygit2.Oid


def _walk(repository: pygit2.Repository, root: pygit2.Oid, limits: Limits) -> Iterator[_Entry | Incident]:
    """Every entry of a tree that is no folder, depth first in Git's order; trees that cannot be read are told.

    Raises:
        MachineError: the root itself cannot be read.
    """
    pending = [_Entry(b"", swhid.MODE_DIRECTORY, root)]
    seen = 0
    while pending:
        entry = pending.pop()
        if entry.mode != swhid.MODE_DIRECTORY:
            yield entry
            continue
        try:
            children = [
                _Entry(entry.path + b"/" + child.raw_name, int(child.filemode), child.id)
                for child in repository[entry.oid].peel(pygit2.Tree)
            ]
        except (KeyError, ValueError, pygit2.GitError) as error:
            if not entry.path:
                raise MachineError(
                    f"the root tree {root} of {repository.path} is absent or damaged ({error}); "
                    "`git fsck` says more, a fresh clone repairs it"
                ) from None
            yield _object_fault(entry, "tree", error)
            continue
        seen += len(children)
        # Trees may share subtrees, so that a few objects stand for billions of paths.
        if seen > limits.archive_members:
            yield Incident(path="/", kind="too_many", detail=f"more than {limits.archive_members:,} entries")
            return
        for child in reversed(children):
            refusal = _name_refusal(child.path, limits)
            if refusal is None:
                pending.append(child)
            else:
                yield Incident(path=_shown(child.path), kind=refusal[0], detail=refusal[1])


def _read_tree(repository: pygit2.Repository, root: pygit2.Oid, limits: Limits) -> Iterator[Arrival]:
    left_bytes = limits.archive_bytes
    for entry in _walk(repository, root, limits):
        if isinstance(entry, Incident):
            yield entry
            continue
        path = _shown(entry.path)
        if entry.mode == swhid.MODE_SUBMODULE:
            yield Incident(path=path, kind="submodule", detail=f"commit {entry.oid} of another repository")
            continue
        try:
            _, length_bytes = repository.odb.read_header(entry.oid)
            left_bytes -= length_bytes
            if left_bytes < 0:
                yield Incident(
                    path="/", kind="bomb", detail=f"unpacks to more than {limits.archive_bytes:,} bytes"
                )
                return
            _, data = repository.odb.read(entry.oid)
        except (KeyError, ValueError, pygit2.GitError) as error:
            yield _object_fault(entry, "blob", error)
            continue
        yield _arrival(entry, path, data, limits)


def _arrival(entry: _Entry, path: str, data: bytes, limits: Limits) -> Arrival:
    identifier = swhid.content_id(data)
    if identifier != str(entry.oid):
        return Incident(
            path=path,
            kind="corrupt",
            detail=f"the blob {entry.oid} holds other bytes ({identifier})",
            length_bytes=len(data),
        )
    if entry.mode == swhid.MODE_LINK:
        return Incident(path=path, kind="link", detail=f"links to {printable(data)}", length_bytes=len(data))
    if len(data) <= limits.file_bytes:
        return SourceFile(path=path, data=data)
    return OversizedFile(path=path, content_id=identifier, blob_id=swhid.blob_id(data), length_bytes=len(data))


def _absent_objects(repository: pygit2.Repository, commit: str, limits: Limits) -> list[str]:
    """Paths of the tree whose objects are not there; the objects that are there are not opened."""
    tree = _commit(repository, commit, repository.path).tree_id
    absent = []
    for entry in _walk(repository, tree, limits):
        if isinstance(entry, Incident):
            absent.append(entry.path)
        elif entry.mode != swhid.MODE_SUBMODULE and not repository.odb.exists(entry.oid):
            absent.append(_shown(entry.path))
    return absent


def _object_fault(entry: _Entry, what: str, error: Exception) -> Incident:
    if isinstance(error, KeyError):
        kind, detail = "missing", f"the {what} {entry.oid} is not in the repository"
    else:
        kind, detail = "corrupt", f"the {what} {entry.oid} is damaged: {error}"
    return Incident(path=_shown(entry.path), kind=kind, detail=detail)


def _name_refusal(path: bytes, limits: Limits) -> tuple[str, str] | None:
    """Git itself refuses such names when it checks out; a tree made by hand may hold them."""
    name = path.rpartition(b"/")[2]
    if name in (b"", b".", b"..") or name.lower() == b".git":
        return "traversal", f"a tree must not hold an entry named {printable(name)!r}"
    if len(path) > limits.path_bytes:
        return "path", f"the path has {len(path):,} bytes; allowed are {limits.path_bytes:,}"
    try:
        path.decode()
    except UnicodeDecodeError:
        return "encoding", "the path is not UTF-8"
    return None


def _shown(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        return printable(path)


def _date(commit: pygit2.Commit, role: str) -> datetime.datetime | None:
    """The author's or committer's date; None when it is unreadable or outside the calendar."""
    try:
        return datetime.datetime.fromtimestamp(getattr(commit, role).time, datetime.UTC)
    except (ValueError, OverflowError, OSError, pygit2.GitError):
        return None
