"""Video transformers beside Wan, LTX and CogVideoX."""

from __future__ import annotations

import torch
from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.cascade import Size


class HunyuanVideo(Family):
    """HunyuanVideo: (B, C, F, h, w)."""

    classes = ("HunyuanVideoPipeline",)
    video = True
    stated_size = (720, 1280)


class HunyuanVideo15(Family):
    """HunyuanVideo 1.5: 16 pixels a latent pixel; its guidance is the pipeline's `guider`."""

    classes = ("HunyuanVideo15Pipeline",)
    video = True

    @property
    def native_size(self) -> Size:
        width, height = self.pipe.default_aspect_ratio
        processor = self.pipe.video_processor
        return Size(*processor.calculate_default_height_width(height, width, self.pipe.target_size))


class MotifVideo(Family):
    """Motif-Video: (B, C, F, h, w), each channel with its own mean and standard deviation, guided by a `guider`."""

    classes = ("MotifVideoPipeline",)
    video = True
    flow = True
    stated_size = (736, 1280)


class Kandinsky5Video(Family):
    """Kandinsky 5: channels last, (B, F, h, w, C); beside them it is shown a clip to go on from, which is empty."""

    classes = ("Kandinsky5T2VPipeline",)
    video = True
    least_multiple = 16
    stated_size = (512, 768)

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return latents.movedim(-1, 1)

    def from_spatial(self, z: Tensor) -> Tensor:
        latents = self.to_step(z)
        # Latents that it draws itself get a shown clip and its mask; those that it is given are to have them already.
        more = z.shape[1] + 1 if self.pipe.transformer.visual_cond else 0
        empty = latents.new_zeros(*latents.shape[:-1], more)
        return torch.cat([latents, empty], dim=-1)

    def to_step(self, z: Tensor) -> Tensor:
        return z.movedim(1, -1)
