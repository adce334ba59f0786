"""The options about the model: which one is loaded, what is added to it, how it runs. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from selfcascade.options.checks import OptionError, Sides, Text, Texts
from selfcascade.options.schedulers import parse_scheduler
from selfcascade.options.use import MODEL, SAMPLE, Use, of_addition, of_model

Dtype = Literal["float32", "float16", "bfloat16"]
Offload = Literal["model", "sequential", "group"]


def _scheduler(name: str) -> str:
    parse_scheduler(name)
    return name


SchedulerName = Annotated[Text, AfterValidator(_scheduler)]
Weight = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
# Options that need another one.
PAIRS = (
    ("controlnet", "control_image"),
    ("control_image", "controlnet"),
    ("control_scale", "controlnet"),
    ("ip_adapter", "ip_image"),
    ("ip_image", "ip_adapter"),
    ("ip_scale", "ip_adapter"),
)


class LoadOptions(BaseModel):
    """What is loaded and how it runs. None leaves a value to the model."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    model: Annotated[
        Text,
        of_model(
            "'bundled', 'bundled-video', a folder in diffusers' format, a .safetensors checkpoint, or a Hub id.",
            "bundled, or bundled-video where an option or a file is for clips",
            commands=MODEL | SAMPLE,
        ),
    ] = "bundled"
    config: Annotated[
        Text | None,
        of_model(
            "For a checkpoint: a folder in diffusers' format with the same kind of model; its weights are not read.",
            "the original model's, from the local cache or the Hub",
            metavar="DIR",
        ),
    ] = None
    device: Annotated[Text | None, of_model("cpu, cuda, cuda:1 or mps.", "the best there is")] = None
    dtype: Annotated[
        Dtype | None, Use("Precision of the weights.", "float16 on a GPU, else float32", SAMPLE | {"web"}, passed=False)
    ] = None
    native_size: Annotated[
        Sides | None, Use("Size the model was trained at.", "as the model says", MODEL, metavar="HxW")
    ] = None
    scheduler: Annotated[
        SchedulerName | None,
        of_model(
            "Such as ddim, euler, euler-a, 'dpm++ 2m karras', unipc; then karras, exponential, beta or trailing.",
            "the model's own",
            metavar="NAME",
        ),
    ] = None
    lora: Annotated[
        Texts | None,
        of_addition(
            "LoRA: a .safetensors file, a folder or a Hub id, with its strength; repeat the option to add more.",
            metavar="PATH[:SCALE]",
        ),
    ] = None
    controlnet: Annotated[
        Text | None, of_addition("ControlNet: a folder in diffusers' format, or a Hub id.", metavar="PATH")
    ] = None
    control_image: Annotated[
        Text | None, of_addition("Picture for the ControlNet: edges, depth, a pose.", metavar="FILE")
    ] = None
    control_scale: Annotated[Weight | None, of_addition("Strength of the ControlNet.", "1")] = None
    ip_adapter: Annotated[
        Text | None,
        of_addition(
            "IP-Adapter: a .safetensors file with image_encoder/ beside it, or OWNER/NAME/FILE on the Hub.",
            metavar="PATH",
        ),
    ] = None
    ip_image: Annotated[Text | None, of_addition("Picture for the IP-Adapter to follow.", metavar="FILE")] = None
    ip_scale: Annotated[Weight | None, of_addition("Strength of the IP-Adapter.", "1")] = None
    offload: Annotated[
        Offload | None,
        of_addition(
            "Keep on the GPU only what is running: one model of the pipeline, one layer, or one group of layers.",
            "everything on the GPU",
            recorded=False,
        ),
    ] = None
    compile: Annotated[bool | None, of_addition("Compile the network's repeated blocks before the first step.")] = None
    channels_last: Annotated[bool | None, of_addition("Use the channels-last memory format.")] = None
    autocast: Annotated[
        bool | None, of_addition("Compute in bfloat16 without converting the weights; the CPU must support it.")
    ] = None
    files_sha256: Annotated[
        dict[str, str] | None, of_addition("SHA-256 of each of those files.", commands=frozenset())
    ] = None

    @model_validator(mode="after")
    def _has_what_belongs_together(self) -> Self:
        for name, other in PAIRS:
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise OptionError(f"{{{name}}} needs {{{other}}}")
        if self.config is not None and not self.model.endswith(".safetensors"):
            raise OptionError("{config} is for {model} of a .safetensors file, not for {found}", found=repr(self.model))
        return self
