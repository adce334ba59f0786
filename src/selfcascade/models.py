"""Loads models by name: a bundled one, a folder in diffusers' format, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from selfcascade.loading.names import Device, checked_name
from selfcascade.loading.quiet import libraries_quiet
from selfcascade.loading.reasons import reason_of
from selfcascade.loading.single_files import check_single_file, load_single_file
from selfcascade.options import Options

BUNDLED = Path(__file__).parent / "bundled" / "image"
BUNDLED_VIDEO = Path(__file__).parent / "bundled" / "video"
BUNDLED_SUPER_RESOLVER = Path(__file__).parent / "bundled" / "super_resolver"
BUNDLED_UPSAMPLERS = Path(__file__).parent / "bundled" / "upsamplers"
BUNDLED_MODELS = ("bundled", "bundled-video")
DTYPES = ("float32", "float16", "bfloat16")
# A StableDiffusionUpscalePipeline sets its autoencoder's scaling factor to this, whatever the autoencoder says.
UPSCALER_SCALING_FACTOR = 0.08333


def load_bundled(device: Device | None = None, dtype: str | None = None, video: bool = False) -> Any:
    """The small pipeline that ships with the package; its half-precision files are read as float32.

    Args:
        device: See `load_model`.
        dtype: See `load_model`; None means float32.
        video: True loads the video model instead, an AnimateDiffPipeline for 16 frames.

    Raises:
        ValueError: The model is not installed, or the device or dtype does not exist.
    """
    return load_model("bundled-video" if video else "bundled", device, dtype)


def load_model(name: str, device: Device | None = None, dtype: str | None = None, config: str | None = None) -> Any:
    """Loads a text-to-image or text-to-video pipeline from local files or, where they are missing, from the Hub.

    Only safetensors files are read, and code that comes with a model is never run.

    Args:
        name: "bundled" or "bundled-video", a folder with a `model_index.json`, a .safetensors checkpoint, or a Hub id
            ("stabilityai/stable-diffusion-2-1").
        device: "cpu", "cuda", "cuda:1", "mps", or such a `torch.device`; None picks the best one available.
        dtype: "float32", "float16" or "bfloat16"; None means float32, or float16 on a GPU unless the model is bundled.
        config: For a checkpoint, a folder in diffusers' format with a model of the same kind; None uses the original
            model's.

    Raises:
        ValueError: The model, device or dtype does not exist; the message says what was looked for.
    """
    return read_model(name, device, dtype, config).to(find_device(device))


def read_model(name: str, device: Device | None = None, dtype: str | None = None, config: str | None = None) -> Any:
    """Like `load_model`, but the pipeline stays in the CPU's memory; `device` only decides the default dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    folder, place = find_folder(name), find_device(device)
    name = str(name)
    import torch

    chosen = dtype or ("float32" if place.split(":")[0] == "cpu" or name in BUNDLED_MODELS else "float16")
    options: dict[str, Any] = {"dtype": getattr(torch, chosen), "use_safetensors": True}
    with libraries_quiet(name in BUNDLED_MODELS):
        if folder is not None and folder.is_file():
            pipe = load_single_file(name, config, options["dtype"])
        else:
            pipe = _from_hub(name, options) if folder is None else _from_folder(name, folder, options)
        if name == "bundled-video":
            pipe = _set_in_motion(pipe, options)
    pipe.set_progress_bar_config(disable=None)
    return pipe


def load_equipped(options: Options) -> tuple[Any, Options]:
    """Loads the options' model with its additions, placed and compiled, and adds checksums to the options.

    Raises:
        ValueError: Something is missing or does not fit. What can be checked first is checked before loading.
    """
    from selfcascade.loading.named_files import check_files

    options = check_files(options)

    from selfcascade.loading.additions import add_to, check_additions
    from selfcascade.loading.execution import check_execution, placed

    device = find_device(options.device)
    check_execution(options, device)
    check_additions(options)
    pipe = read_model(options.model, options.device, options.dtype, options.config)
    return placed(add_to(pipe, options), options, device), options


def bundled_upsamplers() -> list[str]:
    """Names of the bundled model's feature upsamplers, the strongest first."""
    return [name for name in ("full", "micro") if (BUNDLED_UPSAMPLERS / name / "config.json").is_file()]


