"""One suite for every back end, held to the definition: a softmax over exactly the keys that the rule shows.

Back ends that need a GPU skip without one. What they are given is tested everywhere all the same: `varlen` also
runs with PyTorch's kernel replaced by the plain meaning of its arguments, and FlexAttention forward on the CPU.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.errors import InputError, MachineError
from starsmith.model import attention
from starsmith.model.attention import (
    AttentionBackend,
    Blocks,
    Slots,
    UsedSlots,
    attend,
    choose,
    see,
    segment_bounds,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
slow_flex = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")

BACKENDS = [
    pytest.param(("reference", "cpu", torch.float32), id="reference"),
    pytest.param(("varlen", "cpu", torch.float32), id="varlen-arguments"),
    pytest.param(("flex", "cpu", torch.float32), id="flex", marks=slow_flex),
    pytest.param(("reference", "cuda", torch.float32), id="reference-cuda", marks=needs_cuda),
    pytest.param(("varlen", "cuda", torch.bfloat16), id="varlen-cuda", marks=needs_cuda),
    pytest.param(("flex", "cuda", torch.bfloat16), id="flex-cuda", marks=needs_cuda),
]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}

# (lengths of the documents of each row, window, query heads, key heads)
CASES = {
    "one document": ([[40]], None, 4, 2),
    "window as long as the sequence": ([[40]], 40, 4, 2),
    "window one shorter": ([[40]], 39, 4, 2),
    "window 8": ([[40]], 8, 4, 2),
    "window 1": ([[40]], 1, 4, 2),
    "no grouping": ([[40]], 8, 3, 3),
    "twelve queries a key": ([[40]], 8, 12, 1),
    "packed": ([[5, 1, 20, 14], [40]], None, 4, 2),
    "packed, window": ([[5, 1, 20, 14], [30, 10]], 8, 4, 2),
    "single tokens": ([[1] * 9], 3, 2, 1),
    "several blocks": ([[300]], 70, 2, 1),
    "several blocks, packed, ragged end": ([[100, 1, 170, 29], [129, 171]], 130, 2, 1),
    "blocks that fit exactly": ([[64, 192], [256]], None, 2, 2),
}


def make_case(lengths, num_heads, num_groups, device="cpu", dtype=torch.float32):
    """Queries, keys, values, and documents in a numbering that is neither sorted nor without gaps."""
    generator = torch.Generator().manual_seed(sum(map(len, lengths)))
    num_rows, num_tokens = len(lengths), sum(lengths[0])
    tensors = [
        torch.randn(num_rows, num_tokens, heads, 16, generator=generator).to(device, dtype).requires_grad_()
        for heads in (num_heads, num_groups, num_groups)
    ]
    rows = [torch.cat([torch.full((n,), (7 * i + 5) % 11) for i, n in enumerate(row)]) for row in lengths]
    documents = torch.stack(rows) if any(len(row) > 1 for row in lengths) else None
    return *tensors, documents


def seen_mask(num_tokens, window, documents):
    """(B, 1, T, T) from the definition."""
    query, key = torch.arange(num_tokens)[:, None], torch.arange(num_tokens)[None]
    mask = (key <= query) & (key > query - (window or num_tokens))
    if documents is None:
        return mask[None, None]
    return (mask & (documents[:, :, None] == documents[:, None, :]))[:, None]


def softmax_over(q, k, v, mask):
    """Attention as it is defined, in float64; (B, T, H, D)."""
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask.to(q.device), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def meaning_of_varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False, seqused_k=None
):
    """What the flash kernels compute: each segment by itself, queries and keys aligned at its end."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert cu_seq_q[0] == cu_seq_k[0] == 0 and cu_seq_q[-1] == len(query) and cu_seq_k[-1] == len(key)
    parts = []
    for number in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[number] : cu_seq_q[number + 1]]
        end = cu_seq_k[number + 1] if seqused_k is None else cu_seq_k[number] + seqused_k[number]
        k, v = (x[cu_seq_k[number] : end] for x in (key, value))
        assert len(q) <= max_q and len(k) <= max_k
        if len(q) == 0:
            continue
        place = torch.arange(len(q))[:, None] + len(k) - len(q)
        other, mask = torch.arange(len(k))[None], torch.ones(len(q), len(k), dtype=torch.bool)
        left, right = window_size
        if left >= 0:
            mask &= other >= place - left
        if right >= 0:
            mask &= other <= place + right
        parts.append(softmax_over(q[None], k[None], v[None], mask)[0])
    return torch.cat(parts).to(query.dtype)


