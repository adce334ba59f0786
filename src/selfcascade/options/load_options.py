"""What a call can say of the model: which is loaded, what is added to it, how it runs. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from selfcascade.options.checks import Sides, Text
from selfcascade.options.use import MODEL, SAMPLE, Use, of_model

Dtype = Literal["float32", "float16", "bfloat16"]


class LoadOptions(BaseModel):
    """What is loaded, and how it runs; None where the model decides."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    model: Annotated[
        Text,
        of_model(
            "'bundled', 'bundled-video', a folder in diffusers' format, or a Hub id.",
            "bundled, or bundled-video where an option or a file is for clips",
            commands=MODEL | SAMPLE,
        ),
    ] = "bundled"
    device: Annotated[Text | None, of_model("cpu, cuda, cuda:1 or mps.", "the best there is")] = None
    dtype: Annotated[
        Dtype | None, Use("Precision of the weights.", "float16 on a GPU, else float32", SAMPLE, passed=False)
    ] = None
    native_size: Annotated[
        Sides | None, Use("Size the model was trained at.", "as the model says", MODEL, metavar="HxW")
    ] = None
