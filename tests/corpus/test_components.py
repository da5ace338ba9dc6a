"""Components equal a plain graph search, whatever the order of the pairs; text buffers equal the strings."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starsmith.corpus.buffers import text_buffers
from starsmith.corpus.components import COMPONENTS, component_roots, connected_components

NAMES = st.text(alphabet="0123456789abcdef", min_size=1, max_size=2)


def searched(pairs):
    """Identifier -> smallest identifier that can be reached."""
    neighbours = {}
    for a, b in pairs:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    labels = {}
    for start in sorted(neighbours):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in labels:
                labels[node] = start
                waiting.extend(neighbours[node])
    return labels


def columns(pairs):
    return tuple(pa.chunked_array([pa.array([pair[side] for pair in pairs], pa.string())]) for side in (0, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), max_size=60), st.randoms(use_true_random=False))
def test_components_equal_a_graph_search_in_any_order(pairs, random):
    table = connected_components(*columns(pairs))
    assert table.schema == COMPONENTS
    assert dict(zip(*table.to_pydict().values(), strict=True)) == searched(pairs)
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())

    shuffled = [pair if random.random() < 0.5 else pair[::-1] for pair in pairs]
    random.shuffle(shuffled)
    assert connected_components(*columns(shuffled)) == table


def test_chunks_and_string_widths_change_nothing():
    pairs = [("b", "c"), ("a", "b"), ("x", "y")]
    left, right = columns(pairs)
    split = pa.chunked_array([left.slice(0, 1).combine_chunks(), left.slice(1).combine_chunks()])
    wide = right.cast(pa.large_string())
    assert connected_components(split, wide) == connected_components(left, right)


def test_a_long_chain_takes_few_steps_and_one_label():
    num_nodes = 200_000
    for order in (slice(None), slice(None, None, -1)):
        left = np.arange(num_nodes - 1)[order].copy()
        assert not component_roots(left, left + 1, num_nodes).any()


def test_unequal_sides_and_nulls_are_refused():
    left, right = columns([("a", "b")])
    with pytest.raises(ValueError, match="two sides"):
        connected_components(left, right.slice(1))
    with pytest.raises(ValueError, match="null"):
        connected_components(left, pa.chunked_array([pa.array([None], pa.string())]))


def read(column):
    offsets, data = text_buffers(column)
    assert offsets.dtype == np.int64
    return [data[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=8), max_size=12),
    st.sampled_from([pa.string(), pa.large_string()]),
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 5),
)
def test_text_buffers_equal_the_strings_of_slices_and_chunks(texts, type_, start, length, chunk):
    expected = [text or "" for text in texts]
    array = pa.array(texts, type_)
    assert read(array) == expected
    assert read(array.slice(start, length)) == expected[start : start + length]
    chunks = [pa.array(texts[i : i + chunk], type_) for i in range(0, len(texts), chunk)]
    chunked = pa.chunked_array(chunks, type_)
    assert read(chunked) == expected
    assert read(chunked.slice(start, length)) == expected[start : start + length]


def test_bytes_under_a_null_are_not_text():
    offsets, data = pa.array([0, 2, 5, 6], pa.int32()), b"abSECc"
    array = pa.Array.from_buffers(
        pa.string(), 3, [pa.py_buffer(bytes([0b101])), offsets.buffers()[1], pa.py_buffer(data)]
    )
    assert read(array) == ["ab", "", "c"]
    assert read(array.slice(1)) == ["", "c"]


def test_text_is_shared_not_copied():
    array = pa.array(["first", "second"], pa.large_string())
    data = text_buffers(pa.chunked_array([array.slice(1)])).data
    assert data.ctypes.data == array.buffers()[2].address


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="binary"):
        text_buffers(pa.array([b"x"]))
