"""The ComfyUI nodes on stand-ins of ComfyUI's calls: the same latents as the library's, progress, seeds, refusals."""

import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
from torch import Tensor

import comfyui_standin as standin
from comfyui_attention import with_attention
from comfyui_control import ControlNet
from comfyui_nodes import CALLS, FOLDER, NAME, import_nodes
from selfcascade import FeatureUpsamplers, SelfCascade
from spandrel_models import save_upscaler, spandrel
from tiny import TINY

STEPS, CFG, SEED, SIDE = 5, 3.0, 5, 8
VALUES: dict[str, Any] = {"steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "simple", "scale": 2.0}
VALUES["attention"] = "full"  # attention has a stand-in only in the U-Nets of `with_attention`


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    before = set(sys.modules)
    assert "comfy" not in before
    list(standin.modules(str(tmp_path_factory.mktemp("models"))))
    yield import_nodes()
    for name in set(sys.modules) - before:
        if name.startswith((NAME, "comfy.", "latent_preview", "folder_paths")) or name == "comfy":
            del sys.modules[name]


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = TINY["stable-diffusion"].build()
    made.scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        timestep_spacing="trailing",
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def model(nodes: ModuleType, pipe: Any) -> standin.ModelPatcher:
    return standin.ModelPatcher(standin.Model(pipe))


@pytest.fixture(scope="module")
def texts(pipe: Any) -> list[Any]:
    with torch.no_grad():
        return [[[text, {}]] for text in pipe.encode_prompt("a house", "cpu", 1, True, "")]


@pytest.fixture(scope="module")
def upsamplers(pipe: Any, nodes: ModuleType) -> FeatureUpsamplers:
    made = FeatureUpsamplers.from_unet(pipe.unet, "full", 700)
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    made.save_pretrained(Path(sys.modules["folder_paths"].models_dir) / "selfcascade" / "mine")
    return made


def empty(pipe: Any, batch: int = 1) -> dict[str, Any]:
    return {"samples": torch.zeros(batch, pipe.unet.config.in_channels, SIDE, SIDE)}


def sampled(nodes: ModuleType, model: Any, texts: Any, pipe: Any, latent: Any = None, **values: Any) -> Any:
    node = nodes.NODE_CLASS_MAPPINGS["SelfCascadeSampler"]()
    return node.sample(model, *texts, standin.VAE(pipe), latent or empty(pipe), SEED, **{**VALUES, **values})


def library(pipe: Any, upsamplers: Any = None, **options: Any) -> Tensor:
    given = {"num_inference_steps": STEPS, "guidance_scale": CFG, "output_type": "latent", "scale": 2.0}
    given |= {"attention": "full", **options}
    native = (SIDE * pipe.vae_scale_factor,) * 2
    return SelfCascade(pipe, upsamplers, native)(
        "a house", generator=torch.Generator().manual_seed(SEED), **given
    ).images


def close(made: dict[str, Tensor], pipe: Any, latents: Tensor) -> bool:
    # Sums of noise to scale sigma run to 15 in float32, those of the library to 1.
    return torch.allclose(made["samples"] * pipe.vae.config.scaling_factor, latents, atol=2e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "paper"},
        {"preset": "quality"},
        {"preset": "paper", "anchor": 0.3, "energy": 1.0, "scale": 4.0},
        {"preset": "fast", "upsampling": "latent-bicubic"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_latents_are_the_librarys(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, options: dict[str, Any]
) -> None:
    made, base, told = sampled(nodes, model, texts, pipe, **options)
    assert close(made, pipe, library(pipe, **options))
    assert close(base, pipe, library(pipe, **{**options, "scale": 1.0}))
    assert told.count("K = ") == (1 if options.get("scale", 2.0) == 2 else 2)


def test_a_preset_with_local_attention_has_full_where_attention_cannot_be_replaced(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["comfy.ldm.modules.attention"], "wrap_attn")
    made, _, told = sampled(nodes, model, texts, pipe, preset="quality", attention="preset")
    assert close(made, pipe, library(pipe, preset="quality")) and "full attention" in told
    with pytest.raises(ValueError, match="attention 'local' needs a ComfyUI whose attention can be replaced"):
        sampled(nodes, model, texts, pipe, preset="quality", attention="local")


def test_the_tuned_version_is_the_librarys(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, upsamplers: FeatureUpsamplers
) -> None:
    apply = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]
    assert apply.INPUT_TYPES()["required"]["upsamplers"][0][0] == "mine"
    (tuned,) = apply().apply(model, "mine", 1.0)
    made, _, _ = sampled(nodes, tuned, texts, pipe)
    expected = library(pipe, upsamplers)
    assert close(made, pipe, expected)
    assert not close(made, pipe, library(pipe, upsamplers, upsampler_scale=0.0))
    (off,) = apply().apply(model, "mine", 0.0)
    assert close(sampled(nodes, off, texts, pipe)[0], pipe, library(pipe, upsamplers, upsampler_scale=0.0))


@pytest.mark.parametrize("scale", [2.0, 4.0], ids=["4x", "16x"])
def test_with_local_attention_the_tuned_version_is_the_librarys(
    nodes: ModuleType, texts: Any, pipe: Any, upsamplers: FeatureUpsamplers, scale: float
) -> None:
    """Features of pivots too, whose tokens are as many as those of a level of the stage."""
    own, options = standin.ModelPatcher(with_attention(pipe)), {"preset": "quality", "attention": "local"}
    (tuned,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(own, "mine", 1.0)
    made, _, _ = sampled(nodes, tuned, texts, pipe, scale=scale, **options)
    assert close(made, pipe, library(pipe, upsamplers, scale=scale, **options))
    assert not close(made, pipe, library(pipe, upsamplers, scale=scale, **{**options, "attention": "full"}))


@pytest.mark.parametrize("tuned", [False, True], ids=["plain", "tuned"])
def test_a_controlnet_acts_at_every_stage_as_in_the_library(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, upsamplers: FeatureUpsamplers, tuned: bool
) -> None:
    factor, generator = pipe.vae_scale_factor, torch.Generator().manual_seed(4)
    channels = (16,) * factor.bit_length()
    network = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=channels).eval()
    for name, weight in network.named_parameters():
        if name.startswith(("controlnet_", "controlnet_cond_embedding.conv_out")):
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    hint = torch.rand(1, 3, 4, 4, generator=generator)
    hint = torch.nn.functional.interpolate(hint, scale_factor=2 * SIDE * factor / 4)  # of the target's size
    control = {"control": ControlNet(model.model, network, hint, factor)}
    (own,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(model, "mine", float(tuned))
    controlled = [[[text, control]] for ((text, _),) in texts]
    made, _, _ = sampled(nodes, own, controlled, pipe, preset="paper")
    both = StableDiffusionControlNetPipeline(**pipe.components, controlnet=network, requires_safety_checker=False)
    both.set_progress_bar_config(disable=True)
    expected = library(both, upsamplers if tuned else None, image=hint, preset="paper")
    assert close(made, pipe, expected)
    assert not close(made, pipe, library(pipe, upsamplers if tuned else None, preset="paper"))


def test_a_wrapper_that_is_there_goes_round_ours(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, upsamplers: FeatureUpsamplers
) -> None:
    calls: list[int] = []

    def wrapper(apply_model: Any, args: dict[str, Any]) -> Tensor:
        calls.append(args["input"].shape[-1])
        return apply_model(args["input"], args["timestep"], **args["c"])

    own = model.clone()
    own.set_model_unet_function_wrapper(wrapper)
    (tuned,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(own, "mine", 1.0)
    made, _, _ = sampled(nodes, tuned, texts, pipe)
    assert close(made, pipe, library(pipe, upsamplers))
    assert calls == [SIDE] * 5 + [2 * SIDE] * 3
    assert tuned.model_options["model_function_wrapper"] is wrapper
    (given,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(own, "mine", 1.0, empty(pipe))
    assert given.model_options["model_function_wrapper"] is not wrapper


def test_a_base_sample_is_chosen_first_and_seeds_are_ksamplers(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any
) -> None:
    several, base, _ = sampled(nodes, model, texts, pipe, empty(pipe, 3))
    third = {"samples": base["samples"][2:], "batch_index": [2]}
    alone, kept, told = sampled(nodes, model, texts, pipe, third)
    assert "from noise" not in told
    assert kept["samples"] is third["samples"]
    assert torch.allclose(alone["samples"], several["samples"][2:], atol=1e-4)
    first, _, _ = sampled(nodes, model, texts, pipe)
    assert torch.allclose(first["samples"], several["samples"][:1], atol=1e-4)


def test_a_users_picture_is_enlarged_as_by_the_library(nodes: ModuleType, model: Any, texts: Any, pipe: Any) -> None:
    side = SIDE * pipe.vae_scale_factor
    pixels = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(1))
    node, values = nodes.NODE_CLASS_MAPPINGS["SelfCascadeUpscale"](), {**VALUES, "native_size": side}
    image, latents, _ = node.upscale(pixels, model, *texts, standin.VAE(pipe), SEED, **values)
    given: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": CFG, "output_type": "latent", "scale": 2.0}
    given["attention"] = "full"
    generator = torch.Generator().manual_seed(SEED)
    cascade = SelfCascade(pipe, native_size=(side, side))
    out = cascade.upscale(pixels.movedim(-1, 1), "a house", generator=generator, **given)
    assert close(latents, pipe, out.images)
    assert image.shape == (1, 2 * side, 2 * side, 3)


def test_an_upscale_model_enlarges_pivots_and_pictures_as_in_the_library(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, tmp_path: Path
) -> None:
    upscaler = spandrel().ModelLoader().load_from_file(save_upscaler(tmp_path / "2x.safetensors", scale=2))
    made = sampled(nodes, model, texts, pipe, upscale_model=upscaler)[0]
    assert close(made, pipe, library(pipe, pivot_upscaler=upscaler))
    assert not close(made, pipe, library(pipe))
    (freed,) = sys.modules["comfy.model_management"].freed
    assert freed > 512 * 512 * 3 * 4 * 2 * 384 + (2 * SIDE * pipe.vae_scale_factor) ** 2 * 3 * 4
    with pytest.raises(ValueError, match=r"upscale_model is for stages above the base, and .* has none"):
        sampled(nodes, model, texts, pipe, upscale_model=upscaler, scale=1.0)
    side = SIDE * pipe.vae_scale_factor
    pixels = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(1))
    node, values = nodes.NODE_CLASS_MAPPINGS["SelfCascadeUpscale"](), {**VALUES, "native_size": side}
    latents = node.upscale(pixels, model, *texts, standin.VAE(pipe), SEED, **values, upscale_model=upscaler)[1]
    given: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": CFG, "output_type": "latent", "scale": 2.0}
    generator = torch.Generator().manual_seed(SEED)
    cascade = SelfCascade(pipe, native_size=(side, side))
    given |= {"attention": "full", "generator": generator, "pivot_upscaler": upscaler}
    assert close(latents, pipe, cascade.upscale(pixels.movedim(-1, 1), "a house", **given).images)
    with pytest.raises(ValueError, match="upscale_model enlarges pictures, so upsampling must be rgb"):
        sampled(nodes, model, texts, pipe, upscale_model=upscaler, preset="paper")
    same = spandrel().ModelLoader().load_from_file(save_upscaler(tmp_path / "1x.safetensors", scale=1))
    with pytest.raises(ValueError, match="upscale_model of class ImageModelDescriptor has a scale of 1"):
        sampled(nodes, model, texts, pipe, upscale_model=same)


def test_progress_runs_once_over_all_stages_and_ends_when_interrupted(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any
) -> None:
    shown = sys.modules["latent_preview"].shown
    shown.clear()
    sampled(nodes, model, texts, pipe, preset="paper")
    assert shown == [(step, 8) for step in range(8)]  # 5, and those of 5 at or below K = 700
    standin.INTERRUPTED.now = True
    try:
        with pytest.raises(standin.Interrupted):
            sampled(nodes, model, texts, pipe)
    finally:
        standin.INTERRUPTED.now = False


def test_one_side_alone_keeps_the_ratio(nodes: ModuleType, model: Any, texts: Any, pipe: Any) -> None:
    side = 4 * SIDE * pipe.vae_scale_factor
    made, _, _ = sampled(nodes, model, texts, pipe, preset="paper", width=side)
    assert made["samples"].shape[-2:] == (4 * SIDE, 4 * SIDE)


def test_the_two_sizes_of_stable_diffusion_2_are_told_apart(nodes: ModuleType) -> None:
    side = sys.modules[f"{NAME}.planning"].native_side
    kinds = {"EPS": 512, "V_PREDICTION": 768}
    for name, native in kinds.items():
        inner = SimpleNamespace(model_config=type("SD20", (), {})(), model_type=SimpleNamespace(name=name))
        assert side(SimpleNamespace(model=inner), 0) == native
        assert side(SimpleNamespace(model=inner), 640) == 640


def test_each_sampling_forgets_the_features_of_the_one_before(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, upsamplers: FeatureUpsamplers
) -> None:
    skips = sys.modules[f"{NAME}.skips"]
    pivot = torch.randn(1, pipe.unet.config.in_channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    held = skips._Skips(model.model, skips.Attached(upsamplers, 1.0), pivot, None)
    x, counts = torch.zeros_like(pivot), []
    for run in range(3):
        for sigma in (2.0, 1.0):
            for one in range(2):  # a pass each for the prompt and the negative prompt
                options = {"uuids": [f"{run}-{one}"], "cond_or_uncond": [one], "sigmas": torch.tensor([sigma])}
                given = {"c_crossattn": texts[one][0][0], "transformer_options": options}
                held._begin(model.model.apply_model, x, torch.tensor([sigma]), given)
                counts.append(len(held.known))
    assert counts == [1, 2, 2, 2] * 3


def test_areas_of_prompts_grow_with_the_stage(nodes: ModuleType) -> None:
    with_areas = sys.modules[f"{NAME}.base_model"].with_areas
    entries = [[None, {"area": (8, 16, 0, 4)}], [None, {"area": ("percentage", 0.5, 0.5, 0, 0)}], [None, {}]]
    grown = with_areas(entries, 2.0, 2.0)
    assert [values for _, values in grown] == [{"area": (16, 32, 0, 8)}, entries[1][1], {}]
    assert entries[0][1]["area"] == (8, 16, 0, 4)
    one, several = [("cat", 4, 8, 0, 2)], [[("cat", 4, 8, 0, 2)], [("dog", 1, 2, 3, 4), ("cat", 4, 8, 0, 2)]]
    entries = [[None, {"gligen": ("position", "net", one)}], [None, {"gligen": ("position_batched", "net", several)}]]
    (_, grown), (_, each) = with_areas(entries, 2.0, 3.0)
    assert grown["gligen"] == ("position", "net", [("cat", 8, 24, 0, 6)])
    assert each["gligen"][2] == [[("cat", 8, 24, 0, 6)], [("dog", 2, 6, 6, 12), ("cat", 8, 24, 0, 6)]]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"pivot_step": "high"}, "pivot_step must be a number, or one for each stage with commas"),
        ({"pivot_step": "500, 400"}, "pivot_step has 2 values, and there are 1 stages"),
        ({"pivot_step": "1"}, "pivot_step 1 leaves no step to run"),
        ({"stage_steps": "0"}, "steps must be"),
        ({"stage_steps": "5, 5, 5"}, "steps has 3 values, and there are 2 stages"),
        ({"scale": 1.0, "latent": "finished"}, "scale must be over 1 for latents that hold a picture"),
        ({"latent": "masked"}, "latent_image has a noise mask"),
        ({"latent": "clip"}, "latent_image must hold pictures"),
    ],
)
def test_a_wrong_value_gets_one_sentence(
    nodes: ModuleType, model: Any, texts: Any, pipe: Any, values: dict[str, Any], sentence: str
) -> None:
    latents = empty(pipe)
    changed = {
        "finished": {"samples": latents["samples"] + 1},
        "masked": {**latents, "noise_mask": torch.ones(1, 8, 8)},
        "clip": {"samples": latents["samples"][:, :, None]},
    }
    given = dict(values)
    with pytest.raises(ValueError, match=sentence) as raised:
        sampled(nodes, model, texts, pipe, changed.get(given.pop("latent", "")), **given)
    assert "\n" not in str(raised.value)


