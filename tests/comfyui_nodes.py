"""The ComfyUI nodes as a package, and the public calls of ComfyUI that they make."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"
NAME = "selfcascade_comfyui"


def import_nodes() -> ModuleType:
    """The folder, imported as ComfyUI imports what is in `custom_nodes`."""
    spec = importlib.util.spec_from_file_location(
        NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Each public call with the arguments that the nodes give it.
CALLS: dict[str, tuple[str, ...]] = {
    "comfy.sample.prepare_noise": ("latent_image", "seed", "noise_inds"),
    "comfy.sample.fix_empty_latent_channels": ("model", "latent_image"),
    "comfy.sample.sample_custom": (
        *("model", "noise", "cfg", "sampler", "sigmas", "positive", "negative", "latent_image"),
        *("callback", "disable_pbar", "seed"),
    ),
    "comfy.samplers.KSampler": ("model", "steps", "device", "sampler", "scheduler", "denoise", "model_options"),
    "comfy.samplers.sampler_object": ("name",),
    "comfy.model_management.throw_exception_if_processing_interrupted": (),
    "comfy.model_management.get_torch_device": (),
    "comfy.ldm.modules.diffusionmodules.util.timestep_embedding": ("timesteps", "dim"),
    "comfy.model_patcher.ModelPatcher.clone": (),
    "comfy.model_patcher.ModelPatcher.get_model_object": ("name",),
    "comfy.model_patcher.ModelPatcher.get_attachment": ("key",),
    "comfy.model_patcher.ModelPatcher.set_attachments": ("key", "attachment"),
    "comfy.model_patcher.ModelPatcher.set_model_sampler_post_cfg_function": ("post_cfg_function",),
    "comfy.model_patcher.ModelPatcher.set_model_unet_function_wrapper": ("unet_wrapper_function",),
    "comfy.model_patcher.ModelPatcher.set_model_output_block_patch": ("patch",),
    "comfy.model_patcher.ModelPatcher.set_model_attn1_patch": ("patch",),
    "comfy.model_patcher.ModelPatcher.set_model_attn2_patch": ("patch",),
    "comfy.model_patcher.ModelPatcher.model_size": (),
    "comfy.sd.VAE.decode": ("samples_in",),
    "comfy.sd.VAE.encode": ("pixel_samples",),
    "comfy.sd.VAE.spacial_compression_decode": (),
    "latent_preview.prepare_callback": ("model", "steps"),
    "folder_paths.add_model_folder_path": ("folder_name", "full_folder_path"),
    "folder_paths.get_folder_paths": ("folder_name",),
}
# Attributes that the nodes read, of modules and classes.
NAMES = (
    *("comfy.samplers.KSampler.SAMPLERS", "comfy.samplers.KSampler.SCHEDULERS", "comfy.utils.PROGRESS_BAR_ENABLED"),
    *("comfy.model_sampling.CONST", "comfy.ldm.modules.attention.wrap_attn", "folder_paths.models_dir"),
)
