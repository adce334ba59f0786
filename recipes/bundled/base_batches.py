"""The base model's batches: which pictures, in whose words, with how much noise."""

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
    """What a step trains on.

    Attributes:
        latents: (B, C, h, w) float32, of unit variance.
        ids: Token ids, (B, length) int64.
        told: What the captions say, (B, attributes) int64; NOT_SAID where they do not.
    """

    latents: Tensor
    ids: Tensor
    told: Tensor


class Pool(NamedTuple):
    """The pictures of one group and world.

    Attributes:
        latents: In shards.
        ids: Token ids of every phrasing, without and with the world's word first, (N, 2, phrasings, length) int16.
        told: (N, attributes) int64.
        odds: Of being drawn, summed up to each picture, (N,) float64.
    """

    latents: list[np.ndarray]
    ids: Tensor
    told: Tensor
    odds: Tensor


def read_pool(group: str, name: str, tokenizer: CLIPTokenizer) -> Pool:
    """A group of one world; pictures of two objects have the share of it that is set for them."""
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
    """All pools, and batches drawn from them.

    One step in `large_every` sees larger windows, as many times fewer as they have more pixels; in the others each
    group has its share, and each world the same.
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

    def _sample(self, group: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        worlds = self.pools[group]
        pool = worlds[int(torch.randint(len(worlds), (), generator=generator))]
        place = torch.rand((), generator=generator, dtype=torch.float64) * pool.odds[-1]
        index = min(int(torch.searchsorted(pool.odds, place, right=True)), len(pool.odds) - 1)
        shard, row = divmod(index, CONFIG["pictures"]["shard"])
        latents = torch.from_numpy(np.array(pool.latents[shard][row])).float()
        named = int(torch.rand((), generator=generator) < SETTINGS["world_named"])
        phrasing = int(torch.randint(PHRASINGS, (), generator=generator))
        if torch.rand((), generator=generator) < SETTINGS["prompt_dropout"]:
            return latents, self.empty, torch.full_like(pool.told[index], NOT_SAID)
        return latents, pool.ids[index, named, phrasing].long(), pool.told[index]


def draw_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Training timesteps (count,): a share from the top quarter, most of it near the very top, where layout is learnt.

    Whole pictures and windows alike, the share spread evenly over the batch's places.
    """
    timestep = torch.randint(steps, (count,), generator=generator)
    high = torch.rand(count, generator=generator) < SETTINGS["high_noise_share"]
    skewed = (steps - 1 - steps / 4 * torch.rand(count, generator=generator) ** 2).long()
    return torch.where(high, skewed, timestep)


def loss_weights(alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """Weights (B,) of the squared error of v: min-SNR's cap where there is little noise, 1 where there is much.

    (min(SNR, gamma) + 1) / (SNR + 1). Hang et al. (2023) weigh the error of z_0 by min(SNR, gamma), which is nearly 0
    at the highest noise; but it is there that small latents get their layout, so the v-loss's own 1 is kept.
    """
    alpha = alphas_cumprod[timestep.cpu()].double()
    snr = alpha / (1 - alpha)
    return ((snr.clamp(max=SETTINGS["snr_gamma"]) + 1) / (snr + 1)).float()
