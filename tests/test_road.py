"""The whole road with a model of a few thousand parameters, then every verb, the loaders of others, a browser."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from starsmith import plan, recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
[run]
name = "small"
folder = "runs"
cache = "cache"
workers = 1

[[sources]]
type = "folder"
path = "code"
repo_name = "standard/json"

[[sources]]
type = "folder"
path = "more"
repo_name = "standard/email"

[documents]
validation_fraction = 0.5

[tokenizer]
vocab_size = 600

[tokens]
sequence_length = 64

[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 64
max_position_embeddings = 256
sliding_window = 32

[training]
steps = 12
batch_size = 2
learning_rate = 3e-3
warmup_steps = 2
checkpoint_steps = 5
validation_steps = 6
validation_sequences = 2

[evaluation]
max_new_tokens = 8
max_problems = 3
heldout_files = 2
"""


def starsmith(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "starsmith", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small recipe has run to its report, in a process of its own as a user would."""
    folder = tmp_path_factory.mktemp("road")
    standard = Path(json.__file__).resolve().parents[1]
    shutil.copytree(standard / "json", folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(standard / "email", folder / "more", ignore=shutil.ignore_patterns("__pycache__", "*.rst"))
    (folder / "small.toml").write_text(RECIPE)
    ran = starsmith(folder, "run", "small.toml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "report: runs/small/report.html" in ran.stdout
    return folder


@pytest.fixture
def inside(road: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(road)
    return road


def test_the_report_points_to_the_evaluation_s_own_page(road: Path) -> None:
    run = road / "runs" / "small"
    assert 'href="evaluation.html"' in (run / "report.html").read_text()
    page = (run / "evaluation.html").read_text()
    assert "humaneval" in page and '<details class="answer">' in page
    assert "model-index:" in (run / "model" / "README.md").read_text()


def test_a_second_run_says_that_nothing_is_to_do(road: Path) -> None:
    assert "nothing to do: all" in starsmith(road, "run", "small.toml").stdout
    assert "nothing to do: all" in starsmith(road, "plan", "small.toml").stdout


def test_killed_at_many_moments_and_with_other_workers_it_ends_with_the_same_bytes(
    road: Path, tmp_path: Path
) -> None:
    """The whole road, killed further and further on, until it ends by itself; then every digest is compared."""
    for name in ("code", "more"):
        shutil.copytree(road / name, tmp_path / name, copy_function=shutil.copy2)
    (tmp_path / "small.toml").write_text(RECIPE.replace("workers = 1", "workers = 2"))
    for seconds in itertools.count(4, 3):
        command = [sys.executable, "-m", "starsmith", "run", "small.toml"]
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            ended = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        assert ended == 0
        break
    whole, broken = (plan.results(folder / "runs" / "small") for folder in (road, tmp_path))
    told_of_time = {"report"}
    assert {name: result.digest() for name, result in whole.items() if name not in told_of_time} == {
        name: result.digest() for name, result in broken.items() if name not in told_of_time
    }


def test_an_interrupt_ends_with_one_sentence(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "code", tmp_path / "code")
    shutil.copytree(road / "more", tmp_path / "more")
    (tmp_path / "small.toml").write_text(RECIPE.replace("workers = 1", "workers = 2"))
    command = [sys.executable, "-m", "starsmith", "run", "small.toml"]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "steps to run" in process.stdout.readline()
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.count("interrupted; finished parts are kept") == 1
    assert "Traceback" not in said


def test_problems_are_looked_for_in_what_the_run_was_trained_on(road: Path) -> None:
    results = plan.results(road / "runs" / "small")
    found = json.loads((results["evaluation"].folder / "results.json").read_text())
    for name, benchmark in found["benchmarks"].items():
        told = benchmark["contamination"]
        assert told["checked"] and told["num_checked"] == benchmark["num_problems"], name
        assert told["num_contaminated"] == 0, "the recipe drops what holds a problem"
        assert told["corpus"]["digest"] == results["documents"].digest()
        assert told["corpus"]["num_texts"] > 0 and told["corpus"]["not_searched"] == []
        assert benchmark["estimates_without_contaminated"] == benchmark["estimates"] != {}


def test_every_command_of_the_readme_runs(road: Path) -> None:
    """The block of questions in the README, asked of this small run."""
    block = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines() if "starsmith " in line]
    assert len(commands) >= 8
    replaced = {
        "recipes/quickstart.toml": "small.toml",
        "runs/quickstart": "runs/small",
        "runs/quickstart@1": "runs/small@1",
        "pypi/rpy2": "standard/json",
        "10": "10",
    }
    for command in commands:
        ran = starsmith(road, *(replaced.get(word, word) for word in command))
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        assert ran.stdout.strip()


def test_explain_tells_kept_and_dropped(road: Path) -> None:
    kept = json.loads(starsmith(road, "explain", "/decoder.py", "--run", "runs/small", "--json").stdout)
    [chain] = kept["files"]
    assert chain["place"]["fate"] == "kept"
    asked = {outcome["rule"]: outcome for outcome in chain["outcomes"]}
    assert any("line" in rule and outcome["value"] for rule, outcome in asked.items())
    summary = json.loads(starsmith(road, "explain", "standard/email", "--run", "runs/small", "--json").stdout)
    assert summary["repository"]["num_files"] >= summary["repository"]["num_kept"] > 0
    unknown = starsmith(road, "explain", "/decodr.py", "--run", "runs/small")
    assert unknown.returncode == 2
    assert "decoder.py" in unknown.stderr


def test_a_changed_threshold_measures_nothing_again_and_diff_tells_the_cause(inside: Path) -> None:
    changed = RECIPE.replace("[documents]", "[filters]\nmax_line_length = 70\n\n[documents]")
    (inside / "changed.toml").write_text(changed.replace('name = "small"', 'name = "changed"'))
    pending = plan.make(recipe.load(inside / "changed.toml"), to="policies/decisions").pending
    assert [step.step.name for step in pending] == ["policies/decisions"]
    ran = starsmith(inside, "run", "changed.toml", "--to", "policies/decisions")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(starsmith(inside, "diff", "runs/small", "runs/changed", "--json").stdout)
    assert found["num_removed"] > 0
    assert found["num_added"] == 0
    assert all("max_line_length" in cause["cause"] for cause in found["causes"] if cause["change"] == "removed")


def test_lineage_leads_from_a_step_to_contents_and_back(road: Path) -> None:
    rows = json.loads(starsmith(road, "lineage", "--step", "10", "--run", "runs/small", "--json").stdout)
    contents = [row["content_id"] for row in rows if row["content_id"]]
    assert contents
    assert all(content.startswith("swh:1:cnt:") for content in contents)
    back = starsmith(road, "lineage", "--swhid", contents[0], "--run", "runs/small", "--json")
    assert 10 in {row["step"] for row in json.loads(back.stdout)}


def test_verify_finds_one_changed_byte(road: Path, tmp_path: Path) -> None:
    copied = tmp_path / "runs"
    shutil.copytree(road / "runs", copied, symlinks=True)
    assert starsmith(tmp_path, "verify", "--run", "runs/small").returncode == 0
    place = plan.results(copied / "small")["policies/decisions"].parts("kept")[0]  # of this run, not of another
    data = bytearray(place.read_bytes())
    data[100] ^= 1
    place.write_bytes(data)
    damaged = starsmith(tmp_path, "verify", "--run", "runs/small")
    assert damaged.returncode == 1
    assert place.name in damaged.stdout


def test_the_dataset_loads_with_datasets(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(inside / "hf"))
    import datasets

    loaded = datasets.load_dataset(str(inside / "runs/small/dataset"), "Python", cache_dir=str(inside / "hf"))
    rows = [row for split in loaded.values() for row in split]
    assert {"blob_id", "content_id", "path", "license_type", "released_id", "content"} <= rows[0].keys()
    assert any(row["path"] == "/decoder.py" for row in rows)


def test_the_model_loads_with_transformers_and_answers_as_ours_does(inside: Path) -> None:
    import torch
    import transformers

    from starsmith.model import huggingface

    folder = inside / "runs/small/model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours, _ = huggingface.load(folder)
    ids = torch.tensor([tokenizer("def decode(self, text):\n    return 12345\n" * 3)["input_ids"]])
    assert ids.shape[1] > 32  # beyond the sliding window
    with torch.no_grad():
        difference = (theirs(ids).logits - ours(ids)).abs().max()
    assert difference < 1e-5
    assert tokenizer.decode(ids[0]).startswith("def decode(self, text):")


def test_a_wrong_recipe_or_run_is_told_without_a_traceback(road: Path) -> None:
    (road / "wrong.toml").write_text(RECIPE.replace("vocab_size", "vocabsize"))
    wrong = starsmith(road, "plan", "wrong.toml")
    assert wrong.returncode == 2
    assert "did you mean 'vocab_size'" in wrong.stderr
    absent = starsmith(road, "explain", "/decoder.py", "--run", "runs/nothing")
    assert absent.returncode == 2
    assert "runs/small" in absent.stderr
    early = RECIPE.replace('name = "small"', 'name = "early"')
    (road / "early.toml").write_text(early)
    assert starsmith(road, "run", "early.toml", "--to", "contents").returncode == 0
    stopped = starsmith(road, "explain", "/decoder.py", "--run", "runs/early")
    assert stopped.returncode == 2
    assert "stopped before policies/decisions" in stopped.stderr
    assert "Traceback" not in wrong.stderr + absent.stderr + stopped.stderr


def test_the_report_opens_in_a_browser(inside: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    page = (inside / "runs/small/report.html").resolve().as_uri()
    shown = subprocess.run(
        [
            chromium,
            *options.split(),
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            page,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    for section in ("funnel", "languages", "training", "evaluation"):
        assert f'id="{section}"' in shown.stdout
    assert shown.stdout.count("<svg") >= 5
