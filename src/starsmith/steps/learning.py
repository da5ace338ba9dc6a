"""From documents to an evaluated model: tokenizer, tokens, training, export, evaluation.

PyTorch is imported when a step runs, so that planning and the data side stay light.
"""

import functools
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starsmith import recipe as recipes
from starsmith.corpus.engine import map_parallel
from starsmith.corpus.store import file_digest
from starsmith.errors import InputError
from starsmith.recipe import Recipe
from starsmith.steps.step import Context, Facts, Step
from starsmith.tokens import instructions, loader, prefetch, shards, tokenizer
from starsmith.training import schedule

if TYPE_CHECKING:
    from starsmith.model.configuration import Starcoder2Config
    from starsmith.training.estimate import Estimate

SHARDS = "shards"
MODEL = "model"
WEIGHTS = "weights"
TOKENIZER = "huggingface"
_HOUSEKEEPING = {"keep_checkpoints", "keep_every"}  # which checkpoints stay; a finished stage has none


def stages(recipe: Recipe) -> tuple[str, ...]:
    """The training steps of a recipe, in order."""
    return ("training",) if recipe.long_context is None else ("training", "long_context")


def steps(recipe: Recipe) -> list[Step]:
    """The learning side of the road, in order.

    Raises:
        InputError: a benchmark is unknown.
    """
    from starsmith.evaluation import registry

    benchmarks = [choice.name for choice in registry.choose(recipe.evaluation.benchmarks)]
    return [
        _tokenizer_step(recipe),
        *([_instructions_step(recipe)] if recipe.instructions.files else []),
        Step(
            name="tokens",
            version=2,
            run=_encode,
            about="every kept file encoded once",
            reads="text",
            inputs=("documents", "tokenizer"),
        ),
        *(_training_step(recipe, stage) for stage in stages(recipe)),
        Step(
            name="export",
            version=1,
            run=functools.partial(_export, recipe),
            about="a Hugging Face folder",
            reads="results",
            inputs=(stages(recipe)[-1], "tokenizer"),
            params={"precision": recipe.release.model_precision},
        ),
        Step(
            name="evaluation",
            version=4,
            run=functools.partial(_evaluate, recipe),
            about=", ".join(benchmarks),
            reads="text",
            inputs=("export", "documents"),
            params={
                "evaluation": recipe.evaluation.model_dump(mode="json"),
                "contamination": recipe.decontamination.model_dump(
                    mode="json", include={"min_chars", "ngram_words", "min_ngram_fraction", "prose_sets"}
                ),
                "data": _fingerprint([recipe.evaluation.data] if recipe.evaluation.data else []),
                "seed": recipe.run.seed,
            },
            logs=("failures.jsonl",),
        ),
    ]


def estimates(recipe: Recipe, devices: str | None = None) -> dict[str, "Estimate"]:
    """What each stage of training needs, on devices such as `8xH200` or on those of this machine."""
    from starsmith.model import huggingface
    from starsmith.model.configuration import Starcoder2Config
    from starsmith.training import estimate

    if recipe.model.start is not None:
        config = huggingface.read_config(recipe.model.start)
    else:
        shape = recipe.model.model_dump(exclude={"preset", "start"})
        config = Starcoder2Config(vocab_size=recipe.tokenizer.vocab_size, **shape)
    precision, hardware = recipe.training.precision, recipe.hardware
    used = estimate.here(hardware, precision) if devices is None else estimate.named(devices, precision)
    return {
        stage: estimate.estimate(
            config,
            recipe.training,
            _settings(recipe, stage),
            _tokens(recipe, stage).sequence_length,
            hardware,
            used,
        )
        for stage in stages(recipe)
    }


def _tokenizer_step(recipe: Recipe) -> Step:
    if recipe.model.start is not None:
        digest = _start_digest(recipe)
        if not (recipe.model.start / "tokenizer.json").is_file():
            raise InputError(
                f"model.start: {recipe.model.start} has no tokenizer.json; put the model's tokenizer there, in "
                "the format of the tokenizers library (transformers writes it with save_pretrained)"
            )
        return Step(
            name="tokenizer",
            version=1,
            run=functools.partial(_take_tokenizer, recipe.model.start),
            about="the tokenizer of the model to start from",
            reads="results",
            params={"start": digest},
        )
    return Step(
        name="tokenizer",
        version=1,
        run=functools.partial(_train_tokenizer, recipe),
        about="byte-level BPE on a sample of the documents",
        reads="text",
        inputs=("documents",),
        params={
            "tokenizer": recipe.tokenizer.model_dump(mode="json"),
            "model_max_length": _positions(recipe),
            "seed": recipe.run.seed,
        },
    )


