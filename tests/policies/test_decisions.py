"""The policy as a whole: order, columns, what is read, and that `evaluate` says what `decide` did."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from small_corpus import DAY, SmallCorpus

from starsmith import recipe
from starsmith.corpus import query, schema
from starsmith.errors import InputError
from starsmith.policies import decisions, licenses, opt_out
from starsmith.policies.decisions import Policy


def decided_tables(corpus: SmallCorpus, policy: Policy) -> query.Tables:
    """The corpus's tables with the ledger in them."""
    decided = decisions.decide(corpus.tables(), policy)
    corpus.write("decisions", decided.decisions)
    corpus.write("kept", decided.kept)
    return corpus.tables()


@pytest.fixture
def varied(corpus: SmallCorpus) -> SmallCorpus:
    """One file for each way to end."""
    corpus.add("/kept.py", content="kept", star_events_count=9)
    corpus.add("/copy.py", content="kept")
    corpus.add("/near.py", content="near")
    corpus.pair("kept", "near", 0.9)
    corpus.add("/long.py", statistics={"max_line_length": 5000}, license_type="non_permissive")
    corpus.add("/image.png", status="binary", language=None)
    corpus.add("/secret.py", content="secret")
    corpus.finding("secret", "KEY")
    corpus.add("/gone.py", repo="gone/repo")
    return corpus


POLICY = Policy(opt_out_targets=opt_out.parse("gone"))


def test_every_rule_answers_for_every_way_to_end(varied: SmallCorpus) -> None:
    tables = decided_tables(varied, POLICY)
    ids = {row["path"]: row["file_id"] for row in varied.rows["files"]}
    rows = decisions.evaluate(tables, POLICY, list(ids.values())).to_pylist()
    assert len(rows) == len(ids) * len(decisions.rules(POLICY))
    assert {row["outcome"] for row in rows} == set(decisions.OUTCOMES)
    said = {path: {row["rule"]: row for row in rows if row["file_id"] == file_id} for path, file_id in ids.items()}

    def outcomes(path: str, *rules: str) -> list[str]:
        return [said[path][rule]["outcome"] for rule in rules]

    later = ("exact_duplicate", "near_duplicate", "pii")
    assert outcomes("/kept.py", *later) == ["pass", "pass", "not_applicable"]
    assert outcomes("/copy.py", *later) == ["drop", "not_reached", "not_reached"]
    assert outcomes("/near.py", *later) == ["pass", "drop", "not_reached"]
    assert outcomes("/long.py", *later) == ["not_reached"] * 3
    assert outcomes("/secret.py", *later) == ["pass", "pass", "edit"]
    assert outcomes("/long.py", "license", "max_line_length", "max_lines", "max_data_lines") == [
        "drop",
        "drop",
        "pass",
        "not_applicable",
    ]
    assert outcomes("/image.png", "status", "max_lines", "license", "vendored") == [
        "drop",
        "not_applicable",
        "pass",
        "off",
    ]
    assert outcomes("/gone.py", "opt_out", "exact_duplicate") == ["drop", "not_reached"]
    assert said["/kept.py"]["max_line_length"]["value"] == "80"
    assert said["/kept.py"]["max_line_length"]["threshold"] == "<= 1000"
    assert said["/kept.py"]["exact_duplicate"]["value"] == "2 copies"
    assert said["/kept.py"]["near_duplicate"]["value"] == "cluster of 2"
    assert said["/kept.py"]["license"]["evidence"] == "MIT at /LICENSE"
    assert said["/kept.py"]["max_data_lines"]["value"] is None
    assert said["/kept.py"]["max_lines"]["key"] == "filters.max_lines"

    ledger = {
        (row["file_id"], row["rule"]): (row["value"], row["threshold"], row["evidence"])
        for row in varied.rows["decisions"]
    }
    answered = {
        (row["file_id"], row["rule"]): (row["value"], row["threshold"], row["evidence"])
        for row in rows
        if row["outcome"] in ("drop", "edit")
    }
    assert answered == ledger
    assert decisions.evaluate(tables, POLICY, ["0" * 40]).num_rows == 0


