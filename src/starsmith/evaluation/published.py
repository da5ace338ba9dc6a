"""What others report for StarCoder2 and its rivals, to be read beside our own numbers.

All are base models. Values are shares, as ours are. The numbers are those of "StarCoder 2 and The Stack v2"
(arXiv 2402.19173), section 6, where no other source is named. How sure each is:

    checked    agrees with a second source (a model card, a later report's table)
    recalled   the paper's, not compared with a second source
    doubtful   the paper's, uncertain in the last digits or more

A number made with other prompts, samples or stops does not compare; what differs is the reader's to judge, so
the source is always shown. Averages over another choice of languages are not listed at all.
"""

from dataclasses import dataclass
from typing import Final, Literal

Certainty = Literal["checked", "recalled", "doubtful"]
PAPER: Final = "StarCoder 2 and The Stack v2, section"
OURS: Final = ("StarCoder2-3B", "StarCoder2-7B", "StarCoder2-15B")
"""The models whose road Starsmith follows; shown first."""


@dataclass(frozen=True, kw_only=True)
class Published:
    benchmark: str
    metric: str
    """As our estimates are named."""
    model: str
    value: float
    certainty: Certainty
    source: str


def of(benchmark: str) -> list[Published]:
    """What is known of a benchmark, by metric, StarCoder2 first."""
    rows = [row for row in PUBLISHED if row.benchmark == benchmark]
    return sorted(rows, key=lambda row: (row.metric, row.model not in OURS))


def _python_functions() -> list[Published]:
    """Section 6.1: HumanEval, HumanEval+, MBPP, MBPP+; greedy. Of the rivals only three numbers were compared."""
    table: dict[str, tuple[float, float, float, float]] = {
        "StarCoderBase-3B": (21.3, 17.1, 42.6, 35.8),
        "DeepSeekCoder-1.3B": (28.7, 23.8, 55.4, 46.9),
        "StableCode-3B": (28.7, 24.4, 53.1, 43.1),
        "StarCoder2-3B": (31.7, 27.4, 57.4, 47.4),
        "StarCoderBase-7B": (30.5, 25.0, 47.4, 39.6),
        "CodeLlama-7B": (33.5, 25.6, 52.1, 41.6),
        "DeepSeekCoder-6.7B": (47.6, 39.6, 70.2, 56.6),
        "StarCoder2-7B": (35.4, 29.9, 54.4, 45.6),
        "StarCoderBase-15B": (29.3, 25.6, 50.6, 43.6),
        "CodeLlama-13B": (37.8, 32.3, 62.4, 52.4),
        "StarCoder2-15B": (46.3, 37.8, 66.2, 53.1),
        "CodeLlama-34B": (48.2, 44.3, 65.4, 52.4),
        "DeepSeekCoder-33B": (54.3, 46.3, 73.2, 59.1),
    }
    checked = {("DeepSeekCoder-33B", "mbpp"), ("DeepSeekCoder-1.3B", "humaneval"), ("DeepSeekCoder-1.3B", "mbpp")}
    names = ("humaneval", "humaneval_plus", "mbpp", "mbpp_plus")
    return [
        _row(name, "pass@1", model, value, model in OURS or (model, name) in checked, "6.1")
        for model, values in table.items()
        for name, value in zip(names, values, strict=True)
    ]


