"""Small corpora that a policy has decided, for explaining and comparing."""

import importlib.util
from pathlib import Path
from typing import Any

from starsmith.corpus import query
from starsmith.policies import decisions
from starsmith.policies.decisions import Policy

_PLACE = Path(__file__).parents[1] / "policies" / "small_corpus.py"
_SPEC = importlib.util.spec_from_file_location("starsmith_small_corpus", _PLACE)
assert _SPEC is not None
assert _SPEC.loader is not None
small_corpus = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(small_corpus)
SmallCorpus: Any = small_corpus.SmallCorpus
hex_id = small_corpus.hex_id


def decide(corpus: Any, policy: Policy | None = None) -> query.Tables:
    """The corpus's tables with the ledger and the kept files."""
    decided = decisions.decide(corpus.tables(), policy or Policy())
    corpus.write("decisions", decided.decisions)
    corpus.write("kept", decided.kept)
    tables: query.Tables = corpus.tables()
    return tables
