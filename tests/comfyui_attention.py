"""A stand-in of ComfyUI's attention in a U-Net: the patches before it, and the override in its place."""

import copy
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from comfyui_standin import Model


class Attention:
    """A processor of diffusers that does what BasicTransformerBlock and CrossAttention do with transformer_options."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def see(self, network: Any, given: tuple[Any, ...]) -> None:
        """Before a pass of the network with these arguments."""
        self.options = given[3]

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        kind = "attn1_patch" if encoder_hidden_states is None else "attn2_patch"
        n, context = hidden_states, hidden_states if encoder_hidden_states is None else encoder_hidden_states
        value = context
        for patch in self.options.get("patches", {}).get(kind, ()):
            n, context, value = patch(n, context, value, self.options)
        given = attn.to_q(n), attn.to_k(context), attn.to_v(value), attn.heads
        override = self.options.get("optimized_attention_override")
        more = {"attn_precision": None, "transformer_options": self.options}
        out = attention(*given, **more) if override is None else override(attention, *given, **more)
        return attn.to_out[0](out)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, **more: Any) -> Tensor:
    """ComfyUI's `attention_pytorch`."""
    q, k, v = (x.reshape(len(x), x.shape[1], heads, -1).transpose(1, 2) for x in (q, k, v))  # (B, H, S, D)
    return scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def with_attention(pipe: Any) -> Model:
    """A `Model` with a U-Net of its own, whose attention can be patched and replaced."""
    unet, processor = copy.deepcopy(pipe.unet), Attention()
    unet.set_attn_processor(processor)
    made = Model(SimpleNamespace(unet=unet, vae=pipe.vae, scheduler=pipe.scheduler))
    made.diffusion_model.register_forward_pre_hook(processor.see)
    return made
