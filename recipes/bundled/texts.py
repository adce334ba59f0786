"""The base model's text: a CLIP tokenizer in which each of the worlds' words is a token, and a small text encoder."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers
import torch
from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from common import CONFIG, DEVICE
from selfcascade.base_models.precision import has_bfloat16
from worlds import WORLDS, World, labels

EXTRA_WORDS = ", . a picture photo of"
NOT_SAID = -100


def with_world(world: World, caption: str) -> str:
    """A caption that begins with the name of the world."""
    return f"{world.name}, {caption}"


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which each of the worlds' words is one token; other words are spelled by bytes."""
    corpus = [
        with_world(world, world.caption(world.sample(number), number, number % 9 == 0)) + " " + EXTRA_WORDS
        for world in WORLDS.values()
        for number in range(2000)
    ]
    trained = tokenizers.Tokenizer(BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(vocab_size=4000, end_of_word_suffix="</w>", initial_alphabet=bytes_, show_progress=False)
    trained.train_from_iterator([line.replace(",", " ,") for line in corpus], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = list(dict.fromkeys([*bytes_, *(f"{byte}</w>" for byte in bytes_), *("".join(pair) for pair in merges)]))
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    length = CONFIG["text_encoder"]["max_position_embeddings"]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder with fresh weights."""
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = CLIPTextConfig(vocab_size=len(tokenizer), **special, **CONFIG["text_encoder"])
    if DEVICE.type == "cpu" and has_bfloat16("cpu"):
        config._attn_implementation = "eager"  # its backward pass in bfloat16 is far slower fused, on CPUs
    return CLIPTextModel(config)


def token_ids(tokenizer: CLIPTokenizer, lines: list[str]) -> Tensor:
    """Token ids of captions, (N, length) int16."""
    ids = tokenizer(lines, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.to(torch.int16)


def told_attributes(truths: Iterable[dict]) -> Tensor:
    """The attributes of truths, (N, attributes) int64, as indices into `labels()`; NOT_SAID for missing ones."""
    words = {name: {word: index for index, word in enumerate(values)} for name, values in labels().items()}
    rows = [[words[name][str(truth[name])] if name in truth else NOT_SAID for name in words] for truth in truths]
    return torch.tensor(rows).reshape(-1, len(words))
