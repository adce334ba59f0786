"""What counts as a number."""

import math
from typing import Any

import pytest

from selfcascade.options.checks import is_number, is_whole


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (1, True, True),
        (7, True, True),
        (0, False, False),
        (8, False, False),
        (1.0, False, True),
        (7.5, False, False),
        (True, False, False),
        (math.nan, False, False),
        (math.inf, False, False),
        ("3", False, False),
        (None, False, False),
        ([3], False, False),
    ],
)
def test_numbers_lie_in_a_range_and_are_neither_truth_values_nor_text(value: Any, whole: bool, number: bool) -> None:
    assert is_whole(value, 1, 7) is whole
    assert is_number(value, 1, 7) is number


def test_without_a_range_whole_numbers_begin_at_one_and_numbers_nowhere() -> None:
    assert is_whole(10**30) and not is_whole(0)
    assert is_number(-math.inf) and is_number(0) and not is_number(math.nan)
