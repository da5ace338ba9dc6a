"""Two evaluations of the same problems beside each other.

Only what both asked and both counted is compared, and what was left out is said: a benchmark in one folder
alone, another version of a benchmark, problems that either side excluded or did not ask. Each problem is one
unit (its samples are averaged first); statistics are `statistics.paired_bootstrap` and, where every problem has
one right or wrong answer, `statistics.mcnemar`.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starsmith.errors import InputError
from starsmith.evaluation.statistics import Paired, mcnemar, paired_bootstrap


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A folder that `runner.evaluate` wrote."""

    name: str
    results: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, list[Mapping[str, Any]]]]
    """By benchmark and problem, the samples that count."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    benchmark: str
    metric: str
    """passed: the share of answers that pass; value: the mean of what the benchmark measures."""
    paired: Paired
    only_old: int | None
    """Problems that only the old model solved; None where a problem is more than right or wrong."""
    only_new: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    old: str
    new: str
    compared: tuple[Compared, ...]
    notes: tuple[str, ...]
    """What was left out and why, and what makes a row less sure."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read(folder: Path) -> Evaluated:
    """A finished evaluation.

    Raises:
        InputError: the folder holds none, or an unreadable one.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        excluded = {name: set(found["excluded"]) for name, found in results["benchmarks"].items()}
        with (folder / "generations.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["problem"] not in excluded[row["benchmark"]]:
                    rows[row["benchmark"]][row["problem"]].append(row)
    except OSError as error:
        raise InputError(
            f"{folder} holds no finished evaluation (results.json and generations.jsonl): {error}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} holds no evaluation of this version: {error!r}; evaluate again") from None
    return Evaluated(name=str(folder), results=results, rows=rows)


def compare(old: Evaluated, new: Evaluated, *, seed: int = 42) -> Comparison:
    """Every benchmark that both sides ran, in the order of the old side.

    Raises:
        InputError: they have no benchmark in common.
    """
    before, after = old.results["benchmarks"], new.results["benchmarks"]
    shared = [name for name in before if name in after]
    if not shared:
        raise InputError(
            f"nothing to compare: {old.name} has {', '.join(before) or 'no benchmark'} and {new.name} has "
            f"{', '.join(after) or 'no benchmark'}"
        )
    notes = [
        f"{name}: only in {side.name}"
        for side, other in ((old, after), (new, before))
        for name in side.results["benchmarks"]
        if name not in other
    ]
    compared: list[Compared] = []
    for name in shared:
        if before[name]["version"] != after[name]["version"]:
            notes.append(
                f"{name}: not compared, versions {before[name]['version']} and {after[name]['version']} score "
                "differently"
            )
            continue
        if before[name].get("problems") != after[name].get("problems"):
            notes.append(f"{name}: the sides asked different sets of problems; only problems in both are compared")
        if before[name].get("sampling") != after[name].get("sampling"):
            notes.append(f"{name}: completions were drawn differently ({_drawn(before[name], after[name])})")
        both = sorted(old.rows[name].keys() & new.rows[name].keys())
        left_out = len(old.rows[name].keys() ^ new.rows[name].keys())
        if left_out:
            notes.append(f"{name}: {left_out} problems counted on one side only are left out")
        if not both:
            notes.append(f"{name}: no problem was counted on both sides")
            continue
        asked = [[side.rows[name][problem] for problem in both] for side in (old, new)]
        compared += _compared(name, asked[0], asked[1], seed)
    return Comparison(old=old.name, new=new.name, compared=tuple(compared), notes=tuple(notes))


def changed(old: Evaluated, new: Evaluated, *, limit: int = 20) -> dict[str, list[dict[str, Any]]]:
    """By benchmark, problems that one side alone solved: the first `limit` of each side, with an answer of each.

    Each has `problem`, `solved_by` (old or new), and `old` and `new`: one of those of its samples that tell the
    sides apart.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name in old.rows.keys() & new.rows.keys():
        if old.results["benchmarks"][name]["version"] != new.results["benchmarks"][name]["version"]:
            continue
        shown: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
        for problem in sorted(old.rows[name].keys() & new.rows[name].keys()):
            sides = {"old": old.rows[name][problem], "new": new.rows[name][problem]}
            solved = {side for side, rows in sides.items() if any(row["label"] == "pass" for row in rows)}
            if len(solved) != 1 or any(row["label"] == "measured" for rows in sides.values() for row in rows):
                continue
            [side] = solved
            telling = {
                each: next(row for row in rows if (row["label"] == "pass") == (each == side))
                for each, rows in sides.items()
            }
            shown[side].append({"problem": problem, "solved_by": side, **telling})
        if any(shown.values()):
            found[name] = [*shown["old"][:limit], *shown["new"][:limit]]
    return dict(sorted(found.items()))


def _compared(
    name: str, old: Sequence[list[Mapping[str, Any]]], new: Sequence[list[Mapping[str, Any]]], seed: int
) -> list[Compared]:
    every = [row for problem in (*old, *new) for row in problem]
    found: list[Compared] = []
    judged = any(row["label"] != "measured" for row in every)
    if judged:
        before, after = ([_passed(problem) for problem in side] for side in (old, new))
        paired = paired_bootstrap(before, after, seed=seed)
        only_old = only_new = None
        if all(weight == 1 for _, weight in (*before, *after)):
            pairs = list(zip(before, after, strict=True))
            only_old = sum(first[0] > second[0] for first, second in pairs)
            only_new = sum(first[0] < second[0] for first, second in pairs)
            paired = dataclasses.replace(paired, p_value=mcnemar(only_old, only_new), test="mcnemar")
        else:
            # A problem counts once, however many samples it has.
            before, after = ([(value / weight, 1.0) for value, weight in side] for side in (before, after))
            paired = paired_bootstrap(before, after, seed=seed)
        found.append(
            Compared(benchmark=name, metric="passed", paired=paired, only_old=only_old, only_new=only_new)
        )
    if not judged or any(row["value"] != float(row["label"] == "pass") for row in every):
        before, after = ([_measured(problem) for problem in side] for side in (old, new))
        if all(sum(weight for _, weight in side) > 0 for side in (before, after)):
            paired = paired_bootstrap(before, after, seed=seed)
            found.append(Compared(benchmark=name, metric="value", paired=paired, only_old=None, only_new=None))
    return found


def _passed(samples: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    return float(sum(row["label"] == "pass" for row in samples)), float(len(samples))


def _measured(samples: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    count = len(samples)
    return sum(row["value"] for row in samples) / count, sum(row["weight"] for row in samples) / count


def _drawn(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    first, second = old.get("sampling") or {}, new.get("sampling") or {}
    differing = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return ", ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in differing)
