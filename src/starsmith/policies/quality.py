"""Quality beyond the paper: share of comments, of text that does not parse, and a classifier's score.

Each rule is off until its threshold is given, for The Stack v2 has none of them. A rule is not asked where there
is no number: no comment syntax or no grammar for the language, or no classifier. A bound is broken only beyond it.
"""

from starsmith import recipe
from starsmith.policies.rules import Rule


def quality_rules(config: recipe.Quality) -> list[Rule]:
    """The four rules, over the columns that `facts` has from the table `quality`."""
    return [
        _bound(
            "min_comment_fraction", "enough of it is comments", "comment_fraction", config.min_comment_fraction
        ),
        _bound(
            "max_comment_fraction",
            "not too much of it is comments",
            "comment_fraction",
            config.max_comment_fraction,
        ),
        _bound("max_parse_error_fraction", "it parses", "parse_error_fraction", config.max_parse_error_fraction),
        _bound("min_score", "the classifier finds it good enough", "quality_score", config.min_score),
    ]


def _bound(key: str, title: str, value: str, threshold: float | None) -> Rule:
    is_minimum = key.startswith("min")
    return Rule(
        name="min_quality_score" if key == "min_score" else key,
        key=f"quality.{key}",
        section="",
        title=title,
        allowed="any" if threshold is None else f"{'>=' if is_minimum else '<='} {threshold}",
        value=value,
        drops="false" if threshold is None else f"{value} {'<' if is_minimum else '>'} {threshold!r}::DOUBLE",
        applies=f"status = 'text' AND {value} IS NOT NULL",
        evidence="'as ' || language",
        enabled=threshold is not None,
    )
