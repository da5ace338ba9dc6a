"""What The Stack v2 left out is left out, under the names of today, and every rule can be switched."""

from typing import Any

import pytest
from small_corpus import SmallCorpus

from starsmith import recipe
from starsmith.policies import decisions, languages
from starsmith.policies.decisions import Policy
from starsmith.policies.languages import MOVED_EXTENSIONS, RENAMED_LANGUAGES, stack_v2_excluded

ALL = recipe.Languages(policy="all")


def rules_of(corpus: SmallCorpus, config: recipe.Languages | None = None) -> dict[str, list[str]]:
    """The rules that drop each path."""
    tables = corpus.tables()
    policy = Policy(languages=config or recipe.Languages())
    rows = decisions.decide(tables, policy).decisions.to_pylist()
    paths = {row["file_id"]: row["path"] for row in corpus.rows["files"]}
    found: dict[str, list[str]] = {path: [] for path in paths.values()}
    for row in rows:
        found[paths[row["file_id"]]].append(row["rule"])
    return found


def test_the_list_has_what_the_reference_counts() -> None:
    excluded = stack_v2_excluded()
    assert len(excluded.languages) == 53
    assert len(excluded.pairs) == 91 + len(MOVED_EXTENSIONS)
    assert not {language for language, _ in excluded.pairs} & excluded.languages
    assert {"CSV", "SVG", "desktop", "XML Property List"} <= excluded.languages
    assert {("XML", "kml"), ("C++", ""), ("TeX", "aux"), ("TOML", "lock")} <= excluded.pairs


def test_every_name_is_known_to_enry_or_renamed() -> None:
    import enry

    excluded = stack_v2_excluded()
    names = excluded.languages | {language for language, _ in excluded.pairs}
    assert [name for name in names if enry.get_language_type(name) == "unknown"] == []
    for listed, now in RENAMED_LANGUAGES.items():
        assert enry.get_language_type(listed) == "unknown" != enry.get_language_type(now)


def test_pairs_that_moved_have_moved() -> None:
    import enry

    for (listed, extension), now in MOVED_EXTENSIONS.items():
        assert enry.get_language(f"x.{extension}", b"x\n") == now != listed


def test_the_policy_leaves_out_languages_and_extensions(corpus: SmallCorpus) -> None:
    cases = {
        "/a.csv": ("CSV", ["language_excluded_by_policy"]),
        "/b.kml": ("XML", ["extension_excluded_by_policy"]),
        "/c.KML": ("XML", ["extension_excluded_by_policy"]),
        "/d.xml": ("XML", []),
        "/e.kml": ("Python", []),
        "/NOEXTENSION": ("C++", ["extension_excluded_by_policy"]),
        "/f.cpp": ("C++", []),
        "/g.cdf": ("Wolfram Language", ["extension_excluded_by_policy"]),
        "/h.env": ("Dotenv", ["extension_excluded_by_policy"]),
        "/.env": ("Shell", ["extension_excluded_by_policy"]),
        "/dir.kml/i.xml": ("XML", []),
        "/poetry.lock": ("TOML", ["extension_excluded_by_policy"]),
    }
    for path, (language, _) in cases.items():
        corpus.add(path, language=language)
    assert rules_of(corpus) == {path: rules for path, (_, rules) in cases.items()}


def test_all_switches_the_policy_off(corpus: SmallCorpus) -> None:
    corpus.add("/a.csv", language="CSV")
    corpus.add("/b.kml", language="XML")
    assert rules_of(corpus, ALL) == {"/a.csv": [], "/b.kml": []}
    off = {row["rule"] for row in decisions.rules_table(Policy(languages=ALL)).to_pylist() if not row["enabled"]}
    assert {"language_excluded_by_policy", "extension_excluded_by_policy"} <= off


def test_the_ledger_says_what_was_found_and_allowed(corpus: SmallCorpus) -> None:
    corpus.add("/a.csv", language="CSV")
    corpus.add("/CPP", language="C++")
    corpus.add("/b.lock", language="TOML")
    rows = decisions.decide(corpus.tables(), Policy()).decisions.to_pylist()
    shown = {(row["value"], row["threshold"], row["evidence"]) for row in rows}
    extensions = "not one of the 92 extensions of languages that The Stack v2 left out"
    assert shown == {
        ("CSV", "not one of the 53 languages that The Stack v2 left out", "go-enry on the name a.csv"),
        ("C++ without an extension", extensions, "go-enry on the name CPP"),
        ("TOML .lock", extensions, "go-enry on the name b.lock"),
    }


def test_files_without_text_are_left_to_the_rule_on_their_status(corpus: SmallCorpus) -> None:
    corpus.add("/a.csv", status="binary", language=None)
    assert rules_of(corpus) == {"/a.csv": ["status"]}


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (recipe.Languages(exclude=("C", "Roff")), "language_excluded"),
        (recipe.Languages(include=("C", "Rust")), "language_not_included"),
        (recipe.Languages(keep_vendored=False), "vendored"),
        (recipe.Languages(keep_documentation=False), "documentation"),
    ],
)
def test_language_rules_switched_on(corpus: SmallCorpus, config: recipe.Languages, rule: str) -> None:
    corpus.add("/a.x", language="Python" if config.exclude else "Rust")
    corpus.add("/b.x", language="Roff", flags={"is_vendor": True, "is_documentation": True})
    assert rules_of(corpus, config) == {"/a.x": [], "/b.x": [rule]}


def test_include_does_not_bring_back_what_the_policy_leaves_out(corpus: SmallCorpus) -> None:
    corpus.add("/a.csv", language="CSV")
    include: dict[str, Any] = {"include": ("CSV",)}
    assert rules_of(corpus, recipe.Languages(**include)) == {"/a.csv": ["language_excluded_by_policy"]}
    assert rules_of(corpus, recipe.Languages(policy="all", **include)) == {"/a.csv": []}


def test_unknown_language_is_one_reason_not_many(corpus: SmallCorpus) -> None:
    corpus.add("/a", language=None)
    config = recipe.Languages(include=("C",), exclude=("Roff",))
    assert rules_of(corpus, config) == {"/a": ["language_unknown"]}


def test_every_rule_names_a_key_of_the_recipe() -> None:
    keys = {rule.key.removeprefix("languages.") for rule in languages.language_rules(recipe.Languages())}
    assert keys == set(recipe.Languages.model_fields)
