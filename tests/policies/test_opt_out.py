"""The list, the case rules of hosts, and what each form of target matches."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_corpus import SmallCorpus, hex_id

from starsmith.errors import InputError
from starsmith.policies import decisions, facts, opt_out
from starsmith.policies.decisions import Policy

REV = hex_id("rev")
SNP = hex_id("snp")
MATCHES = [
    ("ANN", {"Ann/One:/a.py", "Ann/One:/lib/b.py", "Ann/One:/library.py", "ann/Two:/a.py", "mirror:/a.py"}),
    ("ann/one", {"Ann/One:/a.py", "Ann/One:/lib/b.py", "Ann/One:/library.py"}),
    ("ann/three # asked twice\nann/three", {"mirror:/a.py"}),
    ("mirror", {"mirror:/a.py"}),
    ("mirror:/a.py", {"mirror:/a.py"}),
    ("mirror:/b.py", set()),
    ("ben/ann", {"mirror-of-ben:/b.py"}),
    ("Ben/ann", set()),  # a host that may tell them apart
    ("Ann/One:/lib", {"Ann/One:/lib/b.py"}),
    ("Ann/One:/lib/", {"Ann/One:/lib/b.py"}),
    ("Ann/One:/a.py", {"Ann/One:/a.py"}),
    ("Ann/One:/A.py", set()),
    ("https://github.com/ann", {"mirror:/a.py"}),
    ("https://github.com/ann/THREE.git", {"mirror:/a.py"}),
    ("git://www.github.com:9418/ann/three/", {"mirror:/a.py"}),
    ("https://github.com/ann/three:/a.py", {"mirror:/a.py"}),
    ("https://gitlab.com/ann", set()),
    (f"swh:1:cnt:{hex_id('shared')}", {"Ann/One:/library.py"}),
    (f"swh:1:dir:{hex_id('root of anna')}", {"anna/One:/a.py"}),
    (f"swh:1:rev:{REV};origin=https://example.org", {"Ann/One:/a.py", "Ann/One:/lib/b.py"}),
    (f"swh:1:rev:{REV};path=/lib", {"Ann/One:/lib/b.py"}),
    (f"swh:1:dir:{'0' * 40};anchor=swh:1:rev:{REV};path=/lib/", {"Ann/One:/lib/b.py"}),
    (f"swh:1:dir:{'0' * 40};origin=https://github.com/Ann/Three;path=/a.py", {"mirror:/a.py"}),
    (f"swh:1:dir:{'0' * 40}", set()),
    (f"SWH:1:SNP:{SNP.upper()}", {"Ann/One:/a.py"}),
    ("# nobody\n\n   \n", set()),
    ("an", set()),
]


class Matcher:
    """A corpus, written once, and the places that a list names in it."""

    def __init__(self, corpus: SmallCorpus) -> None:
        self._tables = corpus.tables()
        self._places = {row["file_id"]: f"{row['repo_name']}:{row['path']}" for row in corpus.rows["files"]}

    def __call__(self, text: str) -> set[str]:
        rows = opt_out.matches(self._tables, opt_out.parse(text)).to_pylist()
        assert len({(row["file_id"], row["target"]) for row in rows}) == len(rows)
        return {self._places[row["file_id"]] for row in rows}


def test_what_a_target_matches(corpus: SmallCorpus) -> None:
    corpus.add("/a.py", repo="Ann/One", revision_id=REV, snapshot_id=SNP)
    corpus.add("/lib/b.py", repo="Ann/One", revision_id=REV)
    corpus.add("/library.py", repo="Ann/One", content="shared")
    corpus.add("/a.py", repo="ann/Two")
    corpus.add("/a.py", repo="anna/One", root="root of anna")
    corpus.add("/a.py", repo="mirror", origin="https://github.com/Ann/Three.git")
    corpus.add("/b.py", repo="mirror-of-ben", origin="https://example.org/ben/ann/")
    with facts.connect(corpus.tables()) as connection:
        connection.execute("CREATE TEMP VIEW chosen_files AS SELECT * FROM files")
        for text, expected in MATCHES:
            opt_out.register(connection, opt_out.parse(text))
            rows = connection.execute(
                "SELECT repo_name || ':' || path FROM files JOIN opted_out USING (file_id)"
            ).fetchall()
            assert sorted(place for (place,) in rows) == sorted(expected), text


HOSTS = [
    ("https://github.com/{}", True),
    ("https://GitHub.com/{}.git", True),
    ("ssh://git@gitlab.com/{}.git", True),
    ("https://bitbucket.org/{}", True),
    ("https://codeberg.org/{}", True),
    ("https://gitlab.gnome.org/{}", True),
    ("https://salsa.debian.org/{}", True),
    ("github.com:{}.git", True),
    ("git.example.org:{}.git", False),
    ("https://git.example.org/{}", False),
    ("https://notgitlab.com/{}", False),
    ("https://git.example.org:8443/{}/", False),
    ("/archives/{}", True),
]


def test_whether_case_counts_is_the_hosts_to_say(corpus: SmallCorpus) -> None:
    names = {f"Ann{number}/One": host for number, host in enumerate(HOSTS)}
    for name, (origin, _) in names.items():
        corpus.add("/a.py", repo=name, origin=origin.format(name), source="git")
    matched = Matcher(corpus)
    for form in ("{}", "{}:/a.py", "{owner}"):
        exact = "\n".join(form.format(name, owner=name.split("/")[0]) for name in names)
        assert matched(exact) == {f"{name}:/a.py" for name in names}
        expected = {f"{name}:/a.py" for name, (_, ignores_case) in names.items() if ignores_case}
        assert matched(exact.replace("Ann", "aNN")) == expected, form


def test_packages_are_named_as_their_registry_compares_names(corpus: SmallCorpus) -> None:
    corpus.add("/a.py", repo="pypi/Zope.Interface", origin="pkg:pypi/zope-interface@7.0", source="pypi")
    corpus.add("/a.js", repo="npm/JSONStream", origin="pkg:npm/JSONStream@1.3.5", source="npm")
    corpus.add("/b.js", repo="npm/jsonstream", origin="pkg:npm/jsonstream@1.0.3", source="npm")
    corpus.add("/c.js", repo="npm/@babel/core", origin="pkg:npm/%40babel/core@7.0.0", source="npm")
    corpus.add("/w.py", repo="pypi/warehouse", origin="https://github.com/pypi/warehouse", source="git")
    matched = Matcher(corpus)
    interface, old, new, core = (
        {"pypi/Zope.Interface:/a.py"},
        {"npm/JSONStream:/a.js"},
        {"npm/jsonstream:/b.js"},
        {"npm/@babel/core:/c.js"},
    )
    for text in ("pypi/zope_interface", "pkg:pypi/ZOPE.-interface", "pkg:pypi/zope.interface@6.0"):
        assert matched(text) == interface, text
    assert matched("npm/JSONStream") == old
    assert matched("pkg:npm/jsonstream") == new
    assert matched("npm/JsonStream") == set()
    for text in ("pkg:npm/%40babel/core", "npm/@babel/core", "pkg:npm/@babel", "npm/@babel"):
        assert matched(text) == core, text
    assert matched("pypi") == {"pypi/warehouse:/w.py"}, "an account of that name, not the registry"
    assert matched("pkg:pypi/warehouse") == set()
    assert matched("@babel") == set()


def test_nested_groups_and_the_short_names_of_their_repositories(corpus: SmallCorpus) -> None:
    """A repository at group/sub/project is called sub/project; an account `sub` elsewhere does not own it."""
    corpus.add("/a.py", repo="sub/project", origin="https://gitlab.com/group/sub/project.git", source="git")
    matched = Matcher(corpus)
    everything = {"sub/project:/a.py"}
    for text in ("group", "Group/Sub", "group/sub/project", "https://gitlab.com/group/sub/project:/a.py"):
        assert matched(text) == everything, text
    for text in ("sub", "sub/project", "project", "group/sub:/a.py", "https://github.com/group"):
        assert matched(text) == set(), text


def test_every_target_of_a_file_is_known_and_the_ledger_names_the_first(corpus: SmallCorpus) -> None:
    file_id = corpus.add("/a.py", repo="ann/one")
    targets = opt_out.parse("ann/one\nann\nben")
    found = opt_out.matches(corpus.tables(), targets)
    assert found.to_pylist() == [{"file_id": file_id, "target": name} for name in ("ann", "ann/one")]
    decided = decisions.decide(corpus.tables(), Policy(opt_out_targets=targets))
    assert [(row["rule"], row["value"]) for row in decided.decisions.to_pylist()] == [("opt_out", "ann")]


def test_bad_lines_are_all_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    bad = [
        "/no/owner",
        "swh:1:cnt:123",
        "has space",
        "https://github.com/ann/one/tree/main/lib",
        "https://gitlab.com/ann/one/-/blob/main/a.py",
        "owner:/",
        "owner://",
        "ftp://example.org/ann/one",
        f"swh:1:rel:{REV}",
        f"swh:1:dir:{REV};anchor=nonsense;path=/lib",
    ]
    with pytest.raises(InputError) as raised:
        opt_out.parse("\n".join(["fine", "ok/too", *bad]), name="list.txt")
    message = str(raised.value)
    for number, line in enumerate(bad, start=3):
        assert f"list.txt, line {number}: {line!r} is no target" in message
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


PIECES = st.sampled_from(
    f"swh:1:dir: swh:1:rev: {REV} ;path= ;anchor= / :/ https:// github.com Ann %23 %20 pkg: npm @ # ü ;".split()
)


@settings(max_examples=50, deadline=None)
@example(text="0://")
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=9).map("".join)))
def test_any_list_is_read_or_refused_and_targets_survive_a_round_trip(text: str) -> None:
    try:
        targets = opt_out.parse(text)
    except InputError:
        return
    assert opt_out.parse("\n".join(map(str, targets))) == targets


def test_a_path_that_a_line_cannot_hold_is_written_in_the_qualifier() -> None:
    (target,) = opt_out.parse(f"swh:1:rev:{REV};path=/a%20%23b%3Bc%25%0A.py")
    assert target.path == "/a #b;c%\n.py"
    assert opt_out.parse(str(target)) == (target,)


def test_no_list_switches_the_rule_off_and_an_empty_one_does_not() -> None:
    def opt_out_rule(policy: Policy) -> bool:
        (rule,) = [rule for rule in decisions.rules(policy) if rule.name == "opt_out"]
        return rule.enabled

    assert not opt_out_rule(Policy())
    assert opt_out_rule(Policy(opt_out_targets=()))
