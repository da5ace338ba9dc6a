"""From sources to documents: ingest, contents, signals, policies, documents."""

import functools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from starsmith import sources
from starsmith.corpus import query, schema
from starsmith.corpus.arrivals import Target
from starsmith.corpus.contents import Tabulator
from starsmith.corpus.engine import map_parallel
from starsmith.corpus.merging import merge_contents, write_contents
from starsmith.corpus.store import Result, canonical_digest, write_parquet
from starsmith.documents import repositories
from starsmith.errors import InputError
from starsmith.policies import decisions, licenses, redaction
from starsmith.policies.decisions import Policy
from starsmith.recipe import Licenses, Limits, Malware, NearDuplicates, Quality, Recipe
from starsmith.signals import (
    contamination,
    language,
    license_texts,
    malware,
    near_duplicates,
    pii,
    quality,
    text_statistics,
)
from starsmith.steps.measuring import (
    MeasureContents,
    Partition,
    batches,
    measure_contents,
    measure_files,
    num_rows,
    partitions,
)
from starsmith.steps.step import Context, Facts, Step, tables_of

SIGNALS = (
    "signals/language",
    "signals/text_statistics",
    "signals/license_texts",
    "signals/pii",
    "signals/contamination",
    "signals/near_duplicates",
    "signals/malware",
    "signals/quality",
)
_CHUNK_BYTES = 64 * 1024**2


def steps(recipe: Recipe, targets: Sequence[Target]) -> list[Step]:
    """The data side of the road, in order.

    Args:
        recipe: the recipe.
        targets: what its sources would read, from `targets_of`.
    """
    ingest = [_ingest_step(recipe, target) for target in targets]
    return [
        *ingest,
        Step(
            name="contents",
            version=2,
            run=_merge_contents,
            about="each distinct content once, every occurrence",
            reads="text",
            inputs=tuple(step.name for step in ingest),
            params={"partitions": recipe.corpus.partitions},
        ),
        *_signal_steps(recipe),
        *_policy_steps(recipe),
        Step(
            name="documents",
            version=1,
            run=functools.partial(_build_documents, recipe),
            about="kept files, edited and grouped by repository",
            reads="text",
            inputs=("contents", "signals/pii", "policies/decisions"),
            params={
                "documents": recipe.documents.model_dump(mode="json"),
                "pii": recipe.pii.model_dump(mode="json"),
                "seed": recipe.run.seed,
            },
        ),
    ]


def corpus_tables(results: Mapping[str, Result]) -> dict[str, list[Path]]:
    """Every table of the data side that policies and inspection query, missing ones empty."""
    names = ("contents", *SIGNALS, "policies/licenses", "policies/decisions", "documents")
    tables = tables_of({name: results[name] for name in names if name in results})
    return {name: tables.get(name, []) for name in query.SCHEMAS}


# ---- ingest


def targets_of(recipe: Recipe) -> list[Target]:
    """What all sources of the recipe would read, with fingerprints.

    Raises:
        InputError: a target stands twice in the recipe, or a source's table is wrong.
        MachineError: a registry or repository cannot be reached.
    """
    targets: dict[str, Target] = {}
    for spec in recipe.sources:
        for target in sources.resolve(spec, cache=recipe.run.cache, limits=recipe.corpus.limits):
            if target.label in targets:
                raise InputError(f"the sources name {target.origin} twice (as {target.label}); remove one")
            targets[target.label] = target
    return list(targets.values())


def _ingest_step(recipe: Recipe, target: Target) -> Step:
    return Step(
        name=f"ingest/{target.label}",
        version=2,
        run=_Ingest(target, recipe.run.cache, recipe.corpus.limits, recipe.corpus.partitions),
        about=f"read {target.origin}",
        reads="sources",
        params={
            "origin": target.origin,
            "fingerprint": target.fingerprint,
            "limits": recipe.corpus.limits.model_dump(),
            "partitions": recipe.corpus.partitions,
        },
        group="ingest",
    )


