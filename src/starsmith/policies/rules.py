"""A policy rule as a value: what it measures, where it applies, what it allows, when it drops.

All five are SQL over a relation, so one rule decides (`ledger_sql`), fills the ledger and answers `explain`
(`outcome_sql`): the three cannot differ. Per-file rules stand on `facts` (one row per file, see
`policies.facts`); the rules on duplicates and edits stand on relations of their own that exist only after the
rules before them have decided.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from starsmith.corpus.query import literal

ALWAYS = "true"
NUM_SHOWN_NAMES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    name: str
    """Short and unique; the `rule` of the ledger."""
    key: str
    """The recipe key that sets it, e.g. `filters.max_lines`; empty where none does."""
    section: str
    """The section of the reference that it comes from."""
    title: str
    """What it asks of a file, for people."""
    allowed: str
    """What is allowed, as text: the ledger's `threshold`, unless it differs from row to row."""
    value: str
    """SQL: what was measured."""
    drops: str
    """SQL condition: the rule acts. Null counts as false."""
    applies: str = ALWAYS
    """SQL condition: the rule is asked at all. Null counts as false."""
    evidence: str = "''"
    """SQL: what the value rests on."""
    threshold: str | None = None
    """SQL: what is allowed to this row, for a rule that is not per file; `allowed` then says it in general."""
    enabled: bool = True
    """False: switched off by its recipe key; listed, never asked."""
    relation: str = "facts"
    """A relation with `file_id` and `content_id`."""
    action: Literal["drop", "edit"] = "drop"

    @property
    def is_per_file(self) -> bool:
        """Whether it can be asked of one file without looking at the others."""
        return self.relation == "facts"

    @property
    def acts(self) -> str:
        """SQL condition: it applies and drops; never null."""
        return f"(coalesce({self.applies}, false) AND coalesce({self.drops}, false))"


def ledger_sql(rules: Iterable[tuple[int, Rule]]) -> str:
    """The ledger rows of some rules, each with its place in the policy.

    Returns:
        A query with the columns of `schema.DECISIONS`, in no order.
    """
    selects = [
        f"""SELECT file_id, content_id, {order}::INTEGER AS "order", {literal(rule.name)} AS rule,
            {literal(rule.action)} AS action, coalesce(({rule.value})::VARCHAR, 'none') AS value,
            {rule.threshold or literal(rule.allowed)} AS threshold, ({rule.evidence})::VARCHAR AS evidence
        FROM {rule.relation} WHERE {rule.acts}"""
        for order, rule in rules
        if rule.enabled
    ]
    return "\nUNION ALL ".join(selects)


def outcome_sql(rules: Iterable[tuple[int, Rule]]) -> str:
    """What per-file rules say of every row of `facts`, those that drop nothing included.

    Returns:
        A query with `file_id`, `order`, `value`, `evidence` and `outcome` (`pass`, `drop`, `not_applicable` or
        `off`), in no order.
    """
    selects = []
    for order, rule in rules:
        assert rule.is_per_file and rule.threshold is None, rule.name
        asked = f"coalesce({rule.applies}, false)" if rule.enabled else "false"
        unasked = "not_applicable" if rule.enabled else "off"
        selects.append(
            f"""SELECT file_id, {order}::INTEGER AS "order",
                CASE WHEN {asked} THEN coalesce(({rule.value})::VARCHAR, 'none') END AS value,
                CASE WHEN {asked} THEN ({rule.evidence})::VARCHAR END AS evidence,
                CASE WHEN NOT {asked} THEN {literal(unasked)}
                     WHEN {rule.acts} THEN 'drop' ELSE 'pass' END AS outcome
            FROM facts"""
        )
    return "\nUNION ALL ".join(selects)


def is_in(expression: str, values: Iterable[str]) -> str:
    """SQL: a value is one of a few texts; false for null and for no texts."""
    listed = ", ".join(literal(value) for value in values)
    return f"coalesce({expression} IN ({listed}), false)" if listed else "false"


def shown(names: Sequence[str]) -> str:
    """A list of names for people, long ones cut and counted."""
    more = len(names) - NUM_SHOWN_NAMES
    return ", ".join(names[:NUM_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
