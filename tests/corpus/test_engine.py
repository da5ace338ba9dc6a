"""The engine's contract, for one process and for several."""

import os
import time

import pytest

from starsmith.corpus.engine import map_parallel
from starsmith.errors import InputError, MachineError


def square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def refuse(number: int) -> int:
    if number == 3:
        raise InputError(f"not {number}")
    return number


def die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), 9)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_stand_in_the_items_order(workers: int) -> None:
    seen: list[tuple[int, int]] = []
    outcome = map_parallel(square, range(7), workers=workers, progress=lambda *step: seen.append(step))
    assert outcome == [number * number for number in range(7)]
    assert seen[0] == (0, 7)
    assert seen[-1] == (7, 7)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_function_reaches_the_caller(workers: int) -> None:
    with pytest.raises(InputError, match="not 3"):
        map_parallel(refuse, range(6), workers=workers)


def test_a_dead_worker_is_a_clear_error() -> None:
    with pytest.raises(MachineError, match="worker process died while die ran"):
        map_parallel(die, range(4), workers=2)


def process_of(_: int) -> int:
    return os.getpid()


def test_isolated_items_are_never_in_the_callers_process() -> None:
    assert map_parallel(process_of, [1], workers=2) == [os.getpid()]
    for items in ([], [1], [1, 2]):
        found = map_parallel(process_of, items, workers=1, isolated=True)
        assert len(found) == len(items) and os.getpid() not in found


@pytest.mark.parametrize("workers", [1, 2])
def test_no_items(workers: int) -> None:
    assert map_parallel(square, [], workers=workers) == []
