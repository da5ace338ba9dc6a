import pyarrow.parquet as pq
import pytest
import report_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.inspection.funnel import Amount, Funnel, funnel


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return report_corpus.build(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def counted(tables) -> Funnel:
    return funnel(tables)


def _plain(tables):
    return {
        name: [row for part in parts for row in pq.read_table(part).to_pylist()] for name, parts in tables.items()
    }


def test_arrived_is_kept_plus_dropped_in_files_and_bytes(counted):
    for unit in ("files", "bytes"):
        by_rule = sum(getattr(rule.dropped, unit) for rule in counted.rules)
        assert getattr(counted.arrived, unit) == getattr(counted.kept, unit) + by_rule
        assert getattr(counted.dropped, unit) == by_rule
    assert counted.unaccounted == Amount()
    assert counted.dropped.files > 20 and counted.kept.files > 20


def test_counts_agree_with_a_plain_count(tables, counted):
    rows = _plain(tables)
    size = {row["file_id"]: row["length_bytes"] for row in rows["files"]}
    first, alone = {}, {}
    for row in sorted(rows["decisions"], key=lambda row: (row["order"], row["rule"])):
        if row["action"] == "drop":
            first.setdefault(row["file_id"], row["rule"])
            alone.setdefault(row["rule"], set()).add(row["file_id"])
    for rule in counted.rules:
        mine = [file_id for file_id, name in first.items() if name == rule.name]
        assert rule.dropped == Amount(files=len(mine), bytes=sum(size[file_id] for file_id in mine))
        assert rule.alone.files == len(alone.get(rule.name, ()))
    near = next(rule for rule in counted.rules if rule.name == "near_duplicate")
    assert near.alone.files > near.dropped.files, "a file that two rules drop counts under the first"


def test_rules_stand_in_the_policys_order(counted):
    assert [rule.order for rule in counted.rules] == sorted(rule.order for rule in counted.rules)


def test_edits_are_counted_for_kept_files(tables, counted):
    edited = {row["file_id"] for row in _plain(tables)["decisions"] if row["action"] == "edit"}
    assert counted.edited.files == len(edited) > 0
    assert next(rule for rule in counted.rules if rule.name == "pii").edited == counted.edited


def test_examples_belong_to_their_rule_and_do_not_depend_on_the_order_of_rows(tables, counted, tmp_path):
    rows = _plain(tables)
    dropped_by = {}
    place = {row["file_id"]: (row["repo_name"], row["path"]) for row in rows["files"]}
    for row in rows["decisions"]:
        dropped_by.setdefault(row["rule"], set()).add(place[row["file_id"]])
    for rule in counted.rules:
        assert 0 < len(rule.examples) <= 5
        assert {(e.repo_name, e.path) for e in rule.examples} <= dropped_by[rule.name]
    turned = {name: report_corpus.write(tmp_path, name, rows[name][::-1]) for name in rows}
    assert funnel(turned) == counted
    assert funnel(tables, seed=1).rules != counted.rules, "another seed draws other examples"


def test_incidents_are_counted_by_kind(counted):
    assert [(kind.kind, kind.count, kind.bytes) for kind in counted.incidents] == [
        ("link", 2, 0),
        ("bomb", 1, 9_000_000),
        ("traversal", 1, 120),
    ]


def test_a_file_that_vanished_is_shown_and_not_hidden(tables, tmp_path):
    rows = _plain(tables)
    lost = rows["kept"].pop()
    broken = {**tables, "kept": report_corpus.write(tmp_path, "kept", rows["kept"])}
    assert funnel(broken).unaccounted == Amount(files=1, bytes=lost["length_bytes"])


def test_an_empty_corpus_has_an_empty_funnel():
    empty = funnel({"files": [], "decisions": [], "kept": [], "incidents": []})
    assert empty.arrived == empty.kept == empty.dropped == empty.unaccounted == Amount()
    assert empty.rules == () and empty.incidents == ()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), num_files=st.integers(4, 40))
def test_sums_hold_for_any_corpus(tmp_path_factory, seed, num_files):
    tables = report_corpus.build(tmp_path_factory.mktemp("drawn"), num_files=num_files, seed=seed)
    counted = funnel(tables)
    assert counted.arrived.bytes == counted.kept.bytes + counted.dropped.bytes
    assert counted.unaccounted == Amount()
