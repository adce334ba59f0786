"""Detectors: networks that turn pictures into features, for distances between them.

Axis letters: B pictures, C channels, H, W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import silu

from selfcascade.options.optional import install


class PatchDetector(ModelMixin, ConfigMixin):
    """A small fully convolutional network for full-size patches of scenes, sensitive to texture, sharpness and noise.

    A network that recognises things learns to ignore flaws. This one is also trained to tell how a patch was degraded,
    so a distance of its features grows with blur, noise and wrong detail.

    Args:
        outputs: Name and width of each output.
        widths: Channels of the resolution levels; the last is the number of features.
    """

    @register_to_config
    def __init__(self, outputs: dict[str, int], widths: Sequence[int] = (32, 48, 64, 96)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.Conv2d(b, b, 3, padding=1)])
            for a, b in pairwise(widths)
        )
        # In order of name: a saved configuration does not keep the order of its keys.
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1], outputs[name]) for name in sorted(outputs)})

    def features(self, images: Tensor) -> Tensor:
        """Features (B, widths[-1]) of patches (B, 3, H, W) in [0, 1] of at least 16 pixels a side, not resized."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < 16:
            raise ValueError(f"images must be (B, 3, H, W) of at least 16 pixels a side, not {tuple(images.shape)}")
        return silu(self.maps(images)[-1]).mean((2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """What each level after the first makes of images (B, 3, H, W) in [0, 1]: (B, width, h, w), finest first."""
        hidden, found = silu(self.stem(images * 2 - 1)), []
        for down, norm, convolution in self.levels:  # type: ignore[misc]
            down_hidden = norm(down(hidden))
            hidden = down_hidden + convolution(silu(down_hidden))
            found.append(hidden)
        return found

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits or values (B, width) of each output."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}


class Inception:
    """The Inception-v3 of published FIDs, 2,048 features, from torch-fidelity; pictures are rounded to 8 bits for it.

    Args:
        weights: File of its weights in safetensors. torch-fidelity's own is a pickle, which this package does not read;
            `save_file(torch.load("weights-inception-2015-12-05-6726825d.pth", weights_only=True), FILE)` converts it.

    Raises:
        ValueError: torch-fidelity is not installed, or the file cannot be read.
    """

    def __init__(self, weights: str) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError(f"detector inception needs torch-fidelity: {install('torch_fidelity')}") from error
        try:
            state = load_file(weights)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"detector inception cannot read {weights!r} as safetensors: {error}") from error
        with tempfile.TemporaryDirectory() as folder:  # torch-fidelity reads weights from its own format only
            torch.save(state, f"{folder}/weights.pth")
            own = {"feature_extractor_weights_path": f"{folder}/weights.pth"}
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], **own).eval()

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Features (B, 2048) of pictures (B, 3, H, W) in [0, 1] of any size; they are resized to 299 x 299."""
        device = next(self.network.parameters()).device
        return self.network(pictures.to(device).clamp(0, 1).mul(255).round().to(torch.uint8))[0].float()
