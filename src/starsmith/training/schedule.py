"""The learning rate of each step: linear warm-up, then half a cosine down to the minimum.

"StarCoder 2 and The Stack v2", section 6.2: 1,000 warm-up iterations, cosine decay. A function of the step
alone, so there is nothing to save and resume.
"""

import math

from starsmith.errors import InputError
from starsmith.recipe import Training


def learning_rate(step: int, config: Training) -> float:
    """The rate of step 1, 2, ..., `config.steps`.

    It reaches `learning_rate` at step `warmup_steps` (or never, if there are not so many) and
    `min_learning_rate` at the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * share


def check(config: Training) -> None:
    """Raises InputError where the settings contradict each other."""
    if config.min_learning_rate > config.learning_rate:
        raise InputError(
            f"training.min_learning_rate {config.min_learning_rate:g} is above training.learning_rate "
            f"{config.learning_rate:g}; it must be at most that"
        )
