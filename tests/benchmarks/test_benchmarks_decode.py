"""The limit that decoding is measured against: the table of bandwidths, and the bytes of a token."""

import dataclasses

import pytest

from starsmith.model.configuration import num_parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 3.35e12),
        ("NVIDIA H100 PCIe", 2.0e12),
        ("NVIDIA H100 NVL", 3.9e12),
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA A100-SXM4-80GB", 2.039e12),
        ("NVIDIA A100 80GB PCIe", 1.935e12),
        ("NVIDIA A100-SXM4-40GB", 1.555e12),
        ("NVIDIA L40S", 0.864e12),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA GeForce RTX 9999", None),
    ],
)
def test_bandwidths(name, expected):
    from benchmarks.decode import device_bandwidth

    assert device_bandwidth(name) == pytest.approx(expected)


def test_every_name_has_one_bandwidth():
    """The first match decides, so no pattern may hide another's device."""
    import re

    from benchmarks.decode import BANDWIDTHS

    for name in (
        "NVIDIA H100 PCIe",
        "NVIDIA H100",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA L4",
        "NVIDIA L40",
        "NVIDIA A30",
    ):
        assert sum(bool(re.fullmatch(pattern, name)) for pattern, _ in BANDWIDTHS) == 1


def test_a_token_reads_every_weight_and_the_window():
    from benchmarks.decode import PUBLISHED_3B, bytes_per_token

    assert num_parameters(PUBLISHED_3B) == 3_030_371_328
    assert bytes_per_token(PUBLISHED_3B, 0) == 2 * 3_030_371_328
    a_key = bytes_per_token(PUBLISHED_3B, 1) - bytes_per_token(PUBLISHED_3B, 0)
    assert a_key == 30 * 1024  # 30 KiB a token
    assert bytes_per_token(PUBLISHED_3B, 10_000) == bytes_per_token(PUBLISHED_3B, 4_096)
    untied = dataclasses.replace(PUBLISHED_3B, tie_word_embeddings=False)
    assert bytes_per_token(untied, 0) == 2 * (3_030_371_328 + 3_072)
