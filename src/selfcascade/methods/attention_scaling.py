"""Attn-SF: direct inference with self-attention sharpened for the larger number of tokens (Jin et al. 2023)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator

from torch import Tensor, nn

from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.family import denoiser
from selfcascade.methods.direct import sampled_at
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.methods.unet_layers import Positional, refuse_compiled, spatial_attention
from selfcascade.pipeline.calls import SelfCascadeOutput


class AttentionScaling(Method, options="attn-sf"):
    """Attention's entropy grows with its number of tokens N; logits times sqrt(log_{N_train} N) keep it constant."""

    summary = "direct, with self-attention logits multiplied by sqrt(log_Ntrain N)"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """The pipeline's output at the target size.

        Raises:
            ValueError: The model has no U-Net, or its projections are fused.
        """
        ratio = request.target.area / request.cascade.native_size.area
        with scaling_attention(denoiser(request.pipe), ratio):
            return sampled_at(request.pipe, request.prompt, request.target, request.arguments)


@contextlib.contextmanager
def scaling_attention(unet: nn.Module, ratio: float) -> Generator[None]:
    """Within this context all self-attention of the U-Net scales queries by sqrt(log_{N_train} N), N_train = N / ratio.

    Scaling the query scales the logits in every kernel; `attn.scale` would not, as fused kernels never read it.

    Args:
        unet: A conditional U-Net; hooks are added, and removed afterwards.
        ratio: Pixels now to pixels in training, over 0.

    Raises:
        ValueError: No self-attention named `attn1` is found, its projections are fused, or the U-Net or a part of it is
            compiled.
    """

    def scale(module: nn.Module, positional: Positional, query: Tensor) -> Tensor:
        tokens = query.shape[1]
        trained = max(2.0, tokens / ratio)
        return query * math.sqrt(max(math.log(tokens), math.log(2)) / math.log(trained))

    layers = spatial_attention(unet, AttentionScaling.name)
    refuse_compiled(unet, AttentionScaling.name)
    # `fused_projections` of a layer stays true after they are unfused.
    if any(type(getattr(layer, "processor", None)).__name__.startswith("Fused") for layer in layers):
        raise ValueError("attn-sf needs separate projections; call pipe.unfuse_qkv_projections() first")
    with hooks_in_place(layer.to_q.register_forward_hook(scale) for layer in layers):
        yield
