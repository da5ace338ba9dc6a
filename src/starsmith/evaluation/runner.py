"""Evaluating one model: the stages in order, and what is left behind in a folder.

`results.json` holds every estimate with its interval, and beside it what it rests on: how many problems of which
groups, which were excluded and why, which languages were skipped because their toolchain is absent, how often
each label and each finish reason occurred and how many completions held no answer, the sandbox that was used,
what the reference solutions did, which problems stand in the training corpus and every estimate without them,
and what papers report. `generations.jsonl` holds every completion with its label. Both are the same bytes for the
same model, data and verdicts: times of this machine are in neither.
`failures.jsonl` holds some of those that did not pass, with their prompts and what their programs wrote.

While a run lasts, completions and verdicts are kept in `journal/` under the hash of what they answer, so a
killed run goes on where it stopped. A caller that names a place for them keeps them for later runs too.

The sandbox is chosen before anything is generated: a machine that cannot run programs safely says so at once.
"""

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from starsmith import recipe
from starsmith.errors import MachineError
from starsmith.evaluation import contamination, failures, published, registry, toolchains
from starsmith.evaluation.contract import (
    Backend,
    Benchmark,
    Candidate,
    Completion,
    MissingDataError,
    Problem,
    Program,
    Remarking,
    Request,
    RunResult,
    Score,
    content_key,
)
from starsmith.evaluation.execution import REFERENCE_FACTOR, Executor, Preflight, limited, preflight
from starsmith.evaluation.journal import Journal
from starsmith.evaluation.sandbox import selftest

StageProgress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and what there is to do."""

_CHUNK_REQUESTS: Final = 64
"""Answered and journalled together. Chunks do not depend on what is already there: a row's last bits may depend
on its batch, so a resumed run must batch as an uninterrupted one does."""
_NUM_EXAMPLES: Final = 8
_CONTAINERS: Final = ("container", "docker", "podman")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A benchmark with those of its problems that are to be run."""

    benchmark: Benchmark
    problems: list[Problem]
    num_available: int
    skipped: Mapping[str, str]
    """Language to the line that installs its absent toolchain; its problems are not among `problems`."""
    num_skipped: int
    versions: Mapping[str, str]
    """Language of the problems' programs to the version of its toolchain."""


@dataclass(frozen=True)
class _Answer:
    problem: Problem
    request: Request
    candidate: Candidate


