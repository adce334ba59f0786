"""CLIP score against transformers' own forward pass."""

import pytest
import torch

from clip_score import tiny_clip_score


def test_it_is_the_cosine_that_the_model_computes() -> None:
    clip, prompts = tiny_clip_score(), ["a red house", "a blue fish at night"]
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = clip.tokenizer(prompts, padding=True, return_tensors="pt")
    pixels = (pictures - clip.mean) / clip.std
    with torch.no_grad():
        output = clip.model(pixel_values=pixels, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    cosines = (output.logits_per_image / clip.model.logit_scale.exp()).diagonal()
    torch.testing.assert_close(clip.score(pictures, prompts), 100 * cosines.clamp(min=0), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(clip.features(pictures).norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="as many as the 2 pictures, not 1"):
        clip.score(pictures, prompts[:1])


def test_any_size_and_ratio_is_cut_to_the_middle() -> None:
    clip = tiny_clip_score()
    wide = torch.zeros(1, 3, 64, 192)
    wide[..., 64:128] = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(clip.features(wide), clip.features(wide[..., 64:128]), atol=0.05, rtol=0)
    assert clip.features(torch.rand(1, 3, 70, 33)).shape == (1, 8)