def _multipl_e() -> list[Published]:
    """Section 6.2, StarCoder2-15B on HumanEval in 18 languages, and MultiPL-E's own run of it in seven of them."""
    values = {
        "cpp": 41.4, "cs": 29.2, "d": 23.6, "go": 26.2, "java": 33.9, "jl": 33.2, "js": 44.2, "lua": 43.8,
        "php": 39.5, "pl": 37.2, "r": 19.8, "rb": 41.5, "rkt": 22.4, "rs": 38.0, "scala": 37.4, "sh": 18.9,
        "swift": 34.2, "ts": 43.8,
    }  # fmt: skip
    again = {"cpp": 47.0, "cs": 32.0, "d": 25.0, "go": 26.0, "java": 40.0, "jl": 32.0, "js": 45.0}
    runs: tuple[tuple[dict[str, float], str, Certainty, str], ...] = (
        (values, "StarCoder2-15B", "doubtful", f"{PAPER} 6.2"),
        (again, "StarCoder2-15B, MultiPL-E's run", "checked", "results of the MultiPL-E team on the Hub"),
    )
    return [
        Published(
            benchmark=benchmark,
            metric=f"pass@1/{language}",
            model=model,
            value=value / 100,
            certainty=certainty,
            source=source,
        )
        for numbers, model, certainty, source in runs
        for language, value in numbers.items()
        for benchmark in ("multipl_e_humaneval", f"multipl_e_humaneval_{language}")
    ]


def _others() -> list[Published]:
    doubtful: Certainty = "doubtful"
    return [
        *(
            _row("ds1000", "pass@1", model, value, True, "6.3")
            for model, value in {
                "StarCoder2-3B": 25.0,
                "StarCoder2-7B": 27.8,
                "StarCoder2-15B": 33.8,
                "DeepSeekCoder-1.3B": 16.2,
                "DeepSeekCoder-33B": 40.2,
            }.items()
        ),
        _row("ds1000", "pass@1", "DeepSeekCoder-6.7B", 30.5, doubtful, "6.3"),
        _row("ds1000", "pass@1", "CodeLlama-34B", 34.3, doubtful, "6.3"),
        *(
            _row("gsm8k_pal", "pass@1", model, value, model in OURS, "6.5")
            for model, value in {
                "StarCoder2-3B": 27.7,
                "StarCoder2-7B": 40.4,
                "StarCoder2-15B": 65.1,
                "StarCoderBase-15B": 21.5,
                "CodeLlama-7B": 27.0,
                "CodeLlama-13B": 38.1,
                "CodeLlama-34B": 54.2,
                "DeepSeekCoder-1.3B": 12.6,
                "DeepSeekCoder-6.7B": 41.9,
                "DeepSeekCoder-33B": 58.7,
            }.items()
        ),
        _row("gsm8k_pal", "pass@1", "StableCode-3B", 39.7, doubtful, "6.5"),
        *(
            _row("cruxeval_input", "pass@1", model, value, model != "CodeLlama-34B", "6.6")
            for model, value in {
                "StarCoder2-3B": 32.7,
                "StarCoder2-7B": 34.6,
                "StarCoder2-15B": 48.1,
                "DeepSeekCoder-33B": 46.5,
                "CodeLlama-34B": 47.2,
            }.items()
        ),
        _row("cruxeval_output", "pass@1", "StarCoder2-15B", 47.1, False, "6.6"),
        *(
            _row("santacoder_fim", f"exact_match/{language}", model, value, certainty, "6.7")
            for model, values, certainty in (
                ("StarCoder2-3B", (75.0, 73.0, 59.1), True),
                ("StarCoder2-7B", (81.1, 77.5, 61.1), doubtful),
                ("StarCoder2-15B", (60.5, 54.7, 48.4), doubtful),
            )
            for language, value in zip(("java", "js", "py"), values, strict=True)
        ),
        *(
            _row("repobench_python", "edit_similarity", model, value, True, "6.8")
            for model, value in zip(OURS, (71.19, 72.07, 74.08), strict=True)
        ),
    ]


def _row(
    benchmark: str, metric: str, model: str, percent: float, certainty: bool | Certainty, section: str
) -> Published:
    if isinstance(certainty, bool):
        certainty = "checked" if certainty else "recalled"
    return Published(
        benchmark=benchmark,
        metric=metric,
        model=model,
        value=round(percent / 100, 6),
        certainty=certainty,
        source=f"{PAPER} {section}",
    )


PUBLISHED: Final = (*_python_functions(), *_multipl_e(), *_others())
