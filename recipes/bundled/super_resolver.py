"""Step 8: trains the super-resolver, a StableDiffusionUpscalePipeline, on crops of scenes; puts it into the package.

It enlarges four times a side: from a crop at a quarter of its size, with noise of a random level added, and from the
whole scene's caption, the U-Net predicts v of the crop's latents. Autoencoder and text encoder are the bundled model's.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate, mse_loss

import selfcascade
from base import build_scheduler
from common import CONFIG, DEVICE, RUNS, load_state, log_row, moving_average, plateau, save_state, ship, write_array
from muon import Muon
from selfcascade.data.scenes import caption, render, sample_scene

SETTINGS = CONFIG["super_resolver"]
FACTOR = 4
FIRST_SCENE = 5_000_000
FOLDER = RUNS / "super_resolver"
LIMIT = 8  # megabytes
# StableDiffusionUpscalePipeline sets its autoencoder's scaling factor to this, whatever the model says.
SCALING_FACTOR = 0.08333


def rescaled(vae: AutoencoderKL) -> AutoencoderKL:
    """The same autoencoder, its latents in the unit that makes the scaling factor SCALING_FACTOR."""
    made = copy.deepcopy(vae)
    unit = vae.config.scaling_factor / SCALING_FACTOR
    means = vae.config.latent_channels
    with torch.no_grad():
        for values in (made.quant_conv.weight, made.quant_conv.bias):
            values[:means] *= unit
        made.quant_conv.bias[means:] += 2 * np.log(unit)
        made.post_quant_conv.weight /= unit
    made.register_to_config(scaling_factor=SCALING_FACTOR)
    return made


@torch.no_grad()
def load_crops(pipe: StableDiffusionPipeline) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents of the crops (N, C, h, w) float16, the crops at a quarter (N, 3, h, w) uint8, token ids (N, length)."""
    latents_path, small_path = FOLDER / "latents.npy", FOLDER / "small.npy"
    count, crop, per_scene = SETTINGS["scenes"], SETTINGS["crop"], SETTINGS["crops_per_scene"]
    scenes = [sample_scene(FIRST_SCENE + index) for index in range(count)]
    words = [caption(scene, FIRST_SCENE + index) for index, scene in enumerate(scenes)]
    if not small_path.exists():
        side = FACTOR * CONFIG["native_size"]
        latents, small = [], []
        for begin in range(0, count, 50):
            corners = torch.Generator().manual_seed(SETTINGS["seed"] + begin)
            crops = []
            for scene in scenes[begin : begin + 50]:
                picture = render(scene, side, side)
                for top, left in torch.randint(side - crop + 1, (per_scene, 2), generator=corners).tolist():
                    crops.append(picture[top : top + crop, left : left + crop])
            batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
                mode = pipe.vae.encode(batch.to(DEVICE) * 2 - 1).latent_dist.mode()
            latents.append((mode * pipe.vae.config.scaling_factor).half().cpu())
            small.append(interpolate(batch, scale_factor=1 / FACTOR, mode="area").mul(255).round().byte())
        write_array(latents_path, torch.cat(latents).numpy())
        write_array(small_path, torch.cat(small).numpy())
    ids = pipe.tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids
    arrays = [torch.from_numpy(np.load(path, allow_pickle=False)) for path in (latents_path, small_path)]
    return arrays[0], arrays[1], ids.repeat_interleave(per_scene, 0)


