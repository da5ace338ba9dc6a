"""The two public forms, what is held and why, and the list that takes the rest."""

import json
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.errors import InputError, MachineError
from starsmith.policies import opt_out, opt_out_requests
from starsmith.policies.opt_out_requests import Request, add, load_issue, parse_request

OLDER = """I request that the following data is removed from The Stack and StackOverflow:
 - Commits
 - GitHub issue
 - StackOverflow: <INSERT_STACKOVERFLOW_USERNAME_HERE>
 - Ann/one
 - ann/two
 - ben/other
 - https://github.com/ann/three.git
_Note_: If you don't want all resources to be included just remove the elements from the list above. If you would \
like to exclude all repositories and resources just add a single element "all" to the list.
"""

NEWER = """### Accounts and organizations to remove ENTIRELY

ann
@Ann
some-org
not an account

### Specific repositories to remove

- ann/one
* `Ann/two`
https://github.com/ann/three/
https://gitlab.com/ann/four
some-org/repo
ann
ann/one:/secret.py

### Optional - your relationship to what you listed

- [x] These are my own personal account(s).
- [ ] I am an owner or admin of the organization(s) listed.
- [ ] I am a maintainer / core contributor of the projects listed.

### Optional - a link that helps confirm this is you/yours

https://example.org/members

### Anything else? (optional)

my earlier request was ignored
"""


def read(request: Request) -> tuple[list[str], dict[str, str]]:
    return [str(target) for target in request.targets], {held.line: held.reason for held in request.held}


def test_the_older_form() -> None:
    targets, held = read(parse_request(OLDER, author="ann", title="Opt-out request for Ann"))
    assert targets == ["Ann/one", "ann/three", "ann/two"]
    assert set(held) == {"- Commits", "- GitHub issue", "- ben/other"}
    assert "no file of a repository" in held["- Commits"]
    assert held["- ben/other"] == "ben is not the account that filed the request, ann; ask for proof"


def test_all_is_the_authors_own_and_nobody_elses() -> None:
    body = "I request that the following data is removed from The Stack:\n\n - all\n"
    assert read(parse_request(body, author="Ann")) == (["Ann"], {})
    targets, held = read(parse_request(body, author="mallory", title="Opt-out request for ann"))
    assert targets == []
    assert "the title names ann, the author is mallory" in held["- all"]
    assert "ask for proof" in held["Opt-out request for ann"]


@pytest.mark.parametrize(
    "body",
    [
        "opt out all repositories",
        "Please remove everything of mine, thanks",
        "# Remove everything",
        "### Anything else? (optional)\n\nremove ann/one too",
        " - all my repositories",
        " - ann/one, ann/two",
        " - StackOverflow: ann",
        " - https://github.com/ann/one/tree/main/secret",
        f" - swh:1:cnt:{'0' * 40}",
    ],
)
def test_free_text_is_held_and_never_guessed(body: str) -> None:
    targets, held = read(parse_request(body, author="ann"))
    assert targets == []
    assert list(held) == [body.strip().splitlines()[-1].strip()]


def test_a_title_of_ones_own_is_held() -> None:
    _, held = read(parse_request("", author="ann", title="opt out all"))
    assert list(held) == ["opt out all"]
    assert read(parse_request("", author="ann", title="Opt-out request")) == ([], {})


def test_the_newer_form() -> None:
    targets, held = read(parse_request(NEWER, author="ann", title="Opt-out request"))
    assert targets == ["Ann", "ann", "Ann/two", "ann/one", "ann/one:/secret.py", "ann/three"]
    expected = {
        "some-org": "some-org is not the account",
        "not an account": "not an account or repository",
        "https://gitlab.com/ann/four": "not an account or repository of GitHub",
        "some-org/repo": "some-org is not the account",
        "ann": "asks for a repository, as owner/repository; which of the two is meant is unclear",
        "my earlier request was ignored": "free text",
        "- [x] These are my own personal account(s).": "for a person to judge",
        "https://example.org/members": "for a person to judge",
    }
    assert list(held) == list(expected)
    for line, reason in expected.items():
        assert reason in held[line], line


def test_a_proof_without_anything_to_prove_is_not_held() -> None:
    body = NEWER.replace("some-org\nnot an account\n", "").replace(
        "my earlier request was ignored", "_No response_"
    )
    body = re.sub(r"https://gitlab.*?\nann\n", "", body, flags=re.DOTALL)
    targets, held = read(parse_request(body, author="ann"))
    assert held == {}
    assert "ann/one:/secret.py" in targets


def test_the_published_form_has_the_headings_that_are_read() -> None:
    form = Path(__file__).resolve().parents[2].parent / "shared/samples/optout/opt-out-request.yml"
    if not form.is_file():
        pytest.skip("the sample of the public form is not beside this checkout")
    labels = [label.lower() for label in re.findall(r"^      label: (.+)$", form.read_text(), re.MULTILINE)]
    known = ("ACCOUNTS", "REPOSITORIES", "RELATIONSHIP", "PROOF", "NOTES")
    assert len(labels) == len(known)
    for label, name in zip(labels, known, strict=True):
        assert label.startswith(getattr(opt_out_requests, name))
    empty = "".join(f"### {label}\n\n_No response_\n\n" for label in labels)
    assert read(parse_request(empty, author="ann")) == ([], {})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=30), st.sampled_from([*OLDER.splitlines(), *NEWER.splitlines(), " - all"])),
        max_size=12,
    )
)
def test_whatever_is_written_only_the_authors_own_is_applied(lines: list[str]) -> None:
    request = parse_request("\n".join(lines), author="ann")
    assert all(target.owner.lower() == "ann" for target in request.targets)
    assert opt_out.parse("\n".join(map(str, request.targets))) == request.targets
    assert all(held.line and held.reason for held in request.held)


