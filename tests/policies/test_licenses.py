"""Propagation by directory, and the licence-type algorithm of Figure 1, case by case."""

import json
import re
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SmallCorpus

from starsmith import recipe
from starsmith.corpus.license_paths import (
    LICENSE_PATH,
    MANIFEST_PATH,
    UNKNOWN_REFERENCE,
    is_license_like,
    is_manifest,
)
from starsmith.errors import InputError
from starsmith.policies import license_categories, licenses

BLUE_OAK = Path(__file__).resolve().parents[2].parent / "shared/samples/licenses/blueoak-list-15.0.0.json"
UNKNOWN = UNKNOWN_REFERENCE
NEUTRAL = "LicenseRef-scancode-warranty-disclaimer"


PUBLISHED = ("repository", "texts")
ALL = ("repository", "texts", "manifests", "headers")


def judged(corpus: SmallCorpus, *, evidence: tuple[str, ...] = ALL) -> dict[str, dict[str, object]]:
    table = licenses.file_licenses(corpus.tables(), recipe.Licenses.model_validate({"evidence": evidence}))
    assert table["file_id"].to_pylist() == sorted(table["file_id"].to_pylist())
    paths = {row["file_id"]: f"{row['repo_name']}:{row['path']}" for row in corpus.rows["files"]}
    return {paths[row["file_id"]]: row for row in table.to_pylist()}


Text = tuple[str, list[str]]
"""The folder and the licences of a licence-like text."""


# GHArchive's word, (status, licences) of the texts at the root, the type
FIGURE_1 = [
    ("MIT", [], "permissive"),
    ("mit", [("scanned", ["GPL-3.0-only"])], "permissive"),  # GHArchive's word comes first
    ("GPL-3.0", [("scanned", ["MIT"])], "non_permissive"),
    (None, [], "no_license"),
    ("", [], "no_license"),
    (None, [("scanned", [])], "no_license"),
    ("NOASSERTION", [], "non_permissive"),
    ("NOASSERTION", [("scanned", ["MIT"])], "permissive"),
    ("NOASSERTION", [("scanned", [NEUTRAL])], "no_license"),
    (None, [("scanned", ["MIT"])], "permissive"),
    (None, [("scanned", ["MIT", "Apache-2.0"])], "permissive"),
    (None, [("scanned", ["LicenseRef-scancode-public-domain"])], "permissive"),
    (None, [("scanned", ["GPL-2.0-only"])], "non_permissive"),
    (None, [("scanned", ["MIT", "GPL-2.0-only"])], "non_permissive"),
    (None, [("scanned", ["MIT"]), ("scanned", ["MPL-2.0"])], "non_permissive"),
    (None, [("scanned", ["MIT", NEUTRAL])], "permissive"),
    (None, [("scanned", [NEUTRAL])], "no_license"),
    (None, [("scanned", [NEUTRAL, "GPL-2.0-only"])], "non_permissive"),
    (None, [("scanned", ["MIT", UNKNOWN])], "permissive"),
    (None, [("scanned", [UNKNOWN])], "non_permissive"),
    (None, [("scanned", [NEUTRAL, UNKNOWN])], "non_permissive"),
    (None, [("scanned", ["MIT", UNKNOWN, "GPL-2.0-only"])], "non_permissive"),
    (None, [("timeout", [])], "non_permissive"),
    (None, [("too_large", [])], "non_permissive"),
    (None, [("failed", [])], "non_permissive"),
    (None, [("timeout", []), ("scanned", ["MIT"])], "permissive"),
    (None, [("timeout", []), ("scanned", [NEUTRAL])], "non_permissive"),
]


@pytest.mark.parametrize("evidence", [PUBLISHED, ALL])
def test_figure_1(tmp_path: Path, evidence: tuple[str, ...]) -> None:
    corpus = SmallCorpus(tmp_path)
    for number, (gha, texts, _) in enumerate(FIGURE_1):
        repo = f"owner/{number}"
        corpus.add("/src/a.py", repo=repo, license_type=None, gha_license_id=gha)
        for place, (status, keys) in enumerate(texts):
            content = f"license {number} {place}"
            corpus.add(f"/LICENSE.{place}", repo=repo, content=content, license_type=None)
            corpus.license_text(content, *keys, status=status)
    found = judged(corpus, evidence=evidence)
    for number, (gha, texts, license_type) in enumerate(FIGURE_1):
        row = found[f"owner/{number}:/src/a.py"]
        assert row["license_type"] == license_type, (gha, texts, row)
        assert row["detected_licenses"] == sorted({key for _, keys in texts for key in keys})
        assert (f"GHArchive says {gha}" in str(row["evidence"])) == bool(gha)
        for place, (status, keys) in enumerate(texts):
            if keys:
                assert f"{', '.join(sorted(keys))} at /LICENSE.{place}" in str(row["evidence"])
            elif status != "scanned":
                assert f"not read ({status}" in str(row["evidence"])


