"""The learning rate of each step: a linear warm-up, then one of two ways down.

* `cosine` ("StarCoder 2 and The Stack v2", section 6.2: 1,000 warm-up iterations, cosine decay): half a cosine
  from the peak down to the minimum at the last step. How fast it falls depends on where it ends, so a run that
  is made longer would have had another past.
* `wsd` (warm-up, stable, decay: Hu et al., "MiniCPM", 2024): the peak until `decay_steps` before the end, then a
  straight line down to the minimum. A checkpoint of the stable part can be continued for as long as one likes,
  and decayed from anywhere.

A function of the step alone, so there is nothing to save and resume.
"""

import math

from starsmith.errors import InputError
from starsmith.recipe import Stage

_DECAY_SHARE = 0.2  # of all steps, where `wsd` names no decay


def learning_rate(step: int, stage: Stage) -> float:
    """The rate of step 1, 2, ..., `stage.steps`.

    It reaches `learning_rate` at step `warmup_steps` (or never, if there are not so many) and
    `min_learning_rate` at the last step. In between it is

        min + (peak - min) * share,

    where for progress p from 0 (the last step before the decay) to 1 (the last step) the share is
    (1 + cos(pi p)) / 2 with `cosine`, whose decay begins when the warm-up ends, and 1 - p with `wsd`.
    """
    if step <= stage.warmup_steps:
        return stage.learning_rate * step / stage.warmup_steps
    stable_until = max(stage.warmup_steps, stage.steps - _decay_steps(stage))
    if step <= stable_until:
        return stage.learning_rate
    progress = (step - stable_until) / (stage.steps - stable_until)
    share = 0.5 * (1.0 + math.cos(math.pi * progress)) if stage.schedule == "cosine" else 1.0 - progress
    return stage.min_learning_rate + (stage.learning_rate - stage.min_learning_rate) * share


def check(stage: Stage, *, table: str = "training") -> None:
    """Raises InputError where the settings contradict each other; `table` is the one they stand in."""
    if stage.min_learning_rate > stage.learning_rate:
        raise InputError(
            f"{table}.min_learning_rate {stage.min_learning_rate:g} is above {table}.learning_rate "
            f"{stage.learning_rate:g}; it must be at most that"
        )
    if stage.decay_steps is None:
        return
    if stage.schedule == "cosine":
        raise InputError(
            f"{table}.decay_steps is {stage.decay_steps}, but a cosine decays from the warm-up to the end; leave "
            f'it out, or set {table}.schedule = "wsd"'
        )
    if stage.warmup_steps + stage.decay_steps > stage.steps:
        raise InputError(
            f"{table}.warmup_steps {stage.warmup_steps} and {table}.decay_steps {stage.decay_steps} are more "
            f"than {table}.steps {stage.steps}; together they may be at most that"
        )


def _decay_steps(stage: Stage) -> int:
    if stage.schedule == "cosine":
        return stage.steps
    return math.ceil(_DECAY_SHARE * stage.steps) if stage.decay_steps is None else stage.decay_steps
