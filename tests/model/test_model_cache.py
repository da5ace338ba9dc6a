"""The ring of keys and values against the pass that reads everything at once."""

import pytest
import torch

from starsmith.model import cache as cache_module
from starsmith.model.cache import KeyValueCache

TOLERANCE = 1e-5


@pytest.mark.parametrize("window", [None, 1, 8, 64])
@pytest.mark.parametrize("chunks", [[20, *[1] * 30], [1] * 50, [3, 7, 1, 20, 1, 18], [50]], ids=str)
def test_cache_equals_the_full_forward(window, chunks, make_model, make_tokens):
    model, batch = make_model(sliding_window=window), make_tokens(2, 50)
    cache = KeyValueCache(model.config, num_rows=2, num_tokens=50)
    assert cache.size == min(window or 50, 50)
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in batch.split(chunks, dim=1)]
        assert (torch.cat(parts, dim=1) - model(batch)).abs().max() < TOLERANCE


@pytest.mark.parametrize("window", [None, 70, 150])
def test_chunks_of_several_blocks(window, make_model, make_tokens):
    model, batch = make_model(sliding_window=window), make_tokens(1, 400)
    cache = KeyValueCache(model.config, num_rows=1, num_tokens=400)
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in batch.split([100, 200, 99, 1], dim=1)]
        assert (torch.cat(parts, dim=1) - model(batch)).abs().max() < TOLERANCE


@pytest.mark.parametrize("window", [None, 4, 8, 64])
@pytest.mark.parametrize("chunk", [30, 29, 7, 1])
def test_rows_go_on_from_their_own_ends(window, chunk, make_model, make_tokens):
    """Prompts of 30, 3, 11 and 1 tokens, padded on the right, then twenty tokens each."""
    lengths = [30, 3, 11, 1]
    model, batch = make_model(sliding_window=window), make_tokens(4, 50)
    cache = KeyValueCache(model.config, num_rows=4, num_tokens=50, prompt_lengths=lengths)
    with torch.no_grad():
        whole = model(batch)
        prompts = torch.stack(
            [row[:30].where(torch.arange(30) < n, 96) for row, n in zip(batch, lengths, strict=True)]
        )
        read = torch.cat([model(part, cache=cache) for part in prompts.split(chunk, dim=1)], dim=1)
        for row, length in enumerate(lengths):
            assert (read[row, :length] - whole[row, :length]).abs().max() < TOLERANCE
        for step in range(20):
            place = torch.tensor(lengths) + step
            logits = model(batch[torch.arange(4), place][:, None], cache=cache)
            assert (logits[:, 0] - whole[torch.arange(4), place]).abs().max() < TOLERANCE
            if step == 9:  # the last row first, two rows gone
                kept = torch.tensor([3, 0])
                cache.select(kept)
                batch, whole, lengths = batch[kept], whole[kept], [lengths[3], lengths[0]]
                batch, whole = torch.cat((batch, batch)), torch.cat((whole, whole))
                cache.select(torch.tensor([0, 1, 0, 1]))
                lengths = lengths * 2


def test_a_step_looks_at_twice_the_filled_slots_at_most(make_model, make_tokens, monkeypatch):
    monkeypatch.setattr(cache_module, "_LEAST_WIDTH", 4)
    model, batch = make_model(sliding_window=24), make_tokens(1, 40)
    cache = KeyValueCache(model.config, num_rows=1, num_tokens=40)
    widths = []
    with torch.no_grad():
        whole = model(batch)
        for place in range(40):
            widths.append(cache.width)
            logits = model(batch[:, place : place + 1], cache=cache)
            assert (logits[:, 0] - whole[:, place]).abs().max() < TOLERANCE
    assert widths == [4] * 4 + [8] * 4 + [16] * 8 + [24] * 24


def test_memory_is_bounded_by_the_window(make_model):
    config = make_model(sliding_window=16).config
    assert KeyValueCache(config, num_rows=1, num_tokens=10_000).size == 16
    assert KeyValueCache(config, num_rows=1, num_tokens=10).size == 10


def test_refuses_more_than_its_room(make_model, make_tokens):
    model = make_model(sliding_window=8)
    cache = KeyValueCache(model.config, num_rows=1, num_tokens=10)
    with torch.no_grad(), pytest.raises(ValueError, match="room for 10 tokens"):
        model(make_tokens(1, 11), cache=cache)


def test_refuses_what_it_would_answer_wrongly(make_model, make_tokens):
    """Rows of different length have no common place for several tokens; a cached row is one document."""
    model = make_model(sliding_window=8)
    cache = KeyValueCache(model.config, num_rows=2, num_tokens=20, prompt_lengths=[4, 2])
    with torch.no_grad():
        model(make_tokens(2, 4), cache=cache)
        model(make_tokens(2, 1), cache=cache)
        with pytest.raises(ValueError, match="one token at a time"):
            model(make_tokens(2, 3), cache=cache)
        with pytest.raises(ValueError, match="each row is one document"):
            model(make_tokens(2, 1), cache=cache, documents_BT=torch.zeros(2, 1))
