"""Keys and values of the tokens already read, in a ring of at most one window.

A position never sees more than `sliding_window` keys, so older ones are overwritten: the memory of a long
generation is bounded by the window. The slot of a token is its place in the sequence modulo the ring's size;
the order of the keys does not matter to attention, since rotary positions are already in them.

Each row has its own place. Prompts of different length are padded on the right: causality hides the padding from
the prompt, and it is never written into a ring, so that a row goes on from its own end as if it were alone. A
prompt may be read in several chunks, which bounds the memory that reading takes. After that every row takes one
token a step, and a step is a fixed series of operations on tensors that keep their place and shape: a CUDA graph
can hold it. What grows is only how much of a ring is looked at, in doublings.

Shape suffixes as in `starcoder2.py`; S is slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from starsmith.model.attention import AttentionBackend, Seen, Slots, UsedSlots, blocks, choose, see
from starsmith.model.configuration import Starcoder2Config

_LEAST_WIDTH = 128  # slots that are looked at however few are filled


@dataclass(frozen=True)
class Chunk:
    """How several tokens a row enter the rings."""

    source: Tensor
    """(B, S); for each slot, which of the new tokens is written there; negative where the slot stays as it is."""
    is_first: bool
    """Nothing was read before."""

    def extend(self, ring_BSKD: Tensor, new_BTKD: Tensor) -> Tensor:
        keys_BSKD = new_BTKD if self.is_first else torch.cat((ring_BSKD, new_BTKD), dim=1)
        row_B1 = torch.arange(len(new_BTKD), device=new_BTKD.device)[:, None]
        written_BSKD = new_BTKD[row_B1, self.source.clamp(min=0)]
        ring_BSKD.copy_(torch.where(self.source[:, :, None, None] >= 0, written_BSKD, ring_BSKD))
        return keys_BSKD


@dataclass(frozen=True)
class Step:
    """How one token a row enters the rings: into the slot that has just left the window."""

    rows: Tensor
    slots: Tensor
    """(B,) of each row."""
    width: int
    """Slots that are looked at."""

    def extend(self, ring_BSKD: Tensor, new_B1KD: Tensor) -> Tensor:
        ring_BSKD[self.rows, self.slots] = new_B1KD[:, 0]
        return ring_BSKD[:, : self.width]


@dataclass(frozen=True)
class Ring:
    """One layer's keys and values, and what this forward pass adds to them."""

    keys: Tensor
    values: Tensor
    """(B, S, K, D)"""
    entry: Chunk | Step

    def extend(self, k_BTKD: Tensor, v_BTKD: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values; returns those to attend to."""
        return self.entry.extend(self.keys, k_BTKD), self.entry.extend(self.values, v_BTKD)


@dataclass(frozen=True)
class Opening:
    """What a forward pass over the next tokens works with."""

    seen: Seen
    positions: Tensor
    """(B or 1, T), of RoPE."""
    rings: list[Ring]


class KeyValueCache:
    """Room for `num_tokens` tokens of `num_rows` sequences, or for one window where that is less."""

    def __init__(
        self,
        config: Starcoder2Config,
        num_rows: int,
        num_tokens: int,
        *,
        prompt_lengths: Sequence[int] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        backend: AttentionBackend | None = None,
    ) -> None:
        """Allocates the rings.

        Args:
            num_tokens: most tokens of a row, padding included.
            prompt_lengths: of each row, where the prompts that are read first are padded on the right.
            backend: of attention; None for the best.
        """
        self.window = config.sliding_window
        self.size = num_tokens if self.window is None else min(self.window, num_tokens)
        self.num_tokens = num_tokens
        self.length = 0
        """Tokens read so far by the longest row, padding included."""
        self._device = torch.zeros((), device=device).device
        self.backend = choose(self._device, dtype, config.head_dim, backend)
        shape = (num_rows, self.size, config.num_key_value_heads, config.head_dim)
        self._k_BSKD = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self._v_BSKD = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self._slot_S = torch.arange(self.size, device=device)
        is_ragged = prompt_lengths is not None and len(set(prompt_lengths)) > 1
        self._prompt_B = torch.tensor(prompt_lengths, device=device) if is_ragged else None
        self._prompt_width = max(prompt_lengths) if prompt_lengths is not None and is_ragged else 0
        self._length_B = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._place_rows(num_rows)

    @property
    def num_rows(self) -> int:
        return len(self._length_B)

    @property
    def _reads_prompts(self) -> bool:
        """Rows of different length are read side by side."""
        return self.length < self._prompt_width

    @property
    def width(self) -> int:
        """Slots that the next single token looks at: a power of two, or the whole ring."""
        filled = min(self.length + 1, self.size)
        return min(self.size, max(_LEAST_WIDTH, 1 << (filled - 1).bit_length()))

    def open(self, num_tokens: int) -> Opening:
        """Prepares for the next tokens of every row; `close` ends what this begins.

        One token a row: only tensors are used that keep their place, and nothing depends on their values.
        """
        if self.length + num_tokens > self.num_tokens:
            raise ValueError(f"the cache has room for {self.num_tokens} tokens, not {self.length + num_tokens}")
        if self._reads_prompts:
            if self.length + num_tokens > self._prompt_width:
                raise ValueError(f"{num_tokens} tokens reach past the end of the longest prompt")
            return self._open_chunk(num_tokens)
        if num_tokens == 1:
            return self._open_step()
        if self._prompt_B is not None:
            raise ValueError("rows of different length take one token at a time after their prompts")
        return self._open_chunk(num_tokens)

    def close(self, num_tokens: int) -> None:
        """Ends the forward pass that `open` began."""
        if self._reads_prompts and self._prompt_B is not None:
            self._length_B.copy_(self._prompt_B.clamp(max=self.length + num_tokens))
        else:
            self._length_B += num_tokens
        self.length += num_tokens

    def select(self, rows: Tensor) -> None:
        """Keeps some rows, in the order given."""
        self._k_BSKD = [ring[rows] for ring in self._k_BSKD]
        self._v_BSKD = [ring[rows] for ring in self._v_BSKD]
        self._length_B = self._length_B[rows]
        self._prompt_B = None if self._prompt_B is None else self._prompt_B[rows]
        self._place_rows(len(rows))

    def _place_rows(self, num_rows: int) -> None:
        self._row_B = torch.arange(num_rows, device=self._device)
        self._query_bounds_N = torch.arange(num_rows + 1, dtype=torch.int32, device=self._device)
        self._key_bounds_N = self._query_bounds_N * self.size

    def _open_step(self) -> Opening:
        slot_B = self._length_B % self.size
        seen: Seen
        if self.backend == "varlen":
            width = self.size
            num_B = (self._length_B + 1).clamp(max=self.size).int()
            seen = UsedSlots(num_B, self._query_bounds_N, self._key_bounds_N)
        else:
            width = self.width
            seen = Slots((self._slot_S[:width] <= self._length_B[:, None])[:, None, None])
        return Opening(seen, self._length_B[:, None], self._rings(Step(self._row_B, slot_B, width)))

    def _open_chunk(self, num_tokens: int) -> Opening:
        """Rows read their prompts side by side, from the same place on."""
        place_T = torch.arange(self.length, self.length + num_tokens, device=self._device)
        end_B = torch.full_like(self._length_B, self.length + num_tokens)
        if self._prompt_B is not None:
            end_B = torch.minimum(end_B, self._prompt_B)
        newest_BS = self._newest(end_B[:, None] - 1)
        if self.length == 0:
            seen = see(self.num_rows, num_tokens, self.window, None, device=self._device, backend=self.backend)
        else:
            key_S = torch.cat((self._newest(torch.tensor(self.length - 1, device=self._device)), place_T))
            seen = blocks(place_T, key_S, self.window)
        entry = Chunk((newest_BS - self.length).clamp(min=-1), self.length == 0)
        return Opening(seen, place_T[None], self._rings(entry))

    def _newest(self, last: Tensor) -> Tensor:
        """For each slot, the place of the newest token that belongs there, up to `last`; negative for none."""
        return last - (last - self._slot_S) % self.size

    def _rings(self, entry: Chunk | Step) -> list[Ring]:
        return [Ring(k, v, entry) for k, v in zip(self._k_BSKD, self._v_BSKD, strict=True)]
