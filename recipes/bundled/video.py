"""Step 9: trains a motion adapter, and the text encoder on motion words, to make a video model of the image model.

The image U-Net and the autoencoder are not changed. Motion words are added to the tokenizer as new tokens. As in
`base.py`, a linear head reads each object's direction from the token at which the U-Net finds the object; other heads
read from the deep motion modules how far it has moved at each frame. All heads are discarded.

Clips come in pairs that share their noise and move in opposite directions. The loss of their difference counts more
than that of their mean, which contains all that cannot be predicted. Most steps are near pure noise, where directions
are decided. Early steps see two frames of a clip at their own times, later ones four or all 16.

Usage: video.py           train, or resume; `torchrun --nproc-per-node N video.py` shares each batch
       video.py export    ship the last checkpoint's average
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, UNetMotionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from PIL import Image
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm
from transformers import CLIPTextModel, CLIPTokenizer

import selfcascade
from common import CONFIG, DEVICE, NATIVE, RUNS, ship, training_of
from loop import Draw
from selfcascade.data.scenes.motion import DIRECTIONS, sample_moving_scene
from selfcascade.data.scenes.motion_words import MOTION_WORDS, moving_caption
from selfcascade.data.scenes.poses import HEADINGS
from selfcascade.training.checkpoints import CheckpointError, find_checkpoint, load_checkpoint
from video_batches import FRAMES, Clips, draw_clips

SETTINGS = CONFIG["video"]
FOLDER = RUNS / "video"
LIMIT = 10.0
LOSSES = ("mean", "difference", "hearing", "shift")
SHEET_EVERY = 500
DEEP = ("down_blocks.2", "down_blocks.3", "mid_block", "up_blocks.0", "up_blocks.1")


def build_tokenizer(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The image model's tokenizer, with a token for each motion word."""
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in MOTION_WORDS])
    return tokenizer


