"""Step 9: trains the motion adapter, and the text encoder on its words, that make a video model of the image model.

The image U-Net and the autoencoder stay as they are. The motion words are added to the tokenizer as tokens of their
own. As in `base.py`, a linear head reads where each object goes off the token at which the U-Net finds that object;
others read off the deep motion modules how far it is gone at each frame. All are thrown away.

The first steps see two frames of a clip, at their own places in time, and mostly near pure noise, where it is decided
where things go. Clips come in pairs with the same noise in which everything goes opposite ways, so that what is hard to
predict in both takes nothing from what tells them apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, UNetMotionModel
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from PIL import Image
from safetensors import safe_open
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, mse_loss
from transformers import CLIPTextModel, CLIPTokenizer

import selfcascade
from common import CONFIG, DEVICE, NATIVE, RUNS, load_state, log_row, moving_average, plateau, save_state, ship
from muon import Muon
from selfcascade.data.scenes.motion import DIRECTIONS, sample_moving_scene
from selfcascade.data.scenes.motion_words import MOTION_WORDS, moving_caption
from selfcascade.data.scenes.poses import HEADINGS
from video_batches import FRAMES, SHARD, Clips, load_clips, pairs, some

SETTINGS = CONFIG["video"]
FOLDER = RUNS / "video"
LIMIT = 10.0
DEEP = ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1")


def build_tokenizer(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The image model's, with a token for each word of motion."""
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in MOTION_WORDS])
    return tokenizer


