import dataclasses
import os
import re
import subprocess
import sys

import pytest
import report_corpus
import report_inputs
import yaml
from markdown_it import MarkdownIt

from starsmith import recipe
from starsmith.inspection.composition import compose
from starsmith.inspection.funnel import funnel
from starsmith.release import cards
from starsmith.release.data_card import DataCardInputs, render_data_card
from starsmith.release.dataset import write_dataset
from starsmith.release.model_card import ModelCardInputs, license_text, render_model_card
from starsmith.release.swhids import write_swhids

HOSTILE = "a|b `x` <script>alert(1)</script> [l](javascript:x) # \n---\n\u202e"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release folder with its card, and the card's inputs."""
    folder = tmp_path_factory.mktemp("release")
    tables = report_corpus.build(tmp_path_factory.mktemp("corpus"), num_files=160)
    config = recipe.Release(contact="opt-out@forge.test")
    composition = dataclasses.asdict(compose(tables))
    inputs = DataCardInputs(
        config=config,
        dataset=write_dataset(tables, folder, config),
        swhids=write_swhids(tables, folder),
        funnel=dataclasses.asdict(funnel(tables)),
        pii=composition["pii"],
        redacted_kinds=("EMAIL",),
        contamination=composition["contamination"],
        benchmarks_searched=("humaneval",),
        num_opt_out_targets=2,
        sources=[{"label": "six", "origin": "pkg:pypi/six@1", "fingerprint": "ab"}],
        recipe_toml='[run]\nname = "```"\n',
    )
    (folder / "README.md").write_text(render_data_card(inputs), encoding="utf-8")
    return folder, inputs


@pytest.fixture(scope="module")
def model_inputs():
    return ModelCardInputs(
        config=recipe.Release(),
        model={"vocab_size": 8192, "hidden_size": 192, "sliding_window": None, "rope_theta": 10_000.0},
        num_parameters=3_345_678,
        training=recipe.Training().model_dump(),
        metrics=[
            {"step": 1, "loss": 9.01, "tokens": 4096, "validation_loss": None},
            {"step": 2, "loss": 8.5, "tokens": 8192, "validation_loss": 8.75},
        ],
        evaluation=report_inputs.evaluation(),
    )


def _header(card):
    return yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))


def _html(card):
    return MarkdownIt("commonmark").enable("table").render(card.split("\n---\n", 1)[1])


def test_the_header_names_a_configuration_for_each_language(release):
    folder, inputs = release
    header = _header(render_data_card(inputs))
    assert header["license"] == "other"
    assert [config["config_name"] for config in header["configs"]] == [
        "default", *(row["config"] for row in inputs.dataset["languages"])
    ]  # fmt: skip
    for config in header["configs"]:
        for data in config["data_files"]:
            assert list(folder.glob(data["path"])), data


