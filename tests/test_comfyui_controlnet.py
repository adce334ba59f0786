"""A ControlNet of the user's on a real ComfyUI, `make test-comfyui`: it acts at every stage, as in the library."""

import importlib
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from torch import Tensor, nn

from comfyui_checkout import bundled, grey_levels, inference_mode, library, nodes, pipe, sampled, save
from selfcascade.models import load_upsamplers

__all__ = ["bundled", "inference_mode", "nodes", "pipe"]  # fixtures

TARGET, BLOCK = 128, 16


@pytest.fixture(scope="module")
def controlnet(pipe: Any) -> Any:
    """For the bundled U-Net, whose latents have a quarter of the picture's sides; its outputs are not zero."""
    with torch.inference_mode(False):
        made = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32, 96))
        generator = torch.Generator().manual_seed(4)
        for name, weight in made.named_parameters():
            if name.startswith(("controlnet_", "controlnet_cond_embedding.conv_out")):
                weight.data += 0.1 * torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
        return made.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def hint() -> Tensor:
    """Blocks of one colour, of which smaller sizes are the same by any rule, (1, 3, H, W)."""
    blocks = torch.rand(1, 3, TARGET // BLOCK, TARGET // BLOCK, generator=torch.Generator().manual_seed(6))
    return blocks.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)


@pytest.fixture(scope="module")
def native(nodes: ModuleType, bundled: Any, controlnet: Any, pipe: Any) -> Any:
    """The same as ComfyUI's own CONTROL_NET."""
    names = ("cldm.cldm", "controlnet", "utils", "ldm.modules.diffusionmodules.openaimodel")
    cldm, controls, utils, blocks = (importlib.import_module(f"comfy.{name}") for name in names)
    config = bundled[0].model.model_config
    made = cldm.ControlNet(**config.unet_config, hint_channels=3, operations=config.custom_operations)
    mapped = utils.unet_to_diffusers(config.unet_config)
    mapped |= {f"controlnet_mid_block.{kind}": f"middle_block_out.0.{kind}" for kind in ("weight", "bias")}
    for number in range(len(controlnet.controlnet_down_blocks)):
        old, new = f"controlnet_down_blocks.{number}", f"zero_convs.{number}.0"
        mapped |= {f"{old}.{kind}": f"{new}.{kind}" for kind in ("weight", "bias")}
    weights = {mapped[name]: weight for name, weight in controlnet.state_dict().items() if name in mapped}
    missing, left = made.load_state_dict(weights, strict=False)
    assert not left
    assert all(name.startswith("input_hint_block") for name in missing)
    made.input_hint_block = blocks.TimestepEmbedSequential(Embedding(controlnet.controlnet_cond_embedding))
    factor = pipe.vae_scale_factor
    return controls.ControlNet(made.eval(), compression_ratio=factor, load_device=torch.device("cpu"))


class Embedding(nn.Module):
    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, hint: Tensor) -> Tensor:
        return self.embedding(hint)


@pytest.mark.parametrize("tuned", [False, True], ids=["plain", "tuned"])
def test_a_controlnet_acts_at_every_stage_as_in_the_library(
    nodes: ModuleType, bundled: Any, pipe: Any, controlnet: Any, native: Any, hint: Tensor, tuned: bool
) -> None:
    model, positive, negative, vae, empty = bundled
    apply = importlib.import_module("nodes").ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(positive, negative, native, hint.movedim(1, -1), 1.0, 0.0, 1.0)
    upsamplers, own = None, model
    if tuned:
        (own,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(model, "bundled: full", 1.0)
        upsamplers = load_upsamplers("full")
    seen: list[tuple[int, ...]] = []
    hook = native.control_model.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(tuple(named["hint"].shape[-2:])), with_kwargs=True
    )
    try:
        made, _, _ = sampled(nodes, (own, positive, negative, vae, empty))
    finally:
        hook.remove()
    assert {*seen} == {(64, 64), (128, 128)}
    controlled = StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=controlnet, requires_safety_checker=False
    )
    controlled.set_progress_bar_config(disable=True)
    out = library(controlled, 2.0, image=hint, upsamplers=upsamplers)
    assert grey_levels(bundled, made, out.images) <= 1
    save(bundled, made, f"controlnet-{'tuned' if tuned else 'plain'}")
    plain, _, _ = sampled(nodes, bundled, own)
    assert grey_levels(bundled, plain, out.images) > 20
