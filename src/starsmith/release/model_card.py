"""The model card: what the model is, what it saw, what it scores, and what it should not be used for.

Every number is the run's own; near-zero scores stand as they are, with their intervals and the level of the
sandbox that ran the programs.

The licence of the weights is the publisher's to choose and is stated plainly; the default is Apache-2.0 (its
text is `license_text`). BigCode's OpenRAIL-M, under which StarCoder2 was published, is a contract with use
restrictions that its publisher has to mean: it is not taken over because a model has the same architecture. No
licence on weights grants rights in the training data, and the card says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starsmith import recipe
from starsmith.release import cards
from starsmith.release.model_index import render_model_index

DEFAULT_LICENSE = "apache-2.0"
_SMALL_PARAMETERS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class ModelCardInputs:
    """What the card is filled from; None means that this part was not run."""

    config: recipe.Release
    model: Mapping[str, Any]
    """The model's configuration (`config.json`)."""
    num_parameters: int
    training: Mapping[str, Any]
    """The `[training]` table of the recipe."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """One for each training step, stage after stage: `step`, `loss` (None where it was not a number), `tokens` (of
    that step), and at times `validation_loss`."""
    tokenizer: Mapping[str, Any] | None = None
    """Facts about the tokenizer, by name."""
    evaluation: Mapping[str, Any] | None = None
    """What evaluation wrote as `results.json`: `sandbox` (with its `level`, or None), and `benchmarks` by name,
    each with `estimates` (`value`, `low`, `high`, `n`), `labels`, `num_problems`, `num_available_problems`."""
    dataset: Mapping[str, Any] | None = None
    """What `dataset.write_dataset` returned, for the training data's size."""
    license: str = DEFAULT_LICENSE
    """The licence identifier of the weights, as the Hugging Face Hub writes it."""
    recipe_toml: str | None = None
    starsmith_version: str = ""


def render_model_card(inputs: ModelCardInputs) -> str:
    """The card as Markdown with a YAML header; the same inputs give the same text."""
    validation = [row for row in inputs.metrics if row.get("validation_loss") is not None]
    with_loss = [row for row in inputs.metrics if row["loss"] is not None]
    return cards.render(
        "model_card.md.jinja",
        inputs=inputs,
        model=inputs.model,
        first=with_loss[0] if with_loss else None,
        last=with_loss[-1] if with_loss else None,
        num_steps=len(inputs.metrics),
        num_tokens=sum(row.get("tokens", 0) for row in inputs.metrics),
        validation=validation[-1] if validation else None,
        uniform_loss=math.log(inputs.model["vocab_size"]),
        is_small=inputs.num_parameters < _SMALL_PARAMETERS,
        model_index=render_model_index(inputs.evaluation, name=inputs.config.model_name),
        benchmarks=(inputs.evaluation or {}).get("benchmarks") or {},
        sandbox=(inputs.evaluation or {}).get("sandbox") or {},
    )


def license_text(license: str = DEFAULT_LICENSE) -> str | None:
    """The text to put beside the weights as `LICENSE`; None for a licence that we do not have the text of."""
    if license != DEFAULT_LICENSE:
        return None
    return (Path(__file__).parent / "templates" / "apache-2.0.txt").read_text(encoding="utf-8")
