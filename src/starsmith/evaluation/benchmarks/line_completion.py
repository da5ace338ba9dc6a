"""What benchmarks of line completion share: a reference line, how like it a completion is, and estimates of that.

Nothing is executed. A score's label says whether the match is exact, its value is the edit similarity, and other
measures stand in its detail as `name=value`.

* Edit similarity is `fuzz.ratio` of fuzzywuzzy / 100, which RepoBench and CrossCodeEval call: the ratio of
  Python's own difflib, 2 x matches / both lengths, rounded to whole percents. (fuzzywuzzy takes Levenshtein's
  ratio instead where that package happens to be installed; neither benchmark asks for it.) It is not
  symmetric, so the order of its arguments is each benchmark's own.
* Identifiers are CrossCodeEval's: the words outside string literals that begin like a name and are no keywords.

References are compared with themselves and with nothing before any model is judged: the first must match and
the second must not.
"""

import difflib
import keyword
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starsmith.evaluation.benchmarks.python_programs import sampled_requests
from starsmith.evaluation.contract import (
    Candidate,
    Check,
    Completion,
    Estimate,
    Problem,
    Program,
    Request,
    RunResult,
    Sampling,
    Score,
)
from starsmith.evaluation.statistics import bootstrap_ratio, wilson

STOPS: Final = ("<|endoftext|>", "<file_sep>")
MAX_CHARS: Final = 4_096
"""Of a completion that is looked at: far more than the longest that is asked for, and little enough for
algorithms that are quadratic."""
NUM_SEARCHED_LINES: Final = 10
"""Looked for in a model's training corpus."""
_LINE_COMMENTS: Final = {"python": "#"}
_BLOCK_COMMENTS: Final = {"python": (('"""', "'''"), ('"""', "'''"))}
_STRING: Final = re.compile(r'"([^"\\]*(\\.[^"\\]*)*)"|\'([^\'\\]*(\\.[^\'\\]*)*)\'')
_WORD: Final = re.compile(r"\w+")
_NAME: Final = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_WORDS: Final = {
    "java": (
        "abstract assert boolean break byte case catch char class const continue default do double else enum "
        "extends final finally float for goto if implements import instanceof int interface long native new "
        "package private protected public return short static strictfp super switch synchronized this throw "
        "throws transient try void volatile while var"
    ),
    "typescript": (
        "break case catch class const continue debugger default delete do else enum export extends finally for "
        "function if implements import in instanceof interface let new package private protected public return "
        "static super switch this throw try typeof var void while with yield"
    ),
    "csharp": (
        "abstract as base bool break byte case catch char checked class const continue decimal default delegate "
        "do double else enum event explicit extern finally fixed float for foreach goto if implicit in int "
        "interface internal is lock long namespace new null object operator out override params private "
        "protected public readonly ref return sbyte sealed short sizeof stackalloc static string struct switch "
        "this throw try typeof uint ulong unchecked unsafe ushort using virtual void volatile while"
    ),
    "go": (
        "break case chan const continue default defer else fallthrough for func go goto if import interface map "
        "package range return select struct switch type var"
    ),
}
KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "python": frozenset(keyword.kwlist) - {"True", "False"},
    **{language: frozenset(words.split()) for language, words in _WORDS.items()},
}
"""CrossCodeEval's lists, and Go's own. JavaScript's words are those of TypeScript."""


