"""Which options each method takes and needs, known before a method is loaded. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from selfcascade.options.call_options import uses
from selfcascade.options.checks import OptionError, joined, shown

Names = frozenset[str]


class MethodOptions:
    """Which options a method takes.

    Attributes:
        name: Name in `selfcascade.METHODS` and on the command line.
        from_base: Whether it enlarges the base model's own sample, and so takes one as `pivot`.
        takes: Options that it takes in addition to those of all methods. Two words stand for several: "cascade" for
            options of stages with a pivot, "image" for those that enlarge a user's picture.
        needs: Options that it requires.
        cascade_needs: Option without which it takes no option of the cascade. None if there is no such option.
    """

    name: str
    from_base: bool = False
    takes: Names = frozenset()
    needs: Names = frozenset()
    cascade_needs: str | None = None

    @final
    def accepts(self, option: str) -> bool:
        """Whether the method takes the option."""
        word = uses()[option].taken_by
        return word == "all" or bool({word, option} & self.takes) or (option == "pivot" and self.from_base)

    def check(self, given: Mapping[str, object]) -> None:
        """Checks, without a model, that the method takes all given options, and that required ones are given.

        Args:
            given: The given options, by name.

        Raises:
            OptionError: It does not take an option, or one is missing. The message names the option and its methods.
        """
        for option in given:
            if not self.accepts(option):
                raise OptionError(f"{{{option}}} is for {{takers}}, not for {self.name}", takers=takers(option))
        for option in sorted(self.needs - set(given)):
            raise OptionError(f"method {self.name} needs {{{option}}}: {{what}}", what=uses()[option].help)
        of_cascade = [name for name in given if is_of_cascade(name)]
        if of_cascade and self.cascade_needs is not None and not given.get(self.cascade_needs):
            raise OptionError(f"{{{of_cascade[0]}}} needs {{{self.cascade_needs}}} with method {self.name}")


@dataclass(frozen=True)
class BuiltIn(MethodOptions):
    """A method of the package, with the attributes of `MethodOptions`."""

    name: str
    from_base: bool = False
    takes: Names = frozenset()
    needs: Names = frozenset()
    cascade_needs: str | None = None


STAGES: Names = frozenset({"cascade", "vae_tiling"})
DIRECT: Names = frozenset({"vae_tiling"})
WEIGHTS: Names = frozenset({"weights"})

# All methods by name, in the order of lists: those of the package, then registered ones.
METHOD_OPTIONS: dict[str, MethodOptions] = {
    one.name: one
    for one in (
        BuiltIn("direct", takes=DIRECT),
        BuiltIn("attn-sf", takes=DIRECT),
        BuiltIn("scalecrafter", takes=DIRECT | {"dilated_share"}),
        BuiltIn("hidiffusion", takes=DIRECT),
        BuiltIn("self-cascade", True, takes=STAGES | {"image"}),
        BuiltIn("self-cascade-tuned", True, takes=STAGES | {"image", "upsamplers"}, needs=frozenset({"upsamplers"})),
        BuiltIn("restart-late", True, takes=STAGES),
        BuiltIn("full-ft", takes=STAGES | WEIGHTS | {"in_cascade"}, needs=WEIGHTS, cascade_needs="in_cascade"),
        BuiltIn("lora", takes=STAGES | WEIGHTS | {"in_cascade"}, needs=WEIGHTS, cascade_needs="in_cascade"),
        BuiltIn("sr", True, takes=WEIGHTS | {"noise_level"}, needs=WEIGHTS),
        BuiltIn("lanczos", True),
    )
}


def takers(option: str) -> str:
    """Names the methods that take an option: 'method a', or 'methods a, b and c'."""
    names = [one.name for one in METHOD_OPTIONS.values() if one.accepts(option)]
    return f"method{'s' * (len(names) > 1)} {joined(names, 'and')}" if names else "SelfCascade"


def is_of_cascade(option: str) -> bool:
    """Whether an option is one of the stages that start from a pivot."""
    return option in uses() and uses()[option].taken_by == "cascade"


def method_options(name: str) -> MethodOptions:
    """The options of the method of this name.

    Raises:
        OptionError: There is no such method.
    """
    if name not in METHOD_OPTIONS:
        raise OptionError(
            "{method} must be one of {known}, not {found}", known=", ".join(METHOD_OPTIONS), found=shown(name)
        )
    return METHOD_OPTIONS[name]
