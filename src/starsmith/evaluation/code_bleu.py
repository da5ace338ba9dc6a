"""CodeBLEU of lines of Python and Java (Ren et al. 2020), counted for each line and computed over many.

A quarter each: BLEU of words; recall of n-grams, with keywords weighing five times as much as other words; the
share of the reference's subtrees that the candidate has; and the share of its data flow (`data_flow`). All are
ratios of sums over lines, so a line gives counts, and `value` makes the measure of their sum. A mean over lines
would be another measure, and one line has next to no sequences of four words.

The definition is that of the package `codebleu` 0.7, which is its authors' code more than their paper. Its habits
are kept, since published numbers have them: words are what white space separates; a sum of no matches becomes
0.1; the second brevity penalty takes every reference to be two words long; where nothing of the data flow is
common, that quarter is 1.
"""

import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from starsmith.evaluation.data_flow import data_flow
from starsmith.signals import syntax

Language = Literal["python", "java"]
ORDERS: Final = (1, 2, 3, 4)
_NUM_MATCHES: Final = 2 * len(ORDERS)
NUM_COUNTS: Final = 2 * _NUM_MATCHES + 7
"""Matches and totals of n-grams, and of weighted ones; words of candidate and reference; matches and totals of
subtrees and of data flow; lines."""
_NO_MATCH: Final = 0.1
_PLAIN_WEIGHT: Final = 0.2
_REFERENCE_WORDS: Final = 2
GRAMMARS: Final = {"python": "Python", "java": "Java"}
_JAVA_WORDS: Final = (
    "abstract assert boolean break byte case catch char class const continue default do double else enum extends "
    "final finally float for goto if implements import instanceof int interface long native new package private "
    "protected public return short static strictfp super switch synchronized this throw throws transient try void "
    "volatile while"
)
_KEYWORDS: Final = {
    "python": frozenset(keyword.kwlist) | {"match", "case", "type"},
    "java": frozenset(_JAVA_WORDS.split()),
}
_JAVA_COMMENT: Final = re.compile(
    r"""//.*?$|/\*.*?\*/|'(?:\\.|[^\\'])*'|"(?:\\.|[^\\"])*\"""", re.DOTALL | re.MULTILINE
)


def counts(candidate: str, reference: str, language: Language) -> tuple[float, ...]:
    """`NUM_COUNTS` numbers of a pair of lines, to be summed over pairs."""
    candidate, reference = candidate.strip(), reference.strip()
    words, wanted = candidate.split(), reference.split()
    found: list[float] = []
    for order in ORDERS:
        own, theirs = _ngrams(words, order), _ngrams(wanted, order)
        found += [(own & theirs).total(), max(1, own.total())]
    keywords = _KEYWORDS[language]
    for order in ORDERS:
        own, theirs = _ngrams(words, order), _ngrams(wanted, order)
        weigh = (lambda ngram: 1.0 if ngram[0] in keywords else _PLAIN_WEIGHT) if order == 1 else _one
        found += [_weighed(own & theirs, weigh), max(1.0, _weighed(theirs, weigh))]
    trees = [
        syntax.parse(without_comments(text, language).encode(errors="replace"), GRAMMARS[language])
        for text in (candidate, reference)
    ]
    subtrees, wanted_subtrees = (_subtrees(tree) for tree in trees)
    flow, wanted_flow = (Counter(data_flow(tree.root_node, language)) for tree in trees)
    return (
        *found,
        len(words),
        len(wanted),
        sum(subtree in subtrees for subtree in wanted_subtrees),
        len(wanted_subtrees),
        (flow & wanted_flow).total(),
        wanted_flow.total(),
        1,
    )


def value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """CodeBLEU of sums of counts, along the last axis."""
    plain, weighted, rest = np.split(sums, [_NUM_MATCHES, 2 * _NUM_MATCHES], axis=-1)
    words, wanted, subtrees, all_subtrees, flow, all_flow, lines = np.moveaxis(rest, -1, 0)
    bleu = _geometric(plain) * _brevity(words, wanted)
    recall = _geometric(weighted) * _brevity(words, _REFERENCE_WORDS * lines)
    flows = np.where(flow > 0, flow / np.maximum(all_flow, 1), 1.0)
    result: NDArray[np.float64] = (bleu + recall + subtrees / np.maximum(all_subtrees, 1) + flows) / 4
    return result


def without_comments(line: str, language: Language) -> str:
    """In Python, also without a text that the line begins with: it may be a docstring."""
    if language == "java":
        bare = _JAVA_COMMENT.sub(lambda match: " " if match[0].startswith("/") else match[0], line)
    else:
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(line).readline))
        except (tokenize.TokenError, SyntaxError):
            return line
        if len({token.start[0] for token in tokens if token.string.strip()}) > 1:
            return line
        start = tokens[0].end[1] if tokens[0].type == tokenize.STRING else 0
        comments = [token.start[1] for token in tokens if token.type == tokenize.COMMENT]
        bare = line[start : comments[0] if comments else None]
    return "\n".join(part for part in bare.split("\n") if part.strip())


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[n : n + order]) for n in range(len(words) - order + 1))


def _one(ngram: tuple[str, ...]) -> float:
    return 1.0


def _weighed(ngrams: Counter[tuple[str, ...]], weigh: Callable[[tuple[str, ...]], float]) -> float:
    return sum(count * weigh(ngram) for ngram, count in ngrams.items())


def _subtrees(tree: Any) -> list[str]:
    """Every node with children, and the root, as text with all that is below it."""
    found, waiting = [], [tree.root_node]
    while waiting:
        node = waiting.pop()
        found.append(str(node))
        waiting += [child for child in node.children if child.children]
    return found


def _geometric(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The geometric mean of matches / totals over the orders; 0 where not a word matches."""
    matches, totals = pairs[..., 0::2], np.maximum(pairs[..., 1::2], 1e-9)
    mean = np.exp(np.log(np.where(matches > 0, matches, _NO_MATCH) / totals).mean(axis=-1))
    result: NDArray[np.float64] = np.where(matches[..., 0] > 0, mean, 0.0)
    return result


def _brevity(words: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    penalty = np.exp(np.minimum(0.0, 1 - wanted / np.maximum(words, 1)))
    result: NDArray[np.float64] = np.where(words > 0, penalty, 0.0)
    return result
