"""Keys and values of the tokens already read, in a ring of at most one window.

A position never sees more than `sliding_window` keys, so older ones are overwritten: the memory of a long
generation is bounded by the window. The slot of a token is its place in the sequence modulo the ring's size;
the order of the keys does not matter to attention, since rotary positions are already in them.

All rows of a batch advance together. Prompts of different length are padded on the left and the padding is
given another document number (see `Starcoder2.forward`), so that no token sees it.
"""

import torch
from torch import Tensor

from starsmith.model.attention import Block, Visibility, visibility, visible
from starsmith.model.configuration import Starcoder2Config


class KeyValueCache:
    """Room for `num_tokens` tokens of `num_rows` sequences, or for one window where that is less."""

    def __init__(
        self,
        config: Starcoder2Config,
        num_rows: int,
        num_tokens: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.window = config.sliding_window
        self.size = num_tokens if self.window is None else min(self.window, num_tokens)
        self.num_tokens = num_tokens
        self.length = 0
        """Tokens read so far, padding included."""
        shape = (num_rows, config.num_key_value_heads, self.size, config.head_dim)
        self._k_BKSD = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self._v_BKSD = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)]
        self._index_S = torch.full((self.size,), -1, device=device)
        self._documents_BS = torch.zeros((num_rows, self.size), dtype=torch.int64, device=device)
        self._one_document = True

    def open(self, num_tokens: int, documents_BT: Tensor | None) -> Visibility:
        """Announces the next tokens: what they see, in the order in which `extend` returns the keys."""
        if self.length + num_tokens > self.num_tokens:
            raise ValueError(f"the cache has room for {self.num_tokens} tokens, not {self.length + num_tokens}")
        device = self._index_S.device
        if documents_BT is None:
            documents_BT = torch.zeros((len(self._documents_BS), num_tokens), dtype=torch.int64, device=device)
        else:
            self._one_document = False
        index_T = torch.arange(self.length, self.length + num_tokens, device=device)
        if self.length == 0:
            seen = visibility(num_tokens, self.window, None if self._one_document else documents_BT, device)
            self._note(index_T, documents_BT)
        elif num_tokens == 1:
            self._note(index_T, documents_BT)
            seen = (self._block(index_T, documents_BT, self._index_S, self._documents_BS),)
        else:
            index_S = torch.cat((self._index_S, index_T))
            documents_BS = torch.cat((self._documents_BS, documents_BT), dim=1)
            seen = (self._block(index_T, documents_BT, index_S, documents_BS),)
            self._note(index_T, documents_BT)
        return seen

    def extend(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Stores a layer's new keys and values; returns those to attend to."""
        ring_k, ring_v = self._k_BKSD[layer], self._v_BKSD[layer]
        num_new = k_BKTD.shape[2]
        if num_new == 1:  # the slot written is the one that has just left the window
            slot = self.length % self.size
            ring_k[:, :, slot], ring_v[:, :, slot] = k_BKTD[:, :, 0], v_BKTD[:, :, 0]
            return (ring_k, ring_v) if self.length else (k_BKTD, v_BKTD)
        if self.length:
            k_BKSD, v_BKSD = torch.cat((ring_k, k_BKTD), dim=2), torch.cat((ring_v, v_BKTD), dim=2)
        else:
            k_BKSD, v_BKSD = k_BKTD, v_BKTD
        kept = min(num_new, self.size)
        slots = self._slots(num_new, kept)
        ring_k[:, :, slots], ring_v[:, :, slots] = k_BKTD[:, :, -kept:], v_BKTD[:, :, -kept:]
        return k_BKSD, v_BKSD

    def close(self, num_tokens: int) -> None:
        """Ends the forward pass that `open` began."""
        self.length += num_tokens

    def select(self, rows: Tensor) -> None:
        """Keeps some rows, in the order given."""
        self._k_BKSD = [ring[rows] for ring in self._k_BKSD]
        self._v_BKSD = [ring[rows] for ring in self._v_BKSD]
        self._documents_BS = self._documents_BS[rows]

    def _block(self, index_T: Tensor, documents_BT: Tensor, index_S: Tensor, documents_BS: Tensor) -> Block:
        everything = slice(0, len(index_T)), slice(0, len(index_S))
        if self._one_document and len(index_T) == 1 and self.length + 1 >= self.size:
            return Block(*everything, None)  # the ring is full of exactly what is visible
        mask_BTS = visible(index_T[None], index_S[None], self.window) & (index_S >= 0)
        if not self._one_document:
            mask_BTS = mask_BTS & (documents_BT[:, :, None] == documents_BS[:, None, :])
        return Block(*everything, mask_BTS[:, None])

    def _note(self, index_T: Tensor, documents_BT: Tensor) -> None:
        kept = min(len(index_T), self.size)
        slots = self._slots(len(index_T), kept)
        self._index_S[slots] = index_T[-kept:]
        self._documents_BS[:, slots] = documents_BT[:, -kept:]

    def _slots(self, num_new: int, kept: int) -> Tensor:
        first = self.length + num_new - kept
        return torch.arange(first, first + kept, device=self._index_S.device) % self.size
