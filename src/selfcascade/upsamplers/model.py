"""The time-aware feature upsamplers Phi = {phi_1 .. phi_N} of the tuned version (paper, Section 3.3).

One module per resolution level of the U-Net turns the clean pivot's skip features h_{n,0}^{r-1} into residuals for the
skip features of the noisy, larger latent (eq. 8). All start at zero: an untrained set is the tuning-free version.

Axis letters: B images (or images x frames), C channels, h, w positions of the pivot, H, W of the stage.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast, get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config  # pyright: ignore[reportUnknownVariableType]
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from selfcascade.options.checks import is_whole, shown
from selfcascade.options.presets import PRESETS, Attention, Upsampling
from selfcascade.upsamplers.base_unet import fingerprint, skip_channels
from selfcascade.upsamplers.ldm import is_ldm
from selfcascade.upsamplers.levels import DESIGNS, FULL_DESIGNS, FrameKernels
from selfcascade.upsamplers.low_rank import LowRank, check_decoder, decoder_layers, layer_of
from selfcascade.upsamplers.shared_card import loading_from, upsamplers_card

CARD = "README.md"
UPSAMPLINGS: tuple[str, ...] = get_args(Upsampling)
ATTENTIONS: tuple[str, ...] = get_args(Attention)


class FeatureUpsamplers(ModelMixin, ConfigMixin):
    """The N feature upsamplers of one U-Net, saved as safetensors and JSON.

    Args:
        levels: Channels of each level's skip features, deepest level first, as `skip_channels(unet)` lists them.
        time_channels: Width of the U-Net's time embedding.
        preset: "full" (residual blocks at the U-Net's widths) or "micro" (at most 2,500 parameters on SD 2.1).
        pivot_step: K in training, where timesteps went up to it.
        sampling_pivot_step: Default K of a cascade; None means `pivot_step`.
        sampling_preset: Preset that supplies a cascade's other settings: anchor, energy, steps, guidance, attention.
        upsampling: How a cascade enlarges its pivots: "latent-bilinear", "latent-bicubic" or "rgb".
        groups, knots: Channel groups and time knots of the gains in "micro".
        attention: Self-attention of stages with a pivot in training, "full" or "local", and so of a cascade by default.
        temporal_kernel: Length in frames of the kernels along a clip, odd; 1 means none, for pictures.
        decoder_rank: Rank of low-rank weights for the decoder's layers; 0 means none.
        decoder_layers: These layers: name, input and output channels, and side of the kernel, 0 if linear.
        fingerprint: Some weights of the base U-Net, to recognise it; None accepts any U-Net with these skips.

    Raises:
        ValueError: An argument is not one of the allowed values.
    """

    @register_to_config
    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        time_channels: int,
        preset: str = "micro",
        pivot_step: int = 700,
        upsampling: str = "latent-bilinear",
        groups: int = 16,
        knots: int = 4,
        fingerprint: Sequence[float] | None = None,
        sampling_pivot_step: int | None = None,
        temporal_kernel: int = 1,
        attention: str = "full",
        decoder_rank: int = 0,
        decoder_layers: Sequence[Sequence[Any]] = (),
        sampling_preset: str = "paper",
    ) -> None:
        super().__init__()
        if preset not in (names := (*DESIGNS, *FULL_DESIGNS)):
            raise ValueError(f"preset must be one of {', '.join(names)}, not {preset!r}")
        if upsampling not in UPSAMPLINGS:
            raise ValueError(f"upsampling must be one of {', '.join(UPSAMPLINGS)}, not {upsampling!r}")
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, not {attention!r}")
        if sampling_preset not in PRESETS:
            raise ValueError(f"sampling_preset must be one of {', '.join(PRESETS)}, not {sampling_preset!r}")
        if not isinstance(levels, (list, tuple)) or not levels or not all(map(_are_channels, levels)):
            raise ValueError(f"levels must be lists of channels, positive whole numbers, not {shown(levels)}")
        counts: dict[str, object] = {"groups": groups, "knots": knots, "temporal_kernel": temporal_kernel}
        for name, value in counts.items():
            if not is_whole(value):
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        if temporal_kernel % 2 == 0:
            raise ValueError(f"temporal_kernel must be odd, not {temporal_kernel}")
        sampled = pivot_step if sampling_pivot_step is None else sampling_pivot_step
        for name, value in (("pivot_step", pivot_step), ("sampling_pivot_step", sampled)):
            if not is_whole(value):
                raise ValueError(f"{name} must be a training timestep from 1, not {value!r}")
        self.phi: Any = nn.ModuleList(
            FULL_DESIGNS[preset](channels, time_channels)
            if preset in FULL_DESIGNS
            else DESIGNS[preset](channels, groups, knots, pivot_step)
            for channels in levels
        )
        if not is_whole(decoder_rank, 0) or bool(decoder_rank) != bool(decoder_layers):
            raise ValueError(
                f"decoder_rank must be a whole number, over 0 just where decoder_layers are given, not {decoder_rank!r}"
            )
        along = levels if temporal_kernel > 1 else ()
        self.over_frames = nn.ModuleList(FrameKernels(len(channels), temporal_kernel) for channels in along)
        self.low_rank = nn.ModuleList(LowRank(layer_of(layer), decoder_rank) for layer in decoder_layers)

    @classmethod
    def from_unet(cls, unet: ModelMixin, preset: str = "micro", pivot_step: int = 700, **settings: Any) -> Self:
        """Untrained upsamplers for a conditional U-Net of diffusers (2D, SDXL, 3D, Motion).

        Args:
            unet: The U-Net; it is not changed.
            preset, pivot_step, settings: Arguments of the class.

        Raises:
            ValueError: The network has no skip features, or an argument is not allowed.
        """
        levels = skip_channels(unet)
        if preset in DESIGNS and "groups" not in settings:
            divides = (g for g in (16, 8, 4, 2, 1) if not any(count % g for level in levels for count in level))
            settings["groups"] = next(divides)
        if settings.get("decoder_rank"):
            settings["decoder_layers"] = [list(layer) for layer in decoder_layers(unet)]
        made = cls(
            levels,
            unet.time_embedding.linear_2.out_features,
            preset,
            pivot_step,
            fingerprint=fingerprint(unet),
            **settings,
        )
        nn.Module.to(made, unet.device)
        return made

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **settings: object) -> Self:
        """Loads upsamplers that `save_pretrained` wrote, from a folder or the Hub; safetensors only.

        Raises:
            ValueError: Weights are missing, do not fit the configuration, or are not finite.
            OSError: The folder does not exist, or a file is missing.
        """
        settings = {**settings, "use_safetensors": True, "output_loading_info": True}
        folder = pretrained_model_name_or_path
        made = super().from_pretrained(folder, **settings)  # pyright: ignore[reportUnknownMemberType]
        loaded, info = cast("tuple[Self, dict[str, list[object]]]", made)
        wrong = {name: info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}
        if wrong:
            faults = "; ".join(f"{name.replace('_', ' ')}: {', '.join(map(str, keys))}" for name, keys in wrong.items())
            raise ValueError(f"upsamplers in {str(folder)!r} do not fit their config.json: {faults}")
        if not all(torch.isfinite(parameter).all() for parameter in loaded.parameters()):
            raise ValueError(f"upsamplers in {str(folder)!r} have weights that are not finite")
        return loaded

    def push_to_hub(  # pyright: ignore[reportIncompatibleMethodOverride] - a card of their own needs the base model
        self,
        repo_id: str,
        *,
        base_model: str | None = None,
        commit_message: str = "Upload feature upsamplers",
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Uploads them to the Hub with a model card, whose program loads them from there.

        The card is that of `selfcascade train` where they were loaded from its folder, else a short one. A README.md
        that the repository has already is left as it is.

        Args:
            repo_id: "owner/name"; made where it is not there.
            base_model: The model they were made for, as `load_model` takes it; needed where no training tells it.
            commit_message, private, token, create_pr: The same arguments as in diffusers.

        Returns:
            The address of the commit.

        Raises:
            ValueError: Nothing tells the base model.
        """
        from huggingface_hub import HfApi

        api, card = HfApi(token=token), self._card(repo_id, base_model)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as place:
            cast("Any", self).save_pretrained(place, safe_serialization=True)
            if not api.file_exists(repo_id, CARD):
                (Path(place) / CARD).write_text(card)
            made = api.upload_folder(
                repo_id=repo_id, folder_path=place, commit_message=commit_message, create_pr=create_pr
            )
        return str(made)

    def _card(self, repo_id: str, base_model: str | None) -> str:
        folder = str(self.config.get("_name_or_path") or "")
        trained = Path(folder) / CARD
        if base_model is None and folder and trained.is_file():
            return loading_from(trained.read_text(), repo_id)
        if base_model is None:
            raise ValueError("base_model must name the model that these upsamplers were made for, for the model card")
        return upsamplers_card(repo_id, base_model, dict(self.config), self.num_parameters())

    def forward(
        self,
        level: int,
        pivot: Sequence[Tensor],
        own: Sequence[Tensor],
        timestep: Tensor,
        temb: Tensor,
        frames: int = 1,
    ) -> list[Tensor]:
        """phi_n(h_{n,0}, t): the residuals for the skips of a level (eq. 8).

        Args:
            level: n, 0 the deepest.
            pivot: The pivot's skips of that level, each (B, C, h, w).
            own: The stage's skips, each (B, C, H, W).
            timestep: Training timesteps, (B,).
            temb: The U-Net's time embedding, (B, time_channels).
            frames: Number of frames in each clip.

        Returns:
            Residuals, each (B, C, H, W).
        """
        residuals = self.phi[level](pivot, own, timestep, temb)
        return self.over_frames[level](residuals, frames) if self.over_frames else residuals

    def prepared(self, level: int, pivot: Sequence[Tensor], timestep: Tensor, temb: Tensor) -> Tensor:
        """The part that all residuals of a level share, for use with `one`; arguments as in `forward`."""
        return self.phi[level].prepared(pivot, timestep, temb)

    def one(self, level: int, made: Tensor, index: int, u: Tensor, h: Tensor) -> Tensor:
        """The residual of one skip of a picture: the same as in the list from `forward`.

        Args:
            level: n, 0 the deepest.
            made: Result of `prepared`.
            index: Index of the skip in its level.
            u: The pivot's skip, (B, C, h, w).
            h: The stage's skip, (B, C, H, W).
        """
        return self.phi[level].one(made, index, u, h)

    def check_unet(self, unet: nn.Module) -> None:
        """Raises ValueError if these upsamplers were made for another U-Net (of diffusers or ComfyUI)."""
        levels = [list(level) for level in self.config["levels"]]
        if skip_channels(unet) != levels:
            raise ValueError(
                f"these upsamplers were made for a U-Net with skip features of {levels} channels, and this "
                f"{type(unet).__name__} has {skip_channels(unet)}"
            )
        if not is_ldm(unet):
            check_decoder(unet, self.config["decoder_layers"])
        expected, found = self.config["fingerprint"], fingerprint(unet)
        if expected is None or found is None:
            return
        # Half precision changes a weight by up to 0.4 %; another model's weights differ by about their own size.
        close = torch.isclose(torch.tensor(found), torch.tensor(expected), rtol=0.02, atol=1e-4)
        if close.float().mean() < 0.9:
            raise ValueError(
                f"these upsamplers were trained on another model's weights than this {type(unet).__name__}'s; "
                "use the base model they were made for, or train new ones with `selfcascade train`"
            )


def _are_channels(level: object) -> bool:
    if not isinstance(level, (list, tuple)):
        return False
    channels = cast("Sequence[object]", level)
    return bool(channels) and all(map(is_whole, channels))
