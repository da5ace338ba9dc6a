"""The verbs of the command line: thin, each one call into the plan or a room, printed for people or as JSON.

Exit codes: 0 done; 1 a check failed (`verify`, `doctor`) or an unforeseen error; 2 wrong input (recipe,
target, options); 3 the machine refuses (full disk, no network, absent tool); 130 interrupted.
"""

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from starsmith import __version__, doctor, plan, recipe, sources
from starsmith.corpus import query
from starsmith.corpus.store import Result, write_atomically
from starsmith.errors import InputError, StarsmithError
from starsmith.inspection import diff, explain, receipts
from starsmith.policies import opt_out, opt_out_requests
from starsmith.policies.decisions import Policy, evaluate
from starsmith.signals import quality_classifier
from starsmith.steps import data, learning
from starsmith.terminal import Bars, StageBars, err, out, print_json, print_plan

if TYPE_CHECKING:
    from starsmith.evaluation.contamination import Corpus

app = typer.Typer(
    name="starsmith",
    help="From source archives to an evaluated, released code model, with a paper trail for every file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.")]
RunFolder = Annotated[
    Path, typer.Option("--run", "-r", help="A run's folder (NAME or NAME@N for its Nth finished run).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
UpTo = Annotated[str | None, typer.Option("--to", metavar="STEP", help="Stop after this step.")]
TrainingStage = Annotated[
    Literal["training", "long_context"], typer.Option("--stage", help="Which stage's steps are meant.")
]
QUICKSTART = Path("runs/quickstart")


def main() -> None:
    """The `starsmith` command."""
    try:
        app()
    except StarsmithError as error:
        err.print(f"starsmith: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and stop.")] = False,
) -> None:
    """From source archives to an evaluated, released code model, with a paper trail for every file."""
    if version:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.command("plan")
