"""The policy: which rules there are, in which order they decide, and the ledger they write.

The order is opt-out, status, language, licence, basic filters, quality, contamination, malware, the languages of
the mix, exact duplicates, near-duplicates, the volumes of the mix, and last the edits of what is kept. Every
per-file rule that a file breaks has a row of its own, so a threshold can be moved knowing what else holds the file
back. The rules on duplicates and volumes see only files that no rule before them drops, and drop a file once.

`decide` writes the ledger and the kept files; `evaluate` answers for chosen files what every rule said, those
that dropped nothing included, from the same rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from starsmith import recipe
from starsmith.corpus import query, schema
from starsmith.errors import InputError
from starsmith.policies import (
    contamination,
    duplicates,
    facts,
    filters,
    languages,
    malware,
    mix,
    opt_out,
    quality,
    redaction,
)
from starsmith.policies.rules import Rule, is_in, ledger_sql, outcome_sql

VERSION = 2

EVALUATION = pa.schema(  # one row per file and rule, in the order of the policy
    [
        pa.field("file_id", pa.string(), nullable=False),
        pa.field("order", pa.int32(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # the recipe key that sets the rule
        pa.field("section", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),  # one of OUTCOMES
        pa.field("value", pa.string()),  # null unless the rule was asked
        pa.field("threshold", pa.string(), nullable=False),
        pa.field("evidence", pa.string()),
    ]
)
OUTCOMES = ("pass", "drop", "edit", "not_applicable", "off", "not_reached")

RULES = pa.schema(  # the policy as a table
    [
        pa.field("order", pa.int32(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("section", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("threshold", pa.string(), nullable=False),
        pa.field("enabled", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Everything that decides, as values: the recipe's sections and the opt-out list already read."""

    languages: recipe.Languages = field(default_factory=recipe.Languages)
    licenses: recipe.Licenses = field(default_factory=recipe.Licenses)
    filters: recipe.Filters = field(default_factory=recipe.Filters)
    decontamination: recipe.Decontamination = field(default_factory=recipe.Decontamination)
    malware: recipe.Malware = field(default_factory=recipe.Malware)
    quality: recipe.Quality = field(default_factory=recipe.Quality)
    mix: recipe.Mix = field(default_factory=recipe.Mix)
    near_duplicates: recipe.NearDuplicates = field(default_factory=recipe.NearDuplicates)
    pii: recipe.Pii = field(default_factory=recipe.Pii)
    seed: int = 42
    """The root of keyed randomness: which files of a language lie beyond its volume."""
    opt_out_targets: opt_out.Targets | None = None
    """None: there is no list, and the rule is off."""

    @classmethod
    def from_recipe(cls, recipe_: recipe.Recipe) -> "Policy":
        """Reads the opt-out list too.

        Raises:
            InputError: the opt-out list cannot be read or has a line that is no target, or a quality score is
                asked for without a classifier.
        """
        if recipe_.quality.min_score is not None and recipe_.quality.classifier is None:
            raise InputError(
                f"quality.min_score = {recipe_.quality.min_score} has no score to judge: name a classifier in "
                "quality.classifier, or leave quality.min_score out"
            )
        file = recipe_.opt_out.file
        return cls(
            languages=recipe_.languages,
            licenses=recipe_.licenses,
            filters=recipe_.filters,
            decontamination=recipe_.decontamination,
            malware=recipe_.malware,
            quality=recipe_.quality,
            mix=recipe_.mix,
            near_duplicates=recipe_.near_duplicates,
            pii=recipe_.pii,
            seed=recipe_.run.seed,
            opt_out_targets=None if file is None else opt_out.load(file),
        )

    def parameters(self) -> dict[str, Any]:
        """What the decisions depend on beside the tables, as plain JSON: the parameters of a step's key."""
        listed = None if self.opt_out_targets is None else [str(target) for target in self.opt_out_targets]
        return {
            "rules": [
                [rule.name, rule.allowed, rule.value, rule.applies, rule.drops, rule.enabled]
                for rule in rules(self)
            ],
            "near_duplicates": self.near_duplicates.model_dump(
                mode="json", include={"threshold", "verification", "per_language", "survivors"}
            ),
            "mix": {"max_bytes": self.mix.max_bytes, "seed": self.seed} if self.mix.max_bytes else {},
            "opt_out": listed,
        }