def load_upsamplers(name: str) -> Any:
    """Loads feature upsamplers: the bundled model's by name, a folder, a run's checkpoint, or "owner/name" on the Hub.

    Raises:
        ValueError: The upsamplers do not exist or cannot be read.
    """
    from selfcascade.upsamplers.model import FeatureUpsamplers
    from selfcascade.upsamplers.of_checkpoint import is_checkpoint, upsamplers_in

    name = checked_name("upsamplers", name)
    folder = BUNDLED_UPSAMPLERS / name if name in bundled_upsamplers() else Path(name).expanduser()
    on_hub = name.count("/") == 1 and name[0] not in "./~" and not folder.exists()
    if not on_hub and not is_checkpoint(folder) and not (folder / "config.json").is_file():
        raise ValueError(f"upsamplers {name!r} is not a folder with a config.json, as `selfcascade train` writes it")
    try:
        if is_checkpoint(folder):
            return upsamplers_in(folder).eval()
        return FeatureUpsamplers.from_pretrained(name if on_hub else str(folder), local_files_only=not on_hub).eval()
    except Exception as error:  # a damaged folder and the Hub fail in as many ways as there are files
        raise ValueError(f"upsamplers {name!r} cannot be loaded: {reason_of(error)}") from error


def load_super_resolver(name: str, device: Device | None = None, dtype: str | None = None) -> Any:
    """Loads a StableDiffusionUpscalePipeline: the bundled one, a folder's, or one from the Hub.

    Args:
        name: "bundled", a folder with a `model_index.json`, or a Hub id ("stabilityai/stable-diffusion-x4-upscaler").
        device, dtype: See `load_model`.

    Raises:
        ValueError: The model does not exist, or is of another class.
    """
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale import StableDiffusionUpscalePipeline

    pipe = _bundled_super_resolver(device, dtype) if name == "bundled" else load_model(name, device, dtype)
    if not isinstance(pipe, StableDiffusionUpscalePipeline):
        raise ValueError(f"weights {name!r} are a {type(pipe).__name__}, not a StableDiffusionUpscalePipeline")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def upscaler_autoencoder(vae: Any) -> Any:
    """A copy of an autoencoder whose latents have the scale that a StableDiffusionUpscalePipeline expects.

    Args:
        vae: An AutoencoderKL in float32. Latents times the scaling factor are the same for the copy.

    Returns:
        The copy, with weights rounded to half precision like those of the bundled files.
    """
    import copy
    import math

    import torch

    made, means = copy.deepcopy(vae), vae.config.latent_channels
    unit = vae.config.scaling_factor / UPSCALER_SCALING_FACTOR
    with torch.no_grad():
        for values in (made.quant_conv.weight, made.quant_conv.bias):
            values[:means] *= unit
        made.quant_conv.bias[means:] += 2 * math.log(unit)  # of the variances, in logarithms
        made.post_quant_conv.weight /= unit
    made.register_to_config(scaling_factor=UPSCALER_SCALING_FACTOR)
    return made.half().float()


