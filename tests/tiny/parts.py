"""What the tiny pipelines share: the registry's entry, an offline CLIP tokenizer, autoencoders, text encoders."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TEXT_DIM = 16
TEXT_TOKENS = 6
NATIVE = (64, 64)
SMALL = (32, 32)
NO_TEXT: dict[str, Any] = {"text_encoder": None, "tokenizer": None}
START, END = "<|startoftext|>", "<|endoftext|>"

Twin = Callable[[DiffusionPipeline], DiffusionPipeline]
Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


@dataclass(frozen=True)
class TinyPipeline:
    """One family of the registry: a real pipeline class with a few thousand random weights.

    Args:
        make: Builds the pipeline; called by `build` under seed 0.
        native: Pixels (height, width) the network counts as its own size.
        inputs: Keyword arguments of a call besides height, width, num_inference_steps and generator; one prompt.
        twin_note: A sentence on where that one differs, and so equals a stage only by a change, or cannot.
        alone: More for a call of the pipeline itself, which the cascade says to it at every stage.
        steps: Of a short schedule that leaves steps to a stage above the base.
        twin: From a built pipeline to its official image-to-image or video-to-video pipeline on the same components.
    """

    name: str
    make: Callable[[], DiffusionPipeline]
    native: tuple[int, int]
    inputs: dict[str, Any]
    kind: Literal["unet", "dit"]
    twin: Twin | None = None
    video: bool = False
    twin_note: str = ""
    alone: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: int = 2

    def build(self) -> DiffusionPipeline:
        """The same pipeline at every call: seed 0, eval mode, float32, CPU, no progress bar."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return quiet(self.make())

    def shared(self) -> DiffusionPipeline:
        """One pipeline for all tests of a process that leave it as they found it: built once."""
        if self.make not in _SHARED:
            _SHARED[self.make] = self.build()
        return _SHARED[self.make]


_SHARED: dict[Callable[[], DiffusionPipeline], DiffusionPipeline] = {}


def quiet(pipe: Pipeline) -> Pipeline:
    """The pipeline itself, its networks in eval mode and its progress bar off."""
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def twin_of(pipeline_class: type[DiffusionPipeline], **config: Any) -> Twin:
    """A maker of official twins: `pipeline_class` on those of a pipeline's components that it has too."""
    accepted = inspect.signature(pipeline_class.__init__).parameters

    def twin(pipe: DiffusionPipeline) -> DiffusionPipeline:
        components = {name: part for name, part in pipe.components.items() if name in accepted}
        return quiet(pipeline_class(**components, **config))

    twin.__name__ = pipeline_class.__name__

    return twin


def embeds(*shape: int, seed: int = 0) -> Tensor:
    """Unit-variance stand-ins for a text encoder's output, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text_inputs(mask: str | None = None, pooled: bool = False) -> dict[str, Any]:
    """Positive and negative prompt embeddings, (1, 6, 16), for pipelines built without a text encoder.

    Args:
        mask: Name of the attention mask's keyword ("prompt_attention_mask"), None where the pipeline takes none.
        pooled: Adds pooled embeddings, (1, 16).
    """
    inputs: dict[str, Any] = {}
    for seed, sign in enumerate(("", "negative_")):
        inputs[f"{sign}prompt_embeds"] = embeds(1, TEXT_TOKENS, TEXT_DIM, seed=seed)
        if mask:
            inputs[f"{sign}{mask}"] = torch.ones(1, TEXT_TOKENS, dtype=torch.bool)
        if pooled:
            inputs[f"{sign}pooled_prompt_embeds"] = embeds(1, TEXT_DIM, seed=seed + 2)
    return inputs


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer over single bytes: any text, 514 tokens, no merges, 77 places."""
    symbols = sorted(ByteLevel.alphabet())
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), START, END]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77)


def clip_text_config(hidden_size: int = TEXT_DIM) -> CLIPTextConfig:
    """Two layers, two heads, for the tokens of `clip_tokenizer`."""
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_DIM,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def clip_text(hidden_size: int = TEXT_DIM) -> CLIPTextModel:
    """A text encoder whose last hidden states are (B, 77, hidden_size)."""
    return CLIPTextModel(clip_text_config(hidden_size))


def clip_text_projected(hidden_size: int = TEXT_DIM) -> CLIPTextModelWithProjection:
    """The same with a pooled output, (B, 16), as SDXL's second text encoder."""
    return CLIPTextModelWithProjection(clip_text_config(hidden_size))


FOUR_LEVELS: dict[str, Any] = dict(
    block_out_channels=(4, 4, 4, 4),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1,
    norm_num_groups=2,
    latent_channels=4,
)


def autoencoder(**config: Any) -> AutoencoderKL:
    """Four levels, so 8 pixels a latent pixel as in the real ones; 4 channels unless `config` says otherwise."""
    return AutoencoderKL(**{**FOUR_LEVELS, "scaling_factor": 0.18215, "sample_size": 64, **config})


def flow_autoencoder(**config: Any) -> AutoencoderKL:
    """`autoencoder` as flow models have it: a shift beside the scale, no quantisation convolutions."""
    settings: dict[str, Any] = dict(
        shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False
    )
    return autoencoder(**(settings | config))