@dataclass(frozen=True, kw_only=True)
class Decided:
    decisions: pa.Table
    """`schema.DECISIONS`, sorted by `file_id` and `order`."""
    kept: pa.Table
    """`schema.KEPT`, sorted by `file_id`."""


def rules(policy: Policy) -> tuple[Rule, ...]:
    """All rules in order, those switched off included; a rule's place is the `order` of its ledger rows."""
    return (
        _opt_out_rule(policy.opt_out_targets),
        *filters.status_rules(),
        *languages.language_rules(policy.languages),
        *filters.license_rules(policy.licenses),
        *filters.filter_rules(policy.filters),
        *quality.quality_rules(policy.quality),
        *contamination.contamination_rules(policy.decontamination),
        *malware.malware_rules(policy.malware),
        mix.language_rule(policy.mix),
        duplicates.exact_rule(policy.near_duplicates),
        duplicates.near_rule(policy.near_duplicates),
        mix.volume_rule(policy.mix),
        *redaction.rules(policy.pii),
    )


def rules_table(policy: Policy) -> pa.Table:
    """The policy as a table of `RULES`, for the report and for `explain`."""
    rows = [
        {
            "order": order,
            "rule": rule.name,
            "key": rule.key,
            "section": rule.section,
            "title": rule.title,
            "action": rule.action,
            "threshold": rule.allowed,
            "enabled": rule.enabled,
        }
        for order, rule in enumerate(rules(policy))
    ]
    return pa.Table.from_pylist(rows, schema=RULES)


def decide(tables: query.Tables, policy: Policy, *, memory_limit: str = "800MB", threads: int = 1) -> Decided:
    """Applies the policy to a corpus.

    Args:
        tables: `files`, `contents`, `language`, `text_statistics`, `file_licenses`, `contamination`, `malware`,
            `quality`, `near_duplicate_pairs` and `pii`; one that is not given is empty. No text is read.
        policy: the rules' parameters.

    Raises:
        ValueError: the tables do not belong together (a signal is missing for a text).
    """
    with facts.connect(tables, memory_limit=memory_limit, threads=threads) as connection:
        facts.build(connection, policy.opt_out_targets)
        _write_ledger(connection, policy)
        return Decided(
            decisions=query.fetch(connection, 'SELECT * FROM ledger ORDER BY file_id, "order"', schema.DECISIONS),
            kept=query.fetch(connection, _KEPT_SQL, schema.KEPT),
        )


def evaluate(
    tables: query.Tables,
    policy: Policy,
    file_ids: Sequence[str],
    *,
    memory_limit: str = "800MB",
    threads: int = 1,
) -> pa.Table:
    """What every rule says of chosen files.

    Per-file rules are asked again; what the rules on duplicates and edits did is read from the ledger.

    Args:
        tables: as for `decide`, and the `decisions` that it wrote with this policy.
        policy: the policy of that ledger.
        file_ids: unknown ones are left out of the answer.

    Returns:
        `EVALUATION`, sorted by `file_id` and `order`: all rules for each file.

    Raises:
        InputError: the ledger was written under another policy.
    """
    numbered = list(enumerate(rules(policy)))
    per_file = [(order, rule) for order, rule in numbered if rule.is_per_file]
    with facts.connect(tables, memory_limit=memory_limit, threads=threads) as connection:
        facts.build(connection, policy.opt_out_targets, file_ids=file_ids)
        connection.register("policy", rules_table(policy))
        connection.execute(f"CREATE TEMP TABLE asked AS {outcome_sql(per_file)}")
        _check_ledger(connection, [rule.name for _, rule in numbered if not rule.is_per_file])
        mix.register_volumes(connection, policy.mix.max_bytes)
        connection.execute(_LATER_SQL)
        return query.fetch(connection, _EVALUATION_SQL, EVALUATION)


