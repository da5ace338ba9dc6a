"""Generation against the plain loop, `transformers`' generate, and the definition of nucleus sampling."""

import math

import pytest
import torch

from starsmith.errors import InputError
from starsmith.model.generation import Generated, generate, token_log_probs

PROMPTS = [[5, 9, 11], [7], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9], [42, 43], [8] * 30]


def plain_greedy(model, prompt, num_tokens):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(num_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("window", [None, 8, 64])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_greedy_equals_the_full_forward(window, batch_size, make_model):
    model = make_model(sliding_window=window)
    expected = [Generated(plain_greedy(model, prompt, 20), "length") for prompt in PROMPTS]
    found = generate(model, PROMPTS, max_new_tokens=20, eos_token_id=-1, batch_size=batch_size)
    assert found == expected
    assert len({tuple(completion.ids) for completion in found}) > 2


def test_greedy_equals_transformers(make_model, transformers_model):
    model = make_model(sliding_window=8)
    theirs = transformers_model(model)
    for prompt in PROMPTS:
        ids = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=20, do_sample=False,
            eos_token_id=96, pad_token_id=96,
        )[0, len(prompt) :].tolist()  # fmt: skip
        found = generate(model, [prompt], max_new_tokens=20, eos_token_id=96)[0]
        assert found.ids == [token for token in ids if token != 96]


def test_samples_do_not_depend_on_the_batch(make_model):
    model = make_model(sliding_window=8)
    settings = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9, "seed": 7, "num_samples": 3}
    whole = generate(model, PROMPTS, batch_size=16, **settings)
    assert whole == generate(model, PROMPTS, batch_size=4, **settings)
    assert whole == generate(model, PROMPTS, batch_size=1, **settings)
    assert whole[:6] == generate(model, PROMPTS[:2], **settings)
    assert len({tuple(completion.ids) for completion in whole}) == len(whole) == 15
    assert whole != generate(model, PROMPTS, **(settings | {"seed": 8}))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.6), (1.0, 0.05)])
def test_samples_follow_the_nucleus(temperature, top_p, make_model):
    model = make_model(vocab_size=11, initializer_range=0.3)
    with torch.no_grad():
        probs = (model(torch.tensor([[1, 2]]))[0, -1].double() / temperature).softmax(0)
    order = probs.argsort(descending=True).tolist()
    nucleus, mass = [], 0.0
    for token in order:
        if mass >= top_p:
            break
        nucleus.append(token)
        mass += float(probs[token])
    count = 3000
    drawn = generate(
        model, [[1, 2]], max_new_tokens=1, temperature=temperature, top_p=top_p, eos_token_id=-1,
        num_samples=count, batch_size=500,
    )  # fmt: skip
    ids = [completion.ids[0] for completion in drawn]
    assert set(ids) <= set(nucleus)
    for token in nucleus:
        expected = float(probs[token]) / mass
        deviation = math.sqrt(expected * (1 - expected) / count)
        assert abs(ids.count(token) / count - expected) < 5 * deviation + 1e-9


def test_ends(make_model):
    model = make_model()
    ids = plain_greedy(model, [5, 9, 11], 6)
    assert len(set(ids[:4])) == 4
    found = generate(model, [[5, 9, 11], [7]], max_new_tokens=6, eos_token_id=ids[3])
    assert found[0] == Generated(ids[:3], "eos")
    assert found[1] == generate(model, [[7]], max_new_tokens=6, eos_token_id=ids[3])[0]
    found = generate(model, [[5, 9, 11]], max_new_tokens=6, eos_token_id=-1, stop=lambda ids: len(ids) == 2)
    assert found == [Generated(ids[:2], "stop")]


def test_the_context_ends(make_model):
    model = make_model(max_position_embeddings=8)
    prompts = [[1, 2, 3, 4, 5], [1] * 8, [1] * 20, [2]]
    found = generate(model, prompts, max_new_tokens=6, eos_token_id=-1)
    assert [len(completion.ids) for completion in found] == [3, 0, 0, 6]
    assert [completion.finish_reason for completion in found] == [
        "context", "prompt_too_long", "prompt_too_long", "length",
    ]  # fmt: skip
    assert generate(model, [], max_new_tokens=3) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_refuses_bad_settings(change, message, make_model):
    with pytest.raises(InputError, match=message):
        generate(make_model(), **({"prompts": [[1]], "max_new_tokens": 2} | change))


def test_log_probs_are_those_of_the_logits(make_model, make_tokens):
    model, batch = make_model(sliding_window=8), make_tokens(3, 400)
    with torch.no_grad():
        logits = model(batch)[:, :-1]
    expected = logits.log_softmax(-1).gather(2, batch[:, 1:, None]).squeeze(2)
    found = token_log_probs(model, batch)
    assert found.shape == (3, 399)
    assert torch.allclose(found, expected, atol=1e-4)
