"""As much of ComfyUI as the nodes call, with its signatures: a sampler, a patcher, a U-Net in its order.

`comfyui_nodes.CALLS` lists the calls; `test_comfyui_checkout.py` holds a real ComfyUI to the same list.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

INTERRUPTED = SimpleNamespace(now=False)


class Interrupted(Exception):
    """ComfyUI's InterruptProcessingException."""


class EPS:
    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise / (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        return model_input - model_output * sigma.view(-1, 1, 1, 1)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool) -> Tensor:
        return noise * (torch.sqrt(1 + sigma**2) if max_denoise else sigma) + latent_image


class CONST(EPS):
    pass


class ModelSampling(EPS):
    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas, self.num_timesteps = sigmas.float(), len(sigmas)

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(0).view(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        return self.sigmas[timestep.long()]


class LdmResidual(nn.Module):
    def __init__(self, resnet: Any, attention: Any = None) -> None:
        super().__init__()
        self.resnet, self.attention, self.out_channels = resnet, attention, resnet.out_channels
        self.in_layers = nn.ModuleList([nn.Identity(), nn.Identity(), resnet.conv1])

    def forward(self, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        h = self.resnet(h, emb)
        return h if self.attention is None else self.attention(h, encoder_hidden_states=context, return_dict=False)[0]


class LdmSampling(nn.Module):
    """A convolution, or what changes the size."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.out_channels = layer, layer.out_channels

    def forward(self, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        return self.layer(h)


class LdmUNet(nn.Module):
    """A diffusers U-Net whose layers run as latent-diffusion has them, with ComfyUI's patches at their places."""

    num_classes, dtype = None, torch.float32

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet, self.in_channels = unet, unet.config.in_channels
        self.model_channels = unet.config.block_out_channels[0]
        layers = unet.time_embedding
        self.time_embed = nn.Sequential(layers.linear_1, layers.act, layers.linear_2)
        self.input_blocks = nn.ModuleList([nn.Sequential(LdmSampling(unet.conv_in))])
        for block in unet.down_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            pairs = zip(block.resnets, attentions, strict=True)
            self.input_blocks.extend(nn.Sequential(LdmResidual(*pair)) for pair in pairs)
            self.input_blocks.extend(nn.Sequential(LdmSampling(one)) for one in block.downsamplers or ())
        self.output_blocks = nn.ModuleList()
        for block in unet.up_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            own = [nn.Sequential(LdmResidual(*pair)) for pair in zip(block.resnets, attentions, strict=True)]
            own[-1].extend(LdmSampling(one) for one in block.upsamplers or ())
            self.output_blocks.extend(own)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, transformer_options: Any, control: Any = None) -> Tensor:
        patches = transformer_options.get("patches", {})
        emb = self.time_embed(timestep_embedding(t, self.model_channels))
        h, skips = x, []
        for number, (module,) in enumerate(self.input_blocks):
            transformer_options["block"] = ("input", number)
            h = module(h, emb, context)
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, transformer_options)
            skips.append(h)
        h = self.unet.mid_block(h, emb, encoder_hidden_states=context)
        h = h if control is None else h + control["middle"].pop()
        for number, modules in enumerate(self.output_blocks):
            transformer_options["block"], skip = ("output", number), skips.pop()
            skip = skip if control is None else skip + control["output"].pop()
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, transformer_options)
            h = torch.cat([h, skip], 1)
            for module in modules:
                h = module(h, emb, context)
        return self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(h)))


class Model:
    """ComfyUI's BaseModel."""

    manual_cast_dtype, adm_channels = None, 0

    def __init__(self, pipe: Any) -> None:
        kept = pipe.scheduler.alphas_cumprod.double()
        self.diffusion_model, self.scale = LdmUNet(pipe.unet), pipe.vae.config.scaling_factor
        self.model_sampling = ModelSampling(((1 - kept) / kept).sqrt())
        self.model_config = type("SD15", (), {})()

    def get_dtype(self) -> torch.dtype:
        return torch.float32

    def process_latent_in(self, latent: Tensor) -> Tensor:
        return latent * self.scale

    def apply_model(self, x: Tensor, t: Tensor, **c: Any) -> Tensor:
        sampling, context = self.model_sampling, c["c_crossattn"]
        z, step = sampling.calculate_input(t, x), sampling.timestep(t).float()
        output = self.diffusion_model(z, step, context, c["transformer_options"], c.get("control"))
        return sampling.calculate_denoised(t, output, x)


