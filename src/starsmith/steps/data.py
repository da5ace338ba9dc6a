"""The data side of the road: ingest, signals, policies, documents."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from starsmith.corpus import query
from starsmith.corpus.arrivals import Target
from starsmith.corpus.store import Result, canonical_digest
from starsmith.documents import repositories
from starsmith.policies import decisions, licenses, redaction
from starsmith.policies.decisions import Policy
from starsmith.recipe import Recipe
from starsmith.steps import ingest, signals
from starsmith.steps.signals import SIGNALS
from starsmith.steps.step import Context, Facts, Step, counts, tables_of


def steps(recipe: Recipe, targets: Sequence[Target]) -> list[Step]:
    """The data side of the road, in order.

    Args:
        recipe: the recipe.
        targets: what its sources would read, from `ingest.targets_of`.
    """
    return [
        *ingest.steps(recipe, targets),
        *signals.steps(recipe),
        *_policy_steps(recipe),
        _documents_step(recipe),
    ]


def corpus_tables(results: Mapping[str, Result]) -> dict[str, list[Path]]:
    """Every table of the data side that policies and inspection query, missing ones empty."""
    names = ("contents", *SIGNALS, "policies/licenses", "policies/decisions", "documents")
    tables = tables_of({name: results[name] for name in names if name in results})
    return {name: tables.get(name, []) for name in query.SCHEMAS}


def _policy_steps(recipe: Recipe) -> list[Step]:
    policy = Policy.from_recipe(recipe)
    return [
        Step(
            name="policies/licenses",
            version=licenses.VERSION,
            run=functools.partial(_decide_licenses, recipe),
            about="each file's licences and their evidence",
            reads="columns",
            inputs=("contents", "signals/license_texts"),
            params={"evidence": sorted(recipe.licenses.evidence)},
        ),
        Step(
            name="policies/decisions",
            version=decisions.VERSION,
            run=functools.partial(_decide, policy),
            about="the ledger: what is dropped and edited, and why",
            reads="columns",
            inputs=("contents", *SIGNALS, "policies/licenses"),
            params={
                "languages": recipe.languages.model_dump(mode="json"),
                "licenses": {"keep": list(recipe.licenses.keep)},
                "filters": recipe.filters.model_dump(mode="json"),
                "near_duplicates": recipe.near_duplicates.model_dump(
                    mode="json", include={"enabled", "per_language", "threshold", "survivors"}
                ),
                "pii": recipe.pii.model_dump(mode="json"),
                "malware": {"ignore": list(recipe.malware.ignore)},
                "quality": recipe.quality.model_dump(mode="json", exclude={"classifier"}),
                "mix": recipe.mix.model_dump(mode="json"),
                "policy": canonical_digest(policy.parameters()),
            },
        ),
    ]


def _decide_licenses(recipe: Recipe, context: Context) -> Facts:
    decided = licenses.file_licenses(context.tables(), recipe.licenses, threads=context.workers)
    context.draft.write("file_licenses", 0, decided)
    return {"license_types": counts(decided["license_type"])}


def _decide(policy: Policy, context: Context) -> Facts:
    tables = corpus_tables(context.inputs)
    decided = decisions.decide(tables, policy, threads=context.workers)
    context.draft.write("decisions", 0, decided.decisions)
    context.draft.write("kept", 0, decided.kept)
    return {
        "num_decisions": decided.decisions.num_rows,
        "num_kept": decided.kept.num_rows,
        "bytes_kept": pc.sum(decided.kept["length_bytes"]).as_py() or 0,
    }


def _documents_step(recipe: Recipe) -> Step:
    return Step(
        name="documents",
        version=2,
        run=functools.partial(_build_documents, recipe),
        about="kept files, edited and grouped by repository",
        reads="text",
        inputs=("contents", "signals/pii", "policies/decisions"),
        params={
            "documents": recipe.documents.model_dump(mode="json"),
            "pii": recipe.pii.model_dump(mode="json"),
            "seed": recipe.run.seed,
        },
    )


def _build_documents(recipe: Recipe, context: Context) -> Facts:
    context.draft.clear()
    kinds = recipe.pii.kinds

    def redact(text: str, findings: list[repositories.Finding], content_id: str) -> tuple[str, int]:
        return redaction.redact(text, findings, kinds, content_id)

    num_documents = num_files = 0
    tables = corpus_tables(context.inputs)
    with context.draft.scratch() as scratch:
        built = repositories.build(tables, recipe.documents, seed=recipe.run.seed, redact=redact, spill=scratch)
        for part, table in enumerate(built):
            context.draft.write("documents", part, table)
            num_documents += table.num_rows
            num_files += pc.sum(pc.list_value_length(table["files"])).as_py() or 0
            context.progress(num_documents, num_documents)
    return {"num_documents": num_documents, "num_files": num_files}
