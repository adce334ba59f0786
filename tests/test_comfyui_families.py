"""The nodes on a real ComfyUI with its own Flux, SD 3 and SDXL networks, tiny and of random weights; and the plan."""

import contextlib
import importlib
import itertools
import re
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_checkout import CFG, SEED, STEPS, bundled, inference_mode, nodes, pipe, sampled
from selfcascade import FeatureUpsamplers, SelfCascade
from selfcascade.cost.forward import unet_cost
from selfcascade.upsamplers.base_unet import fingerprint, skip_channels

__all__ = ["bundled", "inference_mode", "nodes", "pipe"]  # fixtures

# Networks with random weights, small enough for a CPU.
FLOWS: dict[str, dict[str, Any]] = {
    "Flux": {
        **{"image_model": "flux", "in_channels": 16, "patch_size": 2, "out_channels": 16, "vec_in_dim": 8},
        **{"context_in_dim": 12, "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "theta": 10000},
        **{"depth_single_blocks": 1, "axes_dim": [4, 6, 6], "qkv_bias": True, "guidance_embed": True},
    },
    "SD3": {
        **{"in_channels": 16, "patch_size": 2, "out_channels": 16, "depth": 2, "input_size": None},
        **{"adm_in_channels": 8, "num_patches": 64 * 64, "pos_embed_max_size": 64, "pos_embed_scaling_factor": None},
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 12, "out_features": 128}},
    },
}


SDXL = {
    **{"in_channels": 4, "out_channels": 4, "image_size": 32, "model_channels": 32, "channel_mult": [1, 2]},
    **{"num_res_blocks": [1, 1], "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1]},
    **{"transformer_depth_middle": 1, "context_dim": 12, "use_spatial_transformer": True, "legacy": False},
    **{"use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 8 + 6 * 256},
}


def tiny(kind: str, config: dict[str, Any]) -> Any:
    """A ComfyUI MODEL of this kind with random weights."""
    supported, patcher = (importlib.import_module(f"comfy.{name}") for name in ("supported_models", "model_patcher"))
    made = getattr(supported, kind)(config)
    made.unet_config["num_head_channels" if kind == "SDXL" else "dtype"] = 16 if kind == "SDXL" else torch.float32
    made.set_inference_dtype(torch.float32, None)
    generator, device = torch.Generator().manual_seed(0), torch.device("cpu")
    model = made.get_model({"label_emb.0.0.weight": None}, device=device)
    for weight in model.diffusion_model.parameters():
        weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return patcher.ModelPatcher(model.eval(), device, device)


def random_text() -> Any:
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(1, 7, 12, generator=generator), {"pooled_output": torch.randn(1, 8, generator=generator)}]]


@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_is_mixed_with_noise_at_k_and_goes_on_from_there(nodes: ModuleType, bundled: Any, kind: str) -> None:
    model, text, latent = tiny(kind, FLOWS[kind]), random_text(), {"samples": torch.zeros(1, 16, 8, 8)}
    parts = (model, text, text, bundled[3], latent)
    values = {"steps": 4, "cfg": 1.0, "preset": "paper", "pivot_step": "800"}
    made, base, told = sampled(nodes, parts, **values)
    assert "K = 800" in told
    sigmas = importlib.import_module("comfy.samplers").calculate_sigmas(model.model.model_sampling, "simple", 4)
    sigmas = sigmas[sigmas <= 0.8]
    assert 2 <= len(sigmas) <= 4
    generator = torch.Generator().manual_seed(SEED)
    torch.randn(1, 16, 8, 8, generator=generator)
    noise = torch.randn(1, 16, 16, 16, generator=generator)
    z_up = torch.nn.functional.interpolate(base["samples"], size=(16, 16), mode="bilinear", align_corners=False)
    z_up = model.model.process_latent_in(z_up)
    x = sigmas[0] * noise + (1 - sigmas[0]) * z_up
    more = {"y": text[0][1]["pooled_output"], **({"guidance": torch.tensor([3.5])} if kind == "Flux" else {})}
    for sigma, lower in itertools.pairwise(sigmas):
        x_0 = model.model.apply_model(x, sigma[None], c_crossattn=text[0][0], **more)
        x = x + (x - x_0) / sigma * (lower - sigma)
    assert torch.allclose(model.model.process_latent_in(made["samples"]), x, atol=1e-3 * float(x.abs().max()))
    reference = [[text[0][0], {**text[0][1], "reference_latents": [torch.zeros(1, 16, 8, 8)]}]]
    with pytest.raises(ValueError, match="does not know where the picture is beside reference latents; use 'full'"):
        sampled(nodes, (model, reference, *parts[2:]), **{**values, "attention": "local"})
    local, _, _ = sampled(nodes, parts, **{**values, "attention": "local", "anchor": 0.5})
    assert local["samples"].isfinite().all()
    assert not torch.allclose(local["samples"], made["samples"])


def test_sdxls_time_embedding_and_untrained_upsamplers(nodes: ModuleType, bundled: Any) -> None:
    model, text = tiny("SDXL", SDXL), random_text()
    unet = model.model.diffusion_model
    upsamplers = FeatureUpsamplers(skip_channels(unet), 128, "full", 700, fingerprint=fingerprint(unet))
    skips = sys.modules["selfcascade_comfyui.skips"]
    tuned, given, own = model.clone(), list[Tensor](), list[Tensor]()
    tuned.set_attachments(skips.ATTACHED, skips.Attached(upsamplers, 1.0))
    parts = (model, text, text, bundled[3], {"samples": torch.zeros(1, 4, 16, 16)})
    values = {"steps": 4, "cfg": 2.0, "preset": "paper"}
    plain, _, _ = sampled(nodes, parts, **values)
    prepared = FeatureUpsamplers.prepared

    def noted(self: Any, level: int, pivot: Any, timestep: Tensor, temb: Tensor) -> Tensor:
        given.append(temb)
        return prepared(self, level, pivot, timestep, temb)

    layers = unet.input_blocks[1][0].emb_layers
    hook = layers.register_forward_pre_hook(lambda module, arguments: own.append(arguments[0]))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        stack.callback(hook.remove)
        patch.setattr(FeatureUpsamplers, "prepared", noted)
        made, _, _ = sampled(nodes, parts, tuned, **values)
    assert torch.equal(made["samples"], plain["samples"])
    assert given
    assert torch.equal(given[-1], own[-1])


def test_a_plan_counts_what_the_library_counts(nodes: ModuleType, bundled: Any, pipe: Any) -> None:
    model, _, _, vae, empty = bundled
    values = {"steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "simple", "scale": 2.0}
    text = nodes.NODE_CLASS_MAPPINGS["SelfCascadePlan"]().plan(model, vae, empty, **values)["result"][0]
    stages = SelfCascade(pipe).plan(scale=2.0, num_inference_steps=STEPS)
    flops = [unet_cost(pipe.unet.config, stage.size.height // 4, stage.size.width // 4, 2).flops for stage in stages]
    counted = [float(found) for found in re.findall(r": ([\d.e-]+) TFLOPs", text)]
    steps = (8, 2)  # quality has 0.4 of 8 above the base, 4 whole ones, and starts at half of them
    expected = [count * number / 1e12 for count, number in zip(flops, steps, strict=True)]
    assert counted == pytest.approx([*expected, sum(expected)], rel=0.02)