def test_a_ledger_of_another_policy_is_not_explained_by_this_one(varied: SmallCorpus) -> None:
    tables = decided_tables(varied, POLICY)
    (long_id,) = [row["file_id"] for row in varied.rows["files"] if row["path"] == "/long.py"]
    for other in (
        Policy(opt_out_targets=POLICY.opt_out_targets, filters=recipe.Filters(max_line_length=2000)),
        Policy(opt_out_targets=POLICY.opt_out_targets, filters=recipe.Filters(max_line_length=9000)),
    ):
        with pytest.raises(InputError, match="'max_line_length' differs"):
            decisions.evaluate(tables, other, [long_id])


def test_no_policy_reads_a_text(varied: SmallCorpus) -> None:
    """The text column's bytes are destroyed: whoever decodes them fails, whoever does not sees no difference."""
    varied.add("/LICENSE", content="mit", license_type="permissive")
    varied.license_text("mit", "MIT")
    for row in varied.rows["contents"]:
        row["text"] = f"text of {row['content_id']} " * 40 if row["status"] == "text" else None
    tables = varied.tables(without_text=False)
    expected = decisions.decide(tables, POLICY)
    (place,) = tables["contents"]
    metadata = pq.read_metadata(place)
    data = bytearray(place.read_bytes())
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(metadata.num_columns - 1)
        assert column.path_in_schema == "text"
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    place.write_bytes(data)
    with pytest.raises(duckdb.Error), query.connect(tables) as connection:
        connection.execute("SELECT max(length(text)) FROM contents").fetchall()
    found = decisions.decide(tables, POLICY)
    assert found.kept.equals(expected.kept)
    assert found.decisions.equals(expected.decisions)
    varied_tables = dict(tables) | {"decisions": _written(varied.folder / "d.parquet", found)}
    assert decisions.evaluate(varied_tables, POLICY, found.kept["file_id"].to_pylist()).num_rows > 0
    assert licenses.file_licenses(tables, recipe.Licenses()).num_rows == len(varied.rows["files"])


def _written(place: Path, decided: decisions.Decided) -> list[Path]:
    pq.write_table(decided.decisions, place)
    return [place]


EXTENSIONS = {
    "/a/b.PY": "py",
    "/a.b/Makefile": None,
    "/a.tar.GZ": "gz",
    "/.gitignore": "gitignore",
    "/odd.": None,
    "/new\nline.rs": "rs",
}


def test_extension(corpus: SmallCorpus) -> None:
    for path in EXTENSIONS:
        corpus.add(path)
    kept = decisions.decide(corpus.tables(), Policy()).kept.to_pylist()
    assert {row["path"]: row["extension"] for row in kept} == EXTENSIONS


def test_kept_has_everything_a_release_needs(corpus: SmallCorpus) -> None:
    file_id = corpus.add(
        "/a.py",
        detected=("Apache-2.0", "MIT"),
        flags={"is_vendor": True},
        github_id=7,
        visit_date=DAY,
        star_events_count=3,
    )
    kept = decisions.decide(corpus.tables(), Policy()).kept
    assert kept.schema.equals(schema.KEPT)
    (row,) = kept.to_pylist()
    wanted = {"file_id": file_id, "github_id": 7, "visit_date": DAY, "star_events_count": 3, "is_vendor": True}
    wanted |= {"src_encoding": "utf-8", "language": "Python", "license_type": "permissive"}
    wanted |= {"detected_licenses": ["Apache-2.0", "MIT"]}
    assert row | wanted == row


