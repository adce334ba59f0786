"""Attn-SF: direct inference with self-attention sharpened for the larger number of tokens (Jin et al. 2023)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from typing import Any

from torch import Tensor

from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.family import denoiser
from selfcascade.methods.direct import sampled_at
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.methods.unet_layers import Positional, refuse_compiled, spatial_attention
from selfcascade.pipeline.calls import SelfCascadeOutput


class AttentionScaling(Method):
    """The entropy of attention grows with its N tokens; logits times sqrt(log_{N_train} N) hold it where it was."""

    name = "attn-sf"
    summary = "direct, with self-attention logits multiplied by sqrt(log_Ntrain N)"
    takes = frozenset({"vae_tiling"})

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """The pipeline's output at the target size.

        Raises:
            ValueError: The model has no U-Net, or its projections are fused.
        """
        ratio = request.target.area / request.cascade.native_size.area
        with scaling_attention(denoiser(request.pipe), ratio):
            return sampled_at(request.pipe, request.prompt, request.target, request.arguments)


@contextlib.contextmanager
def scaling_attention(unet: Any, ratio: float) -> Generator[None]:
    """With it every self-attention of the U-Net multiplies its queries by sqrt(log_{N_train} N), N_train = N / ratio.

    Scaling the query scales the logits in every kernel; `attn.scale`, which the fused kernels never read, would not.

    Args:
        unet: A conditional U-Net; its hooks are taken out again.
        ratio: Pixels now to pixels in training, over 0.

    Raises:
        ValueError: There is no self-attention named `attn1` to be found, its projections are fused, or the U-Net or a
            part of it is compiled.
    """

    def scale(module: Any, positional: Positional, query: Tensor) -> Tensor:
        tokens = query.shape[1]
        trained = max(2.0, tokens / ratio)
        return query * math.sqrt(max(math.log(tokens), math.log(2)) / math.log(trained))

    layers = spatial_attention(unet, AttentionScaling.name)
    refuse_compiled(unet, AttentionScaling.name)
    if any(getattr(layer, "fused_projections", False) for layer in layers):
        raise ValueError("attn-sf needs separate projections; call pipe.unfuse_qkv_projections() first")
    with hooks_in_place(layer.to_q.register_forward_hook(scale) for layer in layers):
        yield
