"""Generation against the plain loop, `transformers`' generate, and the definition of nucleus sampling."""

import math

import pytest
import torch

from starsmith.errors import InputError, MachineError
from starsmith.model import generation
from starsmith.model.cache import KeyValueCache
from starsmith.model.generation import FimTokens, Generated, Step, fim_prompt, generate, infill, token_log_probs

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


def test_batches_equal_those_of_transformers_far_beyond_the_window(make_model, transformers_model):
    """Their batch is padded on the left and their cache is their own; 100 tokens with a window of 8."""
    model = make_model(sliding_window=8)
    width = max(map(len, PROMPTS))
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    ids = transformers_model(model).generate(
        padded, attention_mask=mask, max_new_tokens=100, do_sample=False, eos_token_id=96, pad_token_id=96
    )
    found = generate(model, PROMPTS, max_new_tokens=100, eos_token_id=96)
    for row, completion in zip(ids[:, width:].tolist(), found, strict=True):
        assert completion.ids == [*row, 96][: [*row, 96].index(96)]
    assert {completion.finish_reason for completion in found} >= {"length"}


@pytest.mark.parametrize("prompt_tokens", [1, 7, 40])
def test_prompts_may_be_read_in_any_pieces(prompt_tokens, make_model, monkeypatch):
    model = make_model(sliding_window=8)
    expected = generate(model, PROMPTS, max_new_tokens=12, eos_token_id=-1)
    monkeypatch.setattr(generation, "_PROMPT_TOKENS", prompt_tokens)
    assert generate(model, PROMPTS, max_new_tokens=12, eos_token_id=-1) == expected


def test_rows_that_end_make_room_when_half_of_the_batch_has(make_model, monkeypatch):
    """The context ends rows after 8, 7, ..., 1 tokens; the batch shrinks seldom, and no row notices."""
    model = make_model(sliding_window=4, max_position_embeddings=9)
    prompts = [[7 * place % 97 + 1] * place for place in range(1, 9)]
    expected = [generate(model, [prompt], max_new_tokens=8, eos_token_id=-1)[0] for prompt in prompts]
    sizes = []
    select = KeyValueCache.select
    monkeypatch.setattr(KeyValueCache, "select", lambda self, rows: (sizes.append(len(rows)), select(self, rows)))
    assert generate(model, prompts, max_new_tokens=8, eos_token_id=-1) == expected
    assert [len(completion.ids) for completion in expected] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert sizes == [4, 2, 1]


def test_a_step_writes_the_same_when_it_runs_again(make_model):
    """A graph is warmed up and recorded before it is replayed; none of that may be seen in what follows."""
    model = make_model(sliding_window=4)
    ids = [5, 9, 11, 2, 8, 1, 1, 7]
    cache = KeyValueCache(model.config, num_rows=1, num_tokens=8)
    step = Step(model, cache)
    with torch.no_grad():
        for place, token in enumerate(ids):
            step._tokens_B1.fill_(token)
            first, again = step._run().clone(), step._run()
            assert torch.equal(first, again)
            logits = step(torch.tensor([token]))
            assert torch.equal(logits, first)
            assert (logits[0] - model(torch.tensor([ids[: place + 1]]))[0, -1]).abs().max() < 1e-5


def test_a_step_uses_tensors_that_keep_their_place(make_model):
    """What a graph records are addresses: those of the cache stay the same from step to step."""
    model = make_model(sliding_window=8)
    cache = KeyValueCache(model.config, num_rows=2, num_tokens=30)
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3], [4, 5, 6]]), cache=cache)

        def places():
            rings = cache.open(1).rings
            return [x.data_ptr() for ring in rings for x in (ring.keys, ring.values)] + [
                cache._length_B.data_ptr()
            ]

        before = places()
        for _ in range(12):
            model(torch.tensor([[1], [2]]), cache=cache)
        assert places() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("decoding", ["graph", "compiled"])
@pytest.mark.parametrize(("dtype", "head"), [(torch.float32, {}), (torch.bfloat16, {"hidden_size": 96})])
def test_graphs_equal_plain_decoding(decoding, dtype, head, make_model):
    model = make_model(sliding_window=8, **head).to("cuda", dtype)
    expected = generate(model, PROMPTS, max_new_tokens=40, eos_token_id=-1, decoding="plain")
    assert generate(model, PROMPTS, max_new_tokens=40, eos_token_id=-1, decoding=decoding) == expected


def test_graphs_need_a_gpu(make_model):
    with pytest.raises(MachineError, match="'graph' needs a model on a CUDA GPU; use 'plain'"):
        generate(make_model(), [[1]], max_new_tokens=2, decoding="graph")


FIM = FimTokens(prefix=90, middle=91, suffix=92, file_separator=93)


def test_prompts_of_holes():
    assert fim_prompt([1, 2], [3], FIM) == [90, 1, 2, 92, 3, 91]
    assert fim_prompt([1, 2], [3], FIM, order="spm") == [90, 92, 3, 91, 1, 2]
    assert fim_prompt([], [], FIM) == [90, 92, 91]


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_middles_equal_the_full_forward(order, make_model):
    model = make_model(sliding_window=8)
    holes = [([5, 9, 11], [7, 7]), ([], [4]), ([1] * 20, [])]
    expected = [plain_greedy(model, fim_prompt(*hole, FIM, order=order), 15) for hole in holes]
    found = infill(model, holes, FIM, max_new_tokens=15, eos_token_id=-1, order=order)
    for completion, ids in zip(found, expected, strict=True):
        assert completion.ids == [*ids, 93][: [*ids, 93].index(93)]
    assert len({tuple(completion.ids) for completion in found}) == 3


def test_middles_end_at_the_end_token_and_at_a_file_separator(make_model):
    model, hole = make_model(), ([5, 9], [7])
    ids = generate(
        model, [fim_prompt(*hole, FIM)], max_new_tokens=8, eos_token_id=-1, temperature=1.0, seed=3
    )[0].ids  # fmt: skip
    assert ids[5] not in ids[:5]
    sampled = {"max_new_tokens": 8, "temperature": 1.0, "seed": 3}
    assert infill(model, [hole], FIM, eos_token_id=ids[5], **sampled) == [Generated(ids[:5], "eos")]
    separator = FimTokens(prefix=90, middle=91, suffix=92, file_separator=ids[5])
    assert infill(model, [hole], separator, eos_token_id=-1, **sampled) == [Generated(ids[:5], "eos")]


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
