"""The base model's batches: the choice of pictures, captions and noise levels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from common import CONFIG
from latents import kind
from loop import Draw
from pictures import PHRASINGS, load, load_said
from texts import NOT_SAID, token_ids, told_attributes, with_world
from worlds import WORLDS

SETTINGS = CONFIG["base"]
SHARES = SETTINGS["shares"]


class Batch(NamedTuple):
    """The batch of a step.

    Attributes:
        latents: (B, C, h, w) float32, of unit variance.
        ids: Token ids, (B, length) int64.
        told: Attributes in the captions, (B, attributes) int64; NOT_SAID for missing ones.
    """

    latents: Tensor
    ids: Tensor
    told: Tensor


class Pool(NamedTuple):
    """The pictures of one group and world.

    Attributes:
        latents: Latents, in shards.
        ids: Token ids of every phrasing, without and with the world's word first, (N, 2, phrasings, length) int16.
        told: Attributes in the captions, (N, attributes) int64.
        odds: Cumulative odds of drawing each picture, (N,) float64.
    """

    latents: list[np.ndarray]
    ids: Tensor
    told: Tensor
    odds: Tensor


def read_pool(group: str, name: str, tokenizer: CLIPTokenizer) -> Pool:
    """Reads a group of one world; pictures of two objects get their configured share."""
    said, world = load_said(group, name), WORLDS[name]
    lines = [
        line
        for row in said
        for line in (*row["captions"], *(with_world(world, caption) for caption in row["captions"]))
    ]
    ids = token_ids(tokenizer, lines)
    odds = torch.ones(len(said), dtype=torch.float64)
    pairs = torch.tensor([row["truth"].get("count") == 2 for row in said])
    if 0 < int(pairs.sum()) < len(said):
        odds = torch.where(pairs, SHARES["pairs"] / pairs.sum(), (1 - SHARES["pairs"]) / (~pairs).sum())
    told = told_attributes(row["truth"] for row in said)
    return Pool(load(kind(), group, name), ids.reshape(len(said), 2, PHRASINGS, -1), told, odds.cumsum(0))


class Batches:
    """Draws batches from all pools.

    One step in `large_every` uses larger windows, fewer in proportion to their pixels. In other steps each group has
    its share, and all worlds have equal shares.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self.pools = {group: [read_pool(group, name, tokenizer) for name in WORLDS] for group in SHARES["groups"]}
        self.empty = token_ids(tokenizer, [""])[0].long()

    def draw(self, draw: Draw) -> Batch:
        """The batch of a step's share."""
        large = SHARES["large"]
        if draw.step % SHARES["large_every"] == SHARES["large_every"] - 1:
            groups, count = [large], max(1, draw.count // 4)
            shares = [1.0]
        else:
            groups, count = [group for group in SHARES["groups"] if group != large], draw.count
            shares = [SHARES["groups"][group] for group in groups]
        chosen = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=draw.generator)
        rows = [self._sample(groups[int(group)], draw.generator) for group in chosen]
        return Batch(*(torch.stack(parts) for parts in zip(*rows, strict=True)))

    def captions(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Token ids (B, length) of whole pictures' captions, and the attributes in them (B, attributes)."""
        rows = [self._captioned(*self._chosen("native", draw.generator), draw.generator) for _ in range(draw.count)]
        ids, told = (torch.stack(parts) for parts in zip(*rows, strict=True))
        return ids, told

    def _sample(self, group: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        pool, index = self._chosen(group, generator)
        shard, row = divmod(index, CONFIG["pictures"]["shard"])
        latents = torch.from_numpy(np.array(pool.latents[shard][row])).float()
        ids, told = self._captioned(pool, index, generator)
        if torch.rand((), generator=generator) < SETTINGS["prompt_dropout"]:
            return latents, self.empty, torch.full_like(told, NOT_SAID)
        return latents, ids, told

    def _chosen(self, group: str, generator: torch.Generator) -> tuple[Pool, int]:
        worlds = self.pools[group]
        pool = worlds[int(torch.randint(len(worlds), (), generator=generator))]
        place = torch.rand((), generator=generator, dtype=torch.float64) * pool.odds[-1]
        return pool, min(int(torch.searchsorted(pool.odds, place, right=True)), len(pool.odds) - 1)

    def _captioned(self, pool: Pool, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        named = int(torch.rand((), generator=generator) < SETTINGS["world_named"])
        phrasing = int(torch.randint(PHRASINGS, (), generator=generator))
        return pool.ids[index, named, phrasing].long(), pool.told[index]


def draw_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Training timesteps (count,): a share from the top quarter, most of it near the very top, where layout is learnt.

    The share is spread evenly over the batch, so that whole pictures and windows get it alike.
    """
    timestep = torch.randint(steps, (count,), generator=generator)
    high = torch.rand(count, generator=generator) < SETTINGS["high_noise_share"]
    skewed = (steps - 1 - steps / 4 * torch.rand(count, generator=generator) ** 2).long()
    return torch.where(high, skewed, timestep)


def loss_weights(alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """Weights (B,) of the squared error of v: min-SNR's cap where there is little noise, 1 where there is much.

    (min(SNR, gamma) + 1) / (SNR + 1). Hang et al. (2023) weigh the error of z_0 by min(SNR, gamma), which is almost 0
    at the highest noise. Small latents get their layout there, so the v-loss's own weight of 1 is kept.
    """
    alpha = alphas_cumprod[timestep.cpu()].double()
    snr = alpha / (1 - alpha)
    return ((snr.clamp(max=SETTINGS["snr_gamma"]) + 1) / (snr + 1)).float()
