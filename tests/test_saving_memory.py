"""A call that is held to so much memory: what is chosen, what it takes, and that the result stays."""

from typing import Any

import diffusers
import pytest
import torch

from selfcascade import SelfCascade
from selfcascade.base_models import family_of
from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.saving_memory import (
    WHOLE,
    Saving,
    can_offload,
    feed_forwards,
    saving,
    splits_branches,
    tile_sides,
    tiles,
)
from selfcascade.cascade import Size, Stage
from selfcascade.cost.fitting import Fitting, fitted, told
from selfcascade.cost.forward import CannotCount, LiveBytes, unet_forward
from selfcascade.cost.plan import as_decoding
from selfcascade.cost.weights import Weights, weights_of
from selfcascade.cost.workspace import workspace_of
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.memory import bytes_of, in_words
from tiny import TINY

SETTINGS: dict[str, Any] = {"num_inference_steps": 4, "preset": "paper", "guidance_scale": 4.0}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def cascade_of(name: str) -> SelfCascade:
    return SelfCascade(TINY[name].shared(), native_size=TINY[name].native)


def peak(cascade: SelfCascade, given: dict[str, Any]) -> tuple[int, Any]:
    """Bytes of weights and of the most tensors alive at once in a call, and what it made."""
    with LiveBytes(workspace_of(torch.device("cpu"))) as memory:
        made = cascade(generator=seeded(), output_type="pt", **given)
    return weights_of(cascade.family).all + memory.peak, made


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("7.5 GiB", 15 * 2**29), ("512mib", 2**29), ("0.5TB", 5 * 10**11), ("1MB", 10**6)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["8", "GB", "-1GB", "0GB", "8 G B", "8KBs", "nanGB", "1e3GB", "99999999GB", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="max_memory must be a number over 0 with MB, GB, MiB or GiB"):
        Options(max_memory=text)


def test_a_size_is_told() -> None:
    assert (in_words(1_500_000_000), in_words(12_000_000), in_words(1000)) == ("1.5GB", "12MB", "0.001MB")


class Parted(SelfCascade):
    """One whose calls are done in parts whatever they take."""

    def _measures(self, *given: Any) -> Saving:
        return Saving(branches=True, pieces=3)


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "animatediff"])
def test_parts_give_the_same_latents(name: str) -> None:
    entry, pipe = TINY[name], TINY[name].shared()
    family = family_of(pipe)
    before = [set(vars(module)) for module in family.denoiser.modules()]
    given: dict[str, Any] = {**entry.inputs, "height": 2 * entry.native[0], "width": entry.native[1]}
    given |= {"num_images_per_prompt": 2} if "prompt" in entry.inputs and not entry.video else {}
    whole, parted = (
        kind(pipe, native_size=entry.native)(generator=seeded(), output_type="latent", **{**given, **SETTINGS})
        for kind in (SelfCascade, Parted)
    )
    assert (whole.saving, parted.saving) == (WHOLE, Saving(branches=True, pieces=3))
    for one, other in zip(whole.stages, parted.stages, strict=True):
        # Products of half the rows are summed in another order.
        torch.testing.assert_close(one.latents, other.latents, atol=5e-5, rtol=1e-4)
    assert [set(vars(module)) for module in family.denoiser.modules()] == before


