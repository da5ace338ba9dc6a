"""Training as its users start it: two stages on two ranks, a rewind, fine-tuning what came out, exporting it."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from starsmith import plan, recipe
from starsmith.model import huggingface
from test_road import RECIPE, starsmith

STAGES = """
[long_context]
steps = 4
batch_size = 2
sequence_length = 128
rope_theta = 500_000.0
warmup_steps = 1

[instructions]
files = ["instructions.jsonl"]
share = 0.3
"""
ENDLESS = RECIPE.replace('"small"', '"endless"').replace("steps = 12", "steps = 100_000")


def fine_tuning() -> str:
    text = re.sub(r"\[tokenizer\]\n.*\n|\[model\]\n(.+\n)+", "", RECIPE.replace('"small"', '"tuned"'))
    return (
        text
        + '\n[model]\nstart = "base"\n\n[training.lora]\nrank = 4\n'
        + STAGES[STAGES.index("[instructions]") :]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both stages were trained by two processes, and the rest of the road has run."""
    folder = tmp_path_factory.mktemp("trained")
    standard = Path(json.__file__).resolve().parents[1]
    shutil.copytree(standard / "json", folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(standard / "email", folder / "more", ignore=shutil.ignore_patterns("__pycache__", "*.rst"))
    lines = [
        json.dumps({"instruction": f"Return {n}.", "response": f"def f():\n    return {n}\n"}) for n in range(30)
    ]
    (folder / "instructions.jsonl").write_text("\n".join([*lines, "no JSON"]))
    (folder / "small.toml").write_text(RECIPE + STAGES)
    (folder / "endless.toml").write_text(ENDLESS)
    (folder / "tuned.toml").write_text(fine_tuning())
    too_early = launch(folder, "train", "small.toml")
    assert (
        "run them in one process first: starsmith run RECIPE --to tokens; starsmith run RECIPE --to instructions"
        in too_early
    )
    for step in ("instructions", "tokens"):
        ran = starsmith(folder, "run", "small.toml", "--to", step)
        assert ran.returncode == 0, ran.stderr
    launch(folder, "train", "small.toml")
    ran = starsmith(folder, "run", "small.toml")
    assert ran.returncode == 0, ran.stderr
    assert not re.search(r"^(training|long_context) ", ran.stdout, re.MULTILINE)  # neither was left to do
    return folder


def launch(folder: Path, *words: str) -> str:
    """Two ranks; returns what they say."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "starsmith",
    ]
    ran = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    return ran.stdout + ran.stderr


def test_the_second_stage_goes_on_from_the_first(trained: Path) -> None:
    results = plan.results(trained / "runs" / "small")
    first, second = (
        huggingface.read_config(results[name].folder / "weights") for name in ("training", "long_context")
    )
    assert (first.rope_theta, second.rope_theta) == (100_000.0, 500_000.0)
    assert results["training"].facts["steps"] == 12
    assert results["long_context"].facts["steps"] == 4
    assert huggingface.read_config(trained / "runs/small/model") == second
    assert results["instructions"].facts["files"][0]["num_bad"] == 1
    assert "long_context" in (trained / "runs/small/report.html").read_text()


def test_lineage_of_either_stage_names_documents_and_instructions(trained: Path) -> None:
    seen = set()
    for stage in ("training", "long_context"):
        asked = starsmith(trained, "lineage", "--run", "runs/small", "--step", "3", "--stage", stage, "--json")
        seen |= {row["repo_name"] for row in json.loads(asked.stdout)}
    assert {"instructions/instructions.jsonl", "standard/json"} <= seen


def test_the_plan_says_what_training_needs_elsewhere(trained: Path) -> None:
    asked = starsmith(trained, "plan", "small.toml", "--devices", "8xH200", "--json")
    needs = json.loads(asked.stdout)["training"]
    assert needs.keys() == {"training", "long_context"}
    assert all(need["fits"] for need in needs.values())
    assert "memory:" in starsmith(trained, "plan", "small.toml", "--devices", "8xH200").stdout
    assert starsmith(trained, "plan", "small.toml", "--devices", "2xAbacus").returncode == 2


def test_what_was_trained_is_fine_tuned_and_exported(trained: Path) -> None:
    shutil.copytree(trained / "runs/small/model", trained / "base")
    ran = starsmith(trained, "run", "tuned.toml")
    assert ran.returncode == 0, ran.stderr
    before, after = (dict(huggingface.read_weights(trained / place, huggingface.read_config(trained / place)))
                     for place in ("base", "runs/tuned/model"))  # fmt: skip
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if re.search(r"(_proj|c_fc)\.weight$", name)}
    written = starsmith(
        trained, "export", "small.gguf", "--run", "runs/tuned", "--format", "gguf", "--precision", "fp16"
    )
    assert (trained / "small.gguf").read_bytes().startswith(b"GGUF")
    assert "sliding window" in written.stderr
    again = starsmith(trained, "export", "small.gguf", "--run", "runs/tuned", "--format", "gguf")
    assert again.returncode == 2
    filled = starsmith(trained, "complete", "def f(", "--suffix", "return 1", "--run", "runs/tuned", "--json")
    assert json.loads(filled.stdout)["suffix"] == "return 1"


def test_a_run_that_goes_on_is_rewound(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    ran = starsmith(trained, "run", "endless.toml", "--to", "tokens")
    assert ran.returncode == 0, ran.stderr
    place = next(
        (trained / "runs/store/training" / entry.key)
        for entry in plan.make(recipe.load(trained / "endless.toml"), to="training").steps
        if entry.step.name == "training"
    )
    train_until(trained, place, lambda: len(list(place.glob("checkpoints/step-*[05]"))) == 2)
    newest = max(int(found.name[5:]) for found in place.glob("checkpoints/step-*"))
    asked = ("rewind", "endless.toml", "--skip-batches", "3", "--to-step")
    assert "no whole checkpoint is that early" in starsmith(trained, *asked, "1").stderr
    rewound = starsmith(trained, *asked, str(newest), "--json")
    known = json.loads(rewound.stdout)
    assert known == {"from_step": newest, "to_step": newest, "skip_batches": 3}
    train_until(trained, place, lambda: metrics(place)[-1]["step"] > newest)
    [marked] = [line for line in metrics(place) if line.get("intervention")]
    assert marked["step"] == newest + 1
    assert "is finished" in starsmith(trained, "rewind", "small.toml", *asked[2:], "5").stderr


def train_until(folder: Path, place: Path, is_enough) -> None:
    """Trains in a process of its own, and tells it to stop."""
    command = [sys.executable, "-m", "starsmith", "train", "endless.toml"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not is_enough() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run again to continue" in said


def metrics(place: Path) -> list[dict]:
    lines = (place / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")] or [{"step": 0}]
