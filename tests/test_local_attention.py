"""Networks with local attention are the same networks under a mask, and afterwards as they were."""

from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from cascade_runs import SD, seeded
from masked_attention import oracle
from selfcascade.base_models import family_of
from selfcascade.base_models.family import denoiser
from selfcascade.base_models.local_attention import local_attention
from selfcascade.base_models.self_attention import check_local, self_attention
from selfcascade.base_models.windows import Grid
from tiny import TINY, TinyPipeline, add_tiny_ip_adapter, add_tiny_lora, tiny_controlnet
from tiny.unets import animatediff_unet

UNSUPPORTED = ("lumina2",)
LINEAR = ("sana",)
SERVED = {name: family for name, family in TINY.items() if name not in (*UNSUPPORTED, *LINEAR)}
PICTURE_FIRST = ("stable-diffusion-3", "z-image")


def grids(pipe: Any, family: TinyPipeline, scale: int) -> tuple[Grid, Grid]:
    """Of the picture's tokens at so many times a side, and at the native size."""
    side = family_of(pipe).factor * family_of(pipe).patch
    frames = 1
    if family.video and family.kind == "dit":
        frames = (family.inputs["num_frames"] - 1) // family_of(pipe).frame_step + 1
        frames = 3 if family.name == "cogvideox" else frames  # its frame step is of pairs
    native = Grid(frames, *(length // side for length in family.native))
    return Grid(frames, scale * native.height, scale * native.width), native


def sample(pipe: Any, family: TinyPipeline, height: int, width: int, **options: Any) -> Tensor:
    size = {"height": height, "width": width, "num_inference_steps": 2, "output_type": "latent"}
    made = pipe(**{**family.inputs, **size, "generator": seeded(), **options}, return_dict=False)[0]
    return made[0] if isinstance(made, tuple) else made


def state(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Of all modules; the configuration of the network is a property that makes itself anew."""
    own = ((name, module) for name, module in network.named_modules() if name)
    return {name: dict(vars(module)) for name, module in own}


@pytest.mark.parametrize("family", SERVED.values(), ids=SERVED.keys())
def test_a_network_is_as_under_a_mask_and_left_as_found(family: TinyPipeline) -> None:
    pipe = family.shared()
    network, (grid, native) = denoiser(pipe), grids(pipe, family, 2)
    size = tuple(2 * side for side in family.native)
    full = sample(pipe, family, *size)
    before = state(network)
    with local_attention(network, grid, native):
        local = sample(pipe, family, *size)
    assert state(network) == before
    with oracle(network, grid, native, pipe.scheduler, family.name in PICTURE_FIRST) as mask:
        masked = sample(pipe, family, *size)
    assert mask.met in [
        passes * len(self_attention(network)) for passes in (2, 3, 4)
    ]  # two steps, guided in a batch or not
    # float32 sums in another order, over all layers; PixArt's random network gives latents of several hundred
    torch.testing.assert_close(local, masked, atol=max(2e-5, 1e-6 * float(masked.abs().max())), rtol=1e-4)
    with local_attention(network, grid, grid):
        assert torch.equal(sample(pipe, family, *size), full)
    assert torch.equal(sample(pipe, family, *size), full)


class Queries(TorchFunctionMode):
    """Keeps the queries of all self-attention of at least so many tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.kept = tokens, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            query = (kwargs or {})["query"] if kwargs and "query" in kwargs else args[0]
            self.kept += [query] if query.shape[-2] >= self.tokens else []
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [name for name, family in SERVED.items() if family.kind == "dit"])
def test_the_tokens_of_a_transformer_are_where_they_are_said_to_be(name: str) -> None:
    family = SERVED[name]
    pipe: Any = family.shared()
    kind, (_, grid) = family_of(pipe), grids(pipe, family, 1)
    side, channels = kind.patch, pipe.vae.config.get("latent_channels") or pipe.vae.config.z_dim
    frames = (grid.frames,) if family.video else ()
    z = torch.randn(1, channels, *frames, side * grid.height, side * grid.width, generator=seeded())
    other = z.clone()
    frame, row, column = grid.frames - 1, 1, 2
    place = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
    other[(..., frame, *place) if family.video else (..., *place)] += 1
    seen = []
    for latents in (z, other):
        with Queries(grid.tokens) as queries:
            sample(pipe, family, *family.native, latents=kind.from_spatial(latents), num_inference_steps=1)
        seen.append(queries.kept[0][:1])
    changed = (seen[0] != seen[1]).any(-1).any(1)[0].nonzero().flatten().tolist()
    before = 0 if name in PICTURE_FIRST else seen[0].shape[-2] - grid.tokens
    assert changed == [before + (frame * grid.height + row) * grid.width + column]


def test_text_comes_behind_the_picture_in_z_image() -> None:
    pipe = TINY["z-image"].shared()
    _, grid = grids(pipe, TINY["z-image"], 1)
    seen = []
    for seed in range(2):
        latents = torch.randn(1, 4, 8, 8, generator=seeded(seed))
        with Queries(grid.tokens) as queries:
            sample(pipe, TINY["z-image"], *TINY["z-image"].native, latents=latents, num_inference_steps=1)
        seen.append(queries.kept[-1][:1])  # of the layers that picture and text go through together
    changed = (seen[0] != seen[1]).any(-1).any(1)[0].nonzero().flatten().tolist()
    assert changed[: grid.tokens] == [*range(grid.tokens)] and changed[-1] < seen[0].shape[-2] - 1


def in_context(pipe: Any, family: TinyPipeline = SD, **options: Any) -> tuple[Tensor, Tensor]:
    """What a call makes with local attention, and what it should make."""
    network, (grid, native) = denoiser(pipe), grids(pipe, family, 2)
    size = tuple(2 * side for side in family.native)
    with local_attention(network, grid, native):
        local = sample(pipe, family, *size, **options)
    with oracle(network, grid, native, pipe.scheduler, family.name in PICTURE_FIRST):
        return local, sample(pipe, family, *size, **options)


@pytest.mark.parametrize("plugin", ["lora", "ip-adapter", "freeu", "fused", "own processor"])
def test_plugins_work_on(plugin: str) -> None:
    pipe: Any = SD.build()
    options: dict[str, Any] = {}
    if plugin == "lora":
        add_tiny_lora(pipe)
    elif plugin == "ip-adapter":
        options = add_tiny_ip_adapter(pipe)
    elif plugin == "freeu":
        pipe.enable_freeu(0.9, 0.2, 1.2, 1.4)
    elif plugin == "fused":
        pipe.fuse_qkv_projections()
    else:
        pipe.unet.set_attn_processor(Doubled())
    torch.testing.assert_close(*in_context(pipe, **options), atol=2e-5, rtol=1e-4)


class Doubled(AttnProcessor2_0):
    """A processor of a user's own."""

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        return 2 * super().__call__(*given, **named)


def test_a_controlnet_is_local_too() -> None:
    pipe = tiny_controlnet(SD.build())
    grid, native = grids(pipe, SD, 2)
    image = torch.rand(1, 3, 256, 256, generator=seeded())
    with local_attention(pipe.controlnet, grid, native), local_attention(pipe.unet, grid, native):
        local = sample(pipe, SD, 256, 256, image=image)
    with oracle(pipe.unet, grid, native, pipe.scheduler) as mask:
        torch.testing.assert_close(local, sample(pipe, SD, 256, 256, image=image), atol=2e-5, rtol=1e-4)
    assert mask.met == 2 * (len(self_attention(pipe.unet)) + len(self_attention(pipe.controlnet)))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_network_is_left_as_found_after(error: type[BaseException]) -> None:
    pipe: Any = SD.build()
    grid, native = grids(pipe, SD, 2)
    before = state(pipe.unet)

    class Failing(AttnProcessor2_0):
        def __call__(self, *given: Any, **named: Any) -> Tensor:
            raise error

    module = self_attention(pipe.unet)["mid_block.attentions.0.transformer_blocks.0.attn1"]
    own, module.processor = module.processor, Failing()  # type: ignore[assignment]
    with pytest.raises(error), local_attention(pipe.unet, grid, native):
        sample(pipe, SD, 256, 256)
    module.processor = own
    assert state(pipe.unet) == before
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_forward_of_the_users_own_is_put_back() -> None:
    pipe: Any = SD.build()
    module: Any = next(iter(self_attention(pipe.unet).values()))
    module.forward = own = module.forward
    with local_attention(pipe.unet, *grids(pipe, SD, 2)):
        assert module.forward is not own
    assert vars(module)["forward"] is own


@torch.no_grad()
@pytest.mark.parametrize("compiled", ["blocks", pytest.param("whole", marks=pytest.mark.slow)])
def test_compiled_networks_see_it_come_and_go(compiled: str) -> None:
    torch.compiler.reset()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet: Any = animatediff_unet().eval()
    inputs = (torch.randn(1, 4, 16, 8, generator=seeded()), 500, torch.randn(1, 7, 16, generator=seeded(1)))
    grid, native = Grid(1, 16, 8), Grid(1, 8, 8)
    full = unet(*inputs).sample
    with local_attention(unet, grid, native):
        local = unet(*inputs).sample
    if compiled == "blocks":
        unet.compile_repeated_blocks(backend="eager", fullgraph=True)
    else:
        unet = torch.compile(unet, backend="eager")
    assert torch.equal(unet(*inputs).sample, full)
    with local_attention(unet, grid, native):
        assert torch.equal(unet(*inputs).sample, local)
    assert torch.equal(unet(*inputs).sample, full)


def test_what_it_cannot_serve_is_refused_in_a_sentence() -> None:
    lumina = TINY["lumina2"].shared()
    with pytest.raises(ValueError, match="attention 'local' does not know where Lumina2Transformer2DModel has"):
        check_local(denoiser(lumina))
    pipe: Any = SD.build()
    pipe.unet.set_attn_processor(AttnProcessor())
    with pytest.raises(ValueError, match=r"AttnProcessor of down_blocks.1\S+attn1 has none; use AttnProcessor2_0"):
        check_local(pipe.unet)
    flux: Any = TINY["flux"].build()
    for module in self_attention(flux.transformer).values():
        module.processor._attention_backend = "sage"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="the attention backend 'sage' has none"):
        check_local(flux.transformer)
    for module in self_attention(flux.transformer).values():
        module.processor._attention_backend = "_native_math"  # type: ignore[union-attr]
    check_local(flux.transformer)


def test_attention_that_is_not_over_the_grid_is_refused_when_it_runs() -> None:
    pipe: Any = SD.build()
    grid, native = grids(pipe, SD, 2)
    refused = pytest.raises(ValueError, match=r"AttnProcessor2_0 of \S+attn1 has none")
    with refused, local_attention(pipe.unet, grid._replace(height=44), native):
        sample(pipe, SD, 256, 256)


def test_the_second_attention_of_stable_diffusion_3_5_is_local_too() -> None:
    pipe: Any = TINY["stable-diffusion-3"].build()
    config = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    pipe.transformer = type(pipe.transformer)(**{**config, "dual_attention_layers": (0,)}).eval()
    names = {f"transformer_blocks.{number}.attn" for number in range(2)} | {"transformer_blocks.0.attn2"}
    assert {*self_attention(pipe.transformer)} == names
    torch.testing.assert_close(*in_context(pipe, TINY["stable-diffusion-3"]), atol=2e-5, rtol=1e-4)


def test_linear_attention_is_left_alone() -> None:
    pipe = TINY["sana"].shared()
    with local_attention(denoiser(pipe), Grid(1, 16, 16), Grid(1, 8, 8)):
        assert not self_attention(denoiser(pipe))


def hunyuan_video() -> HunyuanVideoTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=2,
            patch_size_t=1,
            text_embed_dim=8,
            pooled_projection_dim=8,
            rope_axes_dim=(4, 6, 6),
        ).eval()


@torch.no_grad()
def test_hunyuan_video_is_local_in_space_and_in_time() -> None:
    network, grid, native = hunyuan_video(), Grid(5, 6, 8), Grid(3, 4, 4)
    inputs = {
        "hidden_states": torch.randn(2, 4, 5, 12, 16, generator=seeded()),
        "timestep": torch.tensor([500, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 8, generator=seeded(1)),
        "encoder_attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
        "pooled_projections": torch.randn(2, 8, generator=seeded(2)),
        "guidance": torch.tensor([1000.0, 1000.0]),
        "return_dict": False,
    }
    with local_attention(network, grid, native):
        local = network(**inputs)[0]
    with oracle(network, grid, native, picture_first=True) as mask:
        torch.testing.assert_close(local, network(**inputs)[0], atol=2e-5, rtol=1e-4)
    assert mask.met == len(self_attention(network)) == 2
