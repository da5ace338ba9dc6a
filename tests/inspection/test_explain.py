"""Targets are found, refused or offered; chains and summaries say what the policies did."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import pytest
from decided_corpus import SmallCorpus, decide, hex_id
from rich.console import Console

from starsmith.corpus import query
from starsmith.errors import InputError
from starsmith.inspection import explain
from starsmith.inspection.explain import Explanation
from starsmith.policies import decisions
from starsmith.policies.decisions import Policy


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    corpus = SmallCorpus(tmp_path_factory.mktemp("explained"))
    stars = {"star_events_count": 9, "revision_id": hex_id("rev")}
    corpus.add("/src/main.py", repo="ann/tool", content="main", detected=("MIT",), **stars)
    corpus.add("/src/long.py", repo="ann/tool", statistics={"max_line_length": 5000, "alpha_fraction": 0.1})
    corpus.add("/logo.png", repo="ann/tool", status="binary", language=None)
    corpus.add("/lib/copy.py", repo="ben/app", content="main")
    corpus.add("/lib/near.py", repo="ben/app", content="near", origin="https://example.org/ben/app")
    corpus.add("/lib/secret.py", repo="ben/app", content="secret", origin="https://example.org/ben/app")
    corpus.add("/setup.py", repo="ann/tool", content="setup one", root="first")
    corpus.add("/setup.py", repo="ann/tool", content="setup two", root="second")
    corpus.add("/bad\x1b[31m.py", repo="cid/tool")
    corpus.pair("main", "near", 0.8125)
    corpus.finding("secret", "KEY")
    corpus.rows["incidents"].append(
        {"source": "folder", "origin": "/archives/ann/tool", "repo_name": "ann/tool", "path": "/../evil"}
        | {"kind": "traversal", "detail": "leaves the archive", "length_bytes": None}
    )
    corpus.explained = decide(corpus)
    return corpus


def ask(corpus: Any, target: str) -> Explanation:
    tables: query.Tables = corpus.explained
    return explain.explain(tables, target, functools.partial(decisions.evaluate, tables, Policy()))


def shown(explanation: Explanation) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200, color_system=None).print(explain.render(explanation))
    json.dumps(explanation.to_dict())
    return stream.getvalue()


@pytest.mark.parametrize(
    "target",
    [
        "/src/main.py",
        "src/main.py",
        "main.py",
        "ann/tool:/src/main.py",
        "ANN/tool:/src/main.py",
        "file_id",
    ],
)
def test_a_kept_file_by_any_of_its_names(corpus: Any, target: str) -> None:
    if target == "file_id":
        target = next(row["file_id"] for row in corpus.rows["files"] if row["path"] == "/src/main.py")
    (chain,) = ask(corpus, target).files
    assert (str(chain.place), chain.place.fate, chain.is_kept) == ("ann/tool:/src/main.py", "kept", True)
    assert chain.detected_licenses == ("MIT",)
    assert chain.license_evidence == "MIT at /LICENSE"
    outcomes = {outcome.rule: outcome for outcome in chain.outcomes}
    assert len(outcomes) == len(decisions.rules(Policy()))
    assert outcomes["max_line_length"].value == "80"
    assert outcomes["max_line_length"].outcome == "pass"
    assert [str(place) for place in chain.duplicates] == ["ben/app:/lib/copy.py", "ben/app:/lib/near.py"]
    assert chain.num_duplicates == 2
    text = shown(ask(corpus, target))
    for expected in ("kept", "max_line_length", "<= 1000", "dropped in favour of it: 2", "switched off: opt_out"):
        assert expected in text


def test_a_dropped_file_shows_each_rule_that_it_breaks(corpus: Any) -> None:
    explanation = ask(corpus, "long.py")
    (chain,) = explanation.files
    assert chain.place.fate == "dropped by max_line_length"
    dropped = {outcome.rule: outcome.value for outcome in chain.outcomes if outcome.outcome == "drop"}
    assert dropped == {"max_line_length": "5000", "min_alpha_fraction": "0.1"}
    assert "not reached" in shown(explanation)
    assert chain.survivor is None


def test_dropped_duplicates_name_what_stays_instead(corpus: Any) -> None:
    for path in ("/lib/copy.py", "/lib/near.py"):
        explanation = ask(corpus, path)
        (chain,) = explanation.files
        assert str(chain.survivor) == "ann/tool:/src/main.py"
        assert "stays instead: ann/tool:/src/main.py (kept)" in shown(explanation)
    assert "0.8125" in shown(ask(corpus, "/lib/near.py"))


@pytest.mark.parametrize("prefix", ["swh:1:cnt:", "cnt:", "", "SWH:1:CNT:"])
def test_a_content_is_explained_at_every_place(corpus: Any, prefix: str) -> None:
    explanation = ask(corpus, prefix + hex_id("main"))
    assert [chain.place.fate for chain in explanation.files] == ["kept", "dropped by exact_duplicate"]
    assert {chain.swhid for chain in explanation.files} == {f"swh:1:cnt:{hex_id('main')}"}


@pytest.mark.parametrize("target", ["ann/tool", "Ann/Tool", "ann/tool/"])
def test_a_repository_is_summarised(corpus: Any, target: str) -> None:
    explanation = ask(corpus, target)
    summary = explanation.repository
    assert summary is not None
    assert (summary.num_files, summary.num_kept, summary.num_bytes) == (5, 3, 5000)
    assert len(summary.directory_ids) == 3
    counts = {rule.rule: (rule.num_files, rule.num_broken, rule.examples) for rule in summary.rules}
    assert counts == {
        "status": (1, 1, ("/logo.png",)),
        "max_line_length": (1, 1, ("/src/long.py",)),
        "min_alpha_fraction": (0, 1, ("/src/long.py",)),
    }
    (incident,) = summary.incidents
    assert (incident.kind, incident.num_incidents) == ("traversal", 1)
    assert "leaves the archive" in shown(explanation)


def test_other_ways_to_name_a_repository(corpus: Any) -> None:
    by_tail = ask(corpus, "app").repository
    by_origin = ask(corpus, "https://example.org/ben/app").repository
    by_revision = ask(corpus, f"swh:1:rev:{hex_id('rev')}").repository
    by_root = ask(corpus, f"swh:1:dir:{hex_id('first')}").repository
    by_hex = ask(corpus, hex_id("first")).repository
    for summary, num_files in ((by_tail, 3), (by_origin, 2), (by_revision, 1), (by_root, 1), (by_hex, 1)):
        assert summary is not None
        assert summary.num_files == num_files
    assert by_tail is not None
    edits = {rule.rule: (rule.action, rule.num_files) for rule in by_tail.rules}
    assert edits["pii"] == ("edit", 1)


def test_what_fits_several_is_offered(corpus: Any) -> None:
    files = ask(corpus, "setup.py")
    assert files.num_matches == 2
    assert len({place.file_id for place in files.candidates}) == 2
    assert "2 files fit" in shown(files)
    repositories = ask(corpus, "tool")
    assert repositories.repositories == {"ann/tool": 5, "cid/tool": 1}
    assert "cid/tool  1 files" in shown(repositories)


def test_what_a_source_refused_is_found(corpus: Any) -> None:
    explanation = ask(corpus, "ann/tool:/../evil")
    assert explanation.num_matches == 0
    assert [incident.kind for incident in explanation.incidents] == ["traversal"]
    assert "refused at its source" in shown(explanation)


@pytest.mark.parametrize(
    ("target", "near"),
    [("/src/mian.py", "/src/main.py"), ("an/tool", "ann/tool"), ("ann/tool:/src/lonk.py", "/src/long.py")],
)
def test_an_unknown_target_names_the_nearest(corpus: Any, target: str, near: str) -> None:
    with pytest.raises(InputError, match="nothing in this corpus fits") as raised:
        ask(corpus, target)
    assert near in str(raised.value)


@pytest.mark.parametrize("target", ["", "  ", "swh:1:xyz:12", "swh:2:cnt:" + "0" * 40, "0" * 40, "'; DROP TABLE"])
def test_malformed_and_absent_targets_are_input_errors(corpus: Any, target: str) -> None:
    with pytest.raises(InputError):
        ask(corpus, target)


def test_hostile_names_do_not_reach_the_terminal(corpus: Any) -> None:
    text = shown(ask(corpus, "cid/tool:/bad\x1b[31m.py"))
    assert "\x1b" not in text
    assert "/bad\\x1b[31m.py" in text


def test_an_empty_corpus_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing in this corpus"):
        explain.explain({}, "a.py", lambda _: decisions.EVALUATION.empty_table())