def published_type(gha: str | None, detected: set[str]) -> str:
    """Section 1.2's algorithm, written down again from its four steps; `detected` is of every text above."""
    permissive = {key.lower() for key in license_categories.permissive_licenses()}
    if gha is not None and gha.lower() in permissive:
        return "permissive"
    if gha not in (None, "NOASSERTION"):
        return "non_permissive"
    if not detected:
        return "no_license" if gha is None else "non_permissive"
    allowed = {key for key in detected if key.lower() in permissive}
    rest = detected - allowed - license_categories.NEUTRAL_LICENSES
    if allowed:
        rest = rest - {UNKNOWN}
    if rest:
        return "non_permissive"
    return "permissive" if allowed else "no_license"


KEYS = ["MIT", "mit-0", "Apache-2.0", "GPL-3.0-only", "MPL-2.0", NEUTRAL, UNKNOWN, "LicenseRef-Own", "CC0-1.0"]
FOLDERS = ["/", "/a/", "/a/b/", "/ab/", "/c/a/"]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "MIT", "mit", "GPL-2.0", "NOASSERTION", "Apache-2.0", "other"]),
            st.lists(
                st.tuples(st.sampled_from(FOLDERS), st.lists(st.sampled_from(KEYS), max_size=3, unique=True)),
                max_size=4,
            ),
            st.lists(st.sampled_from(KEYS), max_size=2, unique=True),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_texts_and_repository_alone_decide_as_published(
    tmp_path_factory: pytest.TempPathFactory, repositories: list[tuple[str | None, list[Text], list[str]]]
) -> None:
    corpus = SmallCorpus(tmp_path_factory.mktemp("published"))
    expected = {}
    for number, (gha, texts, others) in enumerate(repositories):
        repo = f"owner/{number}"
        for place, (folder, keys) in enumerate(texts):
            content = f"text {number} {place}"
            corpus.add(
                f"{folder}LICENSE.{place}", repo=repo, content=content, license_type=None, gha_license_id=gha
            )
            corpus.license_text(content, *keys)
        for kind, name in (("header", "x.py"), ("manifest", "Cargo.toml")):  # which must not speak
            corpus.add(f"/{name}", repo=repo, content=f"{kind} {number}", license_type=None, gha_license_id=gha)
            corpus.license_text(f"{kind} {number}", *others, kind=kind)
        for folder in FOLDERS:
            corpus.add(f"{folder}main.c", repo=repo, license_type=None, gha_license_id=gha)
            detected = {key for above, keys in texts if folder.startswith(above) for key in keys}
            expected[f"{repo}:{folder}main.c"] = (published_type(gha, detected), sorted(detected))
    found = judged(corpus, evidence=PUBLISHED)
    assert {
        place: (found[place]["license_type"], found[place]["detected_licenses"]) for place in expected
    } == expected


def test_a_license_speaks_for_its_directory_and_below(corpus: SmallCorpus) -> None:
    for path in ("/a.py", "/src/b.py", "/vendor/c.py", "/vendor/deep/er/d.py", "/vendored/e.py"):
        corpus.add(path, license_type=None)
    corpus.add("/LICENSE", content="mit", license_type=None)
    corpus.add("/vendor/COPYING", content="gpl", license_type=None)
    corpus.license_text("mit", "MIT")
    corpus.license_text("gpl", "GPL-2.0-only")
    detected = {place.partition(":")[2]: row["detected_licenses"] for place, row in judged(corpus).items()}
    both = ["GPL-2.0-only", "MIT"]
    assert detected == {
        "/a.py": ["MIT"],
        "/src/b.py": ["MIT"],
        "/LICENSE": ["MIT"],
        "/vendor/c.py": both,
        "/vendor/COPYING": both,
        "/vendor/deep/er/d.py": both,
        "/vendored/e.py": ["MIT"],  # a prefix of the name is not a directory above
    }


