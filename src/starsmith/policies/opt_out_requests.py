"""Reading the public opt-out forms, and taking what they ask into a list (section 7.3).

Two forms are in use, both issues on GitHub. The newer is a form whose boxes become headings of Markdown: accounts,
repositories, and optional ones (relationship, proof, notes; an empty box is `_No response_`). The older is a list
with `- owner/repo`, or the single element `- all`, after a sentence and before a note; `- Commits`,
`- GitHub issue` and `- StackOverflow: NAME` stood in it from the start.

Only what the author is seen to own is applied: accounts and repositories under the very account that filed the
issue (without case, as GitHub's names). Everything else is *held* for a person, each line with its reason: the
account of another, kinds of data that a list of files cannot leave out, free text such as "opt out all
repositories". Nothing is guessed and nothing is lost: what is neither applied nor part of the form itself is held.

What is held goes into a file beside the list, `<list>.held`, one JSON object a line.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from starsmith.corpus.store import disk_errors, write_atomically
from starsmith.errors import InputError
from starsmith.policies import opt_out
from starsmith.policies.opt_out import Target, Targets

MAX_REQUEST_BYTES = 1024 * 1024
"""An issue on GitHub has at most 65,536 characters."""

ACCOUNTS, REPOSITORIES, RELATIONSHIP, PROOF, NOTES = (
    "accounts and organizations",
    "specific repositories",
    "optional - your relationship",
    "optional - a link",
    "anything else",
)
"""How the headings of the newer form begin."""

_ACCOUNT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_NO_RESPONSE = "_no response_"
_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*")
_BULLET = re.compile(r"(?:[-*+]|[0-9]{1,9}[.)])\s+")
_CHECKBOX = re.compile(r"[-*+]\s+\[[ xX]\]")
_FORM_SENTENCES = (
    re.compile(
        r"i request that the following (?:data|code) (?:is|be) removed from the stack[^:]*:?", re.IGNORECASE
    ),
    re.compile(r"_?note_?: if you don't want all resources to be included .*", re.IGNORECASE),
)
_OTHER_DATA = re.compile(r"(commits|github issues?|stackoverflow:.*)", re.IGNORECASE)
_UNFILLED = re.compile(r"stackoverflow:\s*(?:<insert_stackoverflow_username_here>)?", re.IGNORECASE)
_TITLE = re.compile(r"opt[- ]?out request(?:\s+for\s+(\S+))?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A line that a person must decide on."""

    line: str
    """As written."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """A public request, read."""

    author: str
    targets: Targets
    """What is applied."""
    held: tuple[Held, ...]
    """In the order of the request."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What a request did to a list."""

    list_file: Path
    held_file: Path
    added: tuple[str, ...]
    """Targets that were not on the list."""
    known: tuple[str, ...]
    """Targets that were."""
    held: tuple[Held, ...]


@dataclass(frozen=True, kw_only=True)
class Issue:
    """What of an issue a request is read from."""

    body: str
    author: str = ""
    title: str = ""
    reference: str = ""
    """Its address."""


# ---- reading


