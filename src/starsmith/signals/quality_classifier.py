"""A trainable classifier of files by their measured signals: logistic regression, kept as a JSON file.

Its features are numbers that other signals have measured already, so scoring reads no text: the text statistics of
section 1.4 and the fractions of `signals.syntax`. A value that is missing (a language without a grammar) takes the
training mean, and a feature beside it says so. Labels are the user's: 1 for what they want more of, 0 for what
they want less of; whatever these mean, the score is the probability of a 1.

A linear model on purpose: its weights can be read, it needs no pickle to be loaded, and it is trained in seconds.
scikit-learn fits it (extra `starsmith[quality]`); scoring needs NumPy alone. How good it is, is measured by
cross-validation and stands in the file.
"""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from starsmith.corpus import query
from starsmith.errors import InputError

FORMAT = "starsmith quality classifier, version 1"
FEATURES = (
    "num_lines",
    "average_line_length",
    "max_line_length",
    "alpha_fraction",
    "alphanum_fraction",
    "encoded_fraction",
    "comment_fraction",
    "parse_error_fraction",
)
COUNTS = frozenset({"num_lines", "average_line_length", "max_line_length"})
"""Features that are taken as log(1 + x): they range over powers of ten."""
NUM_FOLDS = 5
MIN_LABELS = 20
"""Of each class."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """The weights, and what training said of them."""

    means: tuple[float, ...]
    """(num_features,), of the values that are there."""
    scales: tuple[float, ...]
    """(num_features,) standard deviations; 1 for a feature that never changes."""
    weights: tuple[float, ...]
    """(2 * num_features,): of the values, then of their absence."""
    intercept: float
    num_positive: int
    num_negative: int
    auc: float
    """Area under the ROC curve, the mean of the folds of cross-validation."""
    auc_folds: tuple[float, ...]


def features(measured: pa.Table) -> NDArray[np.float64]:
    """(num_rows, num_features), NaN where a value is missing.

    Args:
        measured: the columns of `FEATURES` but for `encoded_fraction`, and `num_chars`, `base64_total`,
            `hex_total` and `unicode_total`.
    """
    chars = _numbers(measured, "num_chars")
    encoded = sum(
        (_numbers(measured, f"{kind}_total") for kind in ("base64", "hex", "unicode")), np.zeros(len(chars))
    )
    columns = []
    for name in FEATURES:
        if name == "encoded_fraction":
            columns.append(np.minimum(encoded / np.maximum(chars, 1), 1))
        else:
            values = _numbers(measured, name)
            columns.append(np.log1p(values) if name in COUNTS else values)
    return np.stack(columns, axis=1)


def labelled(tables: query.Tables, labels: Path) -> tuple[NDArray[np.float64], list[int]]:
    """The features and labels of the contents that a file names, in the order of their identifiers.

    Args:
        tables: `text_statistics`, and `quality` where it was measured.
        labels: a CSV file with the columns content_id (a hash, or `swh:1:cnt:` and a hash) and label (0 or 1).

    Raises:
        InputError: the file cannot be read, has other columns or labels, labels a content twice, or names contents
            that were not measured.
    """
    needed = {name: tables.get(name, ()) for name in ("text_statistics", "quality")}
    with query.connect(needed) as connection:
        try:
            connection.execute(
                "CREATE TEMP TABLE labels AS SELECT regexp_replace(lower(content_id), '^swh:1:cnt:', '') "
                f"AS content_id, label::INTEGER AS label FROM read_csv({query.literal(str(labels))}, "
                "header = true, all_varchar = true)"
            )
        except duckdb.Error as error:
            raise InputError(
                f"cannot read the labels {labels}: {str(error).splitlines()[0]}; expected is a CSV file with the "
                "columns content_id and label (0 or 1)"
            ) from None
        [(num_rows, num_contents, num_wrong, num_unknown)] = connection.execute(
            "SELECT count(*), count(DISTINCT content_id), count(*) FILTER (coalesce(label, -1) NOT IN (0, 1)), "
            "count(*) FILTER (content_id NOT IN (SELECT content_id FROM text_statistics)) FROM labels"
        ).fetchall()
        rows = query.fetch(connection, _LABELLED_SQL)
    faults = {
        "labels that are neither 0 nor 1": num_wrong,
        "contents labelled more than once": num_rows - num_contents,
        "contents without text statistics in this run": num_unknown,
    }
    found = [f"{count} {what}" for what, count in faults.items() if count]
    if found:
        raise InputError(f"{labels} has {', '.join(found)} among {num_rows} rows")
    return features(rows), rows["label"].to_pylist()


_LABELLED_SQL = """
    SELECT s.*, q.comment_fraction, q.parse_error_fraction, l.label
    FROM labels l JOIN text_statistics s USING (content_id) LEFT JOIN (
        SELECT content_id, arg_min(comment_fraction, language) AS comment_fraction,
            arg_min(parse_error_fraction, language) AS parse_error_fraction FROM quality GROUP BY content_id
    ) q USING (content_id)
    ORDER BY content_id