def _instructions_step(recipe: Recipe) -> Step:
    return Step(
        name="instructions",
        version=1,
        run=functools.partial(_encode_instructions, recipe),
        about="instruction data encoded once",
        reads="text",
        inputs=("tokenizer",),
        params={"files": _fingerprint(recipe.instructions.files), "system": recipe.instructions.system},
    )


def _training_step(recipe: Recipe, stage: str) -> Step:
    """A stage of training; what only says how machine and disk are used is not part of its key.

    Raises:
        InputError: its settings contradict each other, which is better told before days of curation than after.
    """
    settings = _settings(recipe, stage)
    schedule.check(settings, table=stage)
    if settings.lora is not None and recipe.model.start is None:
        raise InputError("training.lora adapts a trained model: name it with model.start, or leave out lora")
    params: dict[str, Any] = {
        "tokens": _tokens(recipe, stage).model_dump(mode="json"),
        "training": settings.model_dump(mode="json", exclude=_HOUSEKEEPING),
        "metadata_probability": recipe.documents.metadata_probability,
        "seed": _seed(recipe, stage),
    }
    if recipe.instructions.files:
        params["instructions_share"] = recipe.instructions.share
    if stage == "long_context":
        assert recipe.long_context is not None
        params["rope_theta"] = recipe.long_context.rope_theta
    elif recipe.model.start is not None:
        params["start"] = _start_digest(recipe)
    else:
        params["model"] = recipe.model.model_dump(mode="json", exclude={"preset", "start"})
    return Step(
        name=stage,
        version=2,
        run=functools.partial(_train, recipe, stage),
        about="the model, with the lineage of every step"
        if stage == "training"
        else "the same model on long sequences",
        reads="tokens",
        inputs=(
            "tokens",
            *(["instructions"] if recipe.instructions.files else []),
            *(["training"] if stage == "long_context" else []),
        ),
        params=params,
        logs=("metrics.jsonl", "tensorboard/"),
        distributed=True,
    )


def _settings(recipe: Recipe, stage: str) -> recipes.Training:
    if stage == "training":
        return recipe.training
    assert recipe.long_context is not None
    return recipe.long_context.settings(recipe.training)


def _tokens(recipe: Recipe, stage: str) -> recipes.Tokens:
    if stage == "training":
        return recipe.tokens
    assert recipe.long_context is not None
    return recipe.tokens.model_copy(update={"sequence_length": recipe.long_context.sequence_length})


def _seed(recipe: Recipe, stage: str) -> int:
    """Stages draw apart: the second one does not begin with the order of documents of the first."""
    if stage == "training":
        return recipe.run.seed
    return int.from_bytes(hashlib.sha256(f"{stage} {recipe.run.seed}".encode()).digest()[:6], "big")


def _positions(recipe: Recipe) -> int:
    """Positions that the finished model may use."""
    long = recipe.long_context.sequence_length if recipe.long_context else 0
    return max(recipe.model.max_position_embeddings, long)


def _start_digest(recipe: Recipe) -> str:
    from starsmith.model import huggingface

    assert recipe.model.start is not None
    return huggingface.digest(recipe.model.start, recipe.run.cache)


def _take_tokenizer(start: Path, context: Context) -> Facts:
    from starsmith.model import huggingface

    context.draft.clear()
    folder = context.draft.folder / TOKENIZER
    folder.mkdir()
    for file in huggingface.tokenizer_files(start):
        shutil.copyfile(file, folder / file.name)
    taken = tokenizer.Tokenizer.load(folder / "tokenizer.json")
    return {"vocab_size": taken.vocab_size, "digest": taken.digest}


def _encode_instructions(recipe: Recipe, context: Context) -> Facts:
    context.draft.clear()
    folder = context.draft.folder / SHARDS
    folder.mkdir()
    known = tokenizer.Tokenizer.load(context.inputs["tokenizer"].folder / TOKENIZER / "tokenizer.json")
    return instructions.encode(recipe.instructions.files, known, folder, system=recipe.instructions.system)


def _train_tokenizer(recipe: Recipe, context: Context) -> Facts:
    context.draft.clear()
    parts = context.inputs["documents"].parts("documents")
    trained = tokenizer.train(parts, recipe.tokenizer, seed=recipe.run.seed)
    folder = context.draft.folder / TOKENIZER
    folder.mkdir()
    tokenizer.write_huggingface(trained, folder, model_max_length=_positions(recipe))
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