class ModelPatcher:
    load_device = torch.device("cpu")

    def __init__(self, model: Model) -> None:
        self.model, self.attachments = model, dict[str, Any]()
        self.model_options: dict[str, Any] = {"transformer_options": {}}

    def clone(self) -> "ModelPatcher":
        made = ModelPatcher(self.model)
        made.attachments, made.model_options = {**self.attachments}, copy.deepcopy(self.model_options)
        return made

    def get_model_object(self, name: str) -> Any:
        formats = SimpleNamespace(latent_channels=self.model.diffusion_model.in_channels)
        return formats if name == "latent_format" else getattr(self.model, name)

    def get_attachment(self, key: str) -> Any:
        return self.attachments.get(key)

    def set_attachments(self, key: str, attachment: Any) -> None:
        self.attachments[key] = attachment

    def set_model_sampler_post_cfg_function(self, post_cfg_function: Any) -> None:
        self.model_options.setdefault("sampler_post_cfg_function", []).append(post_cfg_function)

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Any) -> None:
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_output_block_patch(self, patch: Any) -> None:
        self._patch("output_block_patch", patch)

    def set_model_attn1_patch(self, patch: Any) -> None:
        self._patch("attn1_patch", patch)

    def set_model_attn2_patch(self, patch: Any) -> None:
        self._patch("attn2_patch", patch)

    def _patch(self, name: str, patch: Any) -> None:
        self.model_options["transformer_options"].setdefault("patches", {}).setdefault(name, []).append(patch)

    def model_size(self) -> int:
        return sum(weight.nbytes for weight in self.model.diffusion_model.parameters())


class KSampler:
    SAMPLERS, SCHEDULERS = ["euler", "ddim"], ["simple", "normal"]

    def __init__(
        self, model: Any, steps: int, device: Any, sampler: Any = None, scheduler: Any = None, denoise: Any = None,
        model_options: Any = None,
    ) -> None:  # fmt: skip
        levels = model.get_model_object("model_sampling").sigmas
        picked = [float(levels[-(1 + int(step * len(levels) / steps))]) for step in range(steps)]
        self.sigmas = torch.tensor([*picked, 0.0])


def sample_custom(
    model: Any, noise: Tensor, cfg: float, sampler: Any, sigmas: Tensor, positive: Any, negative: Any,
    latent_image: Tensor, noise_mask: Any = None, callback: Any = None, disable_pbar: bool = False, seed: Any = None,
) -> Tensor:  # fmt: skip
    """Euler's method with guidance."""
    base, options = model.model, model.model_options
    start = float(sigmas[0]) >= float(base.model_sampling.sigmas[-1]) * (1 - 1e-5)
    x = base.model_sampling.noise_scaling(sigmas[0], noise, base.process_latent_in(latent_image), start)
    texts = torch.cat([text.repeat(len(x), 1, 1) for text in (positive[0][0], negative[0][0])])
    for step, sigma in enumerate(sigmas[:-1]):
        throw_exception_if_processing_interrupted()
        t, transformer = sigma.expand(2 * len(x)), dict(options["transformer_options"])
        transformer |= {"uuids": ["positive", "negative"], "cond_or_uncond": [0, 1], "sigmas": sigma.expand(len(x))}
        args = {"input": torch.cat([x, x]), "timestep": t, "cond_or_uncond": [0, 1]}
        args["c"] = {"c_crossattn": texts, "transformer_options": transformer}
        if "control" in positive[0][1]:
            args["c"]["control"] = positive[0][1]["control"].get_control(args["input"], t, args["c"], 2, transformer)
        wrapper = options.get("model_function_wrapper", lambda f, a: f(a["input"], a["timestep"], **a["c"]))
        with_prompt, without = wrapper(base.apply_model, args).chunk(2)
        x_0 = without + cfg * (with_prompt - without)
        for function in options.get("sampler_post_cfg_function", ()):
            x_0 = function({"denoised": x_0, "sigma": sigma.expand(len(x))})
        if callback is not None:
            callback(step, x_0, x, len(sigmas) - 1)
        x = x + (x - x_0) / sigma * (sigmas[step + 1] - sigma)
    return x / base.scale