def test_upsamplers_of_another_model_and_unknown_ones_are_refused(nodes: ModuleType, model: Any) -> None:
    node = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]()
    with pytest.raises(ValueError, match="made for a U-Net with skip features of"):
        node.apply(model, "bundled: micro", 1.0)
    with pytest.raises(ValueError, match=r"upsamplers must be one of .*bundled: full"):
        node.apply(model, "../secret", 1.0)


def test_low_rank_weights_of_the_decoder_are_refused(nodes: ModuleType, model: Any, pipe: Any) -> None:
    made = FeatureUpsamplers.from_unet(pipe.unet, "micro", 700, decoder_rank=1)
    folder = Path(sys.modules["folder_paths"].models_dir) / "selfcascade" / "low-rank"
    made.save_pretrained(folder)
    try:
        with pytest.raises(ValueError, match="have low-rank weights for diffusers' layers; use ones without"):
            nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(model, "low-rank", 1.0)
    finally:
        shutil.rmtree(folder)


def test_the_stand_ins_have_the_listed_signatures(nodes: ModuleType) -> None:
    for path, arguments in CALLS.items():
        parts = path.split(".")
        length = max(n for n in range(len(parts)) if ".".join(parts[:n]) in sys.modules)
        found: Any = reduce(getattr, parts[length:], sys.modules[".".join(parts[:length])])
        assert set(arguments) <= set(inspect.signature(found).parameters), path