def test_networks_see_one_branch_and_some_tokens_at_a_time() -> None:
    entry, pipe = TINY["stable-diffusion"], TINY["stable-diffusion"].shared()
    family = family_of(pipe)
    unet: Any = pipe.unet
    seen = list[tuple[str, torch.Size]]()
    layer: Any = feed_forwards(unet)[0]
    names = {unet.conv_in: "unet", layer.net[0]: "feed-forward"}  # modules within those whose forward is replaced

    def see(module: Any, given: Any) -> None:
        seen.append((names[module], given[0].shape))

    stage = Stage(0, 1, Size(*entry.native), 1)
    with hooks_in_place(module.register_forward_pre_hook(see) for module in names), torch.no_grad():
        for measures in (WHOLE, Saving(branches=True, pieces=3)):
            seen.append((str(measures.pieces), torch.Size()))
            with saving(family, measures, 1, stage, None):
                unet_forward()(unet, (2, 16, 16))
    whole, parts = seen[1:3], seen[4:]
    (_, latents), (_, tokens) = whole
    assert [shape for name, shape in parts if name == "unet"] == [torch.Size((1, *latents[1:]))] * 2
    pieces = [shape for name, shape in parts if name == "feed-forward"]
    assert len(pieces) == 6 and sum(shape[1] for shape in pieces) == 2 * tokens[1]


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-3"])
def test_a_call_takes_no_more_than_its_limit(name: str) -> None:
    cascade, native, words = cascade_of(name), TINY[name].native, TINY[name].inputs
    size: dict[str, Any] = {"height": 2 * native[0], "width": 2 * native[1]}
    given = {**words, **SETTINGS, **size}
    stages = cascade.plan(**size, **SETTINGS)
    fit = Fitting(cascade, stages, Options(**SETTINGS), 1, words, tuned=False)
    whole, _ = peak(cascade, given)
    weights = fit.weights.all
    counted = weights + max(fit.network_bytes(WHOLE), fit.coding_bytes(None))
    assert counted == pytest.approx(whole, rel=0.1)
    limit = f"{(weights + (counted - weights) * 0.8) / 1e6:.4f}MB"
    taken, made = peak(cascade, {**given, "max_memory": limit})
    assert made.saving != WHOLE
    assert taken <= 1.1 * bytes_of(limit) and taken < 0.97 * whole
    assert made.saving == fitted(cascade, stages, Options(max_memory=limit, **SETTINGS), arguments=words)


def test_nothing_is_done_in_parts_where_all_fits() -> None:
    cascade = cascade_of("stable-diffusion")
    size: dict[str, Any] = {"height": 256, "width": 256, "output_type": "latent"}
    call: Any = cascade
    made = [call("a", generator=seeded(), **size, **SETTINGS, **more) for more in ({}, {"max_memory": "8GB"})]
    assert made[1].saving == WHOLE and torch.equal(made[0].images, made[1].images)


