"""Every benchmark by name, and how it is made.

How completions are drawn is each benchmark's own affair: its module says what the paper did (`PAPER`), and a
recipe that sets a value replaces it for all benchmarks it runs. Modules are imported when their benchmark is
made, so that a name can be checked while planning without the price of all of them.

`all` stands for every benchmark and `paper` for those of section 6 of "StarCoder 2 and The Stack v2". Of a
group, what has no data here is left out and named in the results; a benchmark that is asked for by name must
have its data.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from starsmith import recipe
from starsmith.errors import InputError
from starsmith.evaluation import toolchains
from starsmith.evaluation.contract import Benchmark, DataSet, Sampling


@dataclass(frozen=True, kw_only=True)
class Entry:
    module: str
    """In `starsmith.evaluation.benchmarks`."""
    kind: str
    """The class in it."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What makes this variant of the class."""
    sampling: str = "PAPER"
    """The constant that says how its completions are drawn; ignored by what generates nothing."""
    data: str = "DATA"
    """The constant that names its set."""
    in_paper: bool = True
    by_name_only: bool = False
    """A part of another benchmark, and so no member of any group."""


BENCHMARKS: Final[Mapping[str, Entry]] = {
    "humaneval": Entry(module="humaneval", kind="HumanEval"),
    "humaneval_plus": Entry(module="humaneval_plus", kind="HumanEvalPlus"),
    "mbpp": Entry(module="mbpp", kind="Mbpp"),
    "mbpp_plus": Entry(module="mbpp_plus", kind="MbppPlus"),
    "ds1000": Entry(module="ds1000", kind="DS1000"),
    "canitedit": Entry(module="canitedit", kind="CanItEdit"),
    "gsm8k_pal": Entry(module="gsm8k_pal", kind="Gsm8kPal"),
    "gsm_hard_pal": Entry(module="gsm8k_pal", kind="Gsm8kPal", fields={"part": "gsm_hard"}, in_paper=False),
    "cruxeval_input": Entry(module="cruxeval", kind="CruxEval", fields={"asks": "input"}),
    "cruxeval_output": Entry(module="cruxeval", kind="CruxEval", fields={"asks": "output"}),
    **{
        f"cruxeval_{asks}_pass5": Entry(
            module="cruxeval", kind="CruxEval", fields={"asks": asks, "aims_at": 5}, sampling="PAPER_PASS_5"
        )
        for asks in ("input", "output")
    },
    "santacoder_fim": Entry(module="santacoder_fim", kind="SantaCoderFim"),
    **{
        f"humaneval_infilling_{part}": Entry(
            module="humaneval_infilling", kind="HumanEvalInfilling", fields={"part": part}, in_paper=False
        )
        for part in ("single_line", "multi_line", "random_span", "random_span_light")
    },
    "humanevalfix": Entry(module="humanevalfix", kind="HumanEvalFix"),
    **{
        f"humanevalfix_{style}": Entry(
            module="humanevalfix", kind="HumanEvalFix", fields={"style": style}, in_paper=False
        )
        for style in ("commit", "instruct")
    },
    **{
        f"humanevalfix_{language}": Entry(
            module="humanevalfix", kind="HumanEvalFix", fields={"language": language}, by_name_only=True
        )
        for language in ("cpp", "go", "java", "js", "python", "rust")
    },
    **{
        f"multipl_e_{part}": Entry(module="multipl_e", kind="MultiplE", data=data, fields={"part": part})
        for part, data in (("humaneval", "DATA"), ("mbpp", "MBPP"))
    },
    **{
        f"multipl_e_{part}_{language}": Entry(
            module="multipl_e",
            kind="MultiplE",
            data=data,
            fields={"part": part, "language": language},
            by_name_only=True,
        )
        for part, data in (("humaneval", "DATA"), ("mbpp", "MBPP"))
        for language in (*(name for name in toolchains.TOOLCHAINS if name != "python"), "py")
    },
    **{
        f"repobench_{language}": Entry(module="repobench", kind="RepoBench", fields={"language": language})
        for language in ("python", "java")
    },
    **{
        f"crosscodeeval_{language}": Entry(
            module="crosscodeeval", kind="CrossCodeEval", fields={"language": language}
        )
        for language in ("python", "java", "typescript", "csharp")
    },
    **{
        name: Entry(
            module="repository_completion",
            kind="RepositoryCompletion",
            fields={"shown": shown},
            sampling="SAMPLING",
            in_paper=False,
        )
        for name, shown in (
            ("repository_completion", "imported"),
            ("repository_completion_retrieved", "retrieved"),
            ("repository_completion_in_file", "nothing"),
        )
    },
    "asleep": Entry(module="asleep", kind="Asleep"),
    "asleep_insertion": Entry(module="asleep", kind="Asleep", fields={"asks": "insertion"}, in_paper=False),
    "asleep_dop": Entry(module="asleep", kind="Asleep", fields={"part": "dop"}, in_paper=False),
    "bold": Entry(module="bold", kind="Bold"),
    "winobias": Entry(module="winobias", kind="WinoBias"),
    "honest": Entry(module="honest", kind="Honest"),
    **{
        f"honest_{language}": Entry(
            module="honest", kind="Honest", fields={"language": language}, in_paper=False, by_name_only=True
        )
        for language in ("es", "fr", "it", "pt", "ro")
    },
    "realtoxicityprompts": Entry(module="realtoxicityprompts", kind="RealToxicityPrompts"),
    "bits_per_byte": Entry(module="bits_per_byte", kind="BitsPerByte", in_paper=False),
    "fim_exact_match": Entry(module="fim_exact_match", kind="FimExactMatch", sampling="SAMPLING", in_paper=False),
}
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": tuple(name for name, entry in BENCHMARKS.items() if not entry.by_name_only),
    "paper": tuple(name for name, entry in BENCHMARKS.items() if entry.in_paper and not entry.by_name_only),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    name: str
    by_name: bool
    """Asked for itself, and not only as a member of a group."""