@dataclass(frozen=True)
class _Ingest:
    """Reads one target; an object because it travels to worker processes."""

    target: Target
    cache: Path
    limits: Limits
    partitions: int

    def __call__(self, context: Context) -> Facts:
        context.draft.clear()
        tabulator = Tabulator()
        chunk = 0
        num_contents = 0
        for arrival in sources.read(self.target, cache=self.cache, limits=self.limits):
            tabulator.add(arrival)
            if tabulator.text_bytes >= _CHUNK_BYTES:
                num_contents += self._write(context, tabulator.take_contents(), chunk)
                chunk += 1
        num_contents += self._write(context, tabulator.take_contents(), chunk)
        files, incidents = tabulator.files(), tabulator.incidents()
        for partition, rows in _by_partition(files, self.partitions):
            context.draft.write("files", partition, rows)
        context.draft.write("incidents", 0, incidents)
        return {
            "origin": self.target.origin,
            "num_files": files.num_rows,
            "num_contents": num_contents,
            "num_incidents": incidents.num_rows,
            "bytes": pc.sum(files["length_bytes"]).as_py() or 0,
        }

    def _write(self, context: Context, contents: pa.Table, chunk: int) -> int:
        for partition, rows in _by_partition(contents, self.partitions):
            write_contents(context.draft.part("contents", partition, chunk), [rows])
        return int(contents.num_rows)


def _by_partition(rows: pa.Table, partitions: int) -> list[tuple[int, pa.Table]]:
    numbers = pa.array(
        [schema.partition_of(identifier, partitions) for identifier in rows["content_id"].to_pylist()],
        pa.int32(),
    )
    found = pc.unique(numbers).to_pylist()
    return [(number, rows.filter(pc.equal(numbers, number))) for number in sorted(found)]


# ---- contents

_UNIQUE_FILES_SQL = """
    SELECT * FROM files
    QUALIFY row_number() OVER (PARTITION BY file_id ORDER BY origin, content_id) = 1 ORDER BY file_id
"""


@dataclass(frozen=True)
class _Merge:
    """What all sources brought for one partition, and where it goes."""

    contents: tuple[Path, ...]
    files: tuple[Path, ...]
    contents_place: Path
    files_place: Path
    scratch: Path


def _merge_contents(context: Context) -> Facts:
    """Each content once; files in the partition of their content, so that both join without a shuffle.

    A file that two sources bring stands in one partition: its identifier covers the root directory's hash, and
    with it the content.
    """
    arrived = {
        table: _by_number(result.partitions(table) for result in context.inputs.values())
        for table in ("contents", "files")
    }
    with context.draft.scratch() as scratch:
        jobs = [
            _Merge(
                contents=tuple(parts),
                files=tuple(arrived["files"].get(partition, ())),
                contents_place=context.draft.part("contents", partition),
                files_place=context.draft.part("files", partition),
                scratch=scratch,
            )
            for partition, parts in sorted(arrived["contents"].items())
        ]
        counts = map_parallel(_merge_partition, jobs, workers=context.workers, progress=context.progress)
    incidents = pa.concat_tables([result.read("incidents") for result in context.inputs.values()])
    context.draft.write("incidents", 0, incidents)
    return {
        "num_files": sum(num_files for num_files, _, _ in counts),
        "num_contents": sum(num_contents for _, num_contents, _ in counts),
        "num_incidents": incidents.num_rows,
        "bytes": sum(num_bytes for _, _, num_bytes in counts),
        "sources": [_source(name, result) for name, result in context.inputs.items()],
    }


def _by_number(partitions: Iterable[Mapping[int, Sequence[Path]]]) -> dict[int, list[Path]]:
    numbers: dict[int, list[Path]] = {}
    for parts_of in partitions:
        for number, parts in parts_of.items():
            numbers.setdefault(number, []).extend(parts)
    return numbers


def _merge_partition(job: _Merge) -> tuple[int, int, int]:
    """Returns the numbers of files and contents, and the files' bytes."""
    if not job.contents_place.is_file():
        merge_contents(job.contents, job.contents_place, job.scratch)
    if not job.files_place.is_file():
        with query.connect({"files": job.files}) as connection:
            write_parquet(job.files_place, query.fetch(connection, _UNIQUE_FILES_SQL, schema.FILES))
    lengths = pq.read_table(job.files_place, columns=["length_bytes"])["length_bytes"]
    num_contents = pq.read_metadata(job.contents_place).num_rows
    return len(lengths), num_contents, pc.sum(lengths).as_py() or 0


def _source(name: str, result: Result) -> dict[str, Any]:
    """What the report and the cards tell of one source."""
    return {
        "label": name.removeprefix("ingest/"),
        "fingerprint": result.manifest["params"]["fingerprint"],
        **result.facts,
    }


# ---- signals