def test_licenses_do_not_cross_repositories_or_roots(corpus: SmallCorpus) -> None:
    corpus.add("/LICENSE", content="mit", root="one", license_type=None)
    corpus.license_text("mit", "MIT")
    corpus.add("/a.py", root="two", license_type=None)
    corpus.add("/a.py", repo="other/repo", root="one", license_type=None)
    types = {place: row["license_type"] for place, row in judged(corpus).items()}
    assert types["owner/repo:/a.py"] == "no_license"
    assert types["other/repo:/a.py"] == "no_license"


def test_only_license_like_names_count(corpus: SmallCorpus) -> None:
    corpus.add("/a.py", content="gpl", license_type=None)  # the same bytes as a licence, under another name
    corpus.license_text("gpl", "GPL-3.0-only")
    (row,) = judged(corpus).values()
    assert (row["license_type"], row["evidence"]) == (
        "no_license",
        "no licence-like file or manifest in its directory or above",
    )


def test_evidence_goes_from_near_to_far_and_leaves_out_what_does_not_decide(corpus: SmallCorpus) -> None:
    corpus.add("/src/deep/a.py", content="a", license_type=None, gha_license_id="NOASSERTION")
    corpus.license_text("a", "ISC", kind="header")
    for number in range(12):
        corpus.add(f"/src/LICENSE.{number:02d}", content=f"mit {number}", license_type=None)
        corpus.license_text(f"mit {number}", "MIT")
    corpus.add("/NOTICE", content="gpl", license_type=None)
    corpus.license_text("gpl", "GPL-3.0-only")
    corpus.add("/README", content="none", license_type=None)
    corpus.license_text("none")
    evidence = str(judged(corpus)["owner/repo:/src/deep/a.py"]["evidence"])
    shown = "; ".join(f"MIT at /src/LICENSE.{number:02d}" for number in range(7))
    assert evidence == (
        f"ISC in its header; {shown}; GPL-3.0-only at /NOTICE; and 5 more texts; GHArchive says NOASSERTION; "
        "these are in conflict"
    )


def test_texts_that_say_nothing_are_counted(corpus: SmallCorpus) -> None:
    corpus.add("/README.md", content="readme", license_type=None)
    corpus.license_text("readme")
    (row,) = judged(corpus).values()
    assert row["evidence"] == "1 licence-like text without a licence"
    for number in range(2):
        corpus.add(f"/{number}.gemspec", content=f"gem {number}", license_type=None)
        corpus.license_text(f"gem {number}", kind="manifest")
    rows = judged(corpus)
    assert rows["owner/repo:/README.md"]["evidence"] == "1 licence-like text and 2 manifests without a licence"
    assert {row["license_type"] for row in rows.values()} == {"no_license"}


# what the file's header, the manifest, the text and GHArchive say; the type; whether it is a conflict
UNION = [
    (["MIT"], [], [], None, "permissive", False),
    (["GPL-2.0-only"], [], ["MIT"], None, "non_permissive", True),
    (["MIT"], [], ["GPL-2.0-only"], None, "non_permissive", True),
    (["MIT"], ["Apache-2.0"], ["ISC"], None, "permissive", False),
    ([], ["GPL-2.0-only"], ["MIT"], None, "non_permissive", True),
    ([], ["GPL-2.0-only"], [], None, "non_permissive", False),
    (["GPL-2.0-only"], [], [], "MIT", "permissive", True),  # GHArchive's word comes first, but it is flagged
    (["MIT"], [], [], "GPL-3.0", "non_permissive", True),
    (["MIT"], [], [], "NOASSERTION", "permissive", False),
    ([], [UNKNOWN], ["MIT"], None, "permissive", False),
    ([], [UNKNOWN], [], None, "non_permissive", False),
    ([NEUTRAL], [], [], None, "no_license", False),
    (["MIT", "GPL-2.0-only"], [], [], None, "non_permissive", True),
]


