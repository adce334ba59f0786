"""Skip features: read from the clean pivot once per stage (eq. 7), and added to the larger pass (eq. 8).

Every conditional U-Net of diffusers hands its up blocks `res_hidden_states_tuple`, the skip features of their level,
and `temb`, the time embedding, both as keyword arguments; video arrives folded to (B F, C, h, w). Hooks read and write
just those, and are removed afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from selfcascade.base_models.borrowing import hooks_in_place, same_values
from selfcascade.base_models.local_attention import pass_on_pivot
from selfcascade.upsamplers.base_unet import skip_channels
from selfcascade.upsamplers.low_rank import adding_low_rank
from selfcascade.upsamplers.model import FeatureUpsamplers

# Arguments of hooks: a module's arguments, by position and by name.
Positional = tuple[Any, ...]
Named = dict[str, Any]

# Arguments that the pass for the pivot must not get: they belong to the larger latent.
STAGE_ARGUMENTS = frozenset(
    {
        "sample",
        "timestep",
        "return_dict",
        "down_block_additional_residuals",
        "mid_block_additional_residual",
        "down_intrablock_additional_residuals",
    }
)


class SkipFeatures(NamedTuple):
    """h_{n,0}: a pivot's skip features, one tuple per level, deepest first, each tensor (B, C, h, w)."""

    levels: tuple[tuple[Tensor, ...], ...]


class _EncoderDone(Exception):
    """Ends a pass once the skip features are complete."""


@torch.no_grad()
def read_skip_features(unet: ModelMixin, z_0: Tensor, **arguments: object) -> SkipFeatures:
    """The frozen U-Net's skip features of clean latents at t = 0; only the encoder runs, without gradient.

    Args:
        unet: A conditional U-Net of diffusers.
        z_0: The pivot, (B, C, h, w) or (B, C, F, h, w), as the U-Net takes its latents.
        arguments: The U-Net's conditions: `encoder_hidden_states`, `added_cond_kwargs`, ...

    Raises:
        ValueError: The network has no skip features, or was compiled as a whole.
    """
    check_hookable(unet)
    skips: list[Tensor] = []

    def take_first(module: nn.Module, positional: Positional, named: Named) -> None:
        skips.append(named["hidden_states"] if "hidden_states" in named else positional[0])

    def take(module: nn.Module, positional: Positional, result: tuple[Tensor, Sequence[Tensor]]) -> None:
        skips.extend(result[1])

    def stop(module: nn.Module, positional: Positional) -> None:
        raise _EncoderDone

    def register() -> Iterator[RemovableHandle]:
        down: Sequence[nn.Module] = unet.down_blocks
        after: nn.Module = unet.up_blocks[0] if unet.mid_block is None else unet.mid_block
        yield down[0].register_forward_pre_hook(take_first, with_kwargs=True)
        yield from (block.register_forward_hook(take) for block in down)
        yield after.register_forward_pre_hook(stop)

    timestep = torch.zeros((), dtype=torch.long, device=z_0.device)
    with pass_on_pivot(), hooks_in_place(register()), contextlib.suppress(_EncoderDone):
        unet(z_0, timestep, **arguments)
    levels: list[tuple[Tensor, ...]] = []
    for block in unet.up_blocks:
        count = len(block.resnets)
        levels.append(tuple(skips[-count:]))
        del skips[-count:]
    return SkipFeatures(tuple(levels))


@contextlib.contextmanager
def adding_skip_features(
    unet: ModelMixin,
    upsamplers: FeatureUpsamplers,
    features: SkipFeatures | Tensor,
    scale: float = 1.0,
    gradient: bool = False,
) -> Generator[None]:
    """Within this context the U-Net adds residuals to its skip features: h' = h + scale phi_n(h_0, t) (eq. 8).

    Upsamplers with low-rank weights add these in the decoder too.

    Args:
        unet: The U-Net; hooks are added, and removed afterwards.
        upsamplers: Upsamplers made for this U-Net.
        features: The pivot's skip features, or its clean latents. Features of latents are read once for each set of
            conditions that the U-Net is called with (prompt, negative prompt, adapters).
        scale: Strength; 0 gives the plain U-Net, bit for bit.
        gradient: For training: the encoder runs without gradient, the rest with, so gradients reach the upsamplers only
            through the decoder and the encoder keeps no activations. The low-rank weights have to be in place already,
            and stay so in the backward pass, in which checkpointed modules run again.

    Raises:
        ValueError: The upsamplers were made for another U-Net, or the U-Net was compiled as a whole.
        RuntimeError: The U-Net ran without calling its up blocks as modules, so nothing could be added.
    """
    check_hookable(unet)
    upsamplers.check_unet(unet)
    if scale == 0:
        yield
        return
    if not gradient and unet.dtype.is_floating_point and upsamplers.dtype != unet.dtype:
        upsamplers = copy.deepcopy(upsamplers)  # the caller's stay as they are
        nn.Module.to(upsamplers, unet.dtype)
    injection, grad_was_enabled = _Injection(unet, upsamplers, features, scale, gradient), torch.is_grad_enabled()
    try:
        with (
            hooks_in_place(injection.register()),
            contextlib.nullcontext() if gradient else low_rank(unet, upsamplers, scale),
        ):
            yield
    finally:
        if gradient:  # hooks are not called after Ctrl-C
            torch.set_grad_enabled(grad_was_enabled)
    if injection.calls and not injection.added:
        raise RuntimeError(f"{type(unet).__name__} ran without calling its up blocks as modules; no feature was added")