def prepare_noise(latent_image: Tensor, seed: int, noise_inds: Any = None) -> Tensor:
    drawn = torch.randn(
        (max(noise_inds or [len(latent_image) - 1]) + 1, *latent_image.shape[1:]), generator=_seeded(seed)
    )
    return drawn if noise_inds is None else drawn[list(noise_inds)]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fix_empty_latent_channels(model: Any, latent_image: Tensor) -> Tensor:
    return latent_image


def throw_exception_if_processing_interrupted() -> None:
    if INTERRUPTED.now:
        raise Interrupted


def timestep_embedding(timesteps: Tensor, dim: int, max_period: int = 10000, repeat_only: bool = False) -> Tensor:
    return get_timestep_embedding(timesteps, dim, flip_sin_to_cos=True, downscale_freq_shift=0)


class VAE:
    latent_dim = 2

    def __init__(self, pipe: Any) -> None:
        self.coder, self.factor = pipe.vae, pipe.vae_scale_factor
        self.process_input: Callable[[Tensor], Tensor] = lambda image: image * 2 - 1
        self.process_output: Callable[[Tensor], Tensor] = lambda image: ((image + 1) / 2).clamp(0, 1)

    def decode(self, samples_in: Tensor) -> Tensor:
        return self.process_output(self.coder.decode(samples_in, return_dict=False)[0]).movedim(1, -1)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        return self.coder.encode(self.process_input(pixel_samples.movedim(-1, 1))).latent_dist.mode()

    def spacial_compression_decode(self) -> int:
        return self.factor


def modules(folder: str) -> Iterator[ModuleType]:
    """The modules that the nodes import, with `models_dir` in this folder."""
    shown: list[tuple[int, int]] = []
    freed: list[float] = []
    given: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.sample": {
            "prepare_noise": prepare_noise,
            "fix_empty_latent_channels": fix_empty_latent_channels,
            "sample_custom": sample_custom,
        },
        "comfy.samplers": {"KSampler": KSampler, "sampler_object": lambda name: name},
        "comfy.utils": {"PROGRESS_BAR_ENABLED": False},
        "comfy.ops": {"disable_weight_init": None},
        "comfy.sd": {"VAE": VAE},
        "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
        "comfy.model_management": {
            "throw_exception_if_processing_interrupted": throw_exception_if_processing_interrupted,
            "get_torch_device": lambda: torch.device("cpu"),
            "module_size": lambda module: sum(weight.nbytes for weight in module.parameters()),
            "freed": freed,
            "free_memory": lambda memory, device: freed.append(memory),
        },
        "comfy.model_sampling": {"CONST": CONST},
        **{name: {} for name in ("comfy.ldm", "comfy.ldm.modules", "comfy.ldm.modules.diffusionmodules")},
        "comfy.ldm.modules.attention": {"wrap_attn": None},
        "comfy.ldm.modules.diffusionmodules.util": {"timestep_embedding": timestep_embedding},
        "latent_preview": {
            "shown": shown,
            "prepare_callback": lambda model, steps: lambda step, x0, x, total: shown.append((step, total)),
        },
        "folder_paths": {
            "models_dir": folder,
            "add_model_folder_path": lambda folder_name, full_folder_path: None,
            "get_folder_paths": lambda folder_name: [f"{folder}/{folder_name}"],
        },
    }
    for name, members in given.items():
        module = ModuleType(name)
        vars(module).update(members)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
        sys.modules[name] = module
        yield module
