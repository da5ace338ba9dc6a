"""What leaves the house: the release (dataset, SWHIDs, model, cards) and the report page."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starsmith import __version__
from starsmith.corpus.store import Result, disk_errors, write_atomically
from starsmith.inspection.composition import Composition, compose
from starsmith.inspection.excerpts import excerpts
from starsmith.inspection.funnel import Funnel, funnel
from starsmith.policies.decisions import Policy, rules_table
from starsmith.policies.whole_repositories import repository_completeness
from starsmith.recipe import Recipe, to_toml
from starsmith.release.data_card import DataCardInputs, render_data_card
from starsmith.release.dataset import write_dataset
from starsmith.release.model_card import ModelCardInputs, license_text, render_model_card
from starsmith.release.swhids import write_swhids
from starsmith.steps import evaluation_pages
from starsmith.steps.data import corpus_tables
from starsmith.steps.learning import MODEL, stages
from starsmith.steps.signals import SIGNALS
from starsmith.steps.step import Context, Facts, Step

DATASET = "dataset"
_CURATED = ("contents", *SIGNALS, "policies/licenses", "policies/decisions")
_DATA = (*_CURATED, "documents")


def curation_step(recipe: Recipe) -> Step:
    """The page for those who curate and do not train."""
    return Step(
        name="curation",
        version=1,
        run=_Published(recipe).curation,
        about="one page on what was kept and dropped, and why",
        reads="text",
        inputs=_CURATED,
        params={"name": recipe.run.name, "starsmith": __version__},
        logs=("curation.html",),
    )


def steps(recipe: Recipe) -> list[Step]:
    """The last steps of the road."""
    published = _Published(recipe)
    learnt = ("tokenizer", "tokens", *stages(recipe), "export", "evaluation")
    told = {
        "recipe": {"release": recipe.release.model_dump(mode="json"), "name": recipe.run.name},
        "starsmith": __version__,
    }
    return [
        Step(
            name="release",
            version=3,
            run=published.release,
            about="dataset, SWHIDs, model, cards",
            reads="text",
            inputs=(*_DATA, *learnt),
            params=told,
        ),
        Step(
            name="report",
            version=4,
            run=published.report,
            about="one page that shows it all",
            reads="results",
            inputs=(*_DATA, *learnt, "release"),
            params=told,
            logs=("report.html", "evaluation.html"),
        ),
    ]


@dataclasses.dataclass(frozen=True)
class _Published:
    """What both steps tell, from one recipe."""

    recipe: Recipe

    @functools.cached_property
    def policy(self) -> Policy:
        return Policy.from_recipe(self.recipe)

    def release(self, context: Context) -> Facts:
        """Writes `dataset/` and `model/`, each with its card."""
        context.draft.clear()
        tables = corpus_tables(context.inputs)
        dataset_folder, model_folder = context.draft.folder / DATASET, context.draft.folder / MODEL
        context.progress(0, 4)
        dataset = write_dataset(tables, dataset_folder, self.recipe.release)
        context.progress(1, 4)
        swhids = write_swhids(tables, dataset_folder)
        context.progress(2, 4)
        card = render_data_card(self._data_card(context, dataset, swhids))
        write_atomically(dataset_folder / "README.md", card.encode())
        context.progress(3, 4)
        with disk_errors(model_folder):
            shutil.copytree(context.inputs["export"].folder / MODEL, model_folder)
        card = render_model_card(self._model_card(context, dataset))
        write_atomically(model_folder / "README.md", card.encode())
        text = license_text(self.recipe.release.model_license)
        if text is not None:
            write_atomically(model_folder / "LICENSE", text.encode())
        context.progress(4, 4)
        return {"dataset": dataset, "swhids": swhids}

    def report(self, context: Context) -> Facts:
        """Writes `report.html`, and `evaluation.html` that it points to."""
        from starsmith.inspection.report import ReportInputs, render_report  # loads the plotting library

        inputs = context.inputs
        page = render_report(
            ReportInputs(
                **self._curated(inputs),
                tokenizer=inputs["tokenizer"].facts,
                tokens=_token_facts(inputs["tokens"]),
                model=_model_facts(inputs["export"]),
                metrics=_metrics(self.recipe, inputs),
                evaluation=_evaluation(inputs["evaluation"]),
                evaluation_page="evaluation.html",
                release=inputs["release"].facts["dataset"],
            )
        )
        context.draft.write_file("report.html", page.encode())
        evaluated = evaluation_pages.page(
            inputs["evaluation"].folder, _evaluation(inputs["evaluation"]), name=self.recipe.release.model_name
        )
        context.draft.write_file("evaluation.html", evaluated.encode())
        return {"bytes": len(page)}

    def curation(self, context: Context) -> Facts:
        """Writes `curation.html`: the page as far as the ledger goes."""
        from starsmith.inspection.report import ReportInputs, render_report

        page = render_report(ReportInputs(**self._curated(context.inputs)))
        context.draft.write_file("curation.html", page.encode())
        return {"bytes": len(page)}

    def _curated(self, inputs: Mapping[str, Result]) -> dict[str, Any]:
        """What the page tells of the data, by the names of `ReportInputs`."""
        tables = corpus_tables(inputs)
        counted = funnel(tables, seed=self.recipe.run.seed)
        shown = [(rule.name, example.content_id) for rule in counted.rules for example in rule.examples]
        return {
            "run_name": self.recipe.run.name,
            "starsmith_version": __version__,
            "recipe_toml": to_toml(self.recipe),
            "sources": inputs["contents"].facts["sources"],
            "policy": rules_table(self.policy).to_pylist(),
            "funnel": counted,
            "excerpts": excerpts(tables, shown),
            "certificate": inputs["signals/near_duplicates"].read("near_duplicate_quality").to_pylist(),
            "near_duplicate_threshold": self.recipe.near_duplicates.threshold,
            "repositories": dataclasses.asdict(repository_completeness(tables)),
            "composition": compose(tables, seed=self.recipe.run.seed),
            "benchmarks_searched": _searched(inputs),
            "benchmarks_not_searched": _not_searched(inputs),
            "timings": _timings(self.recipe.run.view),
        }

    def _data_card(
        self, context: Context, dataset: Mapping[str, Any], swhids: Mapping[str, Any]
    ) -> DataCardInputs:
        tables = corpus_tables(context.inputs)
        counted: Funnel = funnel(tables, seed=self.recipe.run.seed)
        composed: Composition = compose(tables, seed=self.recipe.run.seed)
        return DataCardInputs(
            config=self.recipe.release,
            dataset=dataset,
            swhids=swhids,
            funnel=dataclasses.asdict(counted),
            pii=[dataclasses.asdict(kind) for kind in composed.pii],
            redacted_kinds=self.recipe.pii.kinds,
            contamination=[dataclasses.asdict(found) for found in composed.contamination],
            benchmarks_searched=_searched(context.inputs),
            num_opt_out_targets=None if self.policy.opt_out_targets is None else len(self.policy.opt_out_targets),
            sources=context.inputs["contents"].facts["sources"],
            policy=rules_table(self.policy).to_pylist(),
            recipe_toml=_portable_toml(self.recipe),
            starsmith_version=__version__,
        )

    def _model_card(self, context: Context, dataset: Mapping[str, Any]) -> ModelCardInputs:
        exported = context.inputs["export"].facts
        return ModelCardInputs(
            config=self.recipe.release,
            model=exported["config"],
            num_parameters=exported["num_parameters"],
            training=self.recipe.training.model_dump(mode="json"),
            metrics=_metrics(self.recipe, context.inputs),
            tokenizer=context.inputs["tokenizer"].facts,
            evaluation=_evaluation(context.inputs["evaluation"]),
            dataset=dataset,
            license=self.recipe.release.model_license,
            recipe_toml=_portable_toml(self.recipe),
            starsmith_version=__version__,
        )


def _searched(inputs: Mapping[str, Result]) -> list[str]:
    return list(inputs["signals/contamination"].facts["benchmarks"])


def _not_searched(inputs: Mapping[str, Result]) -> dict[str, list[str]]:
    sets = inputs["signals/contamination"].facts["sets"]
    return {"no_data": sets["missing"], "left_out": sets["left_out"], "unknown_folders": sets["unknown"]}


def _metrics(recipe: Recipe, inputs: Mapping[str, Result]) -> list[dict[str, Any]]:
    """The lines of all stages, one after the other; those of a later one carry its name."""
    first, *later = stages(recipe)
    rows = _lines(inputs[first])
    for stage in later:
        rows += [{**row, "stage": stage} for row in _lines(inputs[stage])]
    return rows


def _lines(training: Result) -> list[dict[str, Any]]:
    lines = (training.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _evaluation(evaluation: Result) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((evaluation.folder / "results.json").read_text())
    return results


def _token_facts(tokens: Result) -> dict[str, Any]:
    facts = tokens.facts
    splits = facts["splits"]
    return {
        "vocab_size": facts["vocab_size"],
        **{f"{split} {name}": count for split, counts in splits.items() for name, count in counts.items()},
    }


def _model_facts(exported: Result) -> dict[str, Any]:
    facts = exported.facts
    return {**facts["config"], "num_parameters": facts["num_parameters"]}


def _timings(view: Path) -> list[dict[str, Any]]:
    try:
        noted = json.loads((view / "timings.json").read_text())
    except FileNotFoundError:
        return []
    return [{"step": name, **timing} for name, timing in noted.items()]


def _portable_toml(recipe: Recipe) -> str:
    """The recipe as a card may show it: no folder of the machine it ran on, and the same for every machine."""
    values = recipe.model_dump()
    defaults = type(recipe.run).model_fields
    values["run"] |= {name: defaults[name].default for name in ("folder", "cache", "workers")}
    return to_toml(Recipe.model_validate(_without_folders(values)))


def _without_folders(value: Any) -> Any:
    """Absolute paths cut to their last name."""
    if isinstance(value, dict):
        return {name: _without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith("/")):
        return Path(value).name if Path(value).is_absolute() else value
    return value
