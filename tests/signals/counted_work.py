"""Counts the bytes that a kernel reads, so that "linear" can be tested without a clock."""

import numpy as np


class CountedBytes(np.ndarray):
    """Bytes that count how often one of them is read."""

    reads = 0

    def __getitem__(self, key):
        if isinstance(key, slice):
            return super().__getitem__(key)
        CountedBytes.reads += 1
        return int(super().__getitem__(key))

    def __iter__(self):
        return (self[position] for position in range(len(self)))


def reads_per_byte(monkeypatch, modules, kernel, text):
    """Runs `kernel(data)` with every compiled function of `modules` interpreted; reads for each byte of `text`."""
    data = np.frombuffer(text.encode(), np.uint8).view(CountedBytes)
    with monkeypatch.context() as patch:
        for module in modules:
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
        CountedBytes.reads = 0
        kernel(data)
    return CountedBytes.reads / len(data)