def _opt_out_rule(targets: opt_out.Targets | None) -> Rule:
    return Rule(
        name="opt_out",
        key="opt_out.file",
        section="3.5",
        title="nobody entitled asked to leave it out",
        allowed="not on the opt-out list",
        value="coalesce(opt_out_target, 'not listed')",
        drops="opt_out_target IS NOT NULL",
        enabled=targets is not None,
    )


def _write_ledger(connection: duckdb.DuckDBPyConnection, policy: Policy) -> None:
    """Fills `ledger`, rule by rule: each later relation is built from what the rules before it leave."""
    numbered = list(enumerate(rules(policy)))
    connection.register("empty_ledger", schema.DECISIONS.empty_table())
    connection.execute("CREATE TEMP TABLE ledger AS SELECT * FROM empty_ledger")
    _enter(connection, [(order, rule) for order, rule in numbered if rule.is_per_file])
    for order, rule in numbered:
        if rule.is_per_file or not rule.enabled:
            continue
        candidates = f"candidates_for_{rule.relation}"
        connection.execute(
            f"CREATE TEMP TABLE {candidates} AS SELECT {duplicates.CANDIDATE_COLUMNS} FROM facts "
            "ANTI JOIN (SELECT file_id FROM ledger WHERE action = 'drop') USING (file_id)"
        )
        if rule.relation == "exact_copies":
            duplicates.create_choice(connection, candidates, policy.near_duplicates)
            duplicates.create_exact_copies(connection, candidates)
        elif rule.relation == "near_copies":
            duplicates.create_near_copies(connection, candidates, policy.near_duplicates)
        elif rule.relation == "volume_places":
            mix.create_volume_places(connection, candidates, policy.mix, policy.seed)
        else:
            sql = redaction.findings_sql(policy.pii, candidates)
            connection.execute(f"CREATE TEMP TABLE {rule.relation} AS {sql}")
        _enter(connection, [(order, rule)])
        connection.execute(f"DROP TABLE {candidates}")


def _enter(connection: duckdb.DuckDBPyConnection, numbered: list[tuple[int, Rule]]) -> None:
    connection.execute(f"INSERT INTO ledger {ledger_sql(numbered)}")


_KEPT_SQL = """
    SELECT files.*, src_encoding, language, coalesce(is_vendor, false) AS is_vendor,
        coalesce(is_generated, false) AS is_generated, detected_licenses, license_type,
        nullif(regexp_extract(lower(name), '\\.([^.]*)$', 1), '') AS extension
    FROM files
    JOIN (SELECT file_id, src_encoding, language, is_vendor, is_generated, detected_licenses, license_type, name
          FROM facts) USING (file_id)
    ANTI JOIN (SELECT file_id FROM ledger WHERE action = 'drop') USING (file_id)
    ORDER BY file_id
"""


def _check_ledger(connection: duckdb.DuckDBPyConnection, later_rules: Sequence[str]) -> None:
    """The per-file rows of the ledger must be what the rules say now."""
    rows = connection.execute(
        f"""
        WITH now AS (
            SELECT a.file_id, p.rule, a.value, p.threshold FROM asked a JOIN policy p USING ("order")
            WHERE a.outcome = 'drop'
        ), entered AS (
            SELECT file_id, rule, value, threshold FROM decisions SEMI JOIN facts USING (file_id)
            WHERE NOT {is_in("rule", later_rules)}
        )
        SELECT rule FROM (
            (SELECT * FROM now EXCEPT SELECT * FROM entered)
            UNION ALL (SELECT * FROM entered EXCEPT SELECT * FROM now)
        ) ORDER BY rule LIMIT 1
        """
    ).fetchall()
    if rows:
        raise InputError(
            f"the recipe's policy is not the one that these decisions were made with: the rule {rows[0][0]!r} "
            "differs; run the recipe again, or explain with the recipe of that run"
        )


