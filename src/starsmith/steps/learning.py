"""From documents to an evaluated model: tokenizer, tokens, training, export, evaluation.

PyTorch is imported when a step runs, so that planning and the data side stay light.
"""

import functools
import shutil
from pathlib import Path
from typing import Any

from starsmith.corpus.engine import map_parallel
from starsmith.recipe import Recipe
from starsmith.steps.step import Context, Facts, Step
from starsmith.tokens import loader, shards, tokenizer

SHARDS = "shards"
MODEL = "model"
WEIGHTS = "weights"
TOKENIZER = "huggingface"


def steps(recipe: Recipe) -> list[Step]:
    """The learning side of the road, in order."""
    return [
        Step(
            name="tokenizer",
            version=1,
            run=functools.partial(_train_tokenizer, recipe),
            about="byte-level BPE on a sample of the documents",
            reads="text",
            inputs=("documents",),
            params={
                "tokenizer": recipe.tokenizer.model_dump(mode="json"),
                "model_max_length": recipe.model.max_position_embeddings,
                "seed": recipe.run.seed,
            },
        ),
        Step(
            name="tokens",
            version=1,
            run=_encode,
            about="every kept file encoded once",
            reads="text",
            inputs=("documents", "tokenizer"),
        ),
        Step(
            name="training",
            version=1,
            run=functools.partial(_train, recipe),
            about="the model, with the lineage of every step",
            reads="tokens",
            inputs=("tokens",),
            params={
                "model": recipe.model.model_dump(mode="json", exclude={"preset"}),
                "tokens": recipe.tokens.model_dump(mode="json"),
                "training": recipe.training.model_dump(mode="json"),
                "metadata_probability": recipe.documents.metadata_probability,
                "seed": recipe.run.seed,
            },
            logs=("metrics.jsonl",),
        ),
        Step(
            name="export",
            version=1,
            run=_export,
            about="a Hugging Face folder",
            reads="results",
            inputs=("training", "tokenizer"),
        ),
        Step(
            name="evaluation",
            version=1,
            run=functools.partial(_evaluate, recipe),
            about=", ".join(recipe.evaluation.benchmarks),
            reads="text",
            inputs=("export", "documents"),
            params={
                "evaluation": recipe.evaluation.model_dump(mode="json"),
                "data": _data_fingerprint(recipe.evaluation.data),
                "seed": recipe.run.seed,
            },
        ),
    ]


def _train_tokenizer(recipe: Recipe, context: Context) -> Facts:
    context.draft.clear()
    parts = context.inputs["documents"].parts("documents")
    trained = tokenizer.train(parts, recipe.tokenizer, seed=recipe.run.seed)
    folder = context.draft.folder / TOKENIZER
    folder.mkdir()
    tokenizer.write_huggingface(trained, folder, model_max_length=recipe.model.max_position_embeddings)
    return {
        "vocab_size": trained.vocab_size,
        "sample_bytes": recipe.tokenizer.sample_bytes,
        "digest": trained.digest,
    }


def _encode(context: Context) -> Facts:
    folder = context.draft.folder / SHARDS
    folder.mkdir(exist_ok=True)
    tokenizer_file = context.inputs["tokenizer"].folder / TOKENIZER / "tokenizer.json"
    jobs = [
        (part, tokenizer_file, folder, f"shard-{number:05d}")
        for number, part in enumerate(context.inputs["documents"].parts("documents"))
    ]
    map_parallel(_encode_part, jobs, workers=context.workers, progress=context.progress)
    manifest = shards.write_manifest(folder, tokenizer_file)
    return {
        "vocab_size": manifest["vocab_size"],
        "splits": manifest["splits"],
        "fingerprint": manifest["fingerprint"],
    }


def _encode_part(job: tuple[Path, Path, Path, str]) -> None:
    shards.encode_documents(*job)


def _train(recipe: Recipe, context: Context) -> Facts:
    from starsmith.model import huggingface
    from starsmith.model.configuration import Starcoder2Config
    from starsmith.training import checkpoint, loop

    folder = context.draft.folder
    batches = loader.Loader(
        context.inputs["tokens"].folder / SHARDS,
        recipe.tokens,
        seed=recipe.run.seed,
        batch_size=recipe.training.batch_size,
        metadata_probability=recipe.documents.metadata_probability,
    )
    config = Starcoder2Config(vocab_size=batches.vocab_size, **recipe.model.model_dump(exclude={"preset"}))
    trained = loop.train(
        folder,
        batches,
        [batches.sequences("validation", recipe.training.validation_sequences)],
        config,
        recipe.training,
        seed=recipe.run.seed,
        progress=context.progress,
    )
    huggingface.export(trained.model.named_parameters(), config, [], folder / WEIGHTS, overwrite=True)
    shutil.rmtree(folder / checkpoint.FOLDER)  # a committed training never resumes
    return {
        "steps": trained.steps,
        "num_tokens": trained.num_tokens,
        "num_skipped": trained.num_skipped,
        "loss": trained.loss,
        "validation_loss": trained.validation_loss,
    }


def _export(context: Context) -> Facts:
    from starsmith.model import huggingface
    from starsmith.model.configuration import num_parameters

    context.draft.clear()
    source = context.inputs["training"].folder / WEIGHTS
    config = huggingface.read_config(source)
    files = sorted((context.inputs["tokenizer"].folder / TOKENIZER).iterdir())
    weights = huggingface.read_weights(source, config)
    huggingface.export(weights, config, files, context.draft.folder / MODEL)
    return {"num_parameters": num_parameters(config), "config": config.to_dict()}


def _evaluate(recipe: Recipe, context: Context) -> Facts:
    from starsmith.evaluation import backends, runner

    def progress(stage: str, done: int, total: int) -> None:
        context.progress(done, total, stage)

    results = runner.evaluate(
        backends.StarsmithBackend(context.inputs["export"].folder / MODEL),
        recipe.evaluation,
        heldout=context.inputs["documents"].parts("documents"),
        folder=context.draft.folder,
        seed=recipe.run.seed,
        workers=context.workers,
        progress=progress,
    )
    return {name: benchmark["estimates"] for name, benchmark in results["benchmarks"].items()}


def _data_fingerprint(folder: Path | None) -> Any:
    """Name and size of every file of the user's benchmark data: a set that changes is evaluated again."""
    if folder is None:
        return None
    files = sorted(place for place in folder.rglob("*") if place.is_file())
    return [[place.relative_to(folder).as_posix(), place.stat().st_size] for place in files]