def load_issue(path: Path) -> Issue:
    """An issue from a file: JSON as GitHub gives it (REST, or `gh issue view --json author,title,body,url`), or
    the bare text of its body, which says nothing of its author.

    Raises:
        InputError: the file is absent, not UTF-8, too long, or JSON that is no issue.
    """
    try:
        if path.stat().st_size > MAX_REQUEST_BYTES:
            raise InputError(
                f"{path} has more than {MAX_REQUEST_BYTES:,} bytes, so it is not an issue of either form"
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the request {path}: {error}") from None
    if path.suffix != ".json":
        return Issue(body=text)
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    author = (raw.get("author") or raw.get("user")) if isinstance(raw, dict) else None
    login = author.get("login") if isinstance(author, dict) else None
    if not isinstance(raw, dict) or not isinstance(login, str) or not isinstance(raw.get("body") or "", str):
        raise InputError(
            f"{path} is not an issue as GitHub gives it: an object with `body` and the author's name under "
            "`author.login` or `user.login`; `gh issue view NUMBER --json author,title,body,url` writes one"
        )
    return Issue(
        body=raw.get("body") or "",
        author=login,
        title=str(raw.get("title") or ""),
        reference=str(raw.get("html_url") or raw.get("url") or ""),
    )


def parse_request(body: str, *, author: str, title: str = "") -> Request:
    """Reads a request in either form.

    Args:
        body: the issue's text.
        author: the account that filed it, as the host knows it.
        title: the issue's title, where it is known; one that names another account than the author holds `all`,
            and one that says more than the form's own is held.

    Raises:
        InputError: the author is no name of an account, or the body is far longer than an issue can be.
    """
    if _ACCOUNT_NAME.fullmatch(author) is None:
        raise InputError(
            f"the author of a request is an account's name on GitHub (letters, digits, hyphens); got {author!r}"
        )
    if len(body.encode("utf-8", "surrogatepass")) > MAX_REQUEST_BYTES:
        raise InputError(f"a request of more than {MAX_REQUEST_BYTES:,} bytes is not an issue of either form")
    targets: set[Target] = set()
    held = (
        [] if _is_plain_title(title, author) else [Held(line=title.strip(), reason=_title_reason(title, author))]
    )
    proofs = []
    heading: str | None = None
    for line in (raw.strip() for raw in body.splitlines()):
        if match := _HEADING.fullmatch(line):
            heading = match[1].lower()
            if not heading.startswith((ACCOUNTS, REPOSITORIES, RELATIONSHIP, PROOF, NOTES)):
                held.append(
                    Held(line=line, reason="a heading of no known form: what it asks is for a person to say")
                )
        elif not line.strip("`-_*") or line.lower() == _NO_RESPONSE or _is_form(line):
            continue
        elif heading is not None and heading.startswith((RELATIONSHIP, PROOF)):
            if not re.match(r"[-*+]\s+\[ \]", line):
                proofs.append(
                    Held(line=line, reason="what the author says for themselves; it is for a person to judge")
                )
        else:
            judged = _judge(line, heading, author, title)
            if isinstance(judged, Held):
                held.append(judged)
            else:
                targets.add(judged)
    return Request(author=author, targets=tuple(sorted(targets)), held=(*held, *proofs) if held else ())


def _is_form(line: str) -> bool:
    return any(sentence.fullmatch(line) for sentence in _FORM_SENTENCES) or (
        _UNFILLED.fullmatch(_BULLET.sub("", line)) is not None
    )


def _judge(line: str, heading: str | None, author: str, title: str) -> Target | Held:
    """One line of a box or list: a target that is the author's own, or why it is held."""
    item = _BULLET.sub("", line).strip().strip("`,;").strip()
    if heading is not None and not heading.startswith((ACCOUNTS, REPOSITORIES)):
        return Held(line=line, reason="free text: what it asks is for a person to say")
    if heading is None and _BULLET.match(line) is None:
        return Held(line=line, reason="free text outside the form's list: what it asks is for a person to say")
    if _OTHER_DATA.fullmatch(item):
        return Held(line=line, reason="asks for data that is no file of a repository; a list cannot leave it out")
    if heading is None and item.lower() == "all":
        return _all_of(line, author, title)
    target = opt_out.parse_target(item.removeprefix("@") if "/" not in item else item)
    if target is None or target.kind not in ("owner", "repository") or target.host not in ("", "github.com"):
        return Held(line=line, reason="not an account or repository of GitHub, as owner or owner/repository")
    expected = "owner" if heading is not None and heading.startswith(ACCOUNTS) else "repository"
    if target.kind != expected:
        asked = "an account" if expected == "owner" else "a repository, as owner/repository"
        return Held(
            line=line, reason=f"this part of the form asks for {asked}; which of the two is meant is unclear"
        )
    if target.owner.lower() != author.lower():
        return Held(
            line=line, reason=f"{target.owner} is not the account that filed the request, {author}; ask for proof"
        )
    return Target(kind=target.kind, key=target.key, path=target.path)


def _all_of(line: str, author: str, title: str) -> Target | Held:
    match = _TITLE.fullmatch(title.strip())
    if match and match[1] and match[1].lower() != author.lower():
        return Held(line=line, reason=f"all of whom: the title names {match[1]}, the author is {author}")
    return Target(kind="owner", key=author)


def _is_plain_title(title: str, author: str) -> bool:
    match = _TITLE.fullmatch(title.strip())
    return not title.strip() or (match is not None and (match[1] or author).lower() == author.lower())


def _title_reason(title: str, author: str) -> str:
    if _TITLE.fullmatch(title.strip()):
        return f"the title names another account than the author, {author}; ask for proof"
    return "a title of the author's own: what it asks is for a person to say"


# ---- the list


def add(list_file: Path, request: Request, *, reference: str = "") -> Added:
    """Takes a request into a list: targets that it lacks are appended, what is held goes beside it.

    A list that is not there yet is made. Each file changes as a whole or not at all; of two that add at the same
    time, one waits.

    Args:
        list_file: the recipe's `opt_out.file`.
        request: from `parse_request`.
        reference: where the request can be read, on one line; written beside what it added.

    Raises:
        InputError: the list that is there cannot be read, or the reference is not one line of text.
        MachineError: the disk is full or the place may not be written.
    """
    if not reference.isprintable():
        raise InputError(
            f"a reference is one line of printable text, such as the issue's address; got {reference!r}"
        )
    with _alone(list_file):
        there = opt_out.load(list_file) if list_file.exists() else ()
        new = [target for target in request.targets if target not in there]
        if new:
            source = f"# {' '.join(part for part in (f'asked by {request.author}', reference) if part)}\n"
            before = list_file.read_bytes() if list_file.exists() else b""
            separator = b"" if not before or before.endswith((b"\n", b"\r")) else b"\n"
            lines = source + "".join(f"{target}\n" for target in new)
            write_atomically(list_file, before + separator + lines.encode())
        held_file = list_file.with_name(list_file.name + ".held")
        _append_held(held_file, request, reference)
    return Added(
        list_file=list_file,
        held_file=held_file,
        added=tuple(map(str, new)),
        known=tuple(str(target) for target in request.targets if target in there),
        held=request.held,
    )


def _append_held(held_file: Path, request: Request, reference: str) -> None:
    before = held_file.read_text(encoding="utf-8") if held_file.exists() else ""
    there = set(before.splitlines())
    rows = [{"author": request.author, "reference": reference, **asdict(held)} for held in request.held]
    new = [line for line in dict.fromkeys(json.dumps(row) for row in rows) if line not in there]
    if new:
        separator = "" if not before or before.endswith("\n") else "\n"
        write_atomically(held_file, (before + separator + "".join(f"{line}\n" for line in new)).encode())


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Holds other processes that add to a file of this folder."""
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place.parent, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