def build_pipeline() -> AnimateDiffPipeline:
    """The image model with fresh motion modules, which change nothing yet."""
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
    """What is trained: the U-Net's motion modules, the text encoder, and auxiliary heads."""

    def __init__(self, unet: UNetMotionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        unet.requires_grad_(False)
        self.unet = [unet]  # hidden, since its other weights are the image model's, neither trained nor saved
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

    def forward(self, z_t: Tensor, timestep: Tensor, batch: Clips) -> tuple[Tensor, Tensor, Tensor]:
        """V of noisy latents (B, F, C, h, w) at timesteps (B,), and the losses of the heads on text and U-Net."""
        states = self.text_encoder(batch.ids)[0]
        first, _ = self.head(states[:, -1]).chunk(2, 1)
        _, last = self.head(states[:, -2]).chunk(2, 1)
        heard = [
            cross_entropy(rows.float(), batch.said[:, column], ignore_index=-100, reduction="sum")
            for column, rows in enumerate((first, last))
        ]
        hearing = torch.stack(heard).sum() / (batch.said >= 0).sum().clamp(min=1)
        (unet,) = self.unet
        with at_places(unet, batch.places):
            repeated = states.repeat_interleave(z_t.shape[1], 0)
            prediction = unet(z_t.transpose(1, 2), timestep, repeated).sample.transpose(1, 2)
        return prediction, hearing, self.shift_loss(batch.said, batch.places)

    def shift_loss(self, said: Tensor, places: Tensor) -> Tensor:
        """The error of the positions of the first and last object at each frame, read from the U-Net's last pass."""
        known = said >= 0
        headings = torch.tensor([HEADINGS[direction] for direction in DIRECTIONS]).to(places.device)
        way = (places - (FRAMES - 1) / 2) / (FRAMES / 2)
        target = headings[said.clamp(min=0)][:, None] * way[None, :, None, None]  # (B, F, 2, 2)
        losses = []
        for name, out in self.seen.items():
            pooled = layer_norm(out.float().mean((2, 3)), out.shape[1:2])
            told = self.shift_heads[name.replace(".", "_")](pooled).float().reshape(target.shape)
            losses.append((told - target).square().mean((1, 3))[known].sum() / known.sum().clamp(min=1))
        return torch.stack(losses).mean()


@contextmanager
def at_places(unet: UNetMotionModel, places: Tensor) -> Iterator[None]:
    """Places the U-Net's frames at these positions of a clip within this context, not at 0, 1, 2, ..."""
    embeddings = [module for module in unet.modules() if isinstance(module, SinusoidalPositionalEmbedding)]
    whole = [embedding.pe for embedding in embeddings]
    for embedding in embeddings:
        embedding.pe = embedding.pe[:, places]
    try:
        yield
    finally:
        for embedding, pe in zip(embeddings, whole, strict=True):
            embedding.pe = pe


def losses_of(
    module: nn.Module, pipe: AnimateDiffPipeline, batch: Clips, high_noise_share: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """The v-prediction losses of the mean and of half the difference of each pair, and the heads' losses."""
    scheduler, z_0 = pipe.scheduler, batch.latents * pipe.vae.config.scaling_factor
    steps, scenes = scheduler.config.num_train_timesteps, len(z_0) // 2
    timestep = torch.randint(steps, (scenes,), generator=generator)
    high = torch.rand(scenes, generator=generator) < high_noise_share
    skewed = (steps - 1 - steps / 4 * torch.rand(scenes, generator=generator) ** 2).long()
    timestep = torch.where(high, skewed, timestep)
    noise = torch.randn((scenes, *z_0.shape[1:]), generator=generator)
    timestep, noise = (value.to(z_0.device).repeat_interleave(2, 0) for value in (timestep, noise))
    z_t = scheduler.add_noise(z_0, noise, timestep)
    prediction, hearing, shift = module(z_t, timestep, batch)
    error = prediction.float() - scheduler.get_velocity(z_0, noise, timestep)
    mean, half = (error[::2] + error[1::2]) / 2, (error[::2] - error[1::2]) / 2
    losses = {"mean": mean.square().mean(), "difference": half.square().mean(), "hearing": hearing, "shift": shift}
    return {"loss": sum(SETTINGS[f"{name}_weight"] * losses[name] for name in LOSSES), **losses}


@torch.no_grad()
def sample_sheet(pipe: AnimateDiffPipeline, path: str, count: int = 4) -> None:
    """A sheet of held-out prompts at native size, every second frame, to look at."""
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
    """The video pipeline's own parts, as one object that `ship` saves."""

    def __init__(self, pipe: AnimateDiffPipeline) -> None:
        self.pipe = pipe.to("cpu", torch.float16)

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        """Writes one folder for each part."""
        self.pipe.unet.save_motion_modules(folder / "motion_adapter")  # as float32, whatever the U-Net is
        adapter = MotionAdapter.from_pretrained(folder / "motion_adapter").half()
        adapter.save_pretrained(folder / "motion_adapter", safe_serialization=safe_serialization)
        self.pipe.text_encoder.save_pretrained(folder / "text_encoder")
        self.pipe.tokenizer.save_pretrained(folder / "tokenizer")


def export() -> None:
    """Ships the averaged weights of the last checkpoint.

    Raises:
        CheckpointError: There is no checkpoint.
    """
    pipe = build_pipeline()
    place = find_checkpoint(FOLDER, "latest")
    if place is None:
        raise CheckpointError(f"{FOLDER} holds no checkpoint; run video.py first")
    tensors = load_checkpoint(place).tensors
    motion = Motion(pipe.unet, pipe.text_encoder)
    averaged = next(tensors[name] for name in sorted(tensors) if name.startswith("average-"))
    for name, weight in motion.named_parameters():
        weight.data.copy_(averaged[name])
    ship("video", Parts(pipe), LIMIT)


def main() -> None:
    """Trains, or resumes; exports at the end."""
    torch.manual_seed(SETTINGS["seed"])
    pipe = build_pipeline()
    motion = Motion(pipe.unet, pipe.text_encoder)
    if DEVICE.type == "cpu":
        pipe.unet.set_attn_processor(AttnProcessor())  # its backward pass in bfloat16 is far slower fused, on CPUs

    def loss_of(module: nn.Module, draw: Draw) -> dict[str, Tensor]:
        early, late = SETTINGS["early"], SETTINGS["late"]
        turn = early if draw.step < SETTINGS["early_steps"] else late[draw.step % len(late)]
        count = max(1, turn["scenes"] * draw.count // SETTINGS["batch_size"])
        batch = draw_clips(pipe, count, draw.first, turn["frames"], SETTINGS["prompt_dropout"], draw.generator)
        return losses_of(module, pipe, batch, turn["high_noise_share"], draw.generator)

    others = "text_encoder", "head", "pos_embed"
    training = training_of("video", motion, others, loss_of, lambda _, path: sample_sheet(pipe, path), SHEET_EVERY)
    print(f"{sum(p.numel() for p in motion.modules_of_unet.parameters()) / 1e6:.2f}M parameters", flush=True)
    if training.run() and training.accelerator.is_main_process:
        export()


if __name__ == "__main__":
    export() if sys.argv[1:] == ["export"] else main()
