"""Loss spikes: a step whose loss or gradient norm leaps out of what was usual is not learned from.

One bad batch, or one step too far, can throw a large model back by thousands of steps; leaving out the update when
it announces itself costs one batch. The rule and its numbers are OLMo-core's (`SkipStepOptimizer`): more than six
standard deviations above the mean of the last 128 steps, of the loss or of the gradient norm.

Only upward leaps count, only steps that were learned from enter the window (else a spike would hide the next),
and nothing is judged before the window is full, so that the steep first descent is not mistaken for one. Should
the usual itself change for good, every step is a spike from then on: the loop ends such a run after a few, and
says so. Two lists of `window` numbers are all the state; a checkpoint carries them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recent:
    """The steps learned from most recently, oldest first."""

    losses: Sequence[float] = ()
    grad_norms: Sequence[float] = ()

    def after(self, loss: float, grad_norm: float, window: int) -> "Recent":
        """The same one step later."""
        return Recent(
            losses=(*self.losses, loss)[-window:],
            grad_norms=(*self.grad_norms, grad_norm)[-window:],
        )


def spike(recent: Recent, loss: float, grad_norm: float, *, sigma: float, window: int) -> str | None:
    """In what a step leaps out, or None. `sigma` 0 finds nothing."""
    if not sigma or len(recent.losses) < window:
        return None
    for name, value, usual in (("loss", loss, recent.losses), ("gradient norm", grad_norm, recent.grad_norms)):
        mean, deviation = _mean_and_deviation(usual)
        if value > mean + sigma * deviation:
            return (
                f"spike: the {name} is {value:.4g}, more than {sigma:g} standard deviations of {deviation:.2g} "
                f"above the mean {mean:.4g} of the last {window} steps"
            )
    return None


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
