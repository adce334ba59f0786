"""Methods say what they take; all else is refused before a model is looked at, and others can add theirs."""

from typing import Any

import pytest

from selfcascade import METHODS, Method, SelfCascadeOutput, register_method
from selfcascade.methods import MethodRequest
from selfcascade.options import uses
from selfcascade.options.checks import OptionError
from selfcascade.options.methods import METHOD_OPTIONS

# Which values a name may have is another question, asked later.
VALUES: dict[str, Any] = {name: "any" for name, use in uses().items() if use.passed and use.taken_by != "all"}


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_refuses_what_it_does_not_take_before_a_model_is_looked_at(name: str, option: str) -> None:
    method = METHODS[name]
    if method.accepts(option):
        return
    needed = {need: VALUES[need] for need in method.needs}
    others = [other for other in METHODS if METHODS[other].accepts(option)]
    with pytest.raises(OptionError, match=f"^{option} is for .*, not for {name}$") as told:
        method(None, "a", height=64, width=64, **needed, **{option: VALUES[option]})  # type: ignore[arg-type]
    assert all(other in str(told.value) for other in others)
    method.check(needed)


@pytest.mark.parametrize("name", ["full-ft", "lora"])
def test_fine_tuned_weights_take_options_of_the_cascade_in_a_cascade_alone(name: str) -> None:
    given = {"weights": "folder", "pivot_step": 700}
    with pytest.raises(OptionError, match=f"^pivot_step needs in_cascade with method {name}$"):
        METHODS[name].check(given)
    METHODS[name].check({**given, "in_cascade": True})


def test_a_method_s_own_option_has_its_range() -> None:
    for name, option, value in (("scalecrafter", "dilated_share", 2), ("sr", "noise_level", True)):
        needed = {need: VALUES[need] for need in METHODS[name].needs}
        with pytest.raises(OptionError, match=f"^{option} must be"):
            METHODS[name](None, "a", height=64, width=64, **needed, **{option: value})  # type: ignore[arg-type]


def test_a_method_from_outside_is_registered() -> None:
    class Twice(Method):
        """The base sample alone, for this test."""

        name = "twice"
        summary = "for this test"
        takes = frozenset({"dilated_share"})

        def make(self, request: MethodRequest) -> SelfCascadeOutput:
            return SelfCascadeOutput(request.arguments["dilated_share"], None, [])

    class Unknown(Twice):
        """As that one."""

        takes = frozenset({"glow"})

    try:
        assert register_method(Twice()) is METHODS["twice"]
        assert METHODS["twice"](None, "a", height=64, width=64, dilated_share=0.5).images == 0.5  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="method 'twice' exists already"):
            register_method(Twice())
        with pytest.raises(OptionError, match="scalecrafter and twice, not for direct"):
            METHODS["direct"].check({"dilated_share": 0.5})
    finally:
        METHODS.pop("twice", None)
        METHOD_OPTIONS.pop("twice", None)
    with pytest.raises(ValueError, match="method twice takes glow, which Options does not have"):
        register_method(Unknown())
    with pytest.raises(ValueError, match="must be an instance"):
        register_method(Twice)  # type: ignore[arg-type]
