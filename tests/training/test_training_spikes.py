"""What counts as a spike, against the rule written out with numpy."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starsmith.training.spikes import Recent, spike

RULE = {"sigma": 6.0, "window": 16}


def filled(losses, grad_norms):
    recent = Recent()
    for loss, norm in zip(losses, grad_norms, strict=True):
        recent = recent.after(loss, norm, 16)
    return recent


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_a_leap_upward_is_a_spike_and_names_its_numbers(what):
    random = np.random.default_rng(0)
    losses, norms = random.normal(3, 0.1, 40), random.normal(1, 0.05, 40)
    recent = filled(losses, norms)
    usual = losses[-16:] if what == "loss" else norms[-16:]
    border = usual.mean() + 6 * usual.std()

    def judge(value):
        return spike(recent, *((value, 1.0) if what == "loss" else (3.0, value)), **RULE)

    assert judge(border - 1e-6) is None
    assert judge(usual.mean() - 20) is None
    found = judge(border + 1e-6)
    assert f"spike: the {what} is {border:.4g}, more than 6 standard deviations of {usual.std():.2g}" in found
    assert f"above the mean {usual.mean():.4g} of the last 16 steps" in found


def test_nothing_is_judged_before_the_window_is_full_or_without_a_sigma():
    random = np.random.default_rng(0)
    values = random.normal(3, 0.1, 16)
    assert spike(filled(values[:15], values[:15]), 1e9, 1e9, **RULE) is None
    assert spike(filled(values, values), 1e9, 1e9, **RULE) is not None
    assert spike(filled(values, values), 1e9, 1e9, sigma=0.0, window=16) is None


@given(st.lists(st.floats(-1e3, 1e3), max_size=40))
def test_the_window_moves_and_survives_json(values):
    recent = filled(values, values)
    assert list(recent.losses) == list(recent.grad_norms) == values[-16:]
    again = Recent(**json.loads(json.dumps(asdict(recent))))
    assert list(again.after(1.0, 2.0, 16).losses) == list(recent.after(1.0, 2.0, 16).losses)
