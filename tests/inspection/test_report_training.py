"""The training section: two stages on one axis, what was skipped and who stepped in, and rows without numbers."""

import re

import pytest
import training_rows

from starsmith.inspection import plots, training_curves
from starsmith.inspection.report import ReportInputs, render_report

ROWS = training_rows.rows()
FIGURES = {"loss", "learning-rate", "gradient-norm", "throughput", "utilisation"}


def section(rows):
    text = render_report(ReportInputs(run_name="run", metrics=rows))
    return re.search(r'<section id="training".*?</section>', text, re.DOTALL)[0]


def words(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_stages_stand_one_after_the_other():
    places = training_curves._places(ROWS)
    assert places == [float(place) for place in range(1, 1_501)]
    (border,) = training_curves._borders(ROWS, places)
    assert (border.label, list(border.x)) == ("long context", [1_200.0])


def test_stages_are_summed_up():
    first, second = training_curves.stages(ROWS)
    assert (first.name, first.num_steps, first.num_skipped, first.num_tokens) == ("training", 1_200, 4, 78_643_200)
    assert (second.name, second.num_steps, second.num_skipped) == ("long_context", 300, 0)
    assert first.mfu == pytest.approx(0.44, abs=0.002)
    assert first.data_wait == pytest.approx(0.01, abs=0.002)
    assert first.tokens_per_second == pytest.approx(65_536 / 3.1, rel=0.01)
    assert second.last_loss == ROWS[-1]["loss"]


def test_what_was_skipped_and_who_stepped_in_is_marked_and_listed():
    html = section(ROWS)
    text = words(html)
    assert "training 402 skipped the loss is 9.1 standard deviations up" in text
    assert "training 801 intervention rewound from step 850 to step 800; 60 batches after it are left out" in text
    assert "skipped steps (4)" in html and "interventions (1)" in html, "in the plot's legend"
    assert "4 of them learned nothing" in html, "in the plot's description"


def test_all_plots_are_drawn_and_the_border_is_in_each():
    drawn = training_curves.figures(ROWS)
    assert set(drawn) == FIGURES
    assert all("long context" in plot.svg for plot in drawn.values())
    assert "MFU" in drawn["utilisation"].svg and "waiting for data" in drawn["utilisation"].svg


def test_without_a_peak_there_is_no_mfu():
    rows = training_rows.rows(has_peak=False)
    assert "MFU" not in training_curves.figures(rows)["utilisation"].svg
    assert training_curves.stages(rows)[0].mfu is None


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": None, "skipped": "the loss is nan", "grad_norm": None}],
        [{"step": 1, "loss": 2.0, "seconds": 0.0, "tokens": 0, "data_wait_seconds": 0.0, "grad_norm": 0.0}],
        [{"step": 1, "loss": float("inf"), "learning_rate": 0.0}, {"step": 2, "loss": 1.0}],
    ],
)
def test_rows_that_lack_numbers(rows):
    assert "Loss" in section(rows)


def test_nothing_of_the_rows_is_markup():
    html = section([{"step": 1, "loss": 1.0, "stage": "<b>", "skipped": "<i>", "intervention": "<u>"}])
    assert not re.search(r"<(b|i|u)>", html)
    assert "&lt;i&gt;" in html


def test_a_long_list_of_events_is_cut_and_says_so():
    rows = [{"step": step, "loss": 1.0, "skipped": "spike"} for step in range(1, 301)]
    html = section(rows)
    assert html.count("<td>skipped</td>") == training_curves.MAX_EVENTS
    assert "The first 200 of 300" in html


def test_a_spike_is_in_the_band_of_a_long_curve():
    x, y = [float(n) for n in range(1, 2_001)], [1.0] * 2_000
    y[1_000] = 9.0
    low, high = plots._extent(x, y)
    assert max(high) == 9.0 and max(low) == 1.0
    assert len(low) == len(plots.thin(x, y)[0])


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (850, "850"), (1_000, "1k"), (12_300, "12.3k"), (123_456, "123k"), (1_200_000, "1.2M")],
)
def test_short_numbers(value, written):
    assert plots.format_short(value) == written


@pytest.mark.parametrize(("value", "written"), [(0, "0"), (3e-4, "3e-4"), (2.25e-5, "2.25e-5"), (0.25, "0.25")])
def test_plain_numbers(value, written):
    assert plots.format_plain(value) == written
