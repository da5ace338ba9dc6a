import dataclasses
import math
import re

import pytest
import report_corpus
import report_inputs
from html_page import Page

from starsmith.inspection import pages, plots
from starsmith.inspection.composition import compose
from starsmith.inspection.funnel import Amount
from starsmith.inspection.report import ReportInputs, render_report

SECTIONS = (
    "funnel", "rules", "languages", "licences", "duplicates", "personal-data", "contamination", "documents",
    "training", "evaluation", "samples", "release", "sources", "timings", "recipe",
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> ReportInputs:
    return report_inputs.inputs(report_corpus.build(tmp_path_factory.mktemp("corpus"), num_files=120))


@pytest.fixture(scope="module")
def text(inputs) -> str:
    return render_report(inputs)


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_the_page_is_well_formed_and_has_all_sections(page):
    assert page.unbalanced == [] and page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "identifiers are unique, those inside the plots too"
    assert [attributes["id"] for attributes in page.all("section")] == list(SECTIONS)
    targets = {attributes["href"] for attributes in page.all("a")}
    assert targets <= {f"#{name}" for name in ids}


def test_every_rule_that_took_something_has_its_own_part_with_examples(inputs, page):
    parts = [attributes["id"] for attributes in page.all("article") if "id" in attributes]
    assert parts == [f"rule-{rule.name}" for rule in inputs.funnel.rules] != []
    examples = [(rule.name, example) for rule in inputs.funnel.rules for example in rule.examples]
    assert len(inputs.excerpts) > len(examples) / 2
    written = "".join(page.text)
    for excerpt in inputs.excerpts.values():
        assert pages.visible(excerpt) in written
    assert "[EMAIL]" in "".join(inputs.excerpts.values()), "findings are covered"


def test_the_certificate_and_the_repositories_are_told(page):
    words = " ".join("".join(page.text).split())
    assert "0.70 to 1.00" in words and "0.9820 to 0.9986" in words
    assert "3 whole, 1 whole with copies, 5 holed, 1 gone." in words


def test_the_same_inputs_give_the_same_bytes(inputs, text):
    assert render_report(inputs) == text


def test_nothing_is_loaded_from_outside(text, page):
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "img")
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:,")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_hostile_code_and_paths_stay_text(text, page):
    assert len(page.all("script")) == 1
    assert "<script>alert" not in text
    shown = "".join(page.text)
    assert "</code></pre><script>alert(1)</script><img src=x>" in shown, "and it is shown in full"
    assert "[U+202E][U+0000][U+D800]" in shown
    text.encode("utf-8")
    assert not {"\u202e", "\x00", "\ud800"} & set(text)


def test_hostile_names_everywhere(inputs):
    hostile = "<b>\"'&$x$</b>]]>--><!--"
    sample = {
        "problem": hostile,
        "suffix": hostile,
        "expected": hostile,
        "detail": hostile,
        "prompt": hostile,
        "completion": hostile,
        "label": hostile,
    }
    benchmark = {
        "estimates": {hostile: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}},
        "labels": {hostile: 2, "pass": 1}, "examples": [sample], "excluded": {hostile: hostile},
    }  # fmt: skip
    share = dataclasses.replace(inputs.composition.languages[0], name=hostile)
    rule = dataclasses.replace(inputs.funnel.rules[0], name=hostile)
    page = Page(
        render_report(
            dataclasses.replace(
                inputs,
                run_name=hostile,
                metrics=inputs.metrics[:2],
                recipe_toml=hostile,
                sources=[{"label": hostile, "origin": hostile, "fingerprint": hostile}],
                composition=dataclasses.replace(inputs.composition, languages=(share,), licenses=(share,)),
                funnel=dataclasses.replace(inputs.funnel, rules=(rule, *inputs.funnel.rules[1:])),
                evaluation={
                    "benchmarks": {hostile: benchmark},
                    "sandbox": {"level": hostile, "refused": {hostile: [hostile]}},
                },
                timings=[{"step": hostile, "seconds": 1.0, "reused": False}],
                tokenizer={hostile: hostile},
            )
        )
    )
    assert page.all("b") == [] and page.unbalanced == [] and page.open == []


def test_every_plot_has_a_name_a_description_and_a_table(page, text):
    plots_ = [a for a in page.all("svg") if a.get("class") != "interval"]
    assert len(plots_) >= 9
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in plots_)
    assert len(page.all("desc")) == len(plots_)
    assert len(page.all("table")) >= 10
    assert "var(--series-1)" in text and "DejaVu Sans'," not in text