def _train(recipe: Recipe, stage: str, context: Context) -> Facts:
    """Runs on every rank; the first one leaves the result."""
    from starsmith.model import huggingface
    from starsmith.training import checkpoint, loop, world

    folder, settings = context.draft.folder, _settings(recipe, stage)
    with world.join(recipe.hardware, settings.precision) as ranks:
        ranks.rows(settings.batch_size)  # refused here, where it is said how many processes would fit
        batches = loader.Loader(
            context.inputs["tokens"].folder / SHARDS,
            _tokens(recipe, stage),
            seed=_seed(recipe, stage),
            batch_size=settings.batch_size,
            metadata_probability=recipe.documents.metadata_probability,
            instructions=context.inputs["instructions"].folder / SHARDS if recipe.instructions.files else None,
            instructions_share=recipe.instructions.share if recipe.instructions.files else 0.0,
            rank=ranks.rank,
            world_size=ranks.size,
        )
        config, start = _model(recipe, stage, batches.vocab_size, context)
        validation = batches.sequences("validation", settings.validation_sequences)
        with prefetch.Prefetch(batches) as ready:
            trained = loop.train(
                folder,
                ready,
                [validation],
                config,
                settings,
                seed=_seed(recipe, stage),
                world=ranks,
                hardware=recipe.hardware,
                start=None if start is None else functools.partial(huggingface.read_weights, *start),
                progress=context.progress,
            )
        if ranks.is_first:
            huggingface.export(trained.weights(), config, [], folder / WEIGHTS, overwrite=True)
            shutil.rmtree(folder / checkpoint.FOLDER)  # a committed training never resumes
    return {
        "steps": trained.steps,
        "num_tokens": trained.num_tokens,
        "num_skipped": trained.num_skipped,
        "loss": trained.loss,
        "validation_loss": trained.validation_loss,
    }


def _model(
    recipe: Recipe, stage: str, vocab_size: int, context: Context
) -> tuple["Starcoder2Config", tuple[Path, "Starcoder2Config"] | None]:
    """The shape that a stage trains, and the folder and shape of the weights it starts from."""
    from starsmith.model import huggingface
    from starsmith.model.configuration import Starcoder2Config

    if stage == "long_context":
        assert recipe.long_context is not None
        folder = context.inputs["training"].folder / WEIGHTS
        before = huggingface.read_config(folder)
        positions = max(before.max_position_embeddings, recipe.long_context.sequence_length)
        longer = before.with_context(num_positions=positions, rope_theta=recipe.long_context.rope_theta)
        return longer, (folder, before)
    if recipe.model.start is not None:
        known = huggingface.read_config(recipe.model.start)
        if vocab_size > known.vocab_size:
            raise InputError(
                f"{recipe.model.start}: the tokenizer has {vocab_size} tokens and the model {known.vocab_size}; "
                "they do not belong together"
            )
        return known, (recipe.model.start, known)
    shape = recipe.model.model_dump(exclude={"preset", "start"})
    return Starcoder2Config(vocab_size=vocab_size, **shape), None


def _export(recipe: Recipe, context: Context) -> Facts:
    from starsmith.model import export, huggingface
    from starsmith.model.configuration import num_parameters

    context.draft.clear()
    source = context.inputs[stages(recipe)[-1]].folder / WEIGHTS
    config = huggingface.read_config(source)
    files = sorted((context.inputs["tokenizer"].folder / TOKENIZER).iterdir())
    weights = huggingface.read_weights(source, config)
    dtype = export.PRECISIONS[recipe.release.model_precision]
    huggingface.export(weights, config, files, context.draft.folder / MODEL, dtype=dtype)
    return {"num_parameters": num_parameters(config), "config": config.to_dict()}


def _evaluate(recipe: Recipe, context: Context) -> Facts:
    from starsmith.evaluation import backends, runner
    from starsmith.steps import problem_search

    def progress(stage: str, done: int, total: int) -> None:
        context.progress(done, total, stage)

    results = runner.evaluate(
        backends.StarsmithBackend(
            context.inputs["export"].folder / MODEL, device=backends.choose_device(recipe.hardware.device)
        ),
        recipe.evaluation,
        heldout=context.inputs["documents"].parts("documents"),
        folder=context.draft.folder,
        seed=recipe.run.seed,
        workers=context.workers,
        corpus=problem_search.run_corpus(context.inputs["documents"], recipe, context.workers),
        progress=progress,
    )
    return {name: benchmark["estimates"] for name, benchmark in results["benchmarks"].items()}


def _fingerprint(places: Sequence[Path]) -> list[tuple[str, int, str]]:
    """Name, size and SHA-256 of every file of the user's data: what changes is read again."""
    found = []
    for place in places:
        if not place.exists():
            raise InputError(f"no file or folder at {place}")
        files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
        base = place if place.is_dir() else place.parent
        found += [(file.relative_to(base).as_posix(), file.stat().st_size, file_digest(file)) for file in files]
    return found