@dataclass(frozen=True, kw_only=True)
class LineCompletion(ABC):
    """A benchmark that only compares; its problems hold the file up to the reference as `prompt`, and that as
    `middle`."""

    data: Path | None = None
    """The folder of all data sets."""
    sampling: Sampling
    seed: int = 42

    version: str = "1"

    @property
    @abstractmethod
    def name(self) -> str: ...

    def checks(self, problem: Problem) -> list[Check]:
        return [
            Check(candidate=Candidate(text=problem.inputs["middle"]), passes=True),
            Check(candidate=Candidate(text=""), passes=False),
        ]

    def texts(self, problem: Problem) -> list[str]:
        """The reference with the lines before it: alone it may be anyone's."""
        lines = (problem.inputs["prompt"] + problem.inputs["middle"]).split("\n")
        return ["\n".join(lines[-NUM_SEARCHED_LINES:])]

    def asked(self, request: Request) -> list[Request]:
        """The question once for each sample."""
        return sampled_requests(request, benchmark=self.name, samples=self.sampling.samples, seed=self.seed)

    def programs(self, problem: Problem, candidate: Candidate) -> list[Program]:
        return []

    @abstractmethod
    def extract(self, problem: Problem, completion: Completion) -> Candidate: ...

    @abstractmethod
    def score(
        self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]
    ) -> Score: ...

    def estimates(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """Of scores that are shown together."""
        return line_estimates(scores, seed=seed)

    def aggregate(self, scores: Sequence[Score], *, seed: int) -> dict[str, Estimate]:
        """`exact_match`, `edit_similarity` and what the scores measure beside them: over all, and as
        `MEASURE/PART` for the parts between the slashes of groups' names, where there are several."""
        parts: dict[str, list[Score]] = defaultdict(list)
        for score in sorted(scores, key=lambda score: score.problem):
            for part in score.group.split("/"):
                parts[part].append(score)
        found = self.estimates(scores, seed=seed)
        for part, members in sorted(parts.items()):
            if len(members) < len(scores):
                own = self.estimates(members, seed=seed)
                found |= {f"{name}/{part}": estimate for name, estimate in own.items()}
        return found


def line_score(problem: Problem, sample: int, *, exact: bool, similarity: float, detail: str) -> Score:
    return Score(
        problem=problem.id,
        sample=sample,
        group=problem.group,
        label="pass" if exact else "wrong",
        value=similarity,
        detail=detail,
    )


def as_detail(measures: Mapping[str, float]) -> str:
    """Measures as `line_estimates` reads them."""
    return " ".join(f"{name}={value:.6g}" for name, value in measures.items())


def line_estimates(scores: Iterable[Score], *, seed: int) -> dict[str, Estimate]:
    """Means over problems, each the mean of its samples."""
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        table["exact_match"][score.problem].append(float(score.label == "pass"))
        table["edit_similarity"][score.problem].append(score.value)
        for measure in score.detail.split():
            name, _, value = measure.partition("=")
            table[name][score.problem].append(float(value))
    return {name: _mean(by_problem, seed=seed) for name, by_problem in table.items()}


def edit_similarity(left: str, right: str) -> float:
    """`fuzz.ratio` / 100 of at most `MAX_CHARS` of each."""
    left, right = left[:MAX_CHARS], right[:MAX_CHARS]
    if left == right:
        return 1.0
    return round(100 * difflib.SequenceMatcher(None, left, right).ratio()) / 100


def first_code_line(text: str, language: str) -> tuple[str, bool]:
    """The first line that is neither empty nor comment, and whether there is one; else the first line.

    RepoBench's rule, its faults included: a text in triple quotes that ends on its own line counts as begun.

    Args:
        text: a completion.
        language: "python", or any other for the comments of C.
    """
    mark = _LINE_COMMENTS.get(language, "//")
    opening, closing = _BLOCK_COMMENTS.get(language, (("/*",), ("*/",)))
    lines = text.lstrip("\n").split("\n")
    in_comment = False
    for line in lines:
        bare = line.strip()
        if not bare:
            continue
        if not in_comment and bare.startswith(opening):
            in_comment = True
        elif in_comment:
            in_comment = not bare.endswith(closing)
        elif not bare.startswith(mark):
            return line, True
    return lines[0], False


def identifiers(code: str, language: str) -> list[str]:
    """Names in order, as CrossCodeEval finds them."""
    words = _WORD.findall(_STRING.sub("", code[:MAX_CHARS]))
    return [word for word in words if _NAME.match(word) and word not in KEYWORDS[language]]


def identifier_measures(code: str, reference: str, language: str) -> dict[str, float]:
    """`identifier_exact_match` of the names in order, and `identifier_f1` of them as a set."""
    found, wanted = identifiers(code, language), identifiers(reference, language)
    common, total = len(set(found) & set(wanted)), len(set(found)) + len(set(wanted))
    return {
        "identifier_exact_match": float(found == wanted),
        "identifier_f1": 2 * common / total if total else 0.0,
    }


def _mean(by_problem: Mapping[str, Sequence[float]], *, seed: int) -> Estimate:
    values = [sum(samples) / len(samples) for _, samples in sorted(by_problem.items())]
    if all(len(samples) == 1 for samples in by_problem.values()) and set(values) <= {0.0, 1.0}:
        return wilson(round(sum(values)), len(values))
    return bootstrap_ratio(values, [1.0] * len(values), seed=seed)
