"""Signals beyond the paper: comments, parse errors, and a classifier's score (`schema.QUALITY`).

Off unless a threshold of the recipe's [quality] asks for them. They depend on the language, so a content that
stands under names of two languages has two rows.
"""

import pyarrow as pa
import pyarrow.compute as pc

from starsmith import recipe
from starsmith.corpus import schema
from starsmith.corpus.store import canonical_digest
from starsmith.errors import InputError
from starsmith.signals import quality_classifier, syntax

VERSION = 1
"""Changes when any column could, the grammars and the classifier aside (`parameters`)."""


def is_wanted(config: recipe.Quality) -> bool:
    """Whether any threshold asks for these signals.

    Raises:
        InputError: a smallest score is asked for without a classifier, or grammars are not installed.
    """
    values = config.model_dump()
    if config.min_score is not None and config.classifier is None:
        raise InputError("quality.min_score needs quality.classifier, a file made with: starsmith train-quality")
    wanted = any(value is not None for value in values.values())
    if wanted:
        syntax.check_installed()
    return wanted


def parameters(config: recipe.Quality) -> dict[str, object]:
    """What the values depend on beside contents and their signals; empty when nothing is wanted."""
    if not is_wanted(config):
        return {}
    classifier = None
    if config.classifier is not None:
        classifier = canonical_digest(quality_classifier.to_json(quality_classifier.load(config.classifier)))
    return {"grammars": syntax.versions(), "classifier": classifier}


def measure(contents: pa.Table, languages: pa.Table, statistics: pa.Table, config: recipe.Quality) -> pa.Table:
    """Measures each content in each of its languages.

    Args:
        contents: at least content_id, status and text of `schema.CONTENTS`.
        languages: content_id and language, with every language of these contents; nulls and repetitions are left
            out.
        statistics: `schema.TEXT_STATISTICS` of the contents that are text.
        config: names the classifier.

    Returns:
        `schema.QUALITY`, sorted by content_id and language.
    """
    texts = contents.filter(pc.equal(contents["status"], "text")).select(["content_id", "text"])
    pairs = languages.filter(pc.is_valid(languages["language"])).select(["content_id", "language"])
    wanted = pairs.group_by(["content_id", "language"]).aggregate([]).join(texts, "content_id", join_type="inner")
    wanted = wanted.sort_by([("content_id", "ascending"), ("language", "ascending")])
    values = [text.as_py().encode() for text in wanted["text"]]
    found = syntax.with_large_stack(
        lambda: [
            syntax.fractions(text, language)
            for text, language in zip(values, wanted["language"].to_pylist(), strict=True)
        ]
    )
    measured = pa.table(
        {
            "content_id": wanted["content_id"],
            "language": wanted["language"],
            "comment_fraction": pa.array([each and each.comment for each in found], pa.float64()),
            "parse_error_fraction": pa.array([each and each.parse_error for each in found], pa.float64()),
        }
    )
    score = pa.nulls(len(measured), pa.float64())
    if config.classifier is not None and len(measured):
        score = _scores(measured, statistics, config)
    return measured.append_column("score", score).cast(schema.QUALITY)


def _scores(measured: pa.Table, statistics: pa.Table, config: recipe.Quality) -> pa.Array:
    assert config.classifier is not None
    order = pc.index_in(measured["content_id"], value_set=statistics["content_id"].combine_chunks())
    rows = statistics.take(order)
    for name in ("comment_fraction", "parse_error_fraction"):
        rows = rows.append_column(name, measured[name])
    classifier = quality_classifier.load(config.classifier)
    return pa.array(quality_classifier.scores(classifier, quality_classifier.features(rows)))
