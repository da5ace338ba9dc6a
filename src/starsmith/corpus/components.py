"""Connected components over pairs of identifiers: the second of the two global operators.

A component is labelled with its smallest identifier, so the answer depends on the set of pairs alone: not on
their order, on which side an identifier stands, or on how many processes found them. (Counters handed out
during a shuffle, the usual label, do not have this property.)

Identifiers are coded by their rank; the forest is one integer array in which a root always joins the smaller
root, with path halving. That is O(pairs * log identifiers) in the worst case and nearly linear in practice;
memory is 8 bytes an identifier and 16 a pair beside the input.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel

COMPONENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("component", pa.string(), nullable=False),  # the smallest id of the component
    ]
)


def connected_components(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.Table:
    """The component of every identifier that stands in a pair.

    Args:
        left: one side of the pairs, text without nulls.
        right: the other side, as long as `left`. A pair may repeat, be turned round, or join an identifier
            with itself.

    Returns:
        `COMPONENTS`, ordered by `id`.
    """
    if len(left) != len(right):
        raise ValueError(f"pairs have two sides: {len(left)} identifiers left, {len(right)} right")
    if left.null_count or right.null_count:
        raise ValueError("an identifier of a pair is null")
    ids = _sorted_distinct(left, right)
    roots = component_roots(_codes(left, ids), _codes(right, ids), len(ids))
    return pa.table([ids, ids.take(pa.array(roots))], schema=COMPONENTS)


def _sorted_distinct(*columns: pa.ChunkedArray) -> pa.Array:
    chunks = [chunk.cast(pa.string()) for column in columns for chunk in pa.chunked_array(column).chunks]
    distinct = pc.unique(pa.chunked_array(chunks, pa.string()))
    return distinct.take(pc.array_sort_indices(distinct))


def _codes(column: pa.ChunkedArray, ids: pa.Array) -> NDArray[np.int64]:
    codes = pc.index_in(pa.chunked_array(column).cast(pa.string()), value_set=ids)
    return np.asarray(codes.to_numpy(), np.int64)


@kernel
def component_roots(left: NDArray[np.int64], right: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    """The smallest node of each node's component.

    Args:
        left: (num_pairs,) nodes, 0 <= node < num_nodes.
        right: (num_pairs,)
        num_nodes: the number of nodes.

    Returns:
        (num_nodes,)
    """
    parents = np.arange(num_nodes)
    for pair in range(len(left)):
        a = _root(parents, left[pair])
        b = _root(parents, right[pair])
        if a < b:
            parents[b] = a
        elif b < a:
            parents[a] = b
    for node in range(num_nodes):  # parents are never larger, so they are final before their children
        parents[node] = parents[parents[node]]
    return parents


@kernel
def _root(parents: NDArray[np.int64], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
