"""Training on the real loader, from documents to an exported model that lists what it saw."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import starsmith.model
from starsmith import recipe
from starsmith.corpus import schema
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.huggingface import export, load
from starsmith.tokens import shards
from starsmith.tokens.loader import Loader
from starsmith.tokens.tokenizer import train_on_texts
from starsmith.training.lineage import lineage, steps_of
from starsmith.training.loop import train

TEXTS = {path.name: path.read_text() for path in sorted(Path(starsmith.model.__file__).parent.glob("*.py"))}


def document(name, split):
    def identifier(*parts):
        return hashlib.sha1("/".join(parts).encode()).hexdigest()

    file = {
        "file_id": identifier("file", name), "content_id": identifier("content", name),
        "released_id": identifier("released", name), "path": f"/{name}", "language": "Python",
        "license_type": "permissive", "detected_licenses": ["Apache-2.0"], "num_redactions": 0,
        "text": TEXTS[name],
    }  # fmt: skip
    return {
        "document_id": identifier("document", name), "repo_name": f"owner/{name}",
        "directory_id": identifier("directory", name), "split": split, "files": [file],
    }  # fmt: skip


@pytest.fixture(scope="module")
def shard_folder(tmp_path_factory):
    documents = [
        document(name, "validation" if name == "generation.py" else "train")
        for name in TEXTS
        if name != "__init__.py"
    ]
    folder = tmp_path_factory.mktemp("shards")
    table = pa.Table.from_pylist(documents, schema=schema.DOCUMENTS)
    shards.write_shards([table], train_on_texts(TEXTS.values(), vocab_size=400), folder)
    return folder


def test_documents_become_a_model_with_a_paper_trail(shard_folder, tmp_path):
    tokens = recipe.Tokens(sequence_length=64, streams=3)
    config = recipe.Training(
        steps=6, batch_size=3, learning_rate=3e-3, warmup_steps=2, checkpoint_steps=4, validation_steps=3
    )

    def run(folder, stop_at=None):
        loader = Loader(shard_folder, tokens, seed=1, batch_size=3, metadata_probability=0.5)
        model_config = Starcoder2Config(
            vocab_size=loader.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, sliding_window=16, initializer_range=0.05,
        )  # fmt: skip

        def progress(done, total, text):
            if done == stop_at:
                raise ConnectionAbortedError

        validation = [loader.sequences("validation", 5)]
        return train(folder, loader, validation, model_config, config, seed=1, progress=progress)

    trained = run(tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        run(tmp_path / "killed", stop_at=5)
    resumed = run(tmp_path / "killed")
    assert (resumed.loss, resumed.validation_loss) == (trained.loss, trained.validation_loss)
    assert trained.loss < np.log(400) + 0.1

    for step in range(1, 7):
        seen = lineage(tmp_path / "whole", step)
        assert sum(seen["num_tokens"].to_pylist()) == 3 * 65
        files = {row["path"]: row for row in seen.to_pylist() if row["content_id"]}
        assert files
        assert {row["license_type"] for row in files.values()} == {"permissive"}
        assert "/generation.py" not in files  # held out
        for path, row in files.items():
            known = document(path[1:], "train")
            assert row["document_id"] == known["document_id"]
            assert row["content_id"] == known["files"][0]["content_id"]
            assert step in steps_of(tmp_path / "killed", row["released_id"])["step"].to_pylist()

    weights = trained.model.named_parameters()
    export(weights, trained.model.config, [shard_folder / "tokenizer.json"], tmp_path / "model")
    again, _ = load(tmp_path / "model")
    assert all((value == again.state_dict()[name]).all() for name, value in trained.model.state_dict().items())
