"""Small random models, ours and `transformers`' with the same weights."""

import pytest
import torch

from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2

SHAPE = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "sliding_window": None, "rope_theta": 10_000.0, "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(**changes) -> Starcoder2:
    """A model whose biases and norms are random too, so that none of them can be forgotten unnoticed."""
    model = Starcoder2(Starcoder2Config(**(SHAPE | changes))).initialise(seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def tokens(num_rows: int, num_tokens: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, SHAPE["vocab_size"], (num_rows, num_tokens), generator=generator)


@pytest.fixture
def make_model():
    return small


@pytest.fixture
def make_tokens():
    return tokens


@pytest.fixture
def transformers_model():
    """Builds `transformers`' model of the same configuration and weights."""
    transformers = pytest.importorskip("transformers")

    def build(model: Starcoder2):
        values = {
            key: value
            for key, value in model.config.to_dict().items()
            if key not in ("architectures", "model_type", "rope_theta", "norm_type", "mlp_type")
        }
        config = transformers.Starcoder2Config(**values)
        config._attn_implementation = "eager"
        theirs = transformers.Starcoder2ForCausalLM(config)
        theirs.load_state_dict(model.state_dict())
        return theirs.eval()

    return build