"""


def scores(classifier: Classifier, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(num_rows,) probabilities, rounded to six digits so that they are the same on every machine."""
    inputs = _inputs(values, np.array(classifier.means), np.array(classifier.scales))
    logits = (inputs * np.array(classifier.weights)).sum(axis=1) + classifier.intercept
    return np.asarray(np.round(1 / (1 + np.exp(-np.clip(logits, -50, 50))), 6))


def train(values: NDArray[np.float64], labels: Sequence[int]) -> Classifier:
    """Fits a classifier to labelled rows of `features`.

    Raises:
        InputError: scikit-learn is not installed, or a class has fewer than `MIN_LABELS` rows.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise InputError(
            "training a classifier needs scikit-learn; install it with: pip install 'starsmith[quality]'"
        )
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    wanted = np.array(labels, np.int64)
    num_positive = int(wanted.sum())
    num_negative = len(wanted) - num_positive
    if set(wanted.tolist()) - {0, 1} or min(num_positive, num_negative) < MIN_LABELS:
        raise InputError(
            f"a classifier needs at least {MIN_LABELS} files of each label (0 and 1); got {num_positive} of 1 and "
            f"{num_negative} of the rest"
        )
    present = ~np.isnan(values)
    counts = np.maximum(present.sum(axis=0), 1)
    means = np.where(present, values, 0).sum(axis=0) / counts
    spread = np.sqrt((np.where(present, values - means, 0) ** 2).sum(axis=0) / counts)
    scales = np.where(spread > 0, spread, 1.0)
    inputs = _inputs(values, means, scales)
    model = LogisticRegression(max_iter=1_000)
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=0)
    aucs = cross_val_score(model, inputs, wanted, cv=folds, scoring="roc_auc")
    model.fit(inputs, wanted)
    return Classifier(
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(model.coef_[0].tolist()),
        intercept=float(model.intercept_[0]),
        num_positive=num_positive,
        num_negative=num_negative,
        auc=float(aucs.mean()),
        auc_folds=tuple(aucs.tolist()),
    )


def to_json(classifier: Classifier) -> str:
    return json.dumps({"format": FORMAT, "features": FEATURES, **asdict(classifier)}, indent=1) + "\n"


def load(place: Path) -> Classifier:
    """Reads a classifier.

    Raises:
        InputError: the file is absent, or is not one of this format and these features.
    """
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT or values.pop("features") != list(FEATURES):
            raise ValueError(f"not in the format {FORMAT!r}")
        classifier = Classifier(**{key: _frozen(value) for key, value in values.items()})
        if len(classifier.weights) != 2 * len(FEATURES) or len(classifier.means) != len(FEATURES):
            raise ValueError("weights and features differ in number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot read the classifier {place} (recipe key quality.classifier): {error}; "
            "make one with: starsmith train-quality"
        ) from None
    return classifier


def _inputs(
    values: NDArray[np.float64], means: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(num_rows, 2 * num_features): standardised values, then which are missing."""
    missing = np.isnan(values)
    standard = np.where(missing, 0.0, (values - means) / scales)
    return np.concatenate([standard, missing.astype(np.float64)], axis=1)


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(), np.float64)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