def test_an_empty_corpus(corpus: SmallCorpus) -> None:
    decided = decisions.decide({}, Policy())
    assert decided.kept.schema.equals(schema.KEPT)
    assert decided.decisions.schema.equals(schema.DECISIONS)
    assert decided.kept.num_rows == decided.decisions.num_rows == 0


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("contents", "without a content"),
        ("text_statistics", "without text statistics"),
        ("language", "without a language row"),
        ("file_licenses", "without a licence row"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(corpus: SmallCorpus, table: str, fault: str) -> None:
    corpus.add("/a.py")
    corpus.rows[table].clear()
    with pytest.raises(ValueError, match=fault):
        decisions.decide(corpus.tables(), Policy())


def test_names_with_quotes_do_not_break_the_query(corpus: SmallCorpus) -> None:
    kept = corpus.add("/it's; DROP TABLE files; --.py", repo="o'wner/repo", language="C'")
    policy = Policy(
        languages=recipe.Languages(exclude=("B'",), include=("C'",)),
        filters=recipe.Filters(text_stems=("it's",)),
        opt_out_targets=opt_out.parse("someone/else:/it's"),
    )
    assert decisions.decide(corpus.tables(), policy).kept["file_id"].to_pylist() == [kept]


def test_parameters_follow_every_key_that_decides(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("owner\n")
    base = {"run": {"name": "x"}, "sources": [{"type": "folder", "path": "."}]}

    def parameters(**sections: object) -> object:
        return Policy.from_recipe(recipe.parse(base | sections)).parameters()

    variants = [
        {},
        {"filters": {"max_lines": 5}},
        {"languages": {"exclude": [f"L{number}" for number in range(20)]}},
        {"languages": {"exclude": [f"L{number}" for number in range(19)] + ["other"]}},
        {"licenses": {"keep": ["permissive"]}},
        {"near_duplicates": {"per_language": False}},
        {"near_duplicates": {"threshold": 0.8}},
        {"near_duplicates": {"enabled": False}},
        {"near_duplicates": {"survivors": "whole_repository"}},
        {"malware": {"clamd": "localhost:3310"}},
        {"malware": {"clamd": "localhost:3310", "ignore": ["Heuristics.*"]}},
        {"quality": {"min_comment_fraction": 0.1}},
        {"decontamination": {"min_ngram_fraction": 0.5}},
        {"mix": {"languages": "smol"}},
        {"mix": {"max_bytes": {"Java": 7}}},
        {"run": {"name": "x", "seed": 7}},
        {"pii": {"kinds": ["EMAIL"]}},
        {"decontamination": {"packaged_humaneval": False}},
        {"opt_out": {"file": str(listed)}},
    ]
    found = [repr(parameters(**variant)) for variant in variants]
    assert len(set(found)) == len(variants)
    before = parameters(opt_out={"file": str(listed)})
    listed.write_text("owner\nanother\n")
    assert parameters(opt_out={"file": str(listed)}) != before
    assert parameters(training={"steps": 7}) == parameters()


def test_rules_are_named_once_and_every_key_is_one_of_the_recipe() -> None:
    listed = decisions.rules(Policy())
    assert len({rule.name for rule in listed}) == len(listed)
    for rule in listed:
        section: object = recipe.Recipe
        for part in filter(None, rule.key.split(".")):
            fields = section.model_fields  # type: ignore[attr-defined]
            assert part in fields, rule.key
            section = fields[part].annotation


def _said(corpus: SmallCorpus, policy: Policy, rule: str) -> dict[str, tuple[str, str, str]]:
    """Path to outcome, value and evidence of one rule, the ledger being one with what `evaluate` answers."""
    tables = decided_tables(corpus, policy)
    paths = {row["file_id"]: row["path"] for row in corpus.rows["files"]}
    rows = [row for row in decisions.evaluate(tables, policy, list(paths)).to_pylist() if row["rule"] == rule]
    dropped = {row["file_id"]: row for row in corpus.rows["decisions"] if row["rule"] == rule}
    assert {row["file_id"] for row in rows if row["outcome"] == "drop"} == set(dropped)
    for row in rows:
        if row["file_id"] in dropped:
            assert row["evidence"] == dropped[row["file_id"]]["evidence"]
    return {paths[row["file_id"]]: (row["outcome"], row["value"], row["evidence"]) for row in rows}


def test_malware_drops_unless_its_signature_is_ignored(corpus: SmallCorpus) -> None:
    signatures = {
        "bad": ("Eicar-Test",),
        "ignored": ("Sane.Spam_1",),
        "both": ("Sane.Spam_2", "Eicar-Test"),
        "case": ("sane.spam",),
        "literal": ("SaneXSpam",),
        "percent": ("100%_x",),
        "clean": (),
    }
    for name, found in signatures.items():
        corpus.add(f"/{name}", content=name)
        for signature in found:
            corpus.infect(name, signature)
    corpus.infect("bad", "rule_of_ours", engine="yara")
    config = recipe.Malware(clamd="localhost:3310", ignore=("Sane.*", "100%_*", "it's"))
    said = _said(corpus, Policy(malware=config), "malware")
    assert {path for path, row in said.items() if row[0] == "drop"} == {"/bad", "/both", "/case", "/literal"}
    assert said["/bad"][1:] == ("2", "clamav Eicar-Test; yara rule_of_ours")
    assert said["/both"][1:] == ("1", "clamav Eicar-Test")
    assert said["/ignored"] == ("pass", "0", "ignored: clamav Sane.Spam_1")
    off = _said(corpus, Policy(), "malware")
    assert {row[0] for row in off.values()} == {"off"}


def test_quality_rules_are_off_until_asked_and_broken_only_beyond_the_bound(corpus: SmallCorpus) -> None:
    for name, share in (("none", 0.0), ("edge", 0.1), ("much", 0.9)):
        corpus.add(f"/{name}.py", content=name)
        corpus.measure_quality(name, comment_fraction=share, parse_error_fraction=share, score=share)
        corpus.measure_quality(name, language="C", comment_fraction=0.5)
    corpus.add("/unmeasured.py")
    classifier = Path("classifier")
    cases: list[tuple[recipe.Quality, str, set[str]]] = [
        (recipe.Quality(min_comment_fraction=0.1), "min_comment_fraction", {"/none.py"}),
        (recipe.Quality(max_comment_fraction=0.1), "max_comment_fraction", {"/much.py"}),
        (recipe.Quality(max_parse_error_fraction=0.1), "max_parse_error_fraction", {"/much.py"}),
        (recipe.Quality(min_score=0.1, classifier=classifier), "min_quality_score", {"/none.py"}),
    ]
    for config, rule, dropped in cases:
        said = _said(corpus, Policy(quality=config), rule)
        assert {path for path, row in said.items() if row[0] == "drop"} == dropped
        assert said["/unmeasured.py"][0] == "not_applicable"
        assert _said(corpus, Policy(), rule)["/none.py"][0] == "off"
    with pytest.raises(InputError, match=r"quality\.classifier"):
        Policy.from_recipe(
            recipe.parse(
                {"run": {"name": "x"}, "sources": [{"type": "folder", "path": "."}], "quality": {"min_score": 0.5}}
            )
        )


def test_contamination_by_n_grams_drops_from_its_threshold_on(corpus: SmallCorpus) -> None:
    for name, score in (("near", 0.79), ("at", 0.8), ("whole", 0.1)):
        corpus.add(f"/{name}.py", content=name)
        corpus.contaminate(name, "HumanEval/1", method="ngram", score=score, span=(5, 90))
    corpus.contaminate("whole", "HumanEval/1", span=(7, 80))
    said = _said(corpus, Policy(), "contamination")
    assert said["/near.py"] == (
        "pass",
        "0",
        "below the threshold: humaneval HumanEval/1 (docstring): 0.79 of its n-grams at bytes 5-90",
    )
    assert said["/at.py"] == ("drop", "1", "humaneval HumanEval/1 (docstring): 0.8 of its n-grams at bytes 5-90")
    assert said["/whole.py"] == ("drop", "1", "humaneval HumanEval/1 (docstring): the whole text at bytes 7-80")
    loose = Policy(decontamination=recipe.Decontamination(min_ngram_fraction=0.7))
    assert _said(corpus, loose, "contamination")["/near.py"][0] == "drop"
