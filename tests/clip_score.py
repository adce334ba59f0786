"""A CLIP score of random weights."""

import torch
from transformers import CLIPConfig, CLIPModel

from selfcascade.metrics.clip_score import ClipScore
from tiny.parts import clip_text_config, clip_tokenizer


def tiny_clip_score() -> ClipScore:
    text = clip_text_config().to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8, "projection_dim": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={**text, "projection_dim": 8}, vision_config=vision, projection_dim=8))
    return ClipScore(model, clip_tokenizer())
