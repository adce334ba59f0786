"""Pictures that an IP-Adapter follows, and embeddings in their place; pipelines encode them anew at each stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfcascade.options.checks import OptionError

# Their calls loop over the embeddings they are given, and fail where there is a picture instead (diffusers 0.42).
EMBEDS_ONLY = frozenset({"KolorsPAGPipeline"})
WRITTEN_TO = ("ip_adapter_image_embeds", "joint_attention_kwargs")


def check_image_prompt(pipe: object, arguments: Mapping[str, Any]) -> None:
    """Raises OptionError if a picture is given to a pipeline that takes embeddings only."""
    kinds = {kind.__name__ for kind in type(pipe).__mro__}
    if kinds & EMBEDS_ONLY and arguments.get("ip_adapter_image") is not None:
        raise OptionError(
            f"{{ip_adapter_image}} cannot be given to a {type(pipe).__name__}, whose call fails with a picture; "
            f"give {{ip_adapter_image_embeds}}, from its prepare_ip_adapter_image_embeds, or use KolorsPipeline"
        )


def own_copies(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of the lists and dictionaries that some pipelines write to: each stage gets what the caller gave."""
    given = {name: arguments.get(name) for name in WRITTEN_TO}
    return {name: value.copy() for name, value in given.items() if isinstance(value, (list, dict))}