def _signal_steps(recipe: Recipe) -> list[Step]:
    needles = contamination.needles(
        recipe.decontamination.data,
        packaged_humaneval=recipe.decontamination.packaged_humaneval,
        min_chars=recipe.decontamination.min_chars,
        prose_sets=recipe.decontamination.prose_sets,
    )
    return [
        Step(
            name="signals/language",
            version=language.VERSION,
            run=_measure_language,
            incremental=True,
            about="language, vendored, generated (go-enry)",
            reads="text",
            inputs=("contents",),
            params={"data": language.data_version()},
        ),
        Step(
            name="signals/text_statistics",
            version=text_statistics.VERSION,
            run=functools.partial(_measure, "text_statistics", text_statistics.measure),
            incremental=True,
            about="lines, letters, encoded data, visible HTML",
            reads="text",
            inputs=("contents",),
            params={"unicode": unicodedata.unidata_version},
        ),
        Step(
            name="signals/license_texts",
            version=license_texts.VERSION,
            run=functools.partial(_scan_licenses, recipe),
            incremental=True,
            about="licences in texts, manifests and headers, each once (ScanCode)",
            reads="text",
            inputs=("contents",),
            params={
                "index": license_texts.index_version(),
                "deadline_seconds": recipe.licenses.deadline_seconds,
                "max_text_bytes": recipe.licenses.max_text_bytes,
                "kinds": list(license_texts.kinds_of(recipe.licenses.evidence)),
            },
        ),
        Step(
            name="signals/pii",
            version=pii.VERSION,
            run=functools.partial(_measure, "pii", pii.measure),
            incremental=True,
            about="e-mail and IP addresses, keys",
            reads="text",
            inputs=("contents",),
        ),
        Step(
            name="signals/contamination",
            version=contamination.VERSION,
            run=functools.partial(_find_contamination, recipe, needles),
            incremental=True,
            about="benchmark texts inside contents",
            reads="text",
            inputs=("contents",),
            params={
                "needles": contamination.fingerprint(needles),
                "ngram_words": recipe.decontamination.ngram_words,
                "unicode": unicodedata.unidata_version,
            },
        ),
        Step(
            name="signals/near_duplicates",
            version=near_duplicates.VERSION,
            run=functools.partial(_find_near_duplicates, recipe),
            incremental=True,
            about="pairs of similar contents, verified",
            reads="text",
            inputs=("contents",),
            params={
                "near_duplicates": recipe.near_duplicates.model_dump(mode="json", exclude={"per_language"}),
                "unicode": unicodedata.unidata_version,
                "seed": recipe.run.seed,
            },
        ),
        Step(
            name="signals/malware",
            version=malware.VERSION,
            run=functools.partial(_scan_malware, recipe.malware),
            incremental=True,
            about="signatures of malware (ClamAV, YARA), where an engine is named",
            reads="text",
            inputs=("contents",),
            params={"engines": malware.versions(recipe.malware)},
        ),
        Step(
            name="signals/quality",
            version=quality.VERSION,
            run=functools.partial(_measure_quality, recipe.quality),
            about="comments, parse errors, a classifier's score, where a threshold asks",
            reads="text",
            inputs=("contents", "signals/language", "signals/text_statistics"),
            params=quality.parameters(recipe.quality),
        ),
    ]


def _measure(table: str, measure: MeasureContents, context: Context) -> Facts:
    return measure_contents(context, table, measure)


def _measure_language(context: Context) -> Facts:
    """In worker processes always: go-enry must not be loaded in a process that may fork later."""
    return measure_files(context, "language", language.measure, workers=max(context.workers, 2))


def _find_contamination(recipe: Recipe, needles: pa.Table, context: Context) -> Facts:
    config = recipe.decontamination
    measure = functools.partial(contamination.measure, needles=needles, ngram_words=config.ngram_words)
    facts = measure_contents(context, "contamination", measure)
    sets = contamination.sets_found(
        config.data, packaged_humaneval=config.packaged_humaneval, prose_sets=config.prose_sets
    )
    return {
        **facts,
        "num_needles": needles.num_rows,
        "benchmarks": sorted(pc.unique(needles["benchmark"]).to_pylist()),
        "sets": {
            "loaded": sets.loaded,
            "missing": sets.missing,
            "unknown": sets.unknown,
            "left_out": sets.left_out,
        },
    }


def _scan_licenses(recipe: Recipe, context: Context) -> Facts:
    """Passages that an earlier result has scanned are not scanned again; nor are those of a killed run."""
    config = recipe.licenses
    jobs = partitions(context, "license_texts")
    known = [
        part
        for previous in context.earlier
        for parts in previous.result.partitions("license_passages").values()
        for part in parts
    ]
    with context.draft.scratch() as scratch:
        claims = [(job, scratch / f"claims-{number:04d}.parquet") for number, job in enumerate(jobs)]
        map_parallel(functools.partial(_claim_licenses, config), claims, workers=context.workers)
        scanned = license_texts.scan(
            [place for _, place in claims],
            functools.partial(context.draft.part, "license_passages"),
            scratch=scratch,
            deadline_seconds=config.deadline_seconds,
            workers=context.workers,
            known=known,
            progress=context.progress,
        )
    context.draft.write("license_texts", 0, scanned)
    return {
        "num_texts": scanned.num_rows,
        "status": _counts(scanned["status"]),
        "kinds": _counts(scanned["kind"]),
    }


