"""Curation as a whole: a planted example of every rule, runs that grow and shrink, and hostile input.

The planted files and what each must show are in `planted_curation`.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from planted_curation import (
    BROAD_FILES,
    BROAD_SUPPORT_DROPS,
    NARROW_FILES,
    Planted,
    broad_recipe,
    code,
    narrow_recipe,
    words,
    write,
)
from starsmith import cli, plan, recipe
from starsmith.corpus.store import Result
from starsmith.inspection.funnel import Funnel, funnel
from starsmith.policies import decisions
from starsmith.policies.decisions import Policy
from starsmith.steps import data, measuring, signals
from starsmith.steps.step import Context

LEDGER = "policies/decisions"
HAS_YARA = importlib.util.find_spec("yara_x") is not None
HAS_GRAMMARS = importlib.util.find_spec("tree_sitter") is not None


def run(chosen: recipe.Recipe) -> dict[str, Result]:
    return plan.execute(plan.make(chosen, to=LEDGER))


def digests(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.digest() for name, result in results.items()}


# --- a planted example of every rule -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("planted")
    write(place)
    return place


@pytest.fixture(scope="module")
def broad(folder: Path) -> recipe.Recipe:
    """The recipe with the published thresholds, run up to the ledger."""
    chosen = broad_recipe(folder, has_yara=HAS_YARA)
    run(chosen)
    return chosen


@pytest.fixture(scope="module")
def narrow(folder: Path) -> recipe.Recipe:
    """The recipe with lists of languages and quality signals, run up to the ledger."""
    if not HAS_GRAMMARS:
        pytest.skip("the extra starsmith[quality] is not installed")
    chosen = narrow_recipe(folder)
    run(chosen)
    return chosen


def explained(place: str, run_folder: Path) -> dict[str, Any]:
    """What `starsmith explain PLACE --json` says of the one file at a place."""
    asked = CliRunner().invoke(cli.app, ["explain", place, "--run", str(run_folder), "--json"])
    assert asked.exception is None, asked.exception
    [chain] = json.loads(asked.stdout)["files"]
    found: dict[str, Any] = chain
    return found


def check_planted(planted: Planted, chosen: recipe.Recipe) -> None:
    chain = explained(planted.place, chosen.run.view)
    acting = [outcome for outcome in chain["outcomes"] if outcome["outcome"] in ("drop", "edit")]
    assert [(found["rule"], found["outcome"]) for found in acting] == [(planted.rule, planted.action)]
    [found] = acting
    assert found["value"] == planted.value
    assert planted.evidence in found["evidence"]
    expected_fate = "kept" if planted.action == "edit" else f"dropped by {planted.rule}"
    assert chain["place"]["fate"] == expected_fate
    thresholds = {rule.name: rule for rule in decisions.rules(Policy.from_recipe(chosen))}
    rule = thresholds[planted.rule]
    assert found["key"] == rule.key
    if rule.threshold is None:
        assert found["threshold"] == rule.allowed


def check_controls(files: tuple[Planted, ...], chosen: recipe.Recipe) -> None:
    """Every control is kept, nothing edits it, and the rule of its planted file lets it pass."""
    tables = data.corpus_tables(plan.results(chosen.run.view))
    kept = plan.results(chosen.run.view)[LEDGER].read("kept", ["file_id", "repo_name", "path"]).to_pylist()
    ids = {f"{row['repo_name']}:{row['path']}": row["file_id"] for row in kept}
    controls = {planted.control: planted.rule for planted in files}
    assert controls.keys() <= ids.keys()
    asked = decisions.evaluate(
        tables, Policy.from_recipe(chosen), [ids[place] for place in controls], threads=1
    ).to_pylist()
    outcomes = {(row["file_id"], row["rule"]): row["outcome"] for row in asked}
    assert set(outcomes.values()) <= {"pass", "not_applicable", "off"}
    passed = {place: outcomes[ids[place], rule] for place, rule in controls.items()}
    without_findings = {planted.control for planted in files if planted.action == "edit"}
    assert passed == {place: "not_applicable" if place in without_findings else "pass" for place in controls}


def test_every_rule_has_a_planted_example(folder: Path) -> None:
    """A rule that is added to the policy needs a row in `planted_curation`."""
    planted = {row.rule for row in (*BROAD_FILES, *NARROW_FILES)}
    assert planted == {rule.name for rule in decisions.rules(Policy())}
    enabled = {
        rule.name
        for chosen, files in (
            (broad_recipe(folder, has_yara=True), BROAD_FILES),
            (narrow_recipe(folder), NARROW_FILES),
        )
        for rule in decisions.rules(Policy.from_recipe(chosen))
        if rule.enabled and rule.name in {row.rule for row in files}
    }
    assert enabled == planted


def test_every_kind_of_personal_data_has_a_planted_example() -> None:
    found = {row.value.split()[0] for row in BROAD_FILES if row.rule == "pii"}
    assert found == set(recipe.Pii().kinds)


@pytest.mark.parametrize("planted", BROAD_FILES, ids=lambda planted: f"{planted.rule}-{planted.place}")
def test_explain_names_the_rule_its_value_and_where(planted: Planted, broad: recipe.Recipe) -> None:
    if planted.rule == "malware" and not HAS_YARA:
        pytest.skip("the extra starsmith[malware] is not installed")
    check_planted(planted, broad)


@pytest.mark.parametrize("planted", NARROW_FILES, ids=lambda planted: planted.rule)
def test_explain_names_the_rules_of_lists_and_quality(planted: Planted, narrow: recipe.Recipe) -> None:
    check_planted(planted, narrow)


def test_files_just_inside_each_bound_are_kept(broad: recipe.Recipe) -> None:
    files = tuple(planted for planted in BROAD_FILES if HAS_YARA or planted.rule != "malware")
    check_controls(files, broad)


def test_files_just_inside_the_bounds_of_lists_and_quality_are_kept(narrow: recipe.Recipe) -> None:
    check_controls(NARROW_FILES, narrow)


def test_the_funnel_counts_each_planted_file_under_its_rule(broad: recipe.Recipe) -> None:
    counted = funnel_of(broad)
    dropped = {rule.name: rule.dropped.files for rule in counted.rules if rule.dropped.files}
    planted = [row for row in BROAD_FILES if HAS_YARA or row.rule != "malware"]
    expected = Counter(row.rule for row in planted if row.action == "drop")
    expected += Counter(BROAD_SUPPORT_DROPS)
    assert dropped == expected
    assert counted.unaccounted.files == 0


def test_the_command_explains_in_a_process_of_its_own(broad: recipe.Recipe) -> None:
    command = [sys.executable, "-m", "starsmith", "explain", "ann/plain:/lines/many.py"]
    command += ["--run", str(broad.run.view), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    [chain] = json.loads(ran.stdout)["files"]
    [found] = [outcome for outcome in chain["outcomes"] if outcome["outcome"] == "drop"]
    assert (found["rule"], found["value"], found["threshold"]) == ("max_lines", "100001", "<= 100000")


def funnel_of(chosen: recipe.Recipe) -> Funnel:
    return funnel(data.corpus_tables(plan.results(chosen.run.view)))


# --- corpora that grow and shrink --------------------------------------------------------------------------------


def growing_recipe(folder: Path, runs: str, repositories: list[str], **tables: Any) -> recipe.Recipe:
    return recipe.parse(
        {
            "run": {"name": "growing", "folder": str(folder / runs), "cache": str(folder / "cache"), "workers": 1},
            "sources": [
                {"type": "folder", "path": str(folder / "code" / name), "repo_name": name} for name in repositories
            ],
            "licenses": {"evidence": ["manifests"]},
            "decontamination": {"packaged_humaneval": False},
            **tables,
        }
    )


def write_growing(folder: Path) -> None:
    """Two repositories with files of their own, one file in both, and one nearly the same; ann's has the better
    licence."""
    for owner, license_ in (("ann/first", "MIT"), ("ben/second", None)):
        name = owner.partition("/")[2]
        root = folder / "code" / owner
        root.mkdir(parents=True)
        for number in range(20):
            (root / f"{name}{number}.py").write_bytes(code(f"{name}{number}"))
        (root / "common.py").write_bytes(code("common"))
        (root / "near.py").write_bytes(words("near", 44, name, 5))
        (root / "mail.py").write_bytes(f"to = 'ann@{name}-lamps.se'\n".encode() + code(f"mail{name}"))
        if license_ is not None:
            (root / "package.json").write_text(f'{{"name": "{name}",\n"license": "{license_}"}}\n')


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    write_growing(tmp_path)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the contents that each signal reads, by table."""
    counts: Counter[str] = Counter()

    def measure_contents(context: Context, table: str, measure: Callable[[pa.Table], pa.Table]) -> dict[str, Any]:
        def counted(contents: pa.Table) -> pa.Table:
            counts[table] += contents.num_rows
            return measure(contents)

        return measuring.measure_contents(context, table, counted)

    monkeypatch.setattr(signals, "measure_contents", measure_contents)
    return counts


