"""The signals: what is measured on contents, each a step that reads them and nothing else."""

import functools
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from starsmith.corpus import schema
from starsmith.corpus.engine import map_parallel
from starsmith.corpus.store import write_parquet
from starsmith.recipe import Licenses, Malware, NearDuplicates, Quality, Recipe
from starsmith.signals import (
    contamination,
    language,
    license_texts,
    malware,
    near_duplicate_quality,
    near_duplicates,
    pii,
    quality,
    text_statistics,
)
from starsmith.steps import pii_model
from starsmith.steps.measuring import (
    MeasureContents,
    Partition,
    batches,
    measure_contents,
    measure_files,
    num_rows,
    partitions,
)
from starsmith.steps.step import Context, Facts, Step, counts

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


def steps(recipe: Recipe) -> list[Step]:
    """A step for each signal, in the order of `SIGNALS`."""
    engines = malware.versions(recipe.malware)
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
            earlier_params=("index",),
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
            run=functools.partial(_measure, "pii", functools.partial(pii_model.measure, config=recipe.pii)),
            incremental=True,
            about="names, e-mail and IP addresses, keys, passwords",
            reads="text",
            inputs=("contents",),
            params=pii_model.parameters(recipe.pii),
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
                "near_duplicates": recipe.near_duplicates.model_dump(
                    mode="json", exclude={"per_language", "survivors", "preset"}
                ),
                "certificate": near_duplicate_quality.VERSION,
                "unicode": unicodedata.unidata_version,
                "seed": recipe.run.seed,
            },
        ),
        Step(
            name="signals/malware",
            version=malware.VERSION,
            run=functools.partial(_scan_malware, recipe.malware, engines),
            incremental=True,
            about="signatures of malware (ClamAV, YARA), where an engine is named",
            reads="text",
            inputs=("contents",),
            params={"engines": engines},
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
    return measure_files(context, "language", language.measure)


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
        "status": counts(scanned["status"]),
        "kinds": counts(scanned["kind"]),
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
    """Signatures and pairs of an earlier result are taken over; shingles live as long as the step."""
    config, seed = recipe.near_duplicates, recipe.run.seed
    if not config.enabled:
        context.draft.write("near_duplicate_pairs", 0, schema.NEAR_DUPLICATE_PAIRS.empty_table())
        context.draft.write("near_duplicate_quality", 0, schema.NEAR_DUPLICATE_QUALITY.empty_table())
        return {"num_pairs": 0}
    jobs = partitions(context, "signatures")
    known_pairs = [part for earlier in context.earlier for part in earlier.result.parts("near_duplicate_pairs")]
    parts = [part for job in jobs for part in job.contents]
    with context.draft.scratch() as scratch:
        shingle_files = [scratch / f"shingles-{number:04d}" for number in range(len(jobs))]
        map_parallel(
            functools.partial(_sign_partition, config, seed),
            list(zip(jobs, shingle_files, strict=True)),
            workers=context.workers,
            progress=context.progress,
        )
        written = [place for place in shingle_files if place.exists()]  # not by a run that was killed later
        pairs = near_duplicates.pairs_from(
            [job.place for job in jobs],
            parts,
            config,
            seed,
            context.progress,
            scratch=scratch,
            shingle_files=written,
            known_pairs=known_pairs,
        )
        certificate = near_duplicate_quality.certify(
            parts, pairs, config, seed, context.progress, shingle_files=written
        )
    context.draft.write("near_duplicate_pairs", 0, pairs)
    context.draft.write("near_duplicate_quality", 0, certificate)
    return {"num_pairs": pairs.num_rows}


def _sign_partition(config: NearDuplicates, seed: int, job: tuple[Partition, Path]) -> None:
    partition, shingle_file = job
    if partition.place.is_file():
        return
    [part] = partition.contents
    known = [place for earlier in partition.earlier for place in earlier.rows]
    signed = near_duplicates.signatures_of(part, config, seed, known=known, shingle_file=shingle_file)
    write_parquet(partition.place, signed)


def _scan_malware(config: Malware, engines: Mapping[str, str], context: Context) -> Facts:
    if not engines:
        context.draft.write("malware", 0, schema.MALWARE.empty_table())
        return {"num_rows": 0, "engines": {}}
    measure = functools.partial(malware.measure, config=config, expected=engines)
    return {**measure_contents(context, "malware", measure), "engines": engines}


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
