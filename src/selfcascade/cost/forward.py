"""Costs of a forward pass: FLOPs and peak memory on meta tensors (shapes only, no weights), seconds by timing it.

FLOPs are those of `torch.utils.flop_counter`: matrix products, convolutions and attention, two per multiply-add.
Attention is assumed to run in a fused kernel, as on CPU and CUDA, which never stores its N x N weights.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from selfcascade.cost import timing
from selfcascade.cost.timing import PassTimes, Shape
from selfcascade.cost.workspace import Workspace, no_workspace, workspace_of

CLIP_TOKENS = 77
SDXL_TIME_IDS = 6
Forward = Callable[[Any, Shape], Any]  # runs a network on latents of zeros

_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]] = weakref.WeakKeyDictionary()

_COPIES: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()

fused_attention = torch.ops.aten._scaled_dot_product_efficient_attention


class CannotCount(ValueError):
    """A network cannot run without weights, so its cost cannot be estimated."""


@contextlib.contextmanager
def counting() -> Generator[None]:
    """Turns any error of a pipeline or network on the meta device into `CannotCount`."""
    try:
        yield
    except Exception as error:
        raise CannotCount(" ".join(str(error).split())) from error


@dataclass(frozen=True)
class ForwardCost:
    """The cost of a forward pass.

    Attributes:
        flops: FLOPs in total.
        attention_flops: FLOPs of the attention kernels, without the projections around them.
        peak_bytes: Peak bytes of activations, inputs and kernels' workspaces included; without weights.
    """

    flops: int
    attention_flops: int
    peak_bytes: int


def unet_cost(unet_config: Mapping[str, Any], height_latent: int, width_latent: int, batch: int = 1) -> ForwardCost:
    """The cost of a forward pass, in float32, of the `UNet2DConditionModel` with this configuration.

    Args:
        unet_config: Content of the model's `config.json`.
        height_latent, width_latent: Latent pixels.
        batch: Latents per pass; with guidance two per picture.

    Raises:
        ValueError: The U-Net has inputs other than text and SDXL's sizes.
    """
    from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]

    if not has_known_inputs(unet_config):
        raise ValueError("unet_config must describe a U-Net conditioned on text alone, or on text and sizes as in SDXL")
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(dict(unet_config))
    return count(unet, unet_forward(), (batch, height_latent, width_latent))


def count(network: Any, forward: Forward, shape: Shape, workspace: Workspace = no_workspace) -> ForwardCost:
    """The cost of `forward(network, shape)` for a network on the meta device."""
    return count_call(lambda: forward(network, shape), workspace)[0]


def count_call(call: Callable[[], Any], workspace: Workspace = no_workspace) -> tuple[ForwardCost, Any]:
    """The cost of a call of a network on the meta device with these kernels, and its output."""
    with torch.no_grad(), _FusedAttention(), FlopCounterMode(display=False) as counter, LiveBytes(workspace) as memory:
        answer = call()
    by_operation = counter.get_flop_counts().get("Global", {})
    return ForwardCost(sum(by_operation.values()), by_operation.get(fused_attention, 0), memory.peak), answer


def has_known_inputs(unet_config: Mapping[str, Any]) -> bool:
    """Whether `unet_forward` can call this U-Net."""
    unknown = ("class_embed_type", "encoder_hid_dim", "encoder_hid_dim_type", "time_cond_proj_dim")
    return (
        unet_config.get("addition_embed_type") in (None, "text_time")
        and all(unet_config.get(name) is None for name in unknown)
        and isinstance(unet_config.get("cross_attention_dim", 1280), int)
    )


def unet_forward(tokens: int = CLIP_TOKENS) -> Forward:
    """A step of Stable Diffusion 1.x, 2.x or XL with prompts of this many tokens."""

    def forward(unet: Any, shape: Shape) -> Any:
        (batch, h, w), config = shape, unet.config
        place = {"device": unet.device, "dtype": unet.dtype}
        text = torch.zeros(batch, tokens, config.cross_attention_dim, **place)
        sizes = None
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim - SDXL_TIME_IDS * config.addition_time_embed_dim
            time_ids = torch.zeros(batch, SDXL_TIME_IDS, **place)
            sizes = {"text_embeds": torch.zeros(batch, pooled, **place), "time_ids": time_ids}
        z_t = torch.zeros(batch, config.in_channels, h, w, **place)
        return unet(z_t, torch.ones((), device=unet.device), text, added_cond_kwargs=sizes)

    return forward


def vae_decode(vae: Any, shape: Shape) -> Any:
    """Latents to pixels in one piece."""
    batch, h, w = shape
    z = torch.zeros(batch, vae.config.latent_channels, h, w, device=vae.device, dtype=vae.dtype)
    return vae.decode(z)


def vae_encode(vae: Any, shape: Shape) -> Any:
    """Pixels to latents of this shape in one piece."""
    (batch, h, w), config = shape, vae.config
    factor = 2 ** (len(config.block_out_channels) - 1)
    pixels = torch.zeros(batch, config.in_channels, h * factor, w * factor, device=vae.device, dtype=vae.dtype)
    return vae.encode(pixels)


def weightless_copy(network: Any) -> Any:
    """A copy of a diffusers or transformers model on the meta device, made from its configuration and cached."""
    if network not in _COPIES:
        kind: Any = type(network)
        with torch.device("meta"):
            made = kind.from_config(network.config) if hasattr(kind, "from_config") else kind(network.config)
        _COPIES[network] = made.eval()
    # diffusers' own `to` warns about loading, but nothing is loaded here.
    to: Any = nn.Module.to
    return to(_COPIES[network], dtype=network.dtype, memory_format=memory_format(network))


def memory_format(network: nn.Module) -> torch.memory_format:
    """Memory format of a network's filters."""
    filters = next((weight for weight in network.parameters() if weight.ndim == 4 and weight[0, 0].numel() > 1), None)
    last = filters is not None and not filters.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class MeasuredNetwork:
    """Counts a network's forward passes on a weightless copy, and times them on the network; results are cached.

    Args:
        real: A diffusers model.
        forward: Runs the model on latents of a shape; the same object for all instances of a network.
        role: Name of the part that `forward` runs, if a network has several.
    """

    def __init__(self, real: Any, forward: Forward, role: str = "") -> None:
        self.real, self.forward, self.role = real, forward, role
        known = _MEASURED.setdefault(real, {})
        kernels = real.dtype, memory_format(real), real.device.type
        self.counted: dict[Shape, ForwardCost] = known.setdefault((kernels, role), {})
        self.timed: dict[Shape, float] = known.setdefault((real.dtype, role, real.device), {})

    def cost(self, shape: Shape) -> ForwardCost:
        """The cost of a pass at this shape."""
        if shape not in self.counted:
            workspace = workspace_of(self.real.device)
            self.counted[shape] = count(weightless_copy(self.real), self.forward, shape, workspace)
        return self.counted[shape]

    def seconds(self, wanted: Iterable[Shape]) -> dict[Shape, float]:
        """Seconds of a pass at each shape; the smaller shapes are timed."""
        return PassTimes(self._run, self._flops, self.timed).seconds(wanted)

    def _flops(self, shape: Shape) -> int:
        return self.cost(shape).flops

    def _run(self, shape: Shape) -> float:
        began = timing.clock()
        self.forward(self.real, shape)
        if self.real.device.type != "cpu":
            torch.accelerator.synchronize(self.real.device)
        return timing.clock() - began


class LiveBytes(TorchDispatchMode):
    """Tracks the storages that operations allocate in this context; `peak` is the largest number of bytes at once.

    Storages from outside, such as the weights, and views of them do not count.

    Args:
        workspace: Bytes that an operation's kernel holds while it runs.
    """

    def __init__(self, workspace: Workspace = no_workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self.live, self.peak = 0, 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen.update(_storages((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._seen:
                self._seen.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live + self.workspace(func, args))
        return result

    def _free(self, nbytes: int) -> None:
        self.live -= nbytes


class _FusedAttention(TorchFunctionMode):
    """Keeps attention fused: the meta device would decompose it, with N x N tensors that no real run allocates."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        run = _attention if func is scaled_dot_product_attention else func
        return run(*args, **(kwargs or {}))


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **options: Any) -> Any:
    return fused_attention(query, key, value, attn_mask, False, scale=options.get("scale"))[0]


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