def evaluate(
    backend: Backend,
    config: recipe.Evaluation,
    *,
    heldout: Sequence[Path],
    folder: Path,
    seed: int = 42,
    workers: int = 1,
    cache: Path | None = None,
    corpus: contamination.Corpus = contamination.NoCorpus(),  # noqa: B008 - frozen
    progress: StageProgress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Runs the recipe's benchmarks and writes `results.json` and `generations.jsonl` into `folder`.

    Args:
        backend: the model.
        config: the recipe's table.
        heldout: Parquet parts of the documents table, for the benchmarks on held-out files.
        folder: created if absent; a journal from a killed run in it is used.
        seed: of the run.
        workers: programs that run at once.
        cache: a folder where completions and verdicts are kept for later runs; by default they are dropped
            when the results are complete.
        corpus: what the model was trained on; problems that stand in it are named.
        progress: for people.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: a benchmark is unknown, or data is malformed, or absent for one that was asked for by name.
        MachineError: no sandbox works, or the disk refuses.
    """
    loaded, absent = load(config, heldout, seed)
    journals = cache or folder / "journal"
    with ExitStack() as stack:
        executor, described = open_executor(stack, loaded, config, journals, workers)
        found = _search(corpus, loaded, Journal(journals / "contamination.jsonl"), progress)
        generations = Journal(journals / "generations.jsonl")
        results: dict[str, Any] = {
            "model": backend.identity,
            "seed": seed,
            "sandbox": described,
            "absent": absent,
            "benchmarks": {},
        }
        rows: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in loaded:
            benchmark = entry.benchmark
            stage = _Stage(benchmark, backend, executor, generations, seed, progress)
            own, own_rows, own_failed = stage.run(entry, found[benchmark.name])
            drawn = registry.sampling(benchmark.name, config)
            own["sampling"] = asdict(drawn) if drawn else None
            results["benchmarks"][benchmark.name] = own
            rows += own_rows
            failed += own_failed
    write_text(folder / "generations.jsonl", _json_lines(rows))
    write_text(folder / "failures.jsonl", _json_lines(failed))
    write_text(folder / "results.json", json.dumps(results, sort_keys=True, indent=1) + "\n")
    if cache is None:
        shutil.rmtree(journals, ignore_errors=True)
    return results


def load(config: recipe.Evaluation, heldout: Sequence[Path], seed: int) -> tuple[list[Loaded], dict[str, str]]:
    """The chosen benchmarks with their problems, and what is absent of a group with the reason.

    Raises:
        InputError: as for `evaluate`.
    """
    loaded: list[Loaded] = []
    absent: dict[str, str] = {}
    for choice in registry.choose(config.benchmarks):
        benchmark = registry.make(choice.name, config, heldout, seed)
        try:
            problems = benchmark.load()
        except MissingDataError as error:
            if choice.by_name:
                raise
            absent[choice.name] = str(error)
            continue
        loaded.append(_runnable(benchmark, problems, config))
    return loaded, absent


def open_executor(
    stack: ExitStack, loaded: Sequence[Loaded], config: recipe.Evaluation, journals: Path, workers: int
) -> tuple[Executor | None, dict[str, Any] | None]:
    """A sandbox where any benchmark needs one, and its description.

    Raises:
        MachineError: none works here.
    """
    if not any(entry.versions for entry in loaded):
        return None, None
    prepared = selftest.prepare(
        config.sandbox, image=config.sandbox_image, runs_unconfined=config.generated_code_runs_unconfined
    )
    sandbox = stack.enter_context(prepared.open(workers))
    executor = Executor(sandbox, Journal(journals / "verdicts.jsonl"))
    return executor, prepared.description()


def _runnable(benchmark: Benchmark, problems: list[Problem], config: recipe.Evaluation) -> Loaded:
    """Leaves out the problems whose language has no toolchain here, and what is beyond `max_problems`."""
    needed = {problem.id: _languages(benchmark, problem) for problem in problems}
    missing = _missing(sorted(frozenset().union(*needed.values())), config)
    kept = [problem for problem in problems if not needed[problem.id] & missing.keys()]
    chosen = dealt(kept, config.max_problems)
    used = sorted(frozenset().union(*(needed[problem.id] for problem in chosen)))
    return Loaded(
        benchmark=benchmark,
        problems=chosen,
        num_available=len(problems),
        skipped=missing,
        num_skipped=len(problems) - len(kept),
        versions={language: _version(language, config) for language in used},
    )


def dealt(problems: Sequence[Problem], count: int | None) -> list[Problem]:
    """So many problems, in turns over the groups, so that a part of a set speaks for all of its languages."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, problem in enumerate(problems):
        groups[problem.group].append(place)
    turns = (place for turn in zip_longest(*groups.values()) for place in turn if place is not None)
    return [problems[place] for place in sorted(islice(turns, count))]


def _missing(languages: Sequence[str], config: recipe.Evaluation) -> dict[str, str]:
    """Language to what would make it run."""
    if config.sandbox in _CONTAINERS:
        return {
            language: "containers run Python alone: choose another sandbox"
            for language in languages
            if language != "python"
        }
    return toolchains.missing(languages)


def _version(language: str, config: recipe.Evaluation) -> str:
    """Of what runs its programs; a container brings its own."""
    if config.sandbox in _CONTAINERS:
        return f"that of {config.sandbox_image}"
    return str(toolchains.find(language).version())


def _search(
    corpus: contamination.Corpus, loaded: Sequence[Loaded], journal: Journal, progress: StageProgress
) -> dict[str, dict[str, Any]]:
    """What is found of each benchmark, as results hold it; the same search is not done twice.

    Raises:
        InputError: the corpus cannot be read.
    """
    asked = [(entry.benchmark, entry.problems) for entry in loaded]
    what = [[benchmark.name, benchmark.version, _digest(problems)] for benchmark, problems in asked]
    key = content_key(corpus.identity, what)
    if key not in journal:
        found = corpus.search(asked, lambda done, total: progress("contamination", done, total))
        journal.add({key: {name: own.to_dict() for name, own in found.items()}})
    known: dict[str, dict[str, Any]] = journal[key]
    return known


def _languages(benchmark: Benchmark, problem: Problem) -> frozenset[str]:
    """What a problem's programs are written in, told by candidates that are known before any model answers."""
    known = [check.candidate for check in benchmark.checks(problem)] or [Candidate(text="")]
    return frozenset(program.language for candidate in known for program in benchmark.programs(problem, candidate))


@dataclass(frozen=True)
class _Stage:
    """One benchmark on one model."""

    benchmark: Benchmark
    backend: Backend
    executor: Executor | None
    generations: Journal
    seed: int
    progress: StageProgress

    def run(
        self, loaded: Loaded, found: dict[str, Any]
    ) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """The results, a row for each answer, and the failures that are shown."""
        problems = loaded.problems
        checked = self._preflight(problems)
        answers = self._answers(problems)
        ran = self._results(answers, checked)
        scores = [
            self.benchmark.score(answer.problem, answer.request.sample, answer.candidate, own)
            for answer, own in zip(answers, ran, strict=True)
        ]
        excluded = dict(checked.excluded) if checked else {}
        for score in scores:
            if score.label == "sandbox_error":
                excluded.setdefault(score.problem, f"the sandbox failed twice: {score.detail}")
        counted = [score for score in scores if score.problem not in excluded]
        members = {(score.problem, score.group) for score in counted}
        estimates = self.benchmark.aggregate(counted, seed=self.seed)
        result = {
            "version": self.benchmark.version,
            "num_available_problems": loaded.num_available,
            "num_problems": len(problems),
            "num_counted_problems": len({score.problem for score in counted}),
            "problems": _digest(problems),
            "groups": dict(sorted(Counter(group for _, group in members if group).items())),
            "skipped": dict(loaded.skipped),
            "num_skipped_problems": loaded.num_skipped,
            "published": [asdict(row) for row in published.of(self.benchmark.name)],
            "toolchains": dict(loaded.versions),
            "estimates": {name: asdict(estimate) for name, estimate in estimates.items()},
            "contamination": found,
            "estimates_without_contaminated": self._clean_estimates(counted, found),
            "group_estimates": self._group_estimates(counted),
            "labels": dict(sorted(Counter(score.label for score in scores).items())),
            "finish_reasons": dict(
                sorted(Counter(answer.candidate.completion.finish_reason for answer in answers).items())
            ),
            "num_extraction_failures": sum(not answer.candidate.extracted for answer in answers),
            "num_empty_completions": sum(
                answer.request.target is None and not answer.candidate.completion.text.strip()
                for answer in answers
            ),
            "num_cut_contexts": sum(answer.candidate.completion.num_cut_tokens > 0 for answer in answers),
            "remarks": self.benchmark.remarks(problems) if isinstance(self.benchmark, Remarking) else [],
            "excluded": dict(sorted(excluded.items())),
            "preflight": _described(checked),
            "examples": self._examples(answers, scores),
        }
        rows = [self._row(answer, score) for answer, score in zip(answers, scores, strict=True)]
        failed = [
            {
                "benchmark": self.benchmark.name,
                "key": rows[place]["key"],
                **_shown(answers[place], scores[place]),
                "output": failures.output(ran[place]),
            }
            for place in failures.choose(scores)
        ]
        return result, rows, failed

    def _clean_estimates(self, scores: list[Score], found: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Without the problems that stand in the training corpus; nothing where it was not searched."""
        clean = [score for score in scores if found["checked"] and score.problem not in found["problems"]]
        estimates = self.benchmark.aggregate(clean, seed=self.seed) if clean else {}
        return {name: asdict(estimate) for name, estimate in estimates.items()}

    def _group_estimates(self, scores: list[Score]) -> dict[str, dict[str, Any]]:
        """Each group by itself, where there are several; measures that name the group are named without it."""
        members: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            members[score.group].append(score)
        if len(members) < 2:
            return {}
        return {
            group: {
                name.removesuffix(f"/{group}"): asdict(estimate)
                for name, estimate in self.benchmark.aggregate(own, seed=self.seed).items()
            }
            for group, own in sorted(members.items())
            if group
        }

    def _preflight(self, problems: list[Problem]) -> Preflight | None:
        if not any(map(self.benchmark.checks, problems)):
            return None
        stage = f"{self.benchmark.name}: references"
        return preflight(
            self.benchmark, problems, self.executor, progress=lambda done, total: self.progress(stage, done, total)
        )

    def _answers(self, problems: list[Problem]) -> list[_Answer]:
        """Every request's answer; requests of similar length share a chunk, those of one problem always do."""
        asked = [(problem, self.benchmark.requests(problem)) for problem in problems]
        by_length = sorted(
            asked, key=lambda pair: (max((_length(each) for each in pair[1]), default=0), pair[0].id)
        )
        chunks: list[list[Request]] = [[]]
        for _, requests in by_length:
            if len(chunks[-1]) >= _CHUNK_REQUESTS:
                chunks.append([])
            chunks[-1] += requests
        completions: dict[str, Completion] = {}
        total = sum(map(len, chunks))
        for chunk in chunks:
            completions |= self._chunk(chunk)
            self.progress(f"{self.benchmark.name}: model", len(completions), total)
        return [
            _Answer(problem, request, self.benchmark.extract(problem, completions[self._key(request)]))
            for problem, requests in asked
            for request in requests
        ]

    def _chunk(self, requests: list[Request]) -> dict[str, Completion]:
        keys = [self._key(request) for request in requests]
        if all(key in self.generations for key in keys):
            return {key: Completion(**self.generations[key]) for key in keys}
        asks_likelihood = [request.target is not None for request in requests]
        if any(asks_likelihood) != all(asks_likelihood):
            raise TypeError(f"{self.benchmark.name} mixes generation and likelihood in one chunk")
        answer = self.backend.log_likelihood if any(asks_likelihood) else self.backend.generate
        found = dict(zip(keys, answer(requests), strict=True))
        self.generations.add({key: asdict(completion) for key, completion in found.items()})
        return found

    def _key(self, request: Request) -> str:
        return content_key(self.backend.identity, self.benchmark.name, request)

    def _results(self, answers: list[_Answer], checked: Preflight | None) -> list[list[RunResult]]:
        """What the programs of each answer did."""
        programs: list[list[Program]] = []
        for answer in answers:
            measured = checked.limits.get(answer.problem.id) if checked else None
            planned = self.benchmark.programs(answer.problem, answer.candidate)
            programs.append([limited(program, measured) if measured else program for program in planned])
        flat = [program for own in programs for program in own]
        results: list[RunResult] = []
        if flat:
            if self.executor is None:
                raise MachineError(f"{self.benchmark.name} runs programs and there is no sandbox")
            stage = f"{self.benchmark.name}: programs"
            results = self.executor.run(flat, progress=lambda done, total: self.progress(stage, done, total))
        remaining = iter(results)
        return [[next(remaining) for _ in own] for own in programs]

    def _examples(self, answers: list[_Answer], scores: list[Score]) -> list[dict[str, Any]]:
        """The first answers of each label, for people to look at."""
        seen: Counter[str] = Counter()
        examples: list[dict[str, Any]] = []
        for answer, score in zip(answers, scores, strict=True):
            if answer.request.target is not None or len(examples) == _NUM_EXAMPLES:
                break
            seen[score.label] += 1
            if seen[score.label] <= _NUM_EXAMPLES // 4:
                examples.append(_shown(answer, score))
        return examples

    def _row(self, answer: _Answer, score: Score) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark.name,
            "key": self._key(answer.request),
            **asdict(score),
            **{name: value for name, value in asdict(answer.candidate.completion).items() if value is not None},
        }


def _shown(answer: _Answer, score: Score) -> dict[str, Any]:
    return failures.answer(answer.problem, answer.request, answer.candidate, score)


def _length(request: Request) -> int:
    return sum(map(len, (*request.context, request.prompt, request.suffix or "", request.target or "")))


def _described(checked: Preflight | None) -> dict[str, Any] | None:
    if checked is None:
        return None
    return {
        "num_references": checked.num_references,
        "num_references_passed": checked.num_references_passed,
        "num_empty_answers": checked.num_refutations,
        "num_empty_answers_failed": checked.num_refutations_failed,
        "limits": asdict(checked.floor),
        "limit_per_reference_time": REFERENCE_FACTOR,
    }


def _digest(problems: Sequence[Problem]) -> str:
    """Of what is asked: results on other problems, or on another version of them, do not compare."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(asdict(problem), sort_keys=True, default=repr).encode())
    return digest.hexdigest()[:40]


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error}") from error
