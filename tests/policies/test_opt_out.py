"""The list, what it matches, and the two public request formats."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SmallCorpus, hex_id

from starsmith.errors import InputError
from starsmith.policies import decisions, facts, opt_out
from starsmith.policies.decisions import Policy

MATCHES = [
    ("ANN", {"Ann/One:/a.py", "Ann/One:/lib/b.py", "Ann/One:/library.py", "ann/Two:/a.py", "mirror:/a.py"}),
    ("ann/one", {"Ann/One:/a.py", "Ann/One:/lib/b.py", "Ann/One:/library.py"}),
    ("ann/three # asked twice\nann/three", {"mirror:/a.py"}),
    ("mirror", {"mirror:/a.py"}),
    ("ben/ann", {"mirror-of-ben:/b.py"}),
    ("Ann/One:/lib", {"Ann/One:/lib/b.py"}),
    ("Ann/One:/lib/", {"Ann/One:/lib/b.py"}),
    ("Ann/One:/a.py", {"Ann/One:/a.py"}),
    ("Ann/One:/A.py", set()),
    (f"swh:1:cnt:{hex_id('shared')}", {"Ann/One:/library.py"}),
    (f"swh:1:dir:{hex_id('root of anna')}", {"anna/One:/a.py"}),
    (f"swh:1:rev:{hex_id('rev')};origin=https://example.org", {"Ann/One:/a.py"}),
    (f"SWH:1:SNP:{hex_id('snp').upper()}", {"Ann/One:/a.py"}),
    ("# nobody\n\n   \n", set()),
    ("an", set()),
]


def test_what_a_target_matches(corpus: SmallCorpus) -> None:
    corpus.add("/a.py", repo="Ann/One", revision_id=hex_id("rev"), snapshot_id=hex_id("snp"))
    corpus.add("/lib/b.py", repo="Ann/One")
    corpus.add("/library.py", repo="Ann/One", content="shared")
    corpus.add("/a.py", repo="ann/Two")
    corpus.add("/a.py", repo="anna/One", root="root of anna")
    corpus.add("/a.py", repo="mirror", origin="https://example.org/Ann/Three.git")
    corpus.add("/b.py", repo="mirror-of-ben", origin="https://example.org/ben/ann/")
    with facts.connect(corpus.tables()) as connection:
        connection.execute("CREATE TEMP VIEW chosen_files AS SELECT * FROM files")
        for text, expected in MATCHES:
            opt_out.register(connection, opt_out.parse(text))
            rows = connection.execute(
                "SELECT repo_name || ':' || path FROM files JOIN opted_out USING (file_id)"
            ).fetchall()
            assert sorted(place for (place,) in rows) == sorted(expected), text


def test_bad_lines_are_all_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(InputError) as raised:
        opt_out.parse("fine\n/no/owner\nok/too\nswh:1:cnt:123\nhas space", name="list.txt")
    message = str(raised.value)
    assert "list.txt, line 2: '/no/owner'" in message
    assert "line 4" in message
    assert "line 5" in message
    assert "line 1:" not in message
    assert "allowed: owner" in message
    folder = tmp_path_factory.mktemp("lists")
    with pytest.raises(InputError, match=r"opt_out\.file"):
        opt_out.load(folder / "absent.txt")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"opt_out\.file"):
        opt_out.load(folder / "latin.txt")
    (folder / "bom.txt").write_bytes(b"\xef\xbb\xbfowner\r\nowner/repo\r\n")
    assert [str(target) for target in opt_out.load(folder / "bom.txt")] == ["owner", "owner/repo"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_any_list_is_read_or_refused_and_targets_survive_a_round_trip(text: str) -> None:
    try:
        targets = opt_out.parse(text)
    except InputError:
        return
    assert opt_out.parse("\n".join(map(str, targets))) == targets


def test_no_list_switches_the_rule_off_and_an_empty_one_does_not() -> None:
    assert not decisions.rules(Policy())[0].enabled
    assert decisions.rules(Policy(opt_out_targets=()))[0].enabled


def test_the_older_request_form() -> None:
    body = (
        "I request that the following data is removed from The Stack:\n\n"
        " - Ann/one\n - ann/two\n - ben/other\n - Commits\n - GitHub issue\n - StackOverflow: ann\n"
    )
    request = opt_out.parse_request(body, author="ann")
    assert [str(target) for target in request.targets] == ["ann/one", "ann/two"]
    assert request.held == ("ben/other", "Commits", "GitHub issue", "StackOverflow: ann")
    everything = opt_out.parse_request("Please:\n - all\n", author="Ann")
    assert [str(target) for target in everything.targets] == ["ann"]


def test_the_newer_request_form() -> None:
    body = (
        "### Accounts and organizations to remove ENTIRELY\n\nann\nsome-org\n\n"
        "### Specific repositories to remove\n\nann/one\nnot a repository\nann\n\n"
        "### Optional - your relationship to what you listed\n\n- [x] These are my own personal account(s).\n"
        "- [ ] I am an owner\n\n"
        "### Optional - a link that helps confirm this is you/yours\n\n_No response_\n\n"
        "### Anything else? (optional)\n\nmy earlier request was ignored\n"
    )
    request = opt_out.parse_request(body, author="ann")
    assert [str(target) for target in request.targets] == ["ann", "ann/one"]
    assert request.held == ("some-org", "not a repository", "ann", "my earlier request was ignored")