def test_every_call_of_comfyui_is_listed() -> None:
    text = "".join(path.read_text() for path in FOLDER.glob("*.py") if path.name != "bundled.py")
    called = {name for name in vars(standin.ModelPatcher) if f".{name}(" in text and not name.startswith("_")}
    listed = {path.rpartition(".")[2] for path in CALLS}
    assert called <= listed


@pytest.mark.parametrize("path", sorted((FOLDER / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_a_workflow_names_nodes_and_widgets_that_there_are(nodes: ModuleType, path: Path) -> None:
    workflow = json.loads(path.read_text())
    ours = [node for node in workflow["nodes"] if node["type"] in nodes.NODE_CLASS_MAPPINGS]
    assert ours
    for node in ours:
        kinds = nodes.NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()
        inputs = {**kinds["required"], **kinds.get("optional", {})}
        sockets = [
            name
            for name, (kind, *_) in inputs.items()
            if isinstance(kind, str) and kind.isupper() and kind not in ("INT", "FLOAT", "STRING")
        ]
        named = [one["name"] for one in node["inputs"] if one.get("widget") is None]
        assert named == [name for name in sockets if name in kinds["required"] or name in named]
        count = len(inputs) - len(sockets) + ("seed" in inputs)  # the seed's has a second one beside it
        assert len(node["widgets_values"]) == count