@pytest.mark.parametrize("author", ["", "ann/one", "-ann", "ann\n", "an n"])
def test_an_author_is_an_account(author: str) -> None:
    with pytest.raises(InputError, match="account's name"):
        parse_request(OLDER, author=author)


def test_a_body_that_no_issue_can_have() -> None:
    with pytest.raises(InputError, match="not an issue"):
        parse_request("x" * (2 * 1024 * 1024), author="ann")


@pytest.mark.parametrize(
    ("author", "address"), [("author", "url"), ("user", "html_url")], ids=["command line", "REST"]
)
def test_an_issue_as_github_gives_it(tmp_path: Path, author: str, address: str) -> None:
    place = tmp_path / "issue.json"
    raw = {author: {"login": "ann"}, "title": "Opt-out request for ann", "body": OLDER, address: "https://e.org/7"}
    place.write_text(json.dumps(raw))
    issue = load_issue(place)
    assert (issue.author, issue.title, issue.body, issue.reference) == (
        "ann",
        "Opt-out request for ann",
        OLDER,
        "https://e.org/7",
    )
    place.write_text(json.dumps(raw | {"body": None}))
    assert load_issue(place).body == ""
    text = tmp_path / "issue.txt"
    text.write_text(OLDER)
    assert load_issue(text) == opt_out_requests.Issue(body=OLDER)


@pytest.mark.parametrize(
    "text", ["[]", '"ann"', "{}", '{"author": "ann"}', '{"user": {"login": 1}}', "{", "[" * 99999]
)
def test_what_is_no_issue(tmp_path: Path, text: str) -> None:
    place = tmp_path / "issue.json"
    place.write_text(text)
    with pytest.raises(InputError, match=r"issue\.json"):
        load_issue(place)
    with pytest.raises(InputError, match="cannot read"):
        load_issue(tmp_path / "absent.json")


# ---- the list


def test_a_request_is_added_once_and_what_is_held_goes_beside(tmp_path: Path) -> None:
    place = tmp_path / "lists" / "opt-out.txt"
    request = parse_request(OLDER, author="ann")
    first = add(place, request, reference="https://example.org/issues/7")
    assert first.added == ("Ann/one", "ann/three", "ann/two")
    assert place.read_text() == "# asked by ann https://example.org/issues/7\nAnn/one\nann/three\nann/two\n"
    assert opt_out.load(place) == request.targets
    held = [json.loads(line) for line in first.held_file.read_text().splitlines()]
    assert [row["line"] for row in held] == ["- Commits", "- GitHub issue", "- ben/other"]
    assert {(row["author"], row["reference"]) for row in held} == {("ann", "https://example.org/issues/7")}
    before = place.read_bytes(), first.held_file.read_bytes()
    again = add(place, request, reference="https://example.org/issues/7")
    assert (again.added, again.known) == ((), first.added)
    assert (place.read_bytes(), first.held_file.read_bytes()) == before


def test_a_list_by_hand_stays_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "opt-out.txt"
    place.write_bytes(b"\xef\xbb\xbf# by hand\r\nann/one # with a reason")
    added = add(place, parse_request(" - ann/one\n - ann/two\n", author="ann"))
    assert (added.added, added.known) == (("ann/two",), ("ann/one",))
    assert place.read_bytes() == b"\xef\xbb\xbf# by hand\r\nann/one # with a reason\n# asked by ann\nann/two\n"
    assert not added.held_file.exists()


def test_a_line_cannot_smuggle_another_into_either_file(tmp_path: Path) -> None:
    place = tmp_path / "opt-out.txt"
    body = " - ann/one\u2028ben\n - ben\x85carol/x\n - \x1b[2Jzoe/one\n"
    added = add(place, parse_request(body, author="ann"))
    assert opt_out.load(place) == opt_out.parse("ann/one")
    lines = added.held_file.read_text().splitlines()
    assert len(lines) == len(added.held)
    assert all(line.isprintable() for line in lines)
    with pytest.raises(InputError, match="one line"):
        add(place, parse_request(" - ann/two", author="ann"), reference="x\nben")
    assert opt_out.load(place) == opt_out.parse("ann/one")


def test_a_damaged_list_is_never_written_to(tmp_path: Path) -> None:
    place = tmp_path / "opt-out.txt"
    place.write_text("no target at all\n")
    with pytest.raises(InputError, match="line 1"):
        add(place, parse_request(" - ann/one", author="ann"))
    assert place.read_text() == "no target at all\n"


def test_a_full_disk_leaves_the_list_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "opt-out.txt"
    place.write_text("ben\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match="disk is full"):
        add(place, parse_request(" - ann/one", author="ann"))
    assert place.read_text() == "ben\n"
    assert list(tmp_path.iterdir()) == [place]


def test_requests_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    place = tmp_path / "opt-out.txt"
    names = [f"ann{number}" for number in range(12)]
    threads = [threading.Thread(target=add, args=(place, parse_request(" - all", author=name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, opt_out.load(place))) == sorted(names)
