"""A stand-in of ComfyUI's ControlNet, as conditioning holds it."""

from typing import Any

import torch
from torch import Tensor


class ControlNet:
    """ComfyUI's, with a diffusers one in it: `get_control` has the hint at the size of the latents that it is given."""

    def __init__(self, model: Any, network: Any, hint: Tensor, factor: int) -> None:
        self.model, self.network, self.hint, self.factor = model, network, hint, factor

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Any, batched_number: int, transformer_options: Any
    ) -> dict[str, list[Tensor]]:
        size = [side * self.factor for side in x_noisy.shape[-2:]]
        hint = torch.nn.functional.interpolate(self.hint, size, mode="nearest-exact").expand(len(x_noisy), -1, -1, -1)
        sampling = self.model.model_sampling
        z, step = sampling.calculate_input(t, x_noisy), sampling.timestep(t)
        skips, middle = self.network(z, step, cond["c_crossattn"], hint, return_dict=False)
        return {"output": list(skips), "middle": [middle]}
