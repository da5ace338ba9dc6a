"""An evaluation's results for people, beside those for programs: a page, a table, and a block for a model card.

All three are made from what `evaluation.runner` wrote, so they can be made again at any time.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from starsmith import __version__
from starsmith.corpus.store import write_atomically
from starsmith.evaluation import comparison
from starsmith.evaluation.comparison import Comparison, Evaluated
from starsmith.release.model_index import render_model_index
from starsmith.release.results_table import render_results

PAGE: Final = "report.html"
TABLE: Final = "results.md"
MODEL_INDEX: Final = "model-index.yml"


def write(folder: Path, results: Mapping[str, Any], *, name: str) -> None:
    """Writes the three into the folder of an evaluation.

    Args:
        folder: what `runner.evaluate` wrote into.
        results: what it returned.
        name: of the model, for people.

    Raises:
        MachineError: the disk refuses.
    """
    index = render_model_index(results, name=name)
    write_atomically(folder / PAGE, page(folder, results, name=name).encode())
    write_atomically(folder / TABLE, render_results(results, name=name).encode())
    write_atomically(folder / MODEL_INDEX, (index + "\n" if index else "# nothing was measured\n").encode())


def page(folder: Path, results: Mapping[str, Any], *, name: str) -> str:
    """The page, with the failures that the folder of the evaluation holds."""
    from starsmith.inspection.evaluation_page import render_evaluation  # loads the plotting library

    lines = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    failures = [json.loads(line) for line in lines]
    return render_evaluation(results, failures=failures, name=name, starsmith_version=__version__)


def write_comparison(place: Path, evaluated: Sequence[Evaluated], compared: Sequence[Comparison]) -> None:
    """Writes the page of evaluations that were each compared with the first.

    Raises:
        MachineError: the disk refuses.
    """
    from starsmith.inspection.comparison_page import ComparisonInputs, render_comparison

    first, *others = evaluated
    text = render_comparison(
        ComparisonInputs(
            runs=[(each.name, each.results) for each in evaluated],
            compared=[found.to_dict() for found in compared],
            changed=[comparison.changed(first, other) for other in others],
            starsmith_version=__version__,
        )
    )
    write_atomically(place, text.encode())