def test_numbers_of_the_inputs_are_on_the_page(inputs, text):
    assert f"{inputs.funnel.arrived.files:,} files arrived" in text
    assert "9,876,543" in text and "3.35 M" in text and "landlock" in text
    assert "163 of 164 reference solutions passed" in text and "no user namespaces" in text
    assert "1,234 files of 12 repositories, 3.4 MB of text" in text
    assert "0.0337" in text, "the interval of a near-zero score"
    assert "1 min 11 s" in text or "1 min 12 s" in text


def test_what_was_not_run_is_said():
    page = Page(render_report(ReportInputs(run_name="bare")))
    assert [attributes["id"] for attributes in page.all("section")] == list(SECTIONS)
    assert "".join(page.text).count("Not run:") >= len(SECTIONS)


def test_no_benchmark_data_is_not_the_same_as_no_contamination():
    none_given = render_report(ReportInputs(run_name="run", composition=compose({}), benchmarks_searched=()))
    none_found = render_report(
        ReportInputs(run_name="run", composition=compose({}), benchmarks_searched=("mbpp",))
    )
    assert "No benchmark data was given" in none_given and "No benchmark data was given" not in none_found
    assert "No content holds any of them" in none_found


def test_unaccounted_files_raise_a_warning(inputs, text):
    broken = dataclasses.replace(inputs.funnel, unaccounted=Amount(files=3, bytes=10))
    assert "This is a defect" in render_report(ReportInputs(run_name="run", funnel=broken))
    assert "This is a defect" not in text


def test_rules_that_took_nothing_are_listed(page):
    shown = "".join(page.text)
    assert "Rules that took nothing (1)" in shown and "switched off" in shown


def test_losses_that_are_not_finite_do_not_break_the_page(inputs):
    metrics = [{**row, "loss": math.nan if index % 3 else row["loss"]} for index, row in enumerate(inputs.metrics)]
    assert Page(render_report(ReportInputs(run_name="run", metrics=metrics))).unbalanced == []


def test_shares_cut_the_tail_and_keep_the_total(tmp_path):
    tables = report_corpus.build(tmp_path, num_files=60)
    whole, cut = compose(tables).languages, compose(tables, top=2).languages
    assert len(cut) == 3 and cut[-1].name.startswith("other")
    for column in ("arrived_files", "arrived_bytes", "kept_files", "kept_bytes"):
        assert sum(getattr(share, column) for share in whole) == sum(getattr(share, column) for share in cut)


def test_composition_counts(tmp_path):
    rows = report_corpus.rows(num_files=60)
    found = compose(report_corpus.build(tmp_path, num_files=60))
    assert sum(share.arrived_files for share in found.languages) == len(rows["files"])
    assert sum(share.kept_files for share in found.license_types) == len(rows["kept"])
    assert (
        sum(found.duplicates.similarity_counts) == found.duplicates.num_pairs == len(rows["near_duplicate_pairs"])
    )
    assert all(pair.kept_a != pair.kept_b for pair in found.duplicates.examples)
    assert found.duplicates.exact_files == len(rows["files"]) - len({row["content_id"] for row in rows["files"]})
    texts = [file["text"] for document in rows["documents"] for file in document["files"]]
    assert sum(split.text_bytes for split in found.documents) == sum(len(text.encode()) for text in texts)
    assert sum(split.redactions for split in found.documents) == sum(kind.kept_findings for kind in found.pii)


def test_an_empty_corpus_composes_and_renders():
    found = compose({})
    assert found.languages == () and found.duplicates.num_clusters == 0
    assert Page(render_report(ReportInputs(run_name="empty", composition=found))).unbalanced == []


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (12_345, "12.3 kB"),
        (999_960, "1 MB"),
        (3.4e6, "3.4 MB"),
        (5e15, "5,000 TB"),
    ],
)
def test_bytes_are_written_in_decimal_units(value, written):
    assert plots.format_bytes(value) == written


def test_long_curves_are_thinned_to_means():
    x, y = plots.thin(list(range(10_000)), [float(value) for value in range(10_000)])
    assert len(x) <= plots.MAX_POINTS and x == y
    assert sum(y) / len(y) == pytest.approx(4999.5)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.424, "0.42 s"),
        (12.34, "12.3 s"),
        (59.6, "59.6 s"),
        (200, "3 min 20 s"),
        (3599.7, "60 min 00 s"),
        (18_430, "5 h 07 min"),
        (1_047_600, "12 d 03 h"),
    ],
)
def test_seconds(seconds, written):
    assert pages.format_seconds(seconds) == written