def low_rank(
    unet: ModelMixin, upsamplers: FeatureUpsamplers, scale: float = 1.0
) -> contextlib.AbstractContextManager[None]:
    """Within this context the decoder's layers add the upsamplers' low-rank weights, if they have any."""
    return adding_low_rank(unet, upsamplers.config["decoder_layers"], list(upsamplers.low_rank), scale)


class _Injection:
    """The hooks' shared state: the pivot's features, and the timestep of the call that runs."""

    def __init__(
        self,
        unet: ModelMixin,
        upsamplers: FeatureUpsamplers,
        features: SkipFeatures | Tensor,
        scale: float,
        gradient: bool,
    ) -> None:
        self.unet, self.upsamplers, self.scale, self.gradient = unet, upsamplers, scale, gradient
        self.pivot = features if isinstance(features, Tensor) else None
        self.current = None if isinstance(features, Tensor) else features
        self.known: list[tuple[Named, int, SkipFeatures]] = []
        self.names = list(inspect.signature(unet.forward).parameters)
        self.timestep, self.frames = torch.zeros(1), 1
        self.calls = self.added = 0
        self.reading = False
        self.grad_was_enabled = False

    def register(self) -> Iterator[RemovableHandle]:
        """Registers the hooks, one after the other."""
        blocks: Sequence[nn.Module] = self.unet.up_blocks
        yield self.unet.register_forward_pre_hook(self.begin, with_kwargs=True)
        yield self.unet.register_forward_hook(self.end, always_call=True)
        for level, block in enumerate(blocks):
            yield block.register_forward_pre_hook(self.adder(level), with_kwargs=True)

    def begin(self, module: nn.Module, positional: Positional, named: Named) -> None:
        """Before the U-Net runs: stores the timestep and frames, and finds the features for the call's conditions."""
        if self.reading:
            return
        given: Named = {**dict(zip(self.names, positional, strict=False)), **named}
        self.calls += 1
        self.grad_was_enabled = torch.is_grad_enabled()
        self.timestep = torch.as_tensor(given["timestep"]).detach().reshape(-1)
        sample: Tensor = given["sample"]
        self.frames = sample.shape[2] if sample.ndim == 5 else 1  # (B, C, F, h, w)
        if self.pivot is not None:
            self.current = self._read(sample, given)
        if self.gradient:
            torch.set_grad_enabled(False)

    def end(self, module: nn.Module, positional: Positional, result: object) -> None:
        """After the U-Net ran, or failed."""
        if self.gradient and not self.reading:
            torch.set_grad_enabled(self.grad_was_enabled)

    def adder(self, level: int) -> Callable[[nn.Module, Positional, Named], tuple[Positional, Named] | None]:
        """The hook of a level's up block."""

        def add(module: nn.Module, positional: Positional, named: Named) -> tuple[Positional, Named] | None:
            if self.reading or self.current is None:
                return None
            if self.gradient:
                torch.set_grad_enabled(self.grad_was_enabled)
            own, temb = named["res_hidden_states_tuple"], named["temb"]
            pivot = self.current.levels[level]
            # Upsamplers trained in float32 on a network in half precision compute in its precision, by autocast.
            mixed = not own[0].is_meta and torch.is_autocast_enabled(own[0].device.type)
            dtype = (self.unet if mixed else self.upsamplers).dtype
            timestep = self.timestep.to(own[0].device)
            timestep = timestep.repeat_interleave(len(own[0]) // len(timestep))
            skips = [h.to(dtype) for h in pivot], [h.to(dtype) for h in own]
            residuals = self.upsamplers(level, *skips, timestep, temb.to(dtype), self.frames)
            self.added += 1
            summed = tuple(h + self.scale * r.to(h.dtype) for h, r in zip(own, residuals, strict=True))
            return positional, {**named, "res_hidden_states_tuple": summed}

        return add

    def _read(self, sample: Tensor, given: Named) -> SkipFeatures:
        conditions = {name: value for name, value in given.items() if name not in STAGE_ARGUMENTS}
        for known, count, features in self.known:
            if count == len(sample) and same_values(known, conditions):
                return features
        pivot = self.pivot
        if pivot is None or len(sample) % len(pivot):
            raise ValueError(
                f"the U-Net is called with {len(sample)} latents, which is not a multiple of the pivot's batch"
            )
        # Guidance stacks the whole batch once per prompt, so the pivot is repeated as a whole too.
        repeated = pivot.to(sample).repeat(len(sample) // len(pivot), *[1] * (pivot.ndim - 1))
        self.reading = True
        try:
            features = read_skip_features(self.unet, repeated, **conditions)
        finally:
            self.reading = False
        self.known = [*self.known[-3:], (conditions, len(sample), features)]
        return features


def check_hookable(unet: ModelMixin) -> None:
    """Raises ValueError if the network has no skip features, or was compiled as a whole and would ignore hooks."""
    skip_channels(unet)
    if hasattr(unet, "_orig_mod") or getattr(unet, "_compiled_call_impl", None) is not None:
        raise ValueError(
            "the U-Net was compiled as a whole, which ignores hooks added later; use unet.compile_repeated_blocks()"
        )
