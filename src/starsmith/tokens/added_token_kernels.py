"""Where a text holds added tokens: the tokens that are recognised as they stand, before words are split.

As in the library, matches are searched from the left, the longest token that stands at a place is taken, and the
search goes on after it. A token that is not to be recognised takes part in the search, since it may cover the
beginning of one that is; where no two can overlap it is better left out.
"""

import numpy as np
from numpy.typing import NDArray

from starsmith.corpus.kernels import kernel


@kernel
def added_tokens(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    tokens: NDArray[np.uint8],
    token_offsets: NDArray[np.int64],
    token_ids: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:
    """Finds the tokens in each text.

    Args:
        data: UTF-8.
        offsets: (texts + 1,) of the texts in `data`.
        tokens: the bytes of the tokens, longer ones before shorter ones.
        token_offsets: (tokens + 1,) of the tokens.
        token_ids: (tokens,) negative where the token stays text.
        found: (room, 3) receives start, end and id of each match.

    Returns:
        The number of matches, which may be more than there is room for.
    """
    num_found = 0
    opens = np.zeros(256, np.bool_)
    for token in range(len(token_ids)):
        opens[tokens[token_offsets[token]]] = True
    for text in range(len(offsets) - 1):
        at, stop = offsets[text], offsets[text + 1]
        while at < stop:
            if not opens[data[at]]:
                at += 1
                continue
            following = at + 1
            for token in range(len(token_ids)):
                begin, end = token_offsets[token], token_offsets[token + 1]
                length = end - begin
                if at + length > stop:
                    continue
                same = 0
                while same < length and data[at + same] == tokens[begin + same]:
                    same += 1
                if same == length:
                    following = at + length
                    if token_ids[token] >= 0:
                        if num_found < len(found):
                            found[num_found, 0] = at
                            found[num_found, 1] = following
                            found[num_found, 2] = token_ids[token]
                        num_found += 1
                    break
            at = following
    return num_found