def _claim_licenses(config: Licenses, job: tuple[Partition, Path]) -> None:
    partition, place = job
    files = pa.concat_tables([pq.read_table(part, columns=["path", "content_id"]) for part in partition.files])
    kinds = license_texts.kinds_of(config.evidence)
    with pq.ParquetWriter(place, license_texts.CLAIMS, compression="zstd") as writer:
        for batch in batches(partition.contents, ["content_id", "status", "text"]):
            here = files.filter(pc.is_in(files["content_id"], batch["content_id"].combine_chunks()))
            writer.write_table(license_texts.claim(here, batch, kinds=kinds, max_text_bytes=config.max_text_bytes))


def _find_near_duplicates(recipe: Recipe, context: Context) -> Facts:
    config, seed = recipe.near_duplicates, recipe.run.seed
    if not config.enabled:
        context.draft.write("near_duplicate_pairs", 0, schema.NEAR_DUPLICATE_PAIRS.empty_table())
        return {"num_pairs": 0}
    jobs = partitions(context, "signatures")
    sign = functools.partial(_sign_partition, config, seed)
    map_parallel(sign, jobs, workers=context.workers, progress=context.progress)
    parts = context.inputs["contents"].parts("contents")
    with context.draft.scratch() as scratch:
        pairs = near_duplicates.pairs_from(
            [job.place for job in jobs], parts, config, seed, context.progress, scratch=scratch
        )
    context.draft.write("near_duplicate_pairs", 0, pairs)
    return {"num_pairs": pairs.num_rows}


def _sign_partition(config: NearDuplicates, seed: int, job: Partition) -> None:
    if not job.place.is_file():
        write_parquet(job.place, near_duplicates.signatures_of(job.contents[0], config, seed))


def _scan_malware(config: Malware, context: Context) -> Facts:
    versions = malware.versions(config)
    if not versions:
        context.draft.write("malware", 0, schema.MALWARE.empty_table())
        return {"num_rows": 0, "engines": {}}
    measure = functools.partial(malware.measure, config=config, expected=versions)
    return {**measure_contents(context, "malware", measure), "engines": versions}


def _measure_quality(config: Quality, context: Context) -> Facts:
    if not quality.is_wanted(config):
        context.draft.write("quality", 0, schema.QUALITY.empty_table())
        return {"num_rows": 0}
    languages, statistics = (
        context.inputs[f"signals/{table}"].partitions(table) for table in ("language", "text_statistics")
    )
    jobs = [
        (job, tuple(languages[number]), tuple(statistics[number]))
        for number, job in zip(sorted(languages), partitions(context, "quality"), strict=True)
    ]
    map_parallel(
        functools.partial(_measure_quality_of, config), jobs, workers=context.workers, progress=context.progress
    )
    return {"num_rows": num_rows(job for job, _, _ in jobs)}


def _measure_quality_of(config: Quality, job: tuple[Partition, tuple[Path, ...], tuple[Path, ...]]) -> None:
    partition, language_parts, statistics_parts = job
    if partition.place.is_file():
        return
    languages = pa.concat_tables(
        [pq.read_table(part, columns=["content_id", "language"]) for part in language_parts]
    )
    statistics = pa.concat_tables([pq.read_table(part) for part in statistics_parts])
    measured = [
        quality.measure(batch, languages, statistics, config)
        for batch in batches(partition.contents, ["content_id", "status", "text"])
    ]
    write_parquet(partition.place, pa.concat_tables([schema.QUALITY.empty_table(), *measured]))


# ---- policies and documents


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
                    mode="json", include={"enabled", "per_language", "threshold"}
                ),
                "pii": recipe.pii.model_dump(mode="json"),
                "policy": canonical_digest(policy.parameters()),
            },
        ),
    ]


def _decide_licenses(recipe: Recipe, context: Context) -> Facts:
    decided = licenses.file_licenses(context.tables(), recipe.licenses, threads=context.workers)
    context.draft.write("file_licenses", 0, decided)
    return {"license_types": _counts(decided["license_type"])}


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


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    found = {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
    return {str(name): found[name] for name in sorted(found)}