@pytest.fixture
def backend(request, monkeypatch):
    name, device, dtype = request.param
    if (name, device) == ("varlen", "cpu"):
        monkeypatch.setattr(attention, "varlen_attn", meaning_of_varlen_attn)
    return name, torch.device(device), dtype


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_attends_to_what_the_rule_shows(backend, case):
    (name, device, dtype), (lengths, window, num_heads, num_groups) = backend, case
    q, k, v, documents = make_case(lengths, num_heads, num_groups, device, dtype)
    seen = see(*q.shape[:2], window, documents, device=device, backend=name)
    expected = softmax_over(q, k, v, seen_mask(q.shape[1], window, documents))
    if (name, device.type) == ("flex", "cpu"):  # PyTorch has no backward pass there
        found = attend(q.detach(), k.detach(), v.detach(), seen)
    else:
        found = attend(q, k, v, seen)
    assert found.shape == q.shape and found.dtype == dtype
    assert (found - expected).abs().max() < TOLERANCE[dtype]
    if not found.requires_grad:
        return
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(device)
    wanted = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    for gradient, reference in zip(torch.autograd.grad((found * weights).sum(), (q, k, v)), wanted, strict=True):
        assert (gradient - reference).abs().max() < 10 * TOLERANCE[dtype] * max(1, reference.abs().max())


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_window_counts_the_position_itself(backend):
    """With window W, a change of the value W - 1 places back is seen, and W places back it is not."""
    name, device, dtype = backend
    q, k, v = (x.detach() for x in make_case([[160]], 4, 2, device, dtype)[:3])
    with torch.no_grad():
        seen = see(1, 160, 9, None, device=device, backend=name)
        before = attend(q, k, v, seen)[0, 159]
        for distance, is_seen in ((8, True), (9, False)):
            changed = v.clone()
            changed[0, 159 - distance] += 1
            assert torch.equal(attend(q, k, changed, seen)[0, 159], before) is not is_seen


@pytest.mark.parametrize("backend", [BACKENDS[0], BACKENDS[1], *BACKENDS[3:5]], indirect=True)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (12, 1)])
def test_one_query_a_row_sees_the_front_of_its_ring(backend, heads):
    name, device, dtype = backend
    num_used = torch.tensor([1, 24, 7], device=device)
    generator = torch.Generator().manual_seed(5)
    q, k, v = (
        torch.randn(3, length, number, 16, generator=generator).to(device, dtype)
        for length, number in ((1, heads[0]), (24, heads[1]), (24, heads[1]))
    )
    mask = (torch.arange(24, device=device) < num_used[:, None])[:, None, None]
    bounds = torch.arange(4, dtype=torch.int32, device=device)
    seen = Slots(mask) if name == "reference" else UsedSlots(num_used.int(), bounds, bounds * 24)
    expected = softmax_over(q, k, v, mask)
    assert (attend(q, k, v, seen) - expected).abs().max() < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (None, [0, 6, 12, 12, 12]),
        ([[0] * 6, [0] * 6], [0, 6, 12, 12, 12]),
        ([[3, 3, 1, 1, 1, 9], [9] * 6], [0, 2, 5, 6, 12]),
        ([[0, 1, 2, 3, 4, 5], [9] * 6], [0, 1, 2, 3, 4, 5, 6, 12, 12]),
    ],
)
def test_borders_of_documents(documents, expected, monkeypatch):
    """The same document number in two rows is two documents; the table has a power of two of segments."""
    monkeypatch.setattr(attention, "_TOKENS_A_SEGMENT", 3)
    documents = None if documents is None else torch.tensor(documents)
    bounds = segment_bounds(2, 6, documents)
    assert bounds.dtype == torch.int32 and bounds.device.type == "cpu"
    assert bounds.tolist() == expected