_LATER_SQL = """
    CREATE TEMP TABLE later AS
    WITH entered AS (
        SELECT * FROM decisions SEMI JOIN facts USING (file_id)
    ), first_drops AS (
        SELECT file_id, min("order") AS first_drop FROM entered WHERE action = 'drop' GROUP BY file_id
    ), exact AS (
        SELECT content_id, count(*) AS num_dropped FROM decisions
        WHERE rule = 'exact_duplicate' GROUP BY content_id
    ), near AS (
        SELECT regexp_extract(evidence, '^survivor ([0-9a-f]{40}) ', 1) AS survivor_id, count(*) AS num_dropped
        FROM decisions WHERE rule = 'near_duplicate' GROUP BY survivor_id
    ), drawn_out AS (
        SELECT l.language, count(*) AS num_dropped FROM decisions d JOIN language l USING (file_id)
        WHERE d.rule = 'mix_volume' GROUP BY l.language
    )
    SELECT f.file_id, p."order", p.rule,
        CASE WHEN NOT p.enabled THEN 'off' WHEN e.rule IS NOT NULL THEN e.action
             WHEN d.first_drop < p."order" THEN 'not_reached'
             WHEN p.rule = 'pii' OR p.rule = 'mix_volume' AND v.language IS NULL THEN 'not_applicable'
             ELSE 'pass' END AS outcome,
        CASE WHEN outcome IN ('drop', 'edit') THEN e.value
             WHEN outcome <> 'pass' THEN NULL
             WHEN p.rule = 'exact_duplicate' THEN (1 + coalesce(x.num_dropped, 0)) || ' copies'
             WHEN p.rule = 'mix_volume' THEN coalesce(o.num_dropped, 0) || ' files beyond it'
             ELSE 'cluster of ' || (1 + coalesce(n.num_dropped, 0)) END AS value,
        CASE WHEN outcome IN ('drop', 'edit') THEN e.evidence
             WHEN outcome = 'pass' AND p.rule = 'exact_duplicate' AND x.num_dropped > 0
                 THEN 'survivor of ' || (x.num_dropped + 1)
             WHEN outcome = 'pass' AND p.rule = 'near_duplicate' AND n.num_dropped > 0
                 THEN 'survivor of ' || (n.num_dropped + 1)
             WHEN outcome = 'pass' AND p.rule = 'mix_volume' AND o.num_dropped > 0
                 THEN 'drawn in, by keyed hash of the content' END AS evidence,
        CASE WHEN outcome IN ('drop', 'edit') THEN e.threshold
             WHEN p.rule = 'mix_volume' AND outcome = 'pass'
                 THEN '<= ' || v.max_bytes || ' bytes of ' || v.language
             ELSE p.threshold END AS threshold
    FROM facts f CROSS JOIN (SELECT * FROM policy WHERE "order" NOT IN (SELECT "order" FROM asked)) p
    LEFT JOIN entered e ON e.file_id = f.file_id AND e.rule = p.rule
    LEFT JOIN first_drops d ON d.file_id = f.file_id
    LEFT JOIN exact x ON x.content_id = f.content_id
    LEFT JOIN near n ON n.survivor_id = f.file_id
    LEFT JOIN volumes v ON v.language = f.language
    LEFT JOIN drawn_out o ON o.language = f.language
"""

_EVALUATION_SQL = """
    SELECT o.file_id, o."order", p.rule, p.key, p.section, p.title, o.outcome, o.value,
        coalesce(o.threshold, p.threshold) AS threshold, o.evidence
    FROM (SELECT file_id, "order", outcome, value, evidence, NULL AS threshold FROM asked
          UNION ALL SELECT file_id, "order", outcome, value, evidence, threshold FROM later) o
    JOIN policy p USING ("order")
    ORDER BY o.file_id, o."order"
"""
