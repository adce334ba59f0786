"""Schedulers by familiar names, parsed without torch: "euler-a", "DPM++ 2M Karras", or a class of diffusers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from selfcascade.options.checks import nearest, shown

# Short names, with the diffusers class and the settings that are changed in the model's own configuration.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2-a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm++-2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpm++-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpm++-3m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "dpm++-2s": ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}),
    "deis": ("DEISMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
# Words after a name: how the noise levels are spaced.
SPACINGS: dict[str, dict[str, Any]] = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "trailing": {"timestep_spacing": "trailing"},
    "leading": {"timestep_spacing": "leading"},
    "linspace": {"timestep_spacing": "linspace"},
}
CLASS = re.compile(r"[A-Z][A-Za-z0-9]{1,60}Scheduler")


@dataclass(frozen=True)
class NamedScheduler:
    """A parsed scheduler name.

    Attributes:
        name: The name as given.
        kind: Name of the class in diffusers.
        settings: Settings that the name implies.
    """

    name: str
    kind: str
    settings: dict[str, Any]


def parse_scheduler(name: str) -> NamedScheduler:
    """Parses a scheduler's name; capitals, spaces, dashes and underscores do not matter.

    Raises:
        ValueError: The scheduler is unknown, or the name has two spacings.
    """
    words = name.split()
    settings: dict[str, Any] = {}
    if words and CLASS.fullmatch(words[0]):
        kind, rest = words[0], [word.lower() for word in words[1:]]
    else:
        text = re.sub(r"[\s_-]+", "-", name.strip().lower())
        short = max((one for one in SCHEDULERS if f"{text}-".startswith(f"{one}-")), key=len, default="")
        if not short:
            known = ", ".join(SCHEDULERS)
            raise ValueError(f"must be one of {known}, or a class of diffusers, not {shown(name)}{_meant(text)}")
        kind, own = SCHEDULERS[short]
        settings, rest = dict(own), [word for word in text.removeprefix(short).split("-") if word]
    for word in rest:
        if word not in SPACINGS:
            raise ValueError(f"{shown(name)} ends in {word!r}; what may follow a name is {', '.join(SPACINGS)}")
        if any(key.split("_")[0] == own.split("_")[0] for key in SPACINGS[word] for own in settings):
            raise ValueError(f"{shown(name)} has two spacings; leave one of them out")
        settings |= SPACINGS[word]
    return NamedScheduler(name, kind, settings)


def _meant(text: str) -> str:
    return nearest(text, SCHEDULERS)