def loss_of(
    unet: nn.Module,
    scheduler: DDIMScheduler,
    low_res_scheduler: DDPMScheduler,
    z_0: torch.Tensor,
    small: torch.Tensor,
    states: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The v-prediction loss; small (B, 3, h, w) in [-1, 1]; text states (B, length, C)."""
    count = len(z_0)
    timestep = torch.randint(scheduler.config.num_train_timesteps, (count,), generator=generator)
    # Squared: most pictures that are to be enlarged carry little noise.
    level = (SETTINGS["unet"]["num_class_embeds"] * torch.rand(count, generator=generator) ** 2).long()
    noise, blur = (torch.randn(part.shape, generator=generator).to(part) for part in (z_0, small))
    timestep, level = timestep.to(z_0.device), level.to(z_0.device)
    given = [scheduler.add_noise(z_0, noise, timestep), low_res_scheduler.add_noise(small, blur, level)]
    prediction = unet(torch.cat(given, 1), timestep, states, class_labels=level).sample
    return mse_loss(prediction.float(), scheduler.get_velocity(z_0, noise, timestep))


@torch.no_grad()
def sample_sheet(pipe: StableDiffusionUpscalePipeline, path: str) -> None:
    """Four held-out scenes, for the eye: enlarged without a model, by the model, and the real render."""
    rows, native = [], CONFIG["native_size"]
    for index in range(4):
        scene = sample_scene(31_000_000 + index, held_out=True)
        small, large = (Image.fromarray((render(scene, side, side) * 255).astype(np.uint8)) for side in (native, 256))
        words, generator = caption(scene, index), torch.Generator().manual_seed(index)
        made = pipe(words, small, num_inference_steps=25, guidance_scale=3.0, generator=generator).images[0]
        rows.append(np.concatenate([np.asarray(p) for p in (small.resize((256, 256)), made, large)], 0))
    Image.fromarray(np.concatenate(rows, 1)).save(path)


def main() -> None:
    """Trains, or goes on where it was cut; exports at the end."""
    torch.manual_seed(SETTINGS["seed"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    bundled = selfcascade.load_bundled().to(DEVICE)
    latents, small, ids = load_crops(bundled)
    scheduler = build_scheduler(SETTINGS["scheduler"])
    low_res_scheduler = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="scaled_linear")
    unet, averaged = (UNet2DConditionModel.from_config(SETTINGS["unet"]).to(DEVICE) for _ in range(2))
    averaged.load_state_dict(unet.state_dict())
    optimizer = Muon(
        unet.named_parameters(),
        SETTINGS["learning_rate"],
        SETTINGS["adam_learning_rate"],
        ("class_embedding", "conv_in", "conv_out"),
        SETTINGS["weight_decay"],
    )
    state = FOLDER / "state.safetensors"
    step = load_state(state, {"unet": unet, "averaged": averaged}, optimizer)
    average = moving_average(averaged, SETTINGS["ema_decay"], step)
    pipe = StableDiffusionUpscalePipeline(
        rescaled(bundled.vae),
        bundled.text_encoder,
        bundled.tokenizer,
        averaged,
        low_res_scheduler,
        scheduler,
        max_noise_level=SETTINGS["unet"]["num_class_embeds"] - 1,
    )
    pipe.set_progress_bar_config(disable=True)
    empty = bundled.tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.2f}M parameters", flush=True)
    began, total, first = time.time(), 0.0, step
    while step < SETTINGS["steps"]:
        generator = torch.Generator().manual_seed(SETTINGS["seed"] * 1_000_003 + step)
        rows = torch.randint(len(latents), (SETTINGS["batch_size"],), generator=generator)
        words = ids[rows]
        words[torch.rand(len(rows), generator=generator) < SETTINGS["prompt_dropout"]] = empty
        with torch.no_grad():
            states = bundled.text_encoder(words.to(DEVICE))[0]
        seen = small[rows].to(DEVICE).float() / 127.5 - 1
        optimizer.scale_rates(plateau(step, SETTINGS))
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            loss = loss_of(
                unet, scheduler, low_res_scheduler, latents[rows].to(DEVICE).float(), seen, states, generator
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        average.step(unet.parameters())
        total += loss.item()
        step += 1
        if step % 100 == 0:
            speed = (step - first) * SETTINGS["batch_size"] / (time.time() - began)
            log_row(FOLDER / "curve.csv", step=step, loss=total / 100, samples_per_second=speed)
            total = 0.0
        if step % 250 == 0 or step == SETTINGS["steps"]:
            average.copy_to(averaged.parameters())
            save_state(state, step, {"unet": unet, "averaged": averaged}, optimizer)
        if step % 1000 == 0 or step == SETTINGS["steps"]:
            sample_sheet(pipe, str(FOLDER / f"samples-{step:06d}.png"))
    ship("super_resolver", pipe.to("cpu", torch.float16), LIMIT)


if __name__ == "__main__":
    main()