def plan_(
    recipe_file: RecipeFile,
    to: UpTo = None,
    devices: Annotated[
        str | None, typer.Option("--devices", metavar="NxNAME", help="Plan training for these, such as 8xH200.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a recipe will run and why, and what its training needs."""
    chosen = recipe.load(recipe_file)
    planned = plan.make(chosen, to=to)
    trains = devices is not None or any(entry.step.distributed for entry in planned.pending)
    needs = learning.estimates(chosen, devices) if trains else {}
    if as_json:
        print_json(
            {
                "steps": [
                    {
                        "step": entry.step.name,
                        "key": entry.key,
                        "state": entry.state,
                        "reason": entry.reason,
                        "reads": entry.step.reads,
                    }
                    for entry in planned.steps
                ],
                "training": {stage: needed.to_dict() for stage, needed in needs.items()},
            }
        )
        return
    print_plan(planned)
    for stage, needed in needs.items():
        out.print(Text(f"\n{stage}"))
        for line in needed.lines():
            out.print(Text(f"  {line}"), soft_wrap=True)


@app.command()
def run(recipe_file: RecipeFile, to: UpTo = None, as_json: AsJson = False) -> None:
    """Run a recipe; what is already there is reused."""
    chosen = recipe.load(recipe_file)
    planned = plan.make(chosen, to=to)
    pending = planned.pending
    if as_json:
        results = plan.execute(planned)
        ran = {entry.step.name for entry in pending}
        print_json(
            [
                {"step": name, "ran": name in ran, "folder": str(result.folder), "facts": result.facts}
                for name, result in results.items()
            ]
        )
        return
    if not pending:
        plan.execute(planned)
        out.print(f"nothing to do: all {len(planned.steps)} steps are up to date", highlight=False)
    else:
        reused = len(planned.steps) - len(pending)
        out.print(f"{len(pending)} steps to run, {reused} reused", highlight=False)
        try:
            with Bars() as bars:
                plan.execute(planned, bars)
        except KeyboardInterrupt:
            err.print("starsmith: interrupted; finished parts are kept, the same command continues")
            raise typer.Exit(130) from None
    page = chosen.run.view / f"{'report' if to is None else to}.html"
    if to in (None, "report", "curation"):
        out.print(f"report: {page}", highlight=False, soft_wrap=True)


@app.command("train")
def train_(
    recipe_file: RecipeFile,
    stage: Annotated[
        Literal["training", "long_context"] | None,
        typer.Option("--stage", help="Up to this stage; by default all."),
    ] = None,
) -> None:
    """Run a recipe's training; under torchrun on every GPU."""
    chosen = recipe.load(recipe_file)
    planned = plan.make(chosen, to=stage or learning.stages(chosen)[-1])
    if not planned.pending:
        out.print("nothing to do: the training is finished", highlight=False)
        return
    with Bars() as bars:
        plan.train(planned, bars)


@app.command("rewind")
def rewind_(
    recipe_file: RecipeFile,
    to_step: Annotated[int, typer.Option("--to-step", min=1, help="Go on from the checkpoint at or before this.")],
    skip_batches: Annotated[int, typer.Option("--skip-batches", min=1, help="Leave out so many batches there.")],
    stage: TrainingStage = "training",
    as_json: AsJson = False,
) -> None:
    """Have an unfinished training go back before a loss spike and leave out the batches that caused it."""
    from starsmith.training import interventions

    planned = plan.make(recipe.load(recipe_file), to=stage)
    entry = next(entry for entry in planned.steps if entry.step.name == stage)
    if not entry.runs:
        raise InputError(f"{stage} of {recipe_file} is finished; only a run that goes on can be rewound")
    kept = plan.store(planned.recipe)
    with kept.locked():
        noted = interventions.rewind(kept.folder(stage, entry.key), to_step, skip_batches)
    if as_json:
        print_json(dataclasses.asdict(noted))
        return
    out.print(f"{noted}; run or train the recipe again to go on", highlight=False, soft_wrap=True)


@app.command("export")
def export_(
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="The folder, or the GGUF file, to write.")],
    run_folder: RunFolder = QUICKSTART,
    model: Annotated[Path | None, typer.Option("--model", help="A Hugging Face folder instead of a run.")] = None,
    format: Annotated[Literal["huggingface", "gguf"], typer.Option("--format")] = "huggingface",
    precision: Annotated[
        str | None, typer.Option("--precision", help="fp32, fp16, bf16, or a GGUF type; by default unchanged.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a trained model for transformers or llama.cpp."""
    from starsmith.model.export import export_folder

    source = model or _step(run_folder, "export").folder / learning.MODEL
    notes = export_folder(source, destination, format=format, precision=precision, overwrite=overwrite)
    if as_json:
        print_json({"written": str(destination), "notes": notes})
        return
    out.print(Text(f"written: {destination}"), soft_wrap=True)
    for note in notes:
        err.print(f"starsmith: {note}", markup=False, highlight=False, soft_wrap=True)


@app.command("lock")
def lock_(recipe_file: RecipeFile, as_json: AsJson = False) -> None:
    """Pin a recipe's packages by hash in its lock files."""
    chosen = recipe.load(recipe_file)
    locked = [spec for spec in chosen.sources if isinstance(spec, recipe.PackageSource) and spec.lock is not None]
    if not locked:
        raise InputError(f"{recipe_file} has no package source with a `lock`; name a file there first")
    added = {
        f"{spec.type} in {spec.lock}": sources.lock(spec, cache=chosen.run.cache, limits=chosen.corpus.limits)
        for spec in locked
    }
    if as_json:
        print_json(added)
        return
    for place, names in added.items():
        out.print(f"{place}: {'added ' + ', '.join(names) if names else 'nothing to add'}", highlight=False)


@app.command("explain")
def explain_(
    target: Annotated[str, typer.Argument(help="A path, repository:/path, a repository, a SWHID or a hash.")],
    run_folder: RunFolder = QUICKSTART,
    as_json: AsJson = False,
) -> None:
    """Show why a file or repository is in or out."""
    tables = _judged_tables(run_folder)
    policy = Policy.from_recipe(plan.recipe_of(run_folder))
    explained = explain.explain(tables, target, functools.partial(evaluate, tables, policy))
    if as_json:
        print_json(explained.to_dict())
    else:
        out.print(explain.render(explained))


@app.command("diff")
def diff_(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A run's folder, or FOLDER@N for its Nth run.")],
    new: Annotated[Path, typer.Argument(metavar="NEW")],
    as_json: AsJson = False,
) -> None:
    """Compare two runs: what was added or removed, and why."""
    difference = diff.diff(_judged_tables(old), _judged_tables(new))
    if as_json:
        print_json(difference.to_dict())
    else:
        out.print(diff.render(difference))


@app.command("lineage")
def lineage_(
    run_folder: RunFolder = QUICKSTART,
    step: Annotated[int | None, typer.Option("--step", help="What this training step saw.")] = None,
    swhid: Annotated[str | None, typer.Option("--swhid", help="Which steps saw this content or document.")] = None,
    stage: TrainingStage = "training",
    as_json: AsJson = False,
) -> None:
    """Show what a training step saw, or who saw a SWHID."""
    from starsmith.training import lineage

    if (step is None) == (swhid is None):
        raise InputError("lineage needs one of --step N and --swhid SWHID")
    if stage not in learning.stages(plan.recipe_of(run_folder)):
        raise InputError(f"{run_folder} has one stage of training; ask for its steps without --stage")
    trained = _step(run_folder, stage).folder
    rows = (
        lineage.lineage(trained, step) if step is not None else lineage.steps_of(trained, str(swhid))
    ).to_pylist()
    for row in rows:
        for name in ("content_id", "released_id"):
            if row.get(name):
                row[name] = f"swh:1:cnt:{row[name]}"
    if as_json:
        print_json(rows)
        return
    for row in rows:
        if step is None:
            out.print(f"step {row['step']:>8,}  {row['num_tokens']:>7,} tokens", highlight=False)
            continue
        where = (
            f"{row['repo_name']}:{row['path']}" if row["path"] else f"{row['repo_name']} (its name, separators)"
        )
        licenses = ", ".join(row["detected_licenses"]) or "none detected"
        out.print(Text(f"{row['num_tokens']:>7,} tokens  {where}"), soft_wrap=True)
        if row["content_id"]:
            out.print(Text(f"{'':16}{row['content_id']}  {row['license_type']}: {licenses}"), soft_wrap=True)
    if not rows:
        out.print(f"no step saw {swhid}", highlight=False)


@app.command("verify")
def verify_(run_folder: RunFolder = QUICKSTART, as_json: AsJson = False) -> None:
    """Compare every byte of a run's results with the manifests."""
    results = plan.results(run_folder)
    faults = [fault for result in results.values() for fault in result.faults()]
    files = sum(len(result.manifest["files"]) for result in results.values())
    if as_json:
        print_json({"num_results": len(results), "num_files": files, "faults": faults})
        raise typer.Exit(1 if faults else 0)
    for fault in faults:
        out.print(f"damaged: {fault}", markup=False, highlight=False, soft_wrap=True)
    if faults:
        out.print("remove the folders named above and run the recipe again: only these steps are made anew")
        raise typer.Exit(1)
    out.print(f"{len(results)} results, {files:,} files: all as committed", highlight=False)


@app.command("complete")
def complete_(
    prompt: Annotated[str, typer.Argument(help="The beginning of some code.")],
    suffix: Annotated[str | None, typer.Option("--suffix", help="What follows the hole that is filled.")] = None,
    run_folder: RunFolder = QUICKSTART,
    model: Annotated[Path | None, typer.Option("--model", help="A Hugging Face folder instead of a run.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    as_json: AsJson = False,
) -> None:
    """Complete a prompt, or fill in the middle, with a trained model."""
    from starsmith.evaluation.backends import StarsmithBackend
    from starsmith.evaluation.contract import Request

    folder = model or _step(run_folder, "export").folder / learning.MODEL
    request = Request(
        problem="prompt",
        before=("<file_sep>",),
        prompt=prompt,
        suffix=suffix,
        stop=("<file_sep>", "<|endoftext|>"),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
    [completion] = StarsmithBackend(folder).generate([request])
    if as_json:
        print_json({"prompt": prompt, "suffix": suffix, **dataclasses.asdict(completion)})
        return
    out.print(prompt + completion.text + (suffix or ""), markup=False, highlight=False, soft_wrap=True)


@app.command("evaluate")
def evaluate_(
    model: Annotated[Path | None, typer.Option("--model", help="A Hugging Face folder instead of a run.")] = None,
    run_folder: Annotated[
        Path | None, typer.Option("--run", "-r", help="A run: its model, its held-out files.")
    ] = None,
    benchmarks: Annotated[
        str, typer.Option("--benchmarks", metavar="A,B", help="Names, or the groups all and paper.")
    ] = "all",
    data_folder: Annotated[Path | None, typer.Option("--data", help="Benchmark data, a subfolder a set.")] = None,
    destination: Annotated[
        Path, typer.Option("--out", help="Where results go; what was computed there is used again.")
    ] = Path("evaluation"),
    references: Annotated[
        bool, typer.Option("--references", help="Only reference solutions and wrong answers, no model.")
    ] = False,
    max_problems: Annotated[int | None, typer.Option("--max-problems", min=1, help="Of each benchmark.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="A problem; else the paper's.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="Else the paper's.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1)] = None,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="What --model was trained on: a run, or Parquet files.")
    ] = None,
    toxicity: Annotated[
        str | None, typer.Option("--toxicity", help="Scorer: classifier:FOLDER, lexicon:FILE or a package's.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Programs that run at once.")] = 2,
    sandbox: Annotated[
        Literal["auto", "bubblewrap", "landlock", "container", "docker", "podman", "none"],
        typer.Option("--sandbox", help="What confines generated programs."),
    ] = "auto",
    image: Annotated[str | None, typer.Option("--sandbox-image", help="Of a container; holds Python.")] = None,
    unconfined: Annotated[
        bool, typer.Option("--i-know-generated-code-runs-unconfined", help="What --sandbox none needs.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="Where the model runs: cpu, cuda, cuda:1; auto for a GPU if any.")
    ] = "auto",
    backend: Annotated[Literal["starsmith", "transformers", "openai"], typer.Option("--backend")] = "starsmith",
    url: Annotated[str | None, typer.Option("--url", help="Of a server, such as http://HOST:PORT/v1.")] = None,
    model_name: Annotated[str | None, typer.Option("--model-name", help="The server's name for it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on benchmarks, with published results beside it."""
    from starsmith.evaluation import references as known
    from starsmith.evaluation import runner, summary
    from starsmith.evaluation.backends import open_backend
    from starsmith.steps import evaluation_pages

    config = recipe.Evaluation(
        benchmarks=tuple(name.strip() for name in benchmarks.split(",") if name.strip()),
        data=data_folder,
        max_problems=max_problems,
        samples=samples,
        toxicity_scorer=toxicity,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        sandbox=sandbox,
        sandbox_image=image or recipe.Evaluation().sandbox_image,
        generated_code_runs_unconfined=unconfined,
    )
    source = run_folder or (None if model or references or backend == "openai" else QUICKSTART)
    heldout = [] if source is None else _step(source, "documents").parts("documents")
    if references:
        with _interruptible(), StageBars() as bars:
            found = known.check(config, heldout=heldout, folder=destination, workers=workers, progress=bars)
        if as_json:
            print_json(dataclasses.asdict(found))
        else:
            for part in summary.references(found):
                out.print(part, soft_wrap=isinstance(part, Text))
        raise typer.Exit(0 if found.good else 1)
    folder = model if source is None else model or _step(source, "export").folder / learning.MODEL
    key = os.environ.get("STARSMITH_API_KEY")
    own = corpus or (source if model is None and backend != "openai" else None)
    with _interruptible(), StageBars() as bars:
        results = runner.evaluate(
            open_backend(backend, folder=folder, url=url, model_name=model_name, api_key=key, device=device),
            config,
            heldout=heldout,
            folder=destination,
            workers=workers,
            cache=destination / "cache",
            corpus=_training_corpus(own, workers),
            progress=bars,
        )
    shown = model_name or (model or source or destination).resolve().name
    evaluation_pages.write(destination, results, name=shown)
    if as_json:
        print_json(results)
        return
    for part in summary.results(results):
        out.print(part, soft_wrap=isinstance(part, Text))
    out.print(Text(f"results: {destination / 'results.json'}"), soft_wrap=True)
    out.print(Text(f"page: {destination / evaluation_pages.PAGE}"), soft_wrap=True)


@app.command("repository-tasks")
def repository_tasks_(
    repositories: Annotated[
        list[str], typer.Argument(metavar="REPOSITORY...", help="Folders of Git repositories.")
    ],
    destination: Annotated[
        Path, typer.Option("--out", help="The data folder for evaluate; it gets repository-tasks/.")
    ],
    max_tasks: Annotated[
        int, typer.Option("--max-tasks", min=1, help="Of each repository, language and setting.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Decides which lines are taken.")] = 42,
    as_json: AsJson = False,
) -> None:
    """Make line completion tasks from Git repositories, for the benchmark repository_completion."""
    from starsmith.steps import repository_tasks

    with StageBars() as bars:
        made = repository_tasks.make(
            repositories,
            destination,
            seed=seed,
            max_tasks=max_tasks,
            progress=lambda done, total: bars("repositories", done, total),
        )
    if as_json:
        print_json(dataclasses.asdict(made))
        return
    for language, counts in made.tasks.items():
        settings = ", ".join(f"{setting} {count}" for setting, count in counts.items())
        out.print(Text(f"{language}: {settings}"), soft_wrap=True)
    for what, dropped in (("files", made.dropped_files), ("lines", made.dropped_lines)):
        for reason, count in dropped.items():
            out.print(Text(f"{count:,} {what} left out: {reason}"), soft_wrap=True)
    out.print(Text(f"tasks: {made.file}"), soft_wrap=True)


@app.command("compare")
def compare_(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A folder that evaluate wrote.")],
    new: Annotated[list[Path], typer.Argument(metavar="NEW...", help="Each is compared with OLD.")],
    page: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="Also a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare evaluations, problem by problem."""
    from starsmith.evaluation import comparison, summary
    from starsmith.steps import evaluation_pages

    evaluated = [comparison.read(folder) for folder in (old, *new)]
    compared = [comparison.compare(evaluated[0], other) for other in evaluated[1:]]
    if page is not None:
        evaluation_pages.write_comparison(page, evaluated, compared)
    if as_json:
        found = [each.to_dict() for each in compared]
        print_json(found[0] if len(found) == 1 else found)
        return
    for each in compared:
        for part in summary.comparison(each):
            out.print(part, soft_wrap=isinstance(part, Text))
    if page is not None:
        out.print(Text(f"page: {page}"), soft_wrap=True)


opt_out_app = typer.Typer(help="Take opt-out requests, and show what they removed.", no_args_is_help=True)
app.add_typer(opt_out_app, name="opt-out", rich_help_panel=None)

RequestFile = Annotated[
    Path | None, typer.Option("--request", help="An issue: JSON as GitHub gives it, or the text of its body.")
]
Author = Annotated[str, typer.Option("--author", help="The account that filed it; JSON says so itself.")]


@opt_out_app.command("add")
def opt_out_add(
    recipe_file: RecipeFile,
    request_file: Annotated[Path, typer.Option("--request", help="An issue: GitHub's JSON, or its body.")],
    author: Author = "",
    title: Annotated[str, typer.Option("--title", help="The issue's title.")] = "",
    reference: Annotated[str, typer.Option("--reference", help="The issue's address.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take a request into the recipe's opt-out list; what a person must decide is held."""
    list_file = recipe.load(recipe_file).opt_out.file
    if list_file is None:
        raise InputError(f'{recipe_file} has no opt-out list; name one: [opt_out] file = "opt-out.txt"')
    request, address = _read_request(request_file, author, title)
    added = opt_out_requests.add(list_file, request, reference=reference or address)
    if as_json:
        print_json(dataclasses.asdict(added))
        return
    for words, targets in (("added", added.added), ("already on the list", added.known)):
        for target in targets:
            out.print(Text(f"{words}: {target}"), soft_wrap=True)
    for held in added.held:
        out.print(Text(f"held for a person: {held.line} ({held.reason})"), soft_wrap=True)
    out.print(Text(f"list: {added.list_file}" + (f", held: {added.held_file}" if added.held else "")))


@opt_out_app.command("receipt")
def opt_out_receipt(
    run_folder: RunFolder = QUICKSTART,
    before: Annotated[Path | None, typer.Option("--before", help="An earlier run, to see what changed.")] = None,
    targets: Annotated[list[str] | None, typer.Option("--target", help="As on the list; may be repeated.")] = None,
    request_file: RequestFile = None,
    author: Author = "",
    destination: Annotated[Path | None, typer.Option("--out", help="Also write the receipt as JSON here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an opt-out removed from a run, what took its place, and which copies stay."""
    if bool(targets) == (request_file is not None):
        raise InputError("a receipt needs --target TARGET (once or more) or --request FILE")
    if request_file is not None:
        wanted = _read_request(request_file, author, "")[0].targets
    else:
        wanted = opt_out.parse("\n".join(targets or ()), name="--target")
    sides = [_receipt_side(folder, wanted) for folder in (run_folder, before) if folder is not None]
    receipt = receipts.make(
        [str(target) for target in wanted], sides[0], before=sides[1] if len(sides) > 1 else None
    )
    if destination is not None:
        data_ = json.dumps(receipt.to_dict(), indent=1, ensure_ascii=False, sort_keys=True).encode()
        write_atomically(destination, data_)
    if as_json:
        print_json(receipt.to_dict())
    else:
        out.print(Text(receipts.to_text(receipt)), soft_wrap=True)


def _read_request(place: Path, author: str, title: str) -> tuple[opt_out_requests.Request, str]:
    """A request, and the address of its issue where the file says it."""
    issue = opt_out_requests.load_issue(place)
    if not (author or issue.author):
        raise InputError(f"{place} does not say who filed it; give the account: --author NAME")
    request = opt_out_requests.parse_request(issue.body, author=author or issue.author, title=title or issue.title)
    return request, issue.reference


def _receipt_side(run_folder: Path, targets: opt_out.Targets) -> receipts.Side:
    results = plan.results(run_folder)
    tables = _judged_tables(run_folder)
    rebuilt = ("documents", "tokenizer", "tokens", "training", "long_context", "release")
    return receipts.Side(
        name=run_folder.name,
        tables=tables,
        matches=opt_out.matches(tables, targets),
        digests={name: results[name].digest() for name in rebuilt if name in results},
    )


@app.command("train-quality")
def train_quality(
    labels: Annotated[Path, typer.Argument(help="A CSV file: content_id, label (1 for more of it, 0 for less).")],
    destination: Annotated[Path, typer.Option("--out", help="Where the classifier goes.")] = Path(
        "quality-classifier.json"
    ),
    run_folder: RunFolder = QUICKSTART,
    as_json: AsJson = False,
) -> None:
    """Train a quality classifier on a run's signals and your labels."""
    values, wanted = quality_classifier.labelled(_judged_tables(run_folder), labels)
    trained = quality_classifier.train(values, wanted)
    write_atomically(destination, quality_classifier.to_json(trained).encode())
    if as_json:
        print_json({"classifier": str(destination), **dataclasses.asdict(trained)})
        return
    folds = ", ".join(f"{auc:.3f}" for auc in trained.auc_folds)
    out.print(f"{trained.num_positive} files of label 1, {trained.num_negative} of label 0", highlight=False)
    out.print(f"area under the ROC curve, cross-validated: {trained.auc:.3f} ({folds})", highlight=False)
    out.print(Text(f"classifier: {destination}; set quality.classifier and quality.min_score"), soft_wrap=True)


@app.command("doctor")
def doctor_(as_json: AsJson = False) -> None:
    """Show what this machine can do."""
    found = doctor.examine()
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in found])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in found:
            table.add_row("ok" if finding.good else "--", finding.name, Text(finding.detail))
        out.print(table)
    if not all(finding.good for finding in found if finding.needed):
        raise typer.Exit(1)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends an evaluation in one sentence."""
    try:
        yield
    except KeyboardInterrupt:
        told = "starsmith: interrupted; answers and verdicts are kept, the same command continues"
        err.print(told, soft_wrap=True)
        raise typer.Exit(130) from None


def _training_corpus(place: Path | None, workers: int) -> "Corpus":
    """What a model was trained on: a run's documents, Parquet files, or not known."""
    from starsmith.evaluation.contamination import NoCorpus
    from starsmith.steps import problem_search

    if place is None:
        return NoCorpus(reason="what the model was trained on is not known; name it with --corpus")
    if place.is_file() or (place.is_dir() and not (place / "history").is_dir()):
        return problem_search.parquet_corpus(place, workers)
    return problem_search.run_corpus(_step(place, "documents"), plan.recipe_of(place), workers)


def _judged_tables(run_folder: Path) -> query.Tables:
    """The tables of a run that has got as far as the ledger."""
    _step(run_folder, "policies/decisions")
    return data.corpus_tables(plan.results(run_folder))


def _step(run_folder: Path, name: str) -> Result:
    results = plan.results(run_folder)
    if name not in results:
        raise InputError(
            f"the last run in {run_folder} stopped before {name}; run its recipe without --to, or name an "
            f"earlier run as {run_folder}@N"
        )
    return results[name]