def choose(names: Sequence[str]) -> list[Choice]:
    """The benchmarks that names and groups stand for, each once, in the order given.

    Raises:
        InputError: a name is unknown; says the nearest valid one. Or there is none.
    """
    shown = ", ".join([*GROUPS, *GROUPS["all"]])
    if not names:
        raise InputError(f"no benchmark is named; known are {shown}")
    chosen: dict[str, bool] = {}
    for name in names:
        if name in GROUPS:
            for member in GROUPS[name]:
                chosen.setdefault(member, False)
        elif name in BENCHMARKS:
            chosen[name] = True
        else:
            known = [*GROUPS, *BENCHMARKS]
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
            raise InputError(f"no benchmark {name!r}; did you mean {near[0]}? Known are {shown}")
    return [Choice(name=name, by_name=by_name) for name, by_name in chosen.items()]


def make(name: str, config: recipe.Evaluation, heldout: Sequence[Path], seed: int) -> Benchmark:
    """The benchmark, with the paper's sampling where the recipe gives none."""
    entry = BENCHMARKS[name]
    kind = getattr(importlib.import_module(f"starsmith.evaluation.benchmarks.{entry.module}"), entry.kind)
    drawn = sampling(name, config)
    values: dict[str, Any] = {
        "data": config.data,
        "heldout": tuple(heldout),
        "max_files": config.heldout_files,
        "seed": seed,
        "sampling": drawn,
        "sentiment_scorer": config.sentiment_scorer,
        "toxicity_scorer": config.toxicity_scorer,
        **(dataclasses.asdict(drawn) if drawn else {}),
    }
    taken = {field.name for field in dataclasses.fields(kind)}
    made: Benchmark = kind(**{key: value for key, value in values.items() if key in taken}, **entry.fields)
    return made


def sampling(name: str, config: recipe.Evaluation) -> Sampling | None:
    """How a benchmark's completions are drawn; None where it generates nothing."""
    entry = BENCHMARKS[name]
    module = importlib.import_module(f"starsmith.evaluation.benchmarks.{entry.module}")
    own: Sampling | None = getattr(module, entry.sampling, None)
    if own is None:
        return None
    given: dict[str, Any] = {
        "samples": config.samples,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_new_tokens": config.max_new_tokens,
    }
    return dataclasses.replace(own, **{key: value for key, value in given.items() if value is not None})


def data_folder(name: str) -> str | None:
    """The folder of a benchmark's set in the data folder; None where it reads none, or is none of these."""
    if name not in BENCHMARKS:
        return None
    entry = BENCHMARKS[name]
    module = importlib.import_module(f"starsmith.evaluation.benchmarks.{entry.module}")
    own: DataSet | None = getattr(module, entry.data, None)
    return own.folder if own is not None else None