@pytest.mark.parametrize("call", ["plan", "__call__", "upscale"])
def test_too_little_is_refused_with_the_least_that_would_do(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = cascade_of("stable-diffusion")
    monkeypatch.setattr(cascade.pipe.unet.conv_in, "forward", None)  # nothing runs
    given = {"plan": (), "__call__": ("a",), "upscale": (torch.zeros(1, 3, 128, 128),)}[call]
    with pytest.raises(
        OptionError, match=r"max_memory 0.1MB is too little for 256x256: it takes (\S+)MB, of which"
    ) as told:
        getattr(cascade, call)(*given, height=256, width=256, max_memory="0.1MB", **SETTINGS)
    least = str(told.value).split("it takes ")[1].split(",")[0]
    assert cascade.plan(256, 256, max_memory=least, **SETTINGS)


def test_tiles_are_put_on_and_taken_off() -> None:
    vae: Any = TINY["stable-diffusion"].shared().vae
    before = dict(vars(vae))
    own, factor = vae.tile_latent_min_size, vae.tile_sample_min_size // vae.tile_latent_min_size
    assert tile_sides(vae, least=4)[:2] == [0, own // 2]
    with tiles(vae, own // 2):
        assert (vae.use_tiling, vae.tile_latent_min_size) == (True, own // 2)
        assert vae.tile_sample_min_size == own // 2 * factor
    with tiles(vae, 0):
        assert (vae.use_tiling, vae.tile_latent_min_size) == (True, own)
    assert vars(vae) == before


def test_parts_are_told_in_words() -> None:
    assert told(WHOLE, 8) == "nothing is done in parts"
    assert told(Saving(32, True, 4), 8) == (
        "the VAE in tiles of 256 pixels, guidance branches one after the other and feed-forward layers in 4 pieces"
    )


def test_models_one_at_a_time_need_the_largest_with_its_activations() -> None:
    weights = Weights(networks=500, vae=100, others=900, largest=700)
    assert weights.all == 1500
    assert weights.with_activations(300, 400) == 1900
    assert weights.with_activations(300, 400, offload=True) == 800  # the network's
    assert weights.with_activations(100, 650, offload=True) == 750  # the VAE's
    assert weights.with_activations(100, 400, offload=True) == 700  # the text encoder's
    pipe: Any = TINY["stable-diffusion"].shared()
    counted = sum(part.num_parameters() for part in (pipe.unet, pipe.vae, pipe.text_encoder)) * 4
    buffers = sum(buffer.nbytes for part in (pipe.unet, pipe.vae, pipe.text_encoder) for buffer in part.buffers())
    assert weights_of(family_of(pipe)).all == counted + buffers


def test_models_one_at_a_time_give_the_same_picture_and_are_put_back() -> None:
    pipe: Any = TINY["stable-diffusion"].build()
    given: dict[str, Any] = {"height": 256, "width": 256, "output_type": "pt", **SETTINGS, "preset": "rgb"}

    class Offloaded(SelfCascade):
        def _measures(self, *given: Any) -> Saving:
            return Saving(offload=True)

    whole = SelfCascade(pipe)("a", generator=seeded(), **given)
    parts = [pipe, pipe.unet, pipe.vae, pipe.text_encoder]
    before = [set(vars(part)) for part in parts]
    offloaded = Offloaded(pipe)("a", generator=seeded(), **given)
    assert torch.equal(whole.images, offloaded.images) and offloaded.saving == Saving(offload=True)
    assert [set(vars(part)) for part in parts] == before
    assert not can_offload(pipe)  # there is nowhere else on a CPU


def test_perturbed_attention_is_not_split_and_its_other_ways_are_tried() -> None:
    pipe: Any = TINY["stable-diffusion"].build()
    pag: Any = diffusers.StableDiffusionPAGPipeline(**pipe.components, pag_applied_layers=["mid"])
    assert splits_branches(family_of(pipe)) and not splits_branches(family_of(pag))


def test_a_way_that_cannot_be_counted_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = cascade_of("stable-diffusion")
    given = {"prompt": "a house", "scale": 4.0, **SETTINGS}
    whole, _ = peak(cascade, given)
    network_bytes = Fitting.network_bytes

    def failing(self: Any, way: Saving) -> int:
        if way.branches:
            raise CannotCount("its latents are a list")
        return network_bytes(self, way)

    monkeypatch.setattr(Fitting, "network_bytes", failing)
    weights = weights_of(cascade.family).all
    limit = f"{(weights + (whole - weights) * 0.85) / 1e6:.4f}MB"
    made = cascade(generator=seeded(), output_type="pt", max_memory=limit, **given)
    assert not made.saving.branches and made.saving != WHOLE


def test_a_vae_that_works_in_float32_is_counted_so() -> None:
    pipe: Any = TINY["stable-diffusion"].build().to(dtype=torch.float16)
    pipe.vae.register_to_config(force_upcast=True)
    weights = weights_of(family_of(pipe))
    assert weights.upcast == weights.vae > 0
    assert weights.with_activations(0, 10) == weights.all + weights.upcast + 10
    assert weights.least_for(False, True) == 2 * weights.vae
    own = SelfCascade(pipe, native_size=TINY["stable-diffusion"].native)
    stages = own.plan(scale=4.0, preset="rgb", num_inference_steps=4)
    for upsampling, dtype in (("latent-bilinear", torch.float16), ("rgb", torch.float32)):
        with as_decoding(pipe, stages, upsampling) as vae:
            assert vae.dtype == dtype  # pivots in RGB go through it in float32
    assert pipe.vae.dtype == torch.float16