def test_all_evidence_is_one_set(tmp_path: Path) -> None:
    corpus = SmallCorpus(tmp_path)
    for number, (header, manifest, text, gha, _, _) in enumerate(UNION):
        places = {
            "header": ("/src/a.py", header),
            "manifest": ("/package.json", manifest),
            "text": ("/COPYING", text),
        }
        for kind, (path, keys) in places.items():
            content = f"{kind} {number}"
            corpus.add(path, repo=f"owner/{number}", content=content, license_type=None, gha_license_id=gha)
            corpus.license_text(content, *keys, kind=kind)
    found = judged(corpus)
    for number, (header, manifest, text, gha, license_type, has_conflict) in enumerate(UNION):
        row = found[f"owner/{number}:/src/a.py"]
        assert (row["license_type"], row["has_conflict"]) == (license_type, has_conflict), row
        assert row["detected_licenses"] == sorted({*header, *manifest, *text})
        says = [
            *([f"{', '.join(sorted(header))} in its header"] if header else []),
            *([f"{', '.join(text)} at /COPYING"] if text else []),
            *([f"{', '.join(manifest)} in the manifest /package.json"] if manifest else []),
            *([f"GHArchive says {gha}"] if gha else []),
            *(["these are in conflict"] if has_conflict else []),
        ]
        assert row["evidence"] == "; ".join(says)


def test_kinds_that_are_left_out_do_not_speak_and_nothing_is_scanned_again(tmp_path: Path) -> None:
    corpus = SmallCorpus(tmp_path)
    kinds = {"header": "/src/a.py", "manifest": "/Cargo.toml", "text": "/LICENSE"}
    for kind, path in kinds.items():
        corpus.add(path, content=kind, license_type=None, gha_license_id="NOASSERTION")
    corpus.license_text("header", "GPL-2.0-only", kind="header")
    corpus.license_text("manifest", "MPL-2.0", kind="manifest")
    corpus.license_text("text", "MIT", kind="text")

    def detected(*evidence: str) -> object:
        return judged(corpus, evidence=evidence)["owner/repo:/src/a.py"]["detected_licenses"]

    assert detected(*ALL) == ["GPL-2.0-only", "MIT", "MPL-2.0"]
    assert detected("repository", "texts", "manifests") == ["MIT", "MPL-2.0"]
    assert detected("headers") == ["GPL-2.0-only"]
    assert detected("repository") == []
    row = judged(corpus, evidence=PUBLISHED)["owner/repo:/src/a.py"]
    assert (row["license_type"], row["has_conflict"]) == ("permissive", False)
    assert row["evidence"] == "MIT at /LICENSE; GHArchive says NOASSERTION"
    assert judged(corpus, evidence=("repository",))["owner/repo:/src/a.py"]["license_type"] == "non_permissive"
    assert "GHArchive" not in str(judged(corpus, evidence=("texts",))["owner/repo:/src/a.py"]["evidence"])


@pytest.mark.parametrize("kind", ["header", "manifest", "text"])
@pytest.mark.parametrize("status", ["timeout", "too_large", "failed"])
def test_unread_evidence_of_any_kind_is_not_no_license(corpus: SmallCorpus, kind: str, status: str) -> None:
    path = {"header": "/a.py", "manifest": "/pom.xml", "text": "/LICENSE"}[kind]
    corpus.add(path, content="unread", license_type=None)
    corpus.license_text("unread", kind=kind, status=status)
    corpus.rows["license_texts"][-1]["reason"] = "no such thing" if status == "failed" else None
    row = judged(corpus)[f"owner/repo:{path}"]
    assert row["license_type"] == "non_permissive"
    assert f"not read ({status}: " in str(row["evidence"])
    assert ("no such thing" in str(row["evidence"])) == (status == "failed")


def test_a_header_speaks_for_its_own_file_wherever_that_lies(corpus: SmallCorpus) -> None:
    for repo in ("one/a", "two/b"):
        corpus.add("/x.c", repo=repo, content="same", license_type=None)
        corpus.add("/y.c", repo=repo, content=f"other {repo}", license_type=None)
    corpus.license_text("same", "GPL-2.0-only", kind="header")
    types = {place: row["license_type"] for place, row in judged(corpus).items()}
    assert types == {
        "one/a:/x.c": "non_permissive",
        "two/b:/x.c": "non_permissive",
        "one/a:/y.c": "no_license",
        "two/b:/y.c": "no_license",
    }


