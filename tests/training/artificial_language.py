"""A loader with the real one's contract, over an artificial language that a tiny model can learn."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from starsmith.errors import InputError
from starsmith.model.configuration import Starcoder2Config
from starsmith.recipe import Training
from starsmith.tokens.loader import global_digest
from starsmith.tokens.packing import SPANS

VOCAB, LENGTH = 64, 48


class FakeLoader:
    """Each row is a few documents in which a token mostly decides the next; keyed by (seed, step, row).

    With `uneven`, later rows have fewer targets: the mean over ranks of their means is another number then.
    """

    def __init__(self, *, seed=0, batch_size=4, rank=0, world_size=1, uneven=False, without_targets=(), spoilt=()):
        self.seed, self.batch_size, self.step = seed, batch_size, 0
        rows = batch_size // world_size
        self.rows = range(rank * rows, (rank + 1) * rows)
        self.uneven, self.without_targets, self.spoilt = uneven, without_targets, spoilt
        self.digests = []

    def next_batch(self):
        batch = self.batch(self.step)
        self.step += 1
        self.digests.append(global_digest(batch.row_digests))
        return batch

    def skip(self, num_batches):
        self.step += num_batches

    def batch(self, step):
        rows = [self._row(step, row) for row in self.rows]
        tokens = np.array([row[0] for row in rows], dtype=np.int64)
        loss_mask = np.ones((len(rows), LENGTH), dtype=np.bool_)
        loss_mask[:, ::7] = False
        for place, row in enumerate(self.rows):
            loss_mask[place, : 5 * row * self.uneven] = False
        if step in self.without_targets:
            loss_mask[:] = False
        return SimpleNamespace(
            tokens=tokens,
            loss_mask=loss_mask,
            documents=np.array([row[1] for row in rows], dtype=np.int32),
            positions=np.array([row[2] for row in rows], dtype=np.int32),
            spans=pa.Table.from_pylist([span for row in rows for span in row[3]], schema=SPANS),
            row_digests=[hashlib.sha256(row.tobytes()).digest()[:16] for row in tokens],
        )

    def _row(self, step, row):
        random = np.random.default_rng([self.seed, step, row])
        tokens, token = [], int(random.integers(VOCAB))
        for _ in range(LENGTH + 1):
            tokens.append(token)
            token = (5 * token + 1) % VOCAB if random.random() < 0.9 else int(random.integers(VOCAB))
        if step in self.spoilt:  # the opposite of the language
            tokens = [7 * place % VOCAB for place in range(LENGTH + 1)]
        cut = int(random.integers(8, LENGTH - 8))
        documents = [0] * cut + [1] * (LENGTH - cut)
        positions = [*range(cut), *range(LENGTH - cut)]
        spans = [
            span_of(row, 0, cut, file=step * self.batch_size + row, document=row),
            span_of(row, cut, cut + 1, file=None, document=row),
            span_of(row, cut + 1, LENGTH + 1, file=0, document=99),
        ]
        return tokens, documents, positions, spans

    def state(self):
        streams = [[row, self.step] for row in self.rows]
        return {"step": self.step, "fingerprint": f"{self.seed}/{self.batch_size}", "streams": streams}

    def load_state(self, state):
        if state["fingerprint"] != f"{self.seed}/{self.batch_size}":
            raise InputError("the loader state does not fit")
        assert state["streams"] == [[row, state["step"]] for row in range(self.batch_size)]
        self.step = state["step"]


def span_of(row, start, end, *, file, document):
    described = {"row": row, "start": start, "end": end, "epoch": 0, "document_id": f"{document:039x}d",
                 "repo_name": f"repo{document}"}  # fmt: skip
    if file is None:
        return {**described, "kind": "special", "path": "", "license_type": "", "detected_licenses": []}
    return {
        **described, "kind": "code", "content_id": f"{file:040x}", "released_id": f"{file + 10**6:040x}",
        "path": f"/f{file}.py", "license_type": "permissive", "detected_licenses": ["MIT"],
    }  # fmt: skip


MODEL = Starcoder2Config(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, sliding_window=16, rope_theta=1000.0,
    initializer_range=0.1,
)  # fmt: skip


def training_settings(**changes):
    """Settings for a short run."""
    values = {
        "steps": 12, "batch_size": 4, "learning_rate": 3e-3, "min_learning_rate": 3e-4, "warmup_steps": 3,
        "checkpoint_steps": 5, "validation_steps": 4,
    }  # fmt: skip
    return Training(**(values | changes))
