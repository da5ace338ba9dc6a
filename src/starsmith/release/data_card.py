"""The data card: what the released dataset holds, where it comes from, and what is wrong with it.

It is the dataset's `README.md`, in the form that the Hugging Face Hub and the `datasets` library read: the
header between `---` names a configuration for each language and one, `default`, with all of them. Every number
is the run's own. What was not done is said (no benchmark data given, no opt-out list), because a reader cannot
tell an empty result from an absent one; the Software Heritage statement of 19 October 2023 asks that training
data be identified and that authors have a way out, so both have a section.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starsmith import recipe
from starsmith.release import cards

_SIZE_NAMES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, kw_only=True)
class DataCardInputs:
    """What the card is filled from; None means that this part was not run."""

    config: recipe.Release
    dataset: Mapping[str, Any]
    """What `dataset.write_dataset` returned."""
    swhids: Mapping[str, Any]
    """What `swhids.write_swhids` returned."""
    funnel: Mapping[str, Any] | None = None
    """`arrived`, `dropped`, `kept`, `edited` (each `files`, `bytes`), `rules` (`name`, `dropped`, `edited`) and
    `incidents` (`kind`, `count`)."""
    pii: Sequence[Mapping[str, Any]] | None = None
    """By kind: `kind`, `findings`, `kept_findings`."""
    redacted_kinds: Sequence[str] = ()
    contamination: Sequence[Mapping[str, Any]] | None = None
    """By benchmark: `benchmark`, `files`, `problems`."""
    benchmarks_searched: Sequence[str] | None = None
    """Empty when no benchmark data was given; None when nothing was searched."""
    num_opt_out_targets: int | None = None
    """None when the recipe has no opt-out list."""
    sources: Sequence[Mapping[str, Any]] = ()
    """`label`, `origin`, `fingerprint`."""
    policy: Sequence[Mapping[str, Any]] = ()
    """Every rule in order: `rule`, `title`, `threshold`, `enabled`."""
    recipe_toml: str | None = None
    starsmith_version: str = ""


def render_data_card(inputs: DataCardInputs) -> str:
    """The card as Markdown with a YAML header; the same inputs give the same text."""
    splits = sorted(inputs.dataset["splits"])
    return cards.render(
        "data_card.md.jinja",
        inputs=inputs,
        dataset=inputs.dataset,
        splits=splits,
        size_category=next((name for limit, name in _SIZE_NAMES if inputs.dataset["num_files"] < limit), "n>1M"),
        top_licenses=list(inputs.dataset["licenses"].items())[:15],
        sources=[{**source, "origin": _public_origin(str(source["origin"]))} for source in inputs.sources],
    )


def _public_origin(origin: str) -> str:
    """A folder of somebody's machine is not named in a published card."""
    if origin.startswith("pkg:") or ("://" in origin and not origin.startswith("file:")):
        return origin
    return "a local folder or repository"
