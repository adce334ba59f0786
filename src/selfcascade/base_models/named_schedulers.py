"""Makes schedulers by name, with the configuration of the pipeline's own."""

from __future__ import annotations

import inspect
from typing import Any, cast

from selfcascade.base_models.protocols import Scheduler
from selfcascade.options.checks import OptionError
from selfcascade.options.optional import install, is_installed
from selfcascade.options.schedulers import SCHEDULERS, SPACINGS, NamedScheduler, parse_scheduler

# Classes of the same integrators for flow models; the other schedulers accept a flow's sigmas.
OF_FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "EulerDiscreteScheduler": ("FlowMatchEulerDiscreteScheduler", {}),
    "EulerAncestralDiscreteScheduler": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "HeunDiscreteScheduler": ("FlowMatchHeunDiscreteScheduler", {}),
    "LCMScheduler": ("FlowMatchLCMScheduler", {}),
}
# They number their steps by training timesteps as the others do, though diffusers does not list them as compatible.
BESIDE = frozenset({"LCMScheduler", "TCDScheduler"})
NEED_SCIPY = frozenset({"use_beta_sigmas"})
OF_SIGMAS = {setting for own in SPACINGS.values() for setting in own if setting.startswith("use_")}


def scheduler_named(current: Scheduler, name: str, option: str = "scheduler") -> Scheduler:
    """A scheduler of this name, with the configuration of the pipeline's scheduler.

    Args:
        current: The pipeline's scheduler; it is not changed.
        name: A name in `options.schedulers`, or a diffusers class.
        option: Name of the option, for messages.

    Raises:
        OptionError: The class does not exist, does not fit the model, or does not have the spacing.
    """
    named = check_scheduler(name, option)
    kind, settings = named.kind, dict(named.settings)
    flow = is_flow(current)
    if flow:
        kind, settings = _of_flow(named, current, option)
    elif not _fits(current, kind):
        raise OptionError(
            f"{{{option}}} {{found}} does not fit the model, whose scheduler is {type(current).__name__}",
            found=repr(name),
        )
    made: Any = _class_named(kind)
    _check_settings(made, settings, named, option)
    if OF_SIGMAS & set(settings):  # instead of the one that the pipeline's scheduler has
        settings = {**dict.fromkeys(OF_SIGMAS & set(inspect.signature(made).parameters), False), **settings}
    return cast("Scheduler", made.from_config(current.config, **settings))


def check_scheduler(name: str, option: str = "scheduler") -> NamedScheduler:
    """Parses a scheduler's name, and checks it as far as possible without a model.

    Raises:
        OptionError: The scheduler is unknown, or needs a package that is not installed.
    """
    try:
        named = parse_scheduler(name)
    except ValueError as error:
        raise OptionError(f"{{{option}}} {{reason}}", reason=str(error)) from None
    scipy = named.kind == "LMSDiscreteScheduler" or bool(NEED_SCIPY & set(named.settings))
    if scipy and not is_installed("scipy"):
        raise OptionError(f"{{{option}}} {{found}} needs scipy: {{hint}}", found=repr(name), hint=install("scipy"))
    if _class_named(named.kind) is None:
        raise OptionError(f"{{{option}}} {{kind}} is not a scheduler of diffusers", kind=named.kind)
    return named


def is_flow(scheduler: Scheduler) -> bool:
    """Whether the scheduler is one of diffusers' schedulers for flow models."""
    config = scheduler.config
    flow_sigmas = bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
    return flow_sigmas or type(scheduler).__name__.startswith("FlowMatch")


def _of_flow(named: NamedScheduler, current: Scheduler, option: str) -> tuple[str, dict[str, Any]]:
    if named.kind.startswith("FlowMatch"):
        return named.kind, dict(named.settings)
    if named.kind in OF_FLOWS:
        kind, own = OF_FLOWS[named.kind]
        return kind, {**own, **named.settings}
    made: Any = _class_named(named.kind)
    if "use_flow_sigmas" not in inspect.signature(made.__init__).parameters:
        able = [name for name, (kind, _) in SCHEDULERS.items() if kind in OF_FLOWS or _takes_flows(kind)]
        raise OptionError(
            f"{{{option}}} {{found}} is not for flow models like this one; use {', '.join(able)}",
            found=repr(named.name),
        )
    config = current.config
    shift = config.get("shift") or config.get("flow_shift") or 1.0
    flows = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    return named.kind, {**flows, **named.settings}


def _takes_flows(kind: str) -> bool:
    return "use_flow_sigmas" in inspect.signature(cast("Any", _class_named(kind)).__init__).parameters


def _fits(current: Scheduler, kind: str) -> bool:
    compatible: list[type] = getattr(current, "compatibles", [])
    return kind in BESIDE or kind in {one.__name__ for one in [*compatible, type(current)]}


def _class_named(kind: str) -> type | None:
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    found: Any = getattr(diffusers, kind, None)
    return found if isinstance(found, type) and issubclass(found, SchedulerMixin) else None


def _check_settings(kind: Any, settings: dict[str, Any], named: NamedScheduler, option: str) -> None:
    known = inspect.signature(kind.__init__).parameters
    for name in settings:
        if name not in known:
            word = name.removeprefix("use_").replace("_", " ")
            raise OptionError(f"{{{option}}} {{found}}: {kind.__name__} has no {word}", found=repr(named.name))
