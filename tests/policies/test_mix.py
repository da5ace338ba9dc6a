"""The mix: which languages stay, and which files of a language lie beyond its volume."""

import enry
import pytest
from small_corpus import SmallCorpus

from starsmith import recipe
from starsmith.policies import decisions, mix
from starsmith.policies.decisions import Policy


def test_smol_keeps_its_languages_and_configuration_files(corpus: SmallCorpus) -> None:
    kept = {"/a.py": "Python", "/readme.rst": "reStructuredText", "/Dockerfile": "Dockerfile", "/yarn.lock": "Odd"}
    dropped = {"/a.hs": "Haskell", "/a.svg": "SVG", "/cargo.toml": "Odd"}
    for path, language in (kept | dropped).items():
        corpus.add(path, language=language)
    corpus.add("/image.png", status="binary", language=None)
    policy = Policy(mix=recipe.Mix(languages="smol"))
    decided = decisions.decide(corpus.tables(), policy)
    assert set(decided.kept["path"].to_pylist()) == set(kept)
    rows = {row["value"]: row for row in decided.decisions.to_pylist() if row["rule"] == "mix_language"}
    assert set(rows) == {"Haskell", "SVG", "Odd"}
    assert rows["Odd"]["evidence"] == "the file is cargo.toml"
    assert rows["SVG"]["threshold"].startswith("one of 17 programming, 7 documentation and 14 configuration")
    full = decisions.decide(corpus.tables(), Policy())
    assert "mix_language" not in full.decisions["rule"].to_pylist()


def test_go_enry_knows_every_language_of_the_lists() -> None:
    names = {*mix.SMOL_LANGUAGES, *recipe.Mix().max_bytes}
    assert (
        sorted(name for name in names if not enry.get_language_extensions(name) and not _by_file_name(name)) == []
    )


def _by_file_name(language: str) -> bool:
    return any(
        language in enry.get_languages_by_filename(name)
        for name in (*mix.CONFIGURATION_FILES, ".npmrc", "build.xml")
    )


def volumes(corpus: SmallCorpus, max_bytes: int, seed: int = 42) -> decisions.Decided:
    policy = Policy(mix=recipe.Mix(max_bytes={"Java": max_bytes, "C": 10**9}), seed=seed)
    return decisions.decide(corpus.tables(), policy)


@pytest.fixture
def java(corpus: SmallCorpus) -> SmallCorpus:
    for number in range(20):
        corpus.add(f"/{number}.java", content=f"java {number}", language="Java", length_bytes=100 + number)
        corpus.add(f"/{number}.c", content=f"c {number}", language="C", length_bytes=10**6)
    return corpus


def test_a_larger_volume_keeps_all_that_a_smaller_one_keeps(java: SmallCorpus) -> None:
    before: set[str] = set()
    lengths = {row["file_id"]: row["length_bytes"] for row in java.rows["files"]}
    paths = {row["file_id"]: row["path"] for row in java.rows["files"]}
    for max_bytes in (50, 500, 1000, 2000, 2190):
        decided = volumes(java, max_bytes)
        kept = {file_id for file_id in decided.kept["file_id"].to_pylist() if paths[file_id].endswith(".java")}
        assert kept >= before
        total = sum(lengths[file_id] for file_id in kept)
        assert max_bytes - 120 < total <= max_bytes or len(kept) == 20 or max_bytes < 120
        assert decided.kept.num_rows == 20 + len(kept)  # the other language is not touched
        before = kept
    assert len(before) == 20


def test_the_draw_does_not_depend_on_other_files_but_on_the_seed(java: SmallCorpus) -> None:
    def places(decided: decisions.Decided) -> list[str]:
        rows = decided.decisions.to_pylist()
        rows.sort(key=lambda row: int(row["value"].split()[0]))
        return [row["content_id"] for row in rows]

    few = places(volumes(java, 1))
    assert len(few) == 20
    assert places(volumes(java, 1, seed=1)) != few
    for number in range(30):
        java.add(f"/more{number}.java", content=f"more {number}", language="Java", length_bytes=70)
    more = places(volumes(java, 1))
    assert [content for content in more if content in few] == few


def test_the_ledger_and_explain_agree(java: SmallCorpus) -> None:
    policy = Policy(mix=recipe.Mix(max_bytes={"Java": 1000, "C": 10**9}))
    decided = decisions.decide(java.tables(), policy)
    java.write("decisions", decided.decisions)
    (order,) = {row["order"] for row in decided.decisions.to_pylist()}
    names = [rule.name for rule in decisions.rules(policy)]
    assert names[order] == "mix_volume"
    assert names.index("near_duplicate") < order < names.index("pii")
    row = decided.decisions.to_pylist()[0]
    assert row["threshold"] == "<= 1000 bytes of Java"
    assert int(row["value"].removesuffix(" bytes")) > 1000
    assert row["evidence"].endswith("of 20 of Java by keyed hash; 2190 bytes in all")
    file_ids = [row["file_id"] for row in java.rows["files"]]
    said = decisions.evaluate(java.tables(), policy, file_ids).to_pylist()
    said = [row for row in said if row["rule"] == "mix_volume"]
    dropped = {row["file_id"]: row for row in decided.decisions.to_pylist()}
    for answer in said:
        if answer["file_id"] in dropped:
            ledger = dropped[answer["file_id"]]
            assert answer["outcome"] == "drop"
            assert [answer[k] for k in ("value", "threshold", "evidence")] == [
                ledger[k] for k in ("value", "threshold", "evidence")
            ]
        else:
            assert answer["outcome"] == "pass"
            assert answer["threshold"] in ("<= 1000 bytes of Java", "<= 1000000000 bytes of C")
            assert answer["value"] == ("0" if answer["threshold"].endswith("C") else str(len(dropped))) + (
                " files beyond it"
            )
    without = Policy(mix=recipe.Mix(max_bytes={}))
    java.write("decisions", decisions.decide(java.tables(), without).decisions)
    off = decisions.evaluate(java.tables(), without, file_ids).to_pylist()
    assert {row["outcome"] for row in off if row["rule"] == "mix_volume"} == {"off"}


def test_a_language_without_a_volume_is_not_asked(corpus: SmallCorpus) -> None:
    file_id = corpus.add("/a.py")
    policy = Policy()
    corpus.write("decisions", decisions.decide(corpus.tables(), policy).decisions)
    rows = decisions.evaluate(corpus.tables(), policy, [file_id]).to_pylist()
    assert [row["outcome"] for row in rows if row["rule"] == "mix_volume"] == ["not_applicable"]
