"""Results as tables for people: every estimate with its interval, how many problems it rests on and which groups
an average is of; then all that could mislead (what was skipped, excluded, cut, or not answered), one line each.
Published results stand beside ours where they are of the same measure; `?` and `??` mark those that were not
compared with a second source, and those that are doubtful.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Column, Table
from rich.text import Text

from starsmith.evaluation.comparison import Comparison
from starsmith.evaluation.published import OURS
from starsmith.evaluation.references import References

_MARKS: Final = {"checked": "", "recalled": "?", "doubtful": "??"}
_NUM_SHOWN: Final = 5


def results(found: Mapping[str, Any]) -> Iterator[Table | Text]:
    """What `runner.evaluate` returned."""
    table = Table(
        Column("benchmark", overflow="fold"),
        *(Column(name, no_wrap=True) for name in ("value", "95 %", "n")),
        *(Column(model.replace("-", "\n"), overflow="fold") for model in OURS),
        box=None,
        pad_edge=False,
    )
    for name, benchmark in found["benchmarks"].items():
        table.add_row(name)
        published = {(row["metric"], row["model"]): row for row in benchmark["published"]}
        for metric, estimate in benchmark["estimates"].items():
            beside = [published.get((metric, model)) for model in OURS]
            interval = f"{estimate['low']:.3f} to {estimate['high']:.3f}"
            table.add_row(
                f"  {metric}",
                f"{estimate['value']:.3f}" if estimate["n"] else "-",
                interval if estimate["n"] else "-",
                str(estimate["n"]),
                *(f"{row['value']:.3f}{_MARKS[row['certainty']]}" if row else "-" for row in beside),
            )
        if not benchmark["estimates"]:
            table.add_row("  nothing was measured", "-", "-", "0", *("-" for _ in OURS))
    yield table
    for name, benchmark in found["benchmarks"].items():
        yield Text("\n".join([f"\n{name}", *(f"  {line}" for line in _notes(benchmark))]))
    for name, reason in found["absent"].items():
        yield Text(f"not run: {name}: {reason}")


def references(found: References) -> Iterator[Table | Text]:
    """What `references.check` returned."""
    table = Table(
        Column("benchmark", overflow="fold"),
        Column("group", overflow="fold"),
        *(Column(name, no_wrap=True) for name in ("problems", "references", "wrong failed", "excluded")),
        box=None,
        pad_edge=False,
    )
    for row in found.rows:
        table.add_row(
            row.benchmark,
            row.group or "-",
            str(row.num_problems),
            f"{row.num_references_passed}/{row.num_references}" if row.num_references else "-",
            f"{row.num_wrong_answers_failed}/{row.num_wrong_answers}" if row.num_wrong_answers else "-",
            str(len(row.excluded)) if row.excluded else "-",
        )
    yield table
    for row in found.rows:
        for problem, reason in row.excluded.items():
            yield Text(f"{row.benchmark}: {problem}: {reason}")
    for name, languages in found.skipped.items():
        yield Text(f"skipped: {found.num_skipped[name]} problems of {name}, for want of a toolchain:")
        for language, install in languages.items():
            yield Text(f"  {language}: {install}")
    for name, reason in found.absent.items():
        yield Text(f"not run: {name}: {reason}")


def comparison(found: Comparison) -> Iterator[Table | Text]:
    """What `comparison.compare` returned."""
    yield Text(f"old: {found.old}\nnew: {found.new}\n")
    columns = ("benchmark", "measure", "old", "new", "new - old", "95 %", "p", "test", "n", "only old", "only new")
    table = Table(*columns, box=None, pad_edge=False)
    for row in found.compared:
        difference = row.paired.difference
        table.add_row(
            row.benchmark,
            row.metric,
            f"{row.paired.old:.3f}",
            f"{row.paired.new:.3f}",
            f"{difference.value:+.3f}",
            f"{difference.low:+.3f} to {difference.high:+.3f}",
            f"{row.paired.p_value:.3g}",
            row.paired.test,
            str(difference.n),
            "-" if row.only_old is None else str(row.only_old),
            "-" if row.only_new is None else str(row.only_new),
        )
    yield table
    for note in found.notes:
        yield Text(note)


def _notes(benchmark: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{benchmark['num_counted_problems']} problems counted of {benchmark['num_problems']} asked and "
        f"{benchmark['num_available_problems']} available"
    )
    if benchmark["groups"]:
        yield "over " + ", ".join(f"{group} ({count})" for group, count in benchmark["groups"].items())
    if benchmark["labels"]:
        yield "verdicts: " + ", ".join(f"{label} {count}" for label, count in benchmark["labels"].items())
    if benchmark["finish_reasons"]:
        ended = ", ".join(f"{reason} {count}" for reason, count in benchmark["finish_reasons"].items())
        yield f"completions ended by: {ended}"
    for key, words in (
        ("num_extraction_failures", "completions held no answer in the form asked for"),
        ("num_empty_completions", "completions were empty"),
        ("num_cut_contexts", "prompts did not fit the model's window and were cut"),
    ):
        if benchmark[key]:
            yield f"{benchmark[key]} {words}"
    yield from _contamination(benchmark)
    yield from benchmark["remarks"]
    for language, install in benchmark["skipped"].items():
        yield f"skipped: {language}: no toolchain; {install}"
    excluded = list(benchmark["excluded"].items())
    for problem, reason in excluded[:_NUM_SHOWN]:
        yield f"excluded: {problem}: {reason}"
    if len(excluded) > _NUM_SHOWN:
        yield f"excluded: {len(excluded) - _NUM_SHOWN} more, in results.json"
    if checked := benchmark["preflight"]:
        yield (
            f"references: {checked['num_references_passed']} of {checked['num_references']} passed, "
            f"{checked['num_empty_answers_failed']} of {checked['num_empty_answers']} wrong answers failed"
        )
    if benchmark["toolchains"]:
        yield "toolchains: " + ", ".join(f"{name} {version}" for name, version in benchmark["toolchains"].items())


def _contamination(benchmark: Mapping[str, Any]) -> Iterator[str]:
    """Which problems the model was trained on, and what the estimates are without them."""
    found = benchmark["contamination"]
    if not found["checked"]:
        yield f"contamination not checked: {found['reason']}"
        return
    problems = list(found["problems"].items())
    yield f"contamination: {len(problems)} of {found['num_checked']} problems stand in the training corpus"
    if found["num_too_short"]:
        yield f"contamination: {found['num_too_short']} problems are too short to be looked for"
    for other in found["corpus"]["not_searched"]:
        yield f"contamination: not searched: {other}"
    for problem, match in problems[:_NUM_SHOWN]:
        place = " ".join(part for part in (match["repo_name"], match["path"], match["document"]) if part)
        much = "a whole text" if match["method"] == "text" else f"{match['score']:.2f} of a text's n-grams"
        yield f"contaminated: {problem}: {much} at bytes {match['start']}-{match['end']} of {place}"
    if len(problems) > _NUM_SHOWN:
        yield f"contaminated: {len(problems) - _NUM_SHOWN} more, in results.json"
    if problems:
        for metric, estimate in benchmark["estimates_without_contaminated"].items():
            interval = f"{estimate['low']:.3f} to {estimate['high']:.3f}"
            yield f"without them: {metric} {estimate['value']:.3f} ({interval}, n {estimate['n']})"
