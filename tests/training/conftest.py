"""A loader with the real one's contract, over an artificial language that a tiny model can learn."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from starsmith.errors import InputError
from starsmith.model.configuration import Starcoder2Config
from starsmith.recipe import Training
from starsmith.tokens.packing import SPANS

VOCAB, LENGTH = 64, 48


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class FakeLoader:
    """Each row is a few documents in which a token mostly decides the next; keyed by (seed, step, row)."""

    def __init__(self, *, seed=0, batch_size=4, without_targets=()):
        self.seed, self.batch_size, self.step = seed, batch_size, 0
        self.without_targets = without_targets
        self.digests = []

    def next_batch(self):
        batch = self.batch(self.step)
        self.step += 1
        self.digests.append(batch.digest)
        return batch

    def batch(self, step):
        rows = [self._row(step, row) for row in range(self.batch_size)]
        tokens = np.array([row[0] for row in rows], dtype=np.int64)
        loss_mask = np.ones((self.batch_size, LENGTH), dtype=np.bool_)
        loss_mask[:, ::7] = False
        if step in self.without_targets:
            loss_mask[:] = False
        return SimpleNamespace(
            tokens=tokens,
            loss_mask=loss_mask,
            documents=np.array([row[1] for row in rows], dtype=np.int32),
            positions=np.array([row[2] for row in rows], dtype=np.int32),
            spans=pa.Table.from_pylist([span for row in rows for span in row[3]], schema=SPANS),
            digest=hashlib.sha256(tokens.tobytes()).hexdigest()[:16],
        )

    def _row(self, step, row):
        random = np.random.default_rng([self.seed, step, row])
        tokens, token = [], int(random.integers(VOCAB))
        for _ in range(LENGTH + 1):
            tokens.append(token)
            token = (5 * token + 1) % VOCAB if random.random() < 0.9 else int(random.integers(VOCAB))
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
        return {"step": self.step, "fingerprint": f"{self.seed}/{self.batch_size}"}

    def load_state(self, state):
        if state["fingerprint"] != f"{self.seed}/{self.batch_size}":
            raise InputError("the loader state does not fit")
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


@pytest.fixture
def model_config():
    return MODEL


@pytest.fixture
def make_loader():
    return FakeLoader


@pytest.fixture
def settings():
    """Builds training settings for a short run."""

    def build(**changes):
        values = {
            "steps": 12, "batch_size": 4, "learning_rate": 3e-3, "min_learning_rate": 3e-4, "warmup_steps": 3,
            "checkpoint_steps": 5, "validation_steps": 4,
        }  # fmt: skip
        return Training(**(values | changes))

    return build
