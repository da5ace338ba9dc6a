"""Rows of `metrics.jsonl` of a made-up run of two stages, with a spike, skipped steps and a rewind."""

import math
import random
from typing import Any

STEPS = {"training": 1_200, "long_context": 300}


def rows(*, has_peak: bool = True) -> list[dict[str, Any]]:
    draw = random.Random(5)
    made = []
    for stage, steps in STEPS.items():
        for step in range(1, steps + 1):
            before = 0 if stage == "training" else STEPS["training"]
            loss = 1.4 + 8.5 * (1 + (before + step) / 12) ** -0.55 + draw.gauss(0, 0.05)
            warmup, peak = (60, 3e-4) if stage == "training" else (20, 3e-5)
            rate = peak * min(step / warmup, 0.55 + 0.45 * math.cos(step / steps * math.pi))
            row = {
                "step": step, "loss": loss, "learning_rate": rate, "grad_norm": 0.4 + 3 / (1 + step / 20),
                "tokens": 65_536, "num_targets": 65_000, "seconds": 3.1 + draw.gauss(0, 0.05),
                "data_wait_seconds": abs(draw.gauss(0.03, 0.02)), "tokens_per_second": 21_000 + draw.gauss(0, 150),
                "mfu": 0.44 + draw.gauss(0, 0.003) if has_peak else None, "hfu": None,
                "memory_bytes": 98_000_000_000, "batch": f"{step:016x}", "skipped": None,
            }  # fmt: skip
            if stage == "long_context":
                row |= {"stage": stage, "tokens_per_second": 19_500 + draw.gauss(0, 150)}
            if step % 100 == 0:
                row["validation_loss"] = loss + 0.06
            made.append(row)
    for step in (402, 403, 404):
        spiked = {"loss": 6.0 + step - 402, "grad_norm": 40.0, "skipped": "the loss is 9.1 standard deviations up"}
        made[step - 1] |= spiked
    made[700] |= {"loss": None, "grad_norm": None, "skipped": "the loss is nan"}
    made[800]["intervention"] = "rewound from step 850 to step 800; 60 batches after it are left out"
    return made