def test_metadata_folders_speak_for_the_directory_that_holds_them(corpus: SmallCorpus) -> None:
    for path in ("/six.py", "/lib/b.py", "/lib/six-1.0.dist-info/RECORD", "/lib/b.egg-info/c.txt"):
        corpus.add(path, license_type=None)
    corpus.add("/six-1.0.dist-info/METADATA", content="mit", license_type=None)
    corpus.add("/lib/b.egg-info/PKG-INFO", content="isc", license_type=None)
    corpus.license_text("mit", "MIT", kind="manifest")
    corpus.license_text("isc", "ISC", kind="manifest")
    found = {place.partition(":")[2]: row["detected_licenses"] for place, row in judged(corpus).items()}
    assert found["/six.py"] == ["MIT"]
    assert found["/lib/b.py"] == found["/lib/b.egg-info/c.txt"] == ["ISC", "MIT"]


def test_no_files_at_all(corpus: SmallCorpus) -> None:
    assert licenses.file_licenses(corpus.tables(), recipe.Licenses()).num_rows == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("LICENSE", "license.txt", "LICENCE-MIT", "licenses", "COPYING.LESSER")),
        *((name, True) for name in ("UNLICENSE", "lgpl-2.1.txt", "my.license", "README", "ReadMe.rst", "About")),
        *((name, True) for name in ("THIRD-PARTY-NOTICE.txt", "copyright", "AL2.0", "MPL", "cc0.txt", "BSDL")),
        *((name, False) for name in ("sublicense.py", "licensed", "readmefirst", "limit.c", "mitigate.py")),
        *((name, False) for name in ("main.py", "", "aboutus.html", "noticeboard")),
    ],
)
def test_license_like_names(name: str, expected: bool) -> None:
    assert is_license_like(f"/LICENSE/{name}") is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("package.json", "pom.xml", "a.b.gemspec", "x.cabal", "PKG-INFO", "setup.py")),
        *(
            (name, False)
            for name in ("Package.json", "package.json5", "xpackage.json", ".gem", "metadata", "cabal")
        ),
    ],
)
def test_manifest_names(name: str, expected: bool) -> None:
    assert is_manifest(f"/package.json/{name}") is expected
    with duckdb.connect() as connection:
        (found,) = connection.execute("SELECT regexp_full_match($1, $2)", [name, MANIFEST_PATH]).fetchone() or ()
    assert found is expected


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("lLiIcCeEnNsSgGpP02.-_ vaAoObBuUtT\n\u017f\u212a\u0663é"), max_size=10),
        max_size=30,
    )
)
def test_python_and_sql_read_the_expression_alike(names: list[str]) -> None:
    names = [*names, *("license" + name for name in names), *(name + ".lgpl" for name in names)]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT regexp_full_match(name, $1) FROM unnest($2::VARCHAR[]) t(name)", [LICENSE_PATH, names]
        ).fetchall()
    assert [row[0] for row in rows] == [is_license_like("/" + name) for name in names]


def test_the_packaged_list_is_sane() -> None:
    keys = license_categories.permissive_licenses()
    assert {"MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "Unlicense", "CC0-1.0", "Python-2.0"} <= keys
    assert not keys & license_categories.NEUTRAL_LICENSES
    assert not [key for key in keys if re.match(r"(A|L)?GPL-|MPL-|EPL-|CC-BY-(SA|NC)|SSPL|BUSL", key)]


@pytest.mark.skipif(not BLUE_OAK.exists(), reason="the Blue Oak sample is not beside the checkout")
def test_the_packaged_list_is_what_its_origins_give(tmp_path: Path) -> None:
    output = tmp_path / "list.txt"
    assert license_categories.main(["--blue-oak", str(BLUE_OAK), "--output", str(output)]) == 0
    packaged = Path(license_categories.__file__).with_name("permissive_licenses.txt")
    assert output.read_text(encoding="utf-8") == packaged.read_text(encoding="utf-8")


def test_another_shape_of_list_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ({"licenses": []}, [{"name": "Gold"}], [1], 5):
        with pytest.raises(InputError, match="not a Blue Oak list"):
            license_categories.derive([], json.loads(json.dumps(wrong)))
    assert license_categories.main(["--blue-oak", str(tmp_path / "absent.json")]) == InputError.exit_code
    assert "absent.json" in capsys.readouterr().err