def test_table_of_borders_has_one_length_for_usual_batches():
    lengths = {len(segment_bounds(4, 4096, None))}
    for num_documents in (1, 2, 7, 16):
        documents = torch.arange(4096)[None].expand(4, -1) * num_documents // 4096
        lengths.add(len(segment_bounds(4, 4096, documents)))
    assert lengths == {65}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=6), st.one_of(st.none(), st.integers(1, 400)),
    st.integers(0, 2**32),
)  # fmt: skip
def test_tiles_hold_every_pair_that_is_seen(lengths, window, seed):
    """Whole tiles are seen whole, and what is seen lies in a tile that is named."""
    num_tokens = sum(lengths)
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    orders = [lengths, [lengths[place] for place in shuffled]]
    documents = torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in orders])
    mask = see(2, num_tokens, window, documents, backend="flex")
    expected = seen_mask(num_tokens, window, documents).expand(2, 1, -1, -1)
    whole, some = (torch.zeros(2, 1, num_tokens, num_tokens, dtype=torch.bool) for _ in range(2))
    for target, counts, indices in (
        (some, mask.kv_num_blocks, mask.kv_indices),
        (whole, mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        for row in range(2):
            for tile in range(counts.shape[2]):
                for other in indices[row, 0, tile, : counts[row, 0, tile]].tolist():
                    rows, columns = slice(tile * 128, tile * 128 + 128), slice(other * 128, other * 128 + 128)
                    assert not target[row, 0, rows, columns].any()
                    target[row, 0, rows, columns] = True
    assert not (whole & some).any()
    assert not (whole & ~expected).any()
    assert not (expected & ~(whole | some)).any()


def test_nothing_to_hide_needs_no_mask():
    assert see(1, 32, 32, None) == see(1, 32, None, None) == Blocks()
    assert see(1, 33, 32, None) != Blocks()
    assert see(1, 32, 32, None, backend="varlen").window == (-1, 0)
    assert see(1, 33, 32, None, backend="varlen").window == (31, 0)


def test_blocks_reach_no_farther_than_the_window():
    seen = see(1, 1000, 100, None)
    assert [row for block in seen.blocks for row in range(1000)[block.queries]] == list(range(1000))
    assert max(block.keys.stop - block.keys.start for block in seen.blocks) < 100 + 64


def test_chooses_by_device_and_precision():
    cpu = torch.device("cpu")
    assert choose(cpu, torch.float32, 64) == choose(cpu, torch.bfloat16, 64, "reference") == "reference"
    with torch.no_grad():
        assert choose(cpu, torch.float32, 64, "flex") == "flex"
    with pytest.raises(MachineError, match=r"'flex' has no backward pass on the CPU; use 'reference'"):
        choose(cpu, torch.float32, 64, "flex")
    with pytest.raises(MachineError, match="'varlen' needs a CUDA GPU, not cpu; use 'reference'"):
        choose(cpu, torch.bfloat16, 64, "varlen")


@needs_cuda
def test_chooses_on_a_gpu():
    cuda = torch.device("cuda")
    assert choose(cuda, torch.bfloat16, 128) == "varlen"
    assert choose(cuda, torch.float32, 128) == choose(cuda, torch.bfloat16, 36) == "reference"
    with pytest.raises(InputError, match=r"bf16 or fp16, not torch\.float32"):
        choose(cuda, torch.float32, 128, "varlen")
    with pytest.raises(InputError, match="multiple of 8 up to 256, got 36"):
        choose(cuda, torch.bfloat16, 36, "varlen")
    with pytest.raises(InputError, match="16 or more on a GPU, got 8"):
        choose(cuda, torch.bfloat16, 8, "flex")


@pytest.mark.parametrize("name", ["reference", pytest.param("flex", marks=slow_flex)])
def test_the_network_uses_the_back_end_that_is_asked_for(name: AttentionBackend, make_model, make_tokens):
    model, batch = make_model(sliding_window=8), make_tokens(1, 40)
    documents, positions = torch.tensor([[0] * 15 + [1] * 25]), torch.tensor([[*range(15), *range(25)]])
    with torch.no_grad():
        expected = model(batch, documents_BT=documents, positions_BT=positions)
        model.model.attention_backend = name
        found = model(batch, documents_BT=documents, positions_BT=positions)
    assert (found - expected).abs().max() < 1e-5
    model.model.attention_backend = "varlen"
    with pytest.raises(MachineError, match="needs a CUDA GPU"):
        model(batch)