def find_device(name: Device | None = None) -> str:
    """The device to run on, as text; None picks the best available: CUDA, then Apple's GPU, then the CPU.

    Raises:
        ValueError: This machine does not have the device.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    name = str(name) if isinstance(name, torch.device) else name
    match = re.fullmatch(r"(cpu|cuda|mps)(?::([0-9]{1,3}))?", name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(f"device must be cpu, cuda, cuda:N or mps, not {name!r}")
    count = {"cpu": lambda: 1, "cuda": torch.cuda.device_count, "mps": lambda: int(torch.backends.mps.is_available())}
    if int(match[2] or 0) >= count[match[1]]():
        raise ValueError(f"device {name!r} is not on this machine; use cpu")
    return name


def find_folder(name: str) -> Path | None:
    """The folder or file of a local model; None for what can only be a Hub id. Bundled models share one folder.

    Raises:
        ValueError: The name is neither local nor a Hub id.
    """
    name = checked_name("model", name)
    if name in BUNDLED_MODELS:
        parts = [BUNDLED / "model_index.json"]
        parts += [BUNDLED_VIDEO / "motion_adapter" / "config.json"] if name == "bundled-video" else []
        for part in parts:
            if not part.is_file():
                missing = part.relative_to(BUNDLED.parent)
                raise ValueError(f"model {name!r} is not installed: {missing} is missing; name another model")
        return BUNDLED
    folder = Path(name).expanduser()
    if folder.is_file():
        check_single_file(name, None)
        return folder
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(f"model {name!r} is a folder without model_index.json, so not in diffusers' format")
        return folder
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        own = " nor ".join(map(repr, BUNDLED_MODELS))
        raise ValueError(f"model {name!r} is neither {own}, a folder, nor a Hub id like 'owner/name'") from error
    return None


def _from_folder(name: str, folder: Path, options: dict[str, Any]) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from selfcascade.loading.model_folders import HALF, check_components, check_folder, in_half, text_models

    half = {"variant": HALF} if any(in_half(folder / part) for part in ("unet", "transformer")) else {}
    try:
        # An absolute path, by which its selfcascade.json is found later, wherever the process is by then.
        place = folder.absolute()
        given = text_models(place, check_folder(place), options)
        pipe = DiffusionPipeline.from_pretrained(str(place), local_files_only=True, **half, **options, **given)
        check_components(pipe)
        return pipe
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise ValueError(f"model {name!r} cannot be loaded from its folder: {reason_of(error)}") from error


def _set_in_motion(image: Any, options: dict[str, Any]) -> Any:
    """The bundled video pipeline: the image pipeline with motion modules and the video text encoder."""
    from diffusers.models.unets.unet_motion_model import MotionAdapter
    from diffusers.pipelines.animatediff.pipeline_animatediff import AnimateDiffPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    own: dict[str, Any] = {"local_files_only": True, "dtype": options["dtype"]}
    adapter = MotionAdapter.from_pretrained(BUNDLED_VIDEO / "motion_adapter", **own)
    encoder = CLIPTextModel.from_pretrained(BUNDLED_VIDEO / "text_encoder", **own)
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED_VIDEO / "tokenizer", local_files_only=True)
    pipe = AnimateDiffPipeline(image.vae, encoder, tokenizer, image.unet, adapter, image.scheduler)
    pipe.register_to_config(_name_or_path=str(BUNDLED_VIDEO))  # whose selfcascade.json is this pipeline's
    return pipe


def _bundled_super_resolver(device: Device | None, dtype: str | None) -> Any:
    """The bundled super-resolver: its own U-Net with the image pipeline's autoencoder and text encoder."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale import StableDiffusionUpscalePipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if not (BUNDLED_SUPER_RESOLVER / "unet" / "config.json").is_file():
        raise ValueError("the bundled super-resolver is not installed; name another by its folder or Hub id")
    place, image = find_device(device), load_model("bundled", "cpu", "float32")

    def own(part: str, kind: Any, **options: Any) -> Any:
        return kind.from_pretrained(BUNDLED_SUPER_RESOLVER / part, local_files_only=True, **options)

    unet = own("unet", UNet2DConditionModel, dtype=torch.float32)
    pipe = StableDiffusionUpscalePipeline(
        upscaler_autoencoder(image.vae),
        image.text_encoder,
        image.tokenizer,
        unet,
        own("low_res_scheduler", DDPMScheduler),
        own("scheduler", DDIMScheduler),
        max_noise_level=unet.config["num_class_embeds"] - 1,
    )
    return pipe.to(place, getattr(torch, dtype or "float32"))


def _from_hub(name: str, options: dict[str, Any]) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    try:
        return DiffusionPipeline.from_pretrained(name, local_files_only=True, **options)
    except (OSError, ValueError):
        pass  # not in the cache, or only in part
    try:
        return DiffusionPipeline.from_pretrained(name, **options)
    except Exception as error:  # the network's, the Hub's and the loader's errors share no base class
        own = ", ".join(map(repr, BUNDLED_MODELS))
        raise ValueError(
            f"model {name!r} is not a folder, none of {own}, not in the local cache, and the Hub says: "
            f"{reason_of(error)}"
        ) from error
