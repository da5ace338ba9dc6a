"""Decontamination: nothing that a benchmark asks or answers may be trained on (section 3.3).

The paper drops a file that holds a benchmark's text with all white space removed. Such a match (`text`) always
drops. Beyond the paper, a file may hold most of a text's word n-grams (`ngram`: white space, names or comments
changed); it is dropped from a share of `min_ngram_fraction` on. A smaller share is told in the evidence and drops
nothing, so that the threshold can be moved knowing what is near it.
"""

from starsmith import recipe
from starsmith.policies.rules import Rule

NUM_SHOWN_PROBLEMS = 4


def contamination_rules(config: recipe.Decontamination) -> list[Rule]:
    """One rule over the list `contaminations` of `facts`, best match first."""
    counts = f"c.method = 'text' OR c.score >= {config.min_ngram_fraction!r}::DOUBLE"
    found = f"coalesce(list_filter(contaminations, lambda c: {counts}), [])"
    below = f"coalesce(list_filter(contaminations, lambda c: NOT ({counts})), [])"
    return [
        Rule(
            name="contamination",
            key="decontamination.data",
            section="3.3",
            title="no text of a benchmark is in it",
            allowed=f"no whole text, and less than {config.min_ngram_fraction} of the n-grams of one",
            value=f"len({found})",
            drops=f"len({found}) > 0",
            applies="status = 'text'",
            evidence=f"CASE WHEN len({found}) > 0 THEN {_listed(found)} "
            f"WHEN len({below}) > 0 THEN 'below the threshold: ' || {_listed(below)} ELSE '' END",
            enabled=config.data is not None or config.packaged_humaneval,
        )
    ]


def _listed(matches: str) -> str:
    """SQL: what was matched, how, and where, for the first few."""
    one = (
        "c.benchmark || ' ' || c.problem || ' (' || c.part || '): ' || "
        "if(c.method = 'text', 'the whole text', round(c.score, 3) || ' of its n-grams') || "
        "' at bytes ' || c.start || '-' || c.\"end\""
    )
    return (
        f"array_to_string(list_transform({matches}[1:{NUM_SHOWN_PROBLEMS}], lambda c: {one}), '; ') || "
        f"if(len({matches}) > {NUM_SHOWN_PROBLEMS}, "
        f"'; and ' || (len({matches}) - {NUM_SHOWN_PROBLEMS}) || ' more', '')"
    )