def num_contents(results: dict[str, Result]) -> int:
    found: int = results["contents"].facts["num_contents"]
    return found


def test_a_new_folder_is_measured_alone_and_gives_the_bytes_of_a_fresh_run(
    growing: Path, measured: Counter[str]
) -> None:
    both = ["ann/first", "ben/second"]
    before = num_contents(run(growing_recipe(growing, "runs", both[:1])))
    assert set(measured.values()) == {before}
    assert {"text_statistics", "contamination"} <= measured.keys()
    measured.clear()
    grown = run(growing_recipe(growing, "runs", both))
    new = num_contents(grown) - before
    assert new == 22  # all of the second repository but the file that both have
    assert set(measured.values()) == {new}
    assert digests(grown) == digests(run(growing_recipe(growing, "fresh", both)))


def test_a_removed_folder_measures_nothing_and_gives_the_bytes_of_a_fresh_run(
    growing: Path, measured: Counter[str]
) -> None:
    both = ["ann/first", "ben/second"]
    run(growing_recipe(growing, "runs", both))
    measured.clear()
    shrunk = run(growing_recipe(growing, "runs", both[1:]))
    assert not +measured
    assert digests(shrunk) == digests(run(growing_recipe(growing, "fresh", both[1:])))


def test_an_owner_who_opts_out_is_replaced_by_the_next_best_and_nothing_is_measured(
    growing: Path, measured: Counter[str]
) -> None:
    both = ["ann/first", "ben/second"]
    before = run(growing_recipe(growing, "runs", both))
    duplicated = {"/common.py", "/near.py"}
    assert {place for place in kept_places(before) if place[1] in duplicated} == {
        ("ann/first", path) for path in duplicated
    }
    measured.clear()
    (growing / "opt-out.txt").write_text("ann\n")
    changed = growing_recipe(growing, "runs", both, opt_out={"file": str(growing / "opt-out.txt")})
    planned = plan.make(changed, to=LEDGER)
    assert [step.step.name for step in planned.pending] == [LEDGER]
    after = plan.execute(planned)
    assert not +measured
    files = {path.name for path in (growing / "code" / "ben/second").iterdir()}
    assert kept_places(after) == {("ben/second", f"/{name}") for name in files}
    chain = explained("ann/first:/common.py", changed.run.view)
    assert chain["place"]["fate"] == "dropped by opt_out"
    assert chain["outcomes"][0]["value"] == "ann"


