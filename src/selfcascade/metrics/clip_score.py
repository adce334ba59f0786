"""CLIP score: how well a picture fits its prompt (Hessel et al. 2021), with any CLIP model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize


class ClipScore:
    """100 max(cos(picture, prompt), 0), and CLIP's picture features as a detector for distances.

    Args:
        model: A `CLIPModel`.
        tokenizer: The model's tokenizer.
        mean, std: Mean and deviation of the channels of its training pictures, (3,); by default OpenAI's.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.mean, self.std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))

    @classmethod
    def from_pretrained(cls, folder: str) -> ClipScore:
        """Loads a model from a folder or the Hub, safetensors only.

        Raises:
            OSError: The model does not exist.
        """
        from transformers import CLIPModel, CLIPTokenizer

        return cls(CLIPModel.from_pretrained(folder, use_safetensors=True), CLIPTokenizer.from_pretrained(folder))

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Unit vectors (B, D) of pictures (B, 3, H, W) in [0, 1], resized by the shorter side and cropped."""
        side = self.model.config.vision_config.image_size
        factor = side / min(pictures.shape[-2:])
        size = [max(side, round(length * factor)) for length in pictures.shape[-2:]]
        resized = interpolate(pictures.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        top, left = ((length - side) // 2 for length in size)
        cut = resized[..., top : top + side, left : left + side].clamp(0, 1)
        pixels = ((cut - self.mean) / self.std).to(self.model.device, self.model.dtype)
        vision = self.model.vision_model(pixel_values=pixels).pooler_output
        return normalize(self.model.visual_projection(vision).float(), dim=1)

    @torch.no_grad()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores from 0 to 100 of pictures (B, 3, H, W) in [0, 1], each with its own prompt.

        Raises:
            ValueError: The numbers of prompts and pictures differ.
        """
        if len(prompts) != len(pictures):
            raise ValueError(f"prompts must be as many as the {len(pictures)} pictures, not {len(prompts)}")
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        text = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        words = normalize(self.model.text_projection(text).float(), dim=1)
        return 100 * (self.features(pictures) * words).sum(1).clamp(min=0).cpu()
