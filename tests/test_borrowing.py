"""What a stage borrows is given back, however the stage ends."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from selfcascade.base_models.borrowing import hooks_in_place, remembering, replacing_attributes, same_values


@pytest.mark.parametrize("fails", ["nowhere", "within", "between"])
def test_hooks_are_removed_after_errors_too(fails: str) -> None:
    layer, calls = nn.Linear(2, 2), []

    def register() -> Iterator[RemovableHandle]:
        yield layer.register_forward_pre_hook(lambda *_: calls.append("before"))
        if fails == "between":
            raise RuntimeError(fails)
        yield layer.register_forward_hook(lambda *_: calls.append("after"))

    try:
        with hooks_in_place(register()):
            layer(torch.zeros(1, 2))
            if fails == "within":
                raise RuntimeError(fails)
    except RuntimeError as error:
        assert str(error) == fails
    assert calls == ([] if fails == "between" else ["before", "after"])
    assert not layer._forward_hooks and not layer._forward_pre_hooks


def test_attributes_are_given_back_and_those_that_were_none_go() -> None:
    pipe: Any = SimpleNamespace(scheduler="own")
    with pytest.raises(KeyboardInterrupt), replacing_attributes(pipe, {"scheduler": "stage's", "encode_prompt": 1}):
        assert (pipe.scheduler, pipe.encode_prompt) == ("stage's", 1)
        raise KeyboardInterrupt
    assert vars(pipe) == {"scheduler": "own"}


def test_a_prompt_is_encoded_once_for_the_same_arguments() -> None:
    calls: list[Any] = []
    encode = remembering(lambda *args, **named: calls.append((args, named)) or len(calls))
    embeds = torch.ones(2)
    made = [
        encode("a", 1, embeds=[embeds]),
        encode("a", 1, embeds=[embeds.clone()]),
        encode("a", True, embeds=[embeds]),
    ]
    assert made == [1, 1, 2]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), False),
        (torch.ones(2), torch.ones(1, 2), False),
        ({"a": [1, (2.0, None)]}, {"a": [1, (2.0, None)]}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1], False),
        (1, True, False),
        ("a", "a", True),
        (torch.device("cpu"), torch.device("cpu"), True),
        (torch.ones(1), 1.0, False),
    ],
)
def test_arguments_are_alike_by_what_they_hold(a: Any, b: Any, same: bool) -> None:
    assert same_values(a, b) is same
