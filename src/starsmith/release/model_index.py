"""Results in the form that the Hugging Face Hub reads from a model card's header: `model-index`.

The form is the Hub's (`modelcard.md` of its documentation): a task, a data set with an identifier and a name, and
metrics with a type, a name and a value. `verified` is false throughout, since it says whether the Hub's own
service measured the value. A measure of a part (`pass@1/java`) becomes a result of its own, of that part of the
data set, as the cards of code models write it. What measured nothing is left out: the Hub refuses a result without
a metric.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from starsmith.release import cards

_DATASETS: Final[Mapping[str, tuple[str, str]]] = {
    "humaneval": ("openai/openai_humaneval", "HumanEval"),
    "humaneval_plus": ("evalplus/humanevalplus", "HumanEval+"),
    "humaneval_infilling": ("loubnabnl/humaneval_infilling", "HumanEval infilling"),
    "humanevalfix": ("bigcode/humanevalpack", "HumanEvalFix"),
    "mbpp": ("google-research-datasets/mbpp", "MBPP"),
    "mbpp_plus": ("evalplus/mbppplus", "MBPP+"),
    "multipl_e_humaneval": ("nuprl/MultiPL-E", "MultiPL-E HumanEval"),
    "multipl_e_mbpp": ("nuprl/MultiPL-E", "MultiPL-E MBPP"),
    "ds1000": ("xlangai/DS-1000", "DS-1000"),
    "canitedit": ("nuprl/CanItEdit", "CanItEdit"),
    "gsm8k_pal": ("openai/gsm8k", "GSM8K with PAL"),
    "gsm_hard_pal": ("reasoning-machines/gsm-hard", "GSM-Hard with PAL"),
    "cruxeval_input": ("cruxeval-org/cruxeval", "CRUXEval-I"),
    "cruxeval_output": ("cruxeval-org/cruxeval", "CRUXEval-O"),
    "cruxeval_input_pass5": ("cruxeval-org/cruxeval", "CRUXEval-I at temperature 0.8"),
    "cruxeval_output_pass5": ("cruxeval-org/cruxeval", "CRUXEval-O at temperature 0.8"),
    "santacoder_fim": ("bigcode/santacoder-fim-task", "SantaCoder FIM"),
    "repobench_python": ("tianyang/repobench_python_v1.1", "RepoBench v1.1, Python"),
    "repobench_java": ("tianyang/repobench_java_v1.1", "RepoBench v1.1, Java"),
    "crosscodeeval": ("Vincentvmt/CrossCodeEval", "CrossCodeEval"),
    "asleep": ("moyix/asleep_keyboard", "Asleep at the Keyboard"),
    "bold": ("AmazonScience/bold", "BOLD"),
    "winobias": ("uclanlp/wino_bias", "WinoBias"),
    "honest": ("MilaNLProc/honest", "HONEST"),
    "realtoxicityprompts": ("allenai/real-toxicity-prompts", "RealToxicityPrompts"),
}
"""Identifier on the Hub and name, by the beginning of the benchmark's name; the longest that fits counts."""


def render_model_index(results: Mapping[str, Any] | None, *, name: str) -> str:
    """The block as YAML, without a line break at its end; "" where nothing was measured."""
    lines = [line for entry in _entries(results or {}) for line in entry]
    if not lines:
        return ""
    return "\n".join(["model-index:", f"- name: {cards.quote_yaml(name)}", "  results:", *lines])


def _entries(results: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, benchmark in (results.get("benchmarks") or {}).items():
        identifier, title = _dataset(name)
        parts: dict[str, list[str]] = defaultdict(list)
        for metric, estimate in benchmark["estimates"].items():
            if estimate["n"]:
                kind, _, part = metric.rpartition("/")
                is_named = name.endswith(f"_{part}")
                if not kind or not (is_named or part in (benchmark.get("groups") or ())):
                    kind, part = metric, ""
                parts["" if is_named else part] += _metric(kind, estimate["value"])
        for part, metrics in parts.items():
            yield [
                "  - task:",
                "      type: text-generation",
                "    dataset:",
                f"      type: {cards.quote_yaml(identifier)}",
                f"      name: {cards.quote_yaml(f'{title} ({part})' if part else title)}",
                "    metrics:",
                *metrics,
            ]


def _metric(kind: str, value: float) -> list[str]:
    return [
        f"    - type: {cards.quote_yaml(kind)}",
        f"      name: {cards.quote_yaml(kind)}",
        f"      value: {_number(value)}",
        "      verified: false",
    ]


def _dataset(name: str) -> tuple[str, str]:
    known = [start for start in _DATASETS if name == start or name.startswith(f"{start}_")]
    if not known:
        return name, name.replace("_", " ")
    longest = max(known, key=len)
    identifier, title = _DATASETS[longest]
    rest = name[len(longest) :].strip("_").replace("_", " ")
    return identifier, f"{title}, {rest}" if rest else title


def _number(value: float) -> str:
    """A number as YAML 1.1 and 1.2 both read it: an exponent needs a point before it."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    mantissa, mark, exponent = f"{value:.6g}".partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if mark else mantissa