def kept_places(results: dict[str, Result]) -> set[tuple[str, str]]:
    rows = results[LEDGER].read("kept", ["repo_name", "path"]).to_pylist()
    return {(row["repo_name"], row["path"]) for row in rows}


# --- hostile input -----------------------------------------------------------------------------------------------

HOSTILE: dict[str, bytes] = {
    "/invalid.py": b"name = '\xc3\x28 \xa0\xa1 \xe2\x28\xa1'\n" * 20,
    "/latin1.py": "# Grüße aus dem schönen Süden für größere Übungen\n".encode("latin-1") * 20,
    "/mixed.py": "für\n".encode() * 50 + "für\n".encode("latin-1") * 50,
    "/gbk.py": "# 这是一个用来测试编码的文件里面有很多汉字\n".encode("gbk") * 20,
    "/utf16.py": "name = 'ünï'\n".encode("utf-16") * 20,
    "/bom.py": b"\xef\xbb\xbf" + code("bom"),
    "/nul.py": b"name = 1\n\0",
    "/nuls.py": b"\0" * 100_000,
    "/empty.py": b"",
    "/spaces.py": b" \n\t\r\n" * 20_000,
    "/one_line.py": b"name = '" + b"some words " * 300_000 + b"'\n",
    "/ats.py": b"@" * 1_000_000,
    "/digits.py": b"7" * 1_000_000,
    "/brackets.py": b"(" * 1_000_000,
    "/brackets.json": b"[" * 250_000,
    "/package.json": b"[" * 100_000,
    "/quotes.py": b"'\"" * 500_000,
    "/backslashes.py": b"\\u00e9\\x" * 125_000,
    "/slashes.py": b"/*" * 500_000,
    "/tags.html": b"<div " * 100_000 + b"<!--" * 50_000,
    "/dots.py": b"1.1.1." * 100_000,
    "/colons.py": b"2001::" * 100_000,
    "/mails.txt": b"a@b." * 200_000,
    "/tokens.py": b"ghp_AKIAsk-" * 50_000,
    "/passwords.py": b"password = '" * 50_000,
    "/authors.py": b"Author: A. " * 50_000,
    "/carriage.py": b"name = 1\r" * 50_000,
    "/surrogates.py": "name = '\U0001f600\u0130\ufeff\u2028'\n".encode() * 5_000,
    "/" + "deep/" * 300 + "deep.py": code("deep"),
    "/new\nline.py": code("newline"),
    "/quo'te\".py": code("quote"),
    "/semi;colon %s {}.py": code("semicolon"),
    "/\x1b[31mred.py": code("red"),
    "/\u0645\u0644\u0641.py": code("arabic"),
    "/" + "n" * 250 + ".py": code("longest"),
}
NUM_COPIES = 2_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> recipe.Recipe:
    """A run over hostile files, with every signal asked for but ScanCode."""
    folder = tmp_path_factory.mktemp("hostile")
    root = folder / "code"
    for path, content in HOSTILE.items():
        place = root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for number in range(NUM_COPIES):
        place = root / "copies" / str(number % 50) / f"{number}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(code("copied"))
    (root / os.fsdecode(b"bad\xff\xfe.py")).write_bytes(code("unnamed"))
    (folder / "rules.yar").write_text("rule Marker { strings: $text = /(ab|a)+c{2,9}/ condition: $text }\n")
    chosen = recipe.parse(
        {
            "run": {
                "name": "hostile",
                "folder": str(folder / "runs"),
                "cache": str(folder / "cache"),
                "workers": 1,
            },
            "sources": [{"type": "folder", "path": str(root), "repo_name": "bad/input"}],
            "licenses": {"evidence": ["manifests"]},
            "malware": {"yara_rules": str(folder / "rules.yar")} if HAS_YARA else {},
            "quality": {"max_parse_error_fraction": 0.9} if HAS_GRAMMARS else {},
        }
    )
    run(chosen)
    shutil.rmtree(root)  # everything below is answered from the tables
    return chosen