@pytest.mark.parametrize("name", ["C#", "F-Star", "default"])
def test_datasets_loads_the_release_offline(release, tmp_path, name):
    pytest.importorskip("datasets", reason="the datasets library is not installed")
    folder, inputs = release
    script = (
        "import sys, datasets; datasets.disable_progress_bars(); "
        "loaded = datasets.load_dataset(sys.argv[1], sys.argv[2]); "
        "print({split: len(rows) for split, rows in loaded.items()}, loaded['train'].column_names[:2])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    wanted = [row for row in inputs.dataset["languages"] if name in (row["config"], "default")]
    counts = eval(done.stdout.partition("}")[0] + "}")
    assert sum(counts.values()) == sum(row["files"] for row in wanted)
    assert done.stdout.rstrip().endswith("['blob_id', 'directory_id']")


def test_the_cards_verification_snippet_holds(release):
    folder, inputs = release
    code = re.search(r"```python\n(import hashlib.*?)```", render_data_card(inputs), re.DOTALL)
    assert code is not None
    import pyarrow.parquet as pq

    rows = [row for part in folder.glob("data/*/train-*.parquet") for row in pq.read_table(part).to_pylist()]
    exec(code[1], {"dataset": {"train": rows}})
    rows[0]["content"] += "x"
    with pytest.raises(AssertionError):
        exec(code[1], {"dataset": {"train": rows}})


def test_numbers_of_the_run_are_in_the_card(release):
    _, inputs = release
    card = render_data_card(inputs)
    assert render_data_card(inputs) == card
    facts = inputs.dataset
    assert f"{facts['num_files']:,} files of {facts['num_repositories']:,} repositories" in card
    for rule in inputs.funnel["rules"]:
        if rule["dropped"]["files"]:
            assert f"| dropped: {rule['name'].replace('_', ' ')} | {rule['dropped']['files']:,} |" in card
    assert "opt-out@forge.test" in card and "2 entries of an opt-out list" in card


def test_what_was_not_done_is_said(release):
    _, inputs = release
    bare = render_data_card(DataCardInputs(config=recipe.Release(), dataset=inputs.dataset, swhids=inputs.swhids))
    assert "No contact for opt-out requests was given" in bare and "without an opt-out list" in bare
    assert "Benchmark texts were not searched for" in bare and "Personal data was not looked for" in bare
    none_given = render_data_card(dataclasses.replace(inputs, benchmarks_searched=()))
    assert "No benchmark data was given" in none_given
    assert "Nothing is replaced" in render_data_card(dataclasses.replace(inputs, redacted_kinds=()))


def test_a_local_folder_is_not_named(release):
    _, inputs = release
    sources = [{"label": "mine", "origin": "/home/jane/secret", "fingerprint": ""}]
    assert "jane" not in render_data_card(dataclasses.replace(inputs, sources=sources))


def test_hostile_names_stay_text_in_both_cards(release, model_inputs):
    _, inputs = release
    source = {"label": HOSTILE, "origin": f"https://{HOSTILE}", "fingerprint": HOSTILE}
    rule = {"rule": HOSTILE, "title": HOSTILE, "threshold": HOSTILE, "enabled": True}
    config = recipe.Release(dataset_name=HOSTILE, model_name=HOSTILE, contact=HOSTILE)
    benchmark = {
        "estimates": {HOSTILE: {"value": 0.0, "low": 0.0, "high": 0.1, "n": 3}},
        "excluded": {HOSTILE: HOSTILE},
        "labels": {},
    }
    data_card = render_data_card(
        dataclasses.replace(
            inputs,
            config=config,
            sources=[source],
            policy=[rule],
            benchmarks_searched=[HOSTILE],
            recipe_toml=HOSTILE,
        )
    )
    model_card = render_model_card(
        dataclasses.replace(
            model_inputs,
            config=config,
            evaluation={"benchmarks": {HOSTILE: benchmark}, "sandbox": {"level": HOSTILE}},
        )
    )
    for card in (data_card, model_card):
        assert isinstance(_header(card), dict)
        body = _html(card)
        assert "<script" not in body and 'javascript:x"' not in body
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL):
            assert len(re.findall(r"<t[hd]", row)) <= 5


def test_the_model_card_states_scores_as_they_are(model_inputs):
    card = render_model_card(model_inputs)
    assert card == render_model_card(model_inputs)
    assert "| humaneval | pass@1 | 0.0061 | 0 to 0.0337 | 163 |" in card
    assert (
        "level landlock" in card
        and "compile 41" in card
        and "sandbox error 0" in card
        and "only 87 of 90 problems" in card
    )
    assert "| validation loss, step 2 | 8.7500 |" in card and "| loss of a uniform guess | 9.0109 |" in card
    assert "do not rely on what it writes" in card
    results = _header(card)["model-index"][0]["results"]
    assert results[0]["metrics"][0]["value"] == 0.0061


def test_the_model_card_sums_tokens_and_passes_over_losses_that_are_none(model_inputs):
    bad = {"step": 3, "loss": None, "tokens": 4096, "skipped": "the loss is nan"}
    card = render_model_card(dataclasses.replace(model_inputs, metrics=[*model_inputs.metrics, bad]))
    assert "| steps | 3 |" in card and "| tokens | 16,384 |" in card
    assert "| training loss, last step | 8.5000 |" in card


def test_an_untrained_unevaluated_model_says_so(model_inputs):
    card = render_model_card(dataclasses.replace(model_inputs, metrics=(), evaluation=None))
    assert "was not trained" in card and "was not evaluated" in card and "model-index" not in _header(card)


def test_the_licence_of_the_weights(model_inputs):
    assert _header(render_model_card(model_inputs))["license"] == "apache-2.0"
    assert (license_text() or "").lstrip().startswith("Apache License")
    other = render_model_card(dataclasses.replace(model_inputs, license="bigcode-openrail-m"))
    assert _header(other)["license"] == "bigcode-openrail-m" and "has to put its text beside them" in other
    assert license_text("bigcode-openrail-m") is None


@pytest.mark.parametrize("text", ["plain", "a`b", "``", "`", "a|b", "*x*", "<b>"])
def test_code_and_escapes_render_to_the_same_text(text):
    markdown = MarkdownIt("commonmark")
    unescape = __import__("html").unescape
    assert unescape(re.sub(r"</?p>", "", markdown.render(cards.escape(text)))).strip() == text
    table = MarkdownIt("commonmark").enable("table").render(f"| a |\n|---|\n| {cards.code_span(text)} |\n")
    assert unescape(re.search(r"<td><code>(.*?)</code></td>", table)[1]) == text
