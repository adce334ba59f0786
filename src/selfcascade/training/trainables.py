"""The three things that can be trained, behind one protocol; each computes the whole pass that gradients come from."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selfcascade.training.config import TrainingConfig
from selfcascade.training.tensor_cache import FeatureCache
from selfcascade.upsamplers.model import FeatureUpsamplers
from selfcascade.upsamplers.of_checkpoint import settings_of
from selfcascade.upsamplers.skip_features import adding_skip_features, low_rank, read_skip_features

# Attention projections, feed-forward and in/out projections: 1.73M parameters at rank 4 on SD 2.1, 13.8M at 32.
# Not in AnimateDiff's motion modules, whose calls by keyword, `proj_in(input=x)`, peft's layers do not support.
LORA_TARGETS = r"(?!.*motion_modules.*\.proj_).*\.(to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)"


class Trainable(Protocol):
    """A module for accelerate to wrap; its parameters that need gradients are trained.

    `forward(z_t, timestep, conditions, pivot)` returns the prediction for z_t.
    """

    def in_place(self) -> AbstractContextManager[None]:
        """A context for the forward and the backward pass of a batch."""
        ...

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name."""
        ...

    def described(self) -> dict[str, Any]:
        """What a checkpoint says of the trained module, for it to be made without the run."""
        ...

    def save(self, folder: Path, pipe: Any, weights: dict[str, Tensor] | None = None) -> None:
        """Writes the trained weights in the format of the library that loads them.

        Args:
            folder: Output folder.
            pipe: The base model's pipeline.
            weights: The whole weights by name, if no process has all of them in its model.
        """
        ...


class TrainedUpsamplers(nn.Module):
    """Feature upsamplers on a frozen U-Net.

    The U-Net is kept in a list, so that it is not a submodule that would be wrapped, averaged and saved.

    Attributes:
        cache: Cache of the pivots' features; None computes them each time.
    """

    cache: FeatureCache | None = None

    def __init__(self, unet: Any, config: TrainingConfig, pivot_step: int) -> None:
        super().__init__()
        unet.requires_grad_(False)
        self.frozen = [unet]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            settings: dict[str, Any] = {"upsampling": config.upsampling, "attention": config.attention}
            settings |= {"temporal_kernel": config.temporal_kernel, "decoder_rank": config.decoder_rank}
            settings["sampling_preset"] = config.sampling_preset
            self.upsamplers = FeatureUpsamplers.from_unet(unet, config.preset, pivot_step, **settings)
        self.upsamplers.float().train()

    def in_place(self) -> AbstractContextManager[None]:
        """The decoder with the low-rank weights."""
        return low_rank(self.frozen[0], self.upsamplers)

    def forward(
        self,
        z_t: Tensor,
        timestep: Tensor,
        conditions: dict[str, Any],
        pivot: Tensor,
    ) -> Tensor:
        """The prediction with the pivot's features (eq. 8), read with the stage's conditions as in a cascade.

        The encoder runs without gradient.
        """
        unet = self.frozen[0]
        if self.cache is None:
            features = read_skip_features(unet, pivot, **conditions)
        else:
            features = self.cache.read(unet, pivot, conditions)
        with adding_skip_features(unet, self.upsamplers, features, gradient=True):
            return unet(z_t, timestep, **conditions, return_dict=False)[0]

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name."""
        return dict(self.upsamplers.named_parameters())

    def described(self) -> dict[str, Any]:
        """The upsamplers' own settings."""
        return settings_of(self.upsamplers)

    def save(self, folder: Path, pipe: Any, weights: dict[str, Tensor] | None = None) -> None:
        """Writes the weights for `FeatureUpsamplers.from_pretrained`."""
        self.upsamplers.save_pretrained(folder, safe_serialization=True)


class TrainedUNet(nn.Module):
    """The whole U-Net, or a LoRA on it."""

    def __init__(self, unet: Any, config: TrainingConfig, pivot_step: int) -> None:
        super().__init__()
        self.is_lora = config.method == "lora"
        unet.requires_grad_(not self.is_lora)
        if self.is_lora:
            if not hasattr(unet, "add_adapter"):
                raise ValueError(f"method 'lora' is not for {type(unet).__name__}, into which diffusers loads no LoRA")
            from peft import LoraConfig

            settings = {"r": config.rank, "lora_alpha": config.lora_alpha or config.rank}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                unet.add_adapter(LoraConfig(**settings, init_lora_weights="gaussian", target_modules=LORA_TARGETS))
            for parameter in unet.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        unet.train()
        self.unet = unet

    def in_place(self) -> AbstractContextManager[None]:
        """The trained weights are in the U-Net itself."""
        return nullcontext()

    def forward(
        self,
        z_t: Tensor,
        timestep: Tensor,
        conditions: dict[str, Any],
        pivot: Tensor,
    ) -> Tensor:
        """The plain prediction; the pivot is not used."""
        return self.unet(z_t, timestep, **conditions, return_dict=False)[0]

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name."""
        return {name: parameter for name, parameter in self.unet.named_parameters() if parameter.requires_grad}

    def described(self) -> dict[str, Any]:
        """Nothing: the base model says it all."""
        return {}

    def save(self, folder: Path, pipe: Any, weights: dict[str, Tensor] | None = None) -> None:
        """Writes the weights for the U-Net's `from_pretrained`, or for `pipe.load_lora_weights`."""
        if weights is not None:
            with torch.device("meta"):
                unet = type(self.unet).from_config(self.unet.config)
            unet.load_state_dict({**self.unet.state_dict(), **weights}, assign=True)
            unet.save_pretrained(folder / "unet", safe_serialization=True)
            return
        if not self.is_lora:
            self.unet.save_pretrained(folder / "unet", safe_serialization=True)
            return
        from peft.utils import get_peft_model_state_dict

        # In peft's names: `convert_state_dict_to_diffusers` renames only attention projections, and diffusers' loader
        # reads a file with both formats in the format of its first key, so that layers in the other one are lost.
        layers = get_peft_model_state_dict(self.unet)
        settings = self.unet.peft_config["default"].to_dict()  # without them, an alpha that is not the rank is lost
        type(pipe).save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=settings)


def cast_frozen(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Casts the frozen floating-point weights; trained ones stay unchanged. None changes nothing.

    This halves the memory of a frozen network, and avoids the copies of its weights that autocast makes in each pass.
    """
    if dtype is None:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.requires_grad and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def make_trainable(unet: Any, config: TrainingConfig, pivot_step: int) -> TrainedUpsamplers | TrainedUNet:
    """The trainable module for `config.method` and this U-Net.

    Raises:
        ValueError: The U-Net has no skip features, takes no LoRA, or does not support gradient checkpointing.
    """
    kind = TrainedUpsamplers if config.method == "upsamplers" else TrainedUNet
    if config.gradient_checkpointing:
        if not getattr(unet, "_supports_gradient_checkpointing", False):
            raise ValueError(f"gradient_checkpointing is not supported by {type(unet).__name__}; leave it out")
        unet.enable_gradient_checkpointing()
    if config.channels_last:
        unet.to(memory_format=torch.channels_last)
    trainable = kind(unet, config, pivot_step)
    # Checkpointing only works in training mode. ModelScope's dropout stays off, since its draws are not seeded.
    unet.train(config.gradient_checkpointing or config.method != "upsamplers")
    for module in unet.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return trainable