def test_every_hostile_file_is_kept_or_dropped_by_a_rule(hostile: recipe.Recipe) -> None:
    counted = funnel_of(hostile)
    assert counted.arrived.files == len(HOSTILE) + NUM_COPIES
    assert counted.unaccounted.files == 0
    assert counted.kept.files + counted.dropped.files == counted.arrived.files
    dropped = {rule.name: rule.dropped.files for rule in counted.rules}
    assert dropped["exact_duplicate"] == NUM_COPIES - 1
    [incident] = counted.incidents
    assert (incident.kind, incident.count) == ("encoding", 1)


@pytest.mark.parametrize(
    ("path", "fate", "value"),
    [
        ("/invalid.py", None, None),
        ("/utf16.py", "dropped by status", "binary"),
        ("/nul.py", "dropped by status", "binary"),
        ("/nuls.py", "dropped by status", "binary"),
        ("/empty.py", "dropped by status", "empty"),
        ("/latin1.py", "kept", None),
        ("/gbk.py", "kept", None),
        ("/bom.py", "kept", None),
        ("/surrogates.py", "kept", None),
        ("/carriage.py", "kept", None),
        ("/spaces.py", "dropped by min_alpha_fraction", "0.0"),
        ("/one_line.py", "dropped by max_average_line_length", "3300009.0"),
        ("/ats.py", "dropped by max_average_line_length", "1000000.0"),
        ("/digits.py", "dropped by max_average_line_length", "1000000.0"),
        ("/brackets.py", "dropped by max_average_line_length", "1000000.0"),
        ("/brackets.json", "dropped by max_line_length_markup", "250000"),
        ("/new\nline.py", "kept", None),
        ("/quo'te\".py", "kept", None),
        ("/semi;colon %s {}.py", "kept", None),
        ("/\x1b[31mred.py", "kept", None),
        ("/\u0645\u0644\u0641.py", "kept", None),
        ("/" + "deep/" * 300 + "deep.py", "kept", None),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_explain_answers_for_hostile_files(
    path: str, fate: str | None, value: str | None, hostile: recipe.Recipe
) -> None:
    chain = explained(f"bad/input:{path}", hostile.run.view)
    assert fate is None or chain["place"]["fate"] == fate
    dropping = [outcome for outcome in chain["outcomes"] if outcome["outcome"] == "drop"]
    assert (chain["place"]["fate"] == "kept") == (not dropping)
    assert value is None or dropping[0]["value"] == value


def test_explaining_for_people_prints_no_control_characters(hostile: recipe.Recipe) -> None:
    shown = CliRunner().invoke(cli.app, ["explain", "bad/input:/\x1b[31mred.py", "--run", str(hostile.run.view)])
    assert shown.exit_code == 0
    assert "\x1b[31mred" not in shown.output


# --- the guide and its recipe ------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
CURATION_SECTIONS = (
    "languages",
    "licenses",
    "filters",
    "near_duplicates",
    "pii",
    "decontamination",
    "malware",
    "opt_out",
    "quality",
    "mix",
)


def test_the_recipe_of_curation_has_every_key_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "recipes" / "curation.toml").read_text()
    chosen = recipe.load(ROOT / "recipes" / "curation.toml")
    plain = recipe.parse({"run": {"name": "curation"}, "sources": [{"type": "folder", "path": "code"}]})
    assert chosen == plain
    for section in CURATION_SECTIONS:
        table = re.search(rf"^\[{section}\]\n(.*?)(?=^\[(?!{section}\.)|\Z)", text, re.MULTILINE | re.DOTALL)
        assert table is not None, section
        written = set(re.findall(r"^(?:# )?(\w+) = ", table[1], re.MULTILINE))
        written |= set(re.findall(rf"^\[{section}\.(\w+)\]", table[1], re.MULTILINE))
        assert set(type(getattr(plain, section)).model_fields) <= written, section
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path)
    assert plan.make(chosen, to=LEDGER).pending


def test_a_preset_can_be_named_in_the_recipe_of_curation() -> None:
    """No key that a preset sets may be given in it, or it would win."""
    text = (ROOT / "recipes" / "curation.toml").read_text()
    for preset in ("stack-v2", "stack-v3"):
        raw = tomllib.loads(text.replace('preset = "starsmith"', f'preset = "{preset}"'))
        assert recipe.parse(raw).near_duplicates == recipe.NearDuplicates(preset=preset)


def test_the_guide_lists_every_rule_in_order_with_its_key() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (ROOT / "docs" / "curation.md").read_text(), re.MULTILINE)
    listed = [(name, key) for name, key in rows if name in {rule.name for rule in decisions.rules(Policy())}]
    assert [name for name, _ in listed] == [rule.name for rule in decisions.rules(Policy())]
    for (name, key), rule in zip(listed, decisions.rules(Policy()), strict=True):
        assert rule.key in key, name