def build_pipeline() -> AnimateDiffPipeline:
    """The image model with motion modules that change nothing yet."""
    image = selfcascade.load_bundled()
    tokenizer = build_tokenizer(image.tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(SETTINGS["seed"])
        image.text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        adapter = MotionAdapter(block_out_channels=image.unet.config.block_out_channels, **SETTINGS["adapter"])
    unet = UNetMotionModel.from_unet2d(image.unet, adapter)
    pipe = AnimateDiffPipeline(image.vae, image.text_encoder, tokenizer, unet, adapter, image.scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(DEVICE)


class Motion(nn.Module):
    """What is trained: the U-Net's motion modules, the text encoder, and the head that goes along."""

    def __init__(self, unet: UNetMotionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        unet.requires_grad_(False)
        modules = {name: module for name, module in unet.named_modules() if name.endswith("motion_modules")}
        self.modules_of_unet = nn.ModuleDict({name.replace(".", "_"): module for name, module in modules.items()})
        self.text_encoder = text_encoder
        self.head = nn.Linear(text_encoder.config.hidden_size, 2 * len(DIRECTIONS))
        deep = {name: module for name, module in modules.items() if name.startswith(DEEP)}
        self.shift_heads = nn.ModuleDict(
            {name.replace(".", "_"): nn.Linear(module[-1].proj_out.out_features, 4) for name, module in deep.items()}
        )
        self.seen: dict[str, Tensor] = {}
        for name, module in deep.items():
            module[-1].register_forward_hook(lambda _, __, out, name=name: self.seen.update({name: out}))
        self.requires_grad_(True)

    def forward(self, ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States (B, length, D) of token ids, and logits of where the first and the last object go."""
        states = self.text_encoder(ids)[0]
        first, _ = self.head(states[:, -1]).chunk(2, 1)
        _, last = self.head(states[:, -2]).chunk(2, 1)
        return states, (first, last)

    def shift_loss(self, said: Tensor, places: Tensor) -> Tensor:
        """How far off the U-Net's last pass is in where the first and the last object are gone at each frame."""
        known = said >= 0
        headings = torch.tensor([HEADINGS[direction] for direction in DIRECTIONS]).to(places.device)
        way = (places - (FRAMES - 1) / 2) / (FRAMES / 2)
        target = headings[said.clamp(min=0)][:, None] * way[None, :, None, None]  # (B, F, 2, 2)
        losses = []
        for name, out in self.seen.items():
            pooled = layer_norm(out.mean((2, 3)), out.shape[1:2])
            told = self.shift_heads[name.replace(".", "_")](pooled).reshape(target.shape)
            losses.append((told - target).square().mean((1, 3))[known].sum() / known.sum().clamp(min=1))
        return torch.stack(losses).mean()


@contextmanager
def at_places(unet: UNetMotionModel, places: Tensor) -> Iterator[None]:
    """Within it the frames that the U-Net sees stand at these places of a clip, not at 0, 1, 2, ..."""
    embeddings = [module for module in unet.modules() if isinstance(module, SinusoidalPositionalEmbedding)]
    whole = [embedding.pe for embedding in embeddings]
    for embedding in embeddings:
        embedding.pe = embedding.pe[:, places]
    try:
        yield
    finally:
        for embedding, pe in zip(embeddings, whole, strict=True):
            embedding.pe = pe


def loss_of(
    motion: Motion, pipe: AnimateDiffPipeline, batch: Clips, high_noise_share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The v-prediction loss of clips, and the losses of the heads on the text encoder and on the U-Net."""
    scheduler, z_0 = pipe.scheduler, batch.latents * pipe.vae.config.scaling_factor
    steps, scenes = scheduler.config.num_train_timesteps, len(z_0) // batch.alike
    timestep = torch.randint(steps, (scenes,), generator=generator)
    high = round(scenes * high_noise_share)
    timestep[:high] = (steps - 1 - steps / 4 * torch.rand(high, generator=generator) ** 2).long()
    noise = torch.randn((scenes, *z_0.shape[1:]), generator=generator).to(z_0)
    timestep, noise = (value.repeat_interleave(batch.alike, 0) for value in (timestep.to(z_0.device), noise))
    z_t = scheduler.add_noise(z_0, noise, timestep)
    states, logits = motion(batch.ids.to(z_0.device))
    with at_places(pipe.unet, batch.places.to(z_0.device)):
        states = states.repeat_interleave(z_0.shape[1], 0)
        prediction = pipe.unet(z_t.transpose(1, 2), timestep, states).sample.transpose(1, 2)
    said = batch.said.to(z_0.device)
    heard = [cross_entropy(rows, said[:, column], ignore_index=-100) for column, rows in enumerate(logits)]
    hearing, shift = torch.stack(heard).nan_to_num().mean(), motion.shift_loss(said, batch.places.to(z_0.device))
    return mse_loss(prediction, scheduler.get_velocity(z_0, noise, timestep)), hearing, shift


@torch.no_grad()
def sample_sheet(pipe: AnimateDiffPipeline, path: str, count: int = 4) -> None:
    """Held-out prompts at native size, every second frame, for the eye."""
    rows = []
    for index in range(count):
        words = moving_caption(sample_moving_scene(51_000_000 + index, held_out=True), index)
        generator = torch.Generator().manual_seed(index)
        size = {"height": NATIVE, "width": NATIVE, "num_frames": FRAMES}
        out = pipe(words, **size, num_inference_steps=25, guidance_scale=3.0, generator=generator, output_type="np")
        rows.append(np.concatenate(list(out.frames[0][::2]), 1))
        print(f"video: {path} row {index + 1}: {words}", flush=True)
    sheet = Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


class Parts:
    """What the video pipeline has of its own, as one thing that `ship` saves."""

    def __init__(self, pipe: AnimateDiffPipeline) -> None:
        self.pipe = pipe.to("cpu", torch.float16)

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        """Writes a folder for each."""
        self.pipe.unet.save_motion_modules(folder / "motion_adapter", safe_serialization=safe_serialization)
        self.pipe.text_encoder.save_pretrained(folder / "text_encoder")
        self.pipe.tokenizer.save_pretrained(folder / "tokenizer")


def export() -> None:
    """Ships the averaged weights of the last checkpoint."""
    pipe = build_pipeline()
    averaged = Motion(pipe.unet, pipe.text_encoder)
    with safe_open(FOLDER / "state.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("averaged/")]  # noqa: SIM118
        averaged.load_state_dict({name.removeprefix("averaged/"): file.get_tensor(name) for name in names})
    ship("video", Parts(pipe), LIMIT)


def main() -> None:
    """Trains, or goes on where it was cut; exports at the end."""
    torch.manual_seed(SETTINGS["seed"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    pipe, averaged_pipe = build_pipeline(), build_pipeline()
    clips = load_clips(pipe, SETTINGS["clips"] // SHARD)
    motion, averaged = (Motion(one.unet, one.text_encoder).to(DEVICE) for one in (pipe, averaged_pipe))
    averaged.load_state_dict(motion.state_dict())
    averaged.requires_grad_(False)
    if DEVICE.type == "cpu":
        pipe.unet.to(memory_format=torch.channels_last)
    optimizer = Muon(
        motion.named_parameters(), SETTINGS["learning_rate"], SETTINGS["adam_learning_rate"],
        ("text_encoder", "head", "pos_embed"), SETTINGS["weight_decay"],
    )  # fmt: skip
    state = FOLDER / "state.safetensors"
    step = load_state(state, {"motion": motion, "averaged": averaged}, optimizer)
    average = moving_average(averaged, SETTINGS["ema_decay"], step)
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    print(f"{sum(p.numel() for p in motion.modules_of_unet.parameters()) / 1e6:.2f}M parameters", flush=True)
    began, total, seen = time.time(), torch.zeros(3), 0
    while step < SETTINGS["steps"]:
        generator = torch.Generator().manual_seed(SETTINGS["seed"] * 1_000_003 + step)
        paired = step < SETTINGS["pairs"]["until"]
        stage = SETTINGS["pairs" if paired else "whole"]
        count = stage["batch_size"]
        batch = pairs(pipe, count, step, generator) if paired else some(clips, count, generator)
        dropped = torch.rand(len(batch.ids), generator=generator) < SETTINGS["prompt_dropout"]
        batch.ids[dropped], batch.said[dropped] = empty, -100
        optimizer.scale_rates(plateau(step, SETTINGS, 0.02))
        loss, hearing, shift = loss_of(motion, pipe, batch, stage["high_noise_share"], generator)
        optimizer.zero_grad()
        (loss + SETTINGS["hearing_weight"] * hearing + SETTINGS["shift_weight"] * shift).backward()
        nn.utils.clip_grad_norm_(motion.parameters(), 1.0)
        optimizer.step()
        average.step(motion.parameters())
        total += torch.tensor([loss.item(), hearing.item(), shift.item()])
        step, seen = step + 1, seen + len(batch.ids)
        if step % 50 == 0:
            speed, seen = seen / (time.time() - began), 0
            began = time.time()
            loss, hearing, shift = (total / 50).tolist()
            values = {"step": step, "loss": loss, "hearing": hearing, "shift": shift, "clips_per_second": speed}
            log_row(FOLDER / "curve.csv", **values, rate=plateau(step, SETTINGS, 0.02))
            total = torch.zeros(3)
        if step % 100 == 0 or step == SETTINGS["steps"]:
            average.copy_to(averaged.parameters())
            save_state(state, step, {"motion": motion, "averaged": averaged}, optimizer)
        if step % 500 == 0 or step == SETTINGS["steps"]:
            sample_sheet(averaged_pipe, str(FOLDER / f"samples-{step:06d}.png"))

    export()


if __name__ == "__main__":
    export() if sys.argv[1:] == ["export"] else main()
