"""Settings of a training run, checked at once; names follow diffusers' training examples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationInfo, field_validator, model_validator

from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.options.checks import no_truth_in

if TYPE_CHECKING:
    import torch

    from selfcascade.data import ClipFiles

# May differ between a run and its continuation: they affect what is logged and kept, not what is learnt.
FREE_ON_RESUME = frozenset(
    {
        "allow_changed_data",
        "checkpointing_steps",
        "checkpoints_total_limit",
        "dataloader_num_workers",
        "max_train_steps",
        "output_dir",
        "speed",
        "report_to",
        "resume_from_checkpoint",
        "num_validation_pictures",
        "validation_data",
        "validation_prompt",
        "validation_steps",
        "logging_steps",
    }
)
FOR_ONE_METHOD = {
    "rank": "lora",
    "lora_alpha": "lora",
    "preset": "upsamplers",
    "upsampling": "upsamplers",
    "sampling_preset": "upsamplers",
    "temporal_kernel": "upsamplers",
    "decoder_rank": "upsamplers",
    "decoder_learning_rate": "upsamplers",
}


class TrainingConfig(BaseModel):
    """All settings of a run; each field has a description.

    Raises:
        ValueError: A value is out of range (pydantic's `ValidationError` is one); the message names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["upsamplers", "lora", "full"] = Field("upsamplers", description="What is trained.")
    model: str = Field("bundled", description="'bundled', a folder in diffusers' format, or a Hub id.")
    train_data: str = Field(
        "scenes",
        description="'scenes', 'collages', 'collages:sprites=DIR,backgrounds=DIR', a folder of pictures with captions, "
        "or .tar shards; with frames 'moving-scenes', a folder of clips with captions, or a .csv like WebVid's.",
    )
    output_dir: str = Field("outputs/training", description="Folder for weights, checkpoints, curve and settings.")
    resolution: tuple[PositiveInt, PositiveInt] = Field((128, 128), description="Height and width of the pictures.")
    frames: int | None = Field(None, ge=2, le=4096, description="Frames per clip, for a model that makes clips.")
    fps: float | None = Field(
        None, gt=0, le=1000, description=f"Frame rate of the clips: {DEFAULT_FPS:g} unless it or stride is given."
    )
    stride: PositiveInt | None = Field(None, description="Instead of fps: take every n-th frame of each clip.")
    min_duration: float | None = Field(None, ge=0, description="Seconds; shorter clips are left out.")
    max_duration: float | None = Field(None, gt=0, description="Seconds; longer clips are left out.")
    aspect_buckets: bool = Field(False, description="Also train at other ratios with about the same area.")
    scale: float = Field(2.0, gt=1, le=8, description="Ratio of the pictures' sides to the pivot's.")
    pivot_step: PositiveInt | None = Field(
        None, description="K: t ~ U{1..K}; 0.7 T for upsamplers or local attention, else T."
    )
    attention: Literal["full", "local"] = Field(
        "full", description="Self-attention above the native size, as in sampling: full, or local, linear in pixels."
    )
    preset: str = Field("micro", description="Which upsamplers: micro or full.")
    upsampling: Literal["latent-bilinear", "latent-bicubic", "rgb"] = Field(
        "rgb", description="How a cascade with the upsamplers enlarges its pivots."
    )
    sampling_preset: Literal["paper", "rgb", "quality", "fast"] = Field(
        "quality", description="Preset that supplies such a cascade's anchor, energy, steps, guidance and attention."
    )
    temporal_kernel: int = Field(
        1, ge=1, le=99, description="Frames that the upsamplers' kernels along a clip see, odd; 1 is none."
    )
    decoder_rank: int = Field(
        0, ge=0, le=1024, description="Rank of low-rank weights in the decoder, trained with the upsamplers; 0 is none."
    )
    decoder_learning_rate: float | None = Field(
        None, gt=0, le=10, description="Highest learning rate of these weights; learning_rate unless given."
    )
    rank: PositiveInt = Field(4, description="Rank of the LoRA.")
    lora_alpha: float | None = Field(None, gt=0, description="Alpha of the LoRA; its rank unless given.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of all random numbers.")
    train_batch_size: PositiveInt = Field(4, description="Pictures or clips per process and pass.")
    gradient_accumulation_steps: PositiveInt = Field(1, description="Passes per optimizer step.")
    max_train_steps: PositiveInt = Field(4000, description="Optimizer steps.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="The highest.")
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = Field("constant_with_warmup", description="Schedule of the learning rate.")
    lr_warmup_steps: int = Field(0, ge=0, description="Steps until the highest rate.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first beta.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's second beta.")
    adam_weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: float = Field(1.0, gt=0, description="Largest norm of gradients; longer ones are scaled down.")
    use_8bit_adam: bool = Field(False, description="AdamW with 8-bit moments; needs bitsandbytes.")
    use_ema: bool = Field(False, description="Save the moving average of the weights.")
    ema_decay: float = Field(0.999, gt=0, lt=1, description="Decay of the moving average.")
    snr_gamma: float | None = Field(None, gt=0, description="Weight by min(SNR, gamma) (Hang et al. 2023); 5 is usual.")
    prompt_dropout: float = Field(0.1, ge=0, le=1, description="Share of pictures whose caption is left out.")
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("no", description="Arithmetic of the networks.")
    channels_last: bool = Field(False, description="Convolutions with channels last: faster on some machines.")
    speed: Literal["given", "auto"] = Field(
        "given", description="auto: a trial takes the fastest mixed_precision, no or bf16, and channels_last."
    )
    frozen_weights: Literal["auto", "float32"] = Field(
        "auto", description="Precision of frozen weights; auto: mixed_precision's, unless method is full."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory, more time.")
    allow_tf32: bool = Field(False, description="Faster matrix products on Ampere and later.")
    cache_latents: str | None = Field(
        None, description="Folder for encoded pictures; crops, and frames of clips, are then the same each epoch."
    )
    cache_pivot_features: bool = Field(
        False, description="Also cache the pivots' skip features there: 26 MB per picture for SD 2.1 at 1024."
    )
    dataloader_num_workers: int = Field(
        0, ge=0, le=256, description="Processes that read and decode the data for each training process."
    )
    allow_changed_data: bool = Field(False, description="Continue although the data has changed.")
    max_skip_share: float = Field(0.5, ge=0, le=1, description="Share of damaged samples that ends the run.")
    checkpointing_steps: PositiveInt = Field(500, description="Steps between checkpoints.")
    checkpoints_total_limit: PositiveInt | None = Field(3, description="Checkpoints that are kept.")
    resume_from_checkpoint: str | None = Field(None, description="'latest', or a checkpoint's name or path.")
    validation_prompt: tuple[str, ...] = Field(
        (), description="Prompt of validation pictures; may be given several times."
    )
    validation_data: str | None = Field(None, description="Like train_data, but other pictures; their loss is logged.")
    num_validation_pictures: PositiveInt = Field(16, description="Pictures of validation_data, always the same.")
    validation_steps: PositiveInt = Field(500, description="Steps between validations.")
    logging_steps: PositiveInt = Field(10, description="Steps between rows of the curve.")
    report_to: str | None = Field(None, description="A tracker of accelerate: tensorboard, wandb, all, ...")

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if kind is not bool:
            no_truth_in(value)
        if isinstance(value, str) and ("\0" in value or not value):
            raise ValueError(f"must be a name, not {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _square(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("resolution"), int):
            values = {**values, "resolution": (values["resolution"],) * 2}
        return values

    @model_validator(mode="after")
    def _is_for_the_method(self) -> Self:
        for name, method in FOR_ONE_METHOD.items():
            value = getattr(self, name)
            if method != self.method and value != type(self).model_fields[name].default:
                raise ValueError(f"{name}, here {value}, is for method {method!r}, not for {self.method!r}")
        return self

    @model_validator(mode="after")
    def _has_somewhere_to_cache(self) -> Self:
        if self.cache_pivot_features and (self.cache_latents is None or self.method != "upsamplers"):
            raise ValueError("cache_pivot_features needs cache_latents, a folder, and method 'upsamplers'")
        return self

    @model_validator(mode="after")
    def _has_decoder_weights(self) -> Self:
        if self.decoder_learning_rate is not None and self.decoder_rank == 0:
            raise ValueError(f"decoder_learning_rate, here {self.decoder_learning_rate:g}, needs a decoder_rank over 0")
        return self

    @model_validator(mode="after")
    def _has_clips_to_choose(self) -> Self:
        given = {name: getattr(self, name) for name in ("fps", "stride", "min_duration", "max_duration")}
        given["temporal_kernel"] = self.temporal_kernel if self.temporal_kernel > 1 else None
        for name, value in given.items():
            if self.frames is None and value is not None:
                raise ValueError(f"{name}, here {value}, is for clips; give frames, or leave it out")
        if self.temporal_kernel % 2 == 0:
            raise ValueError(f"temporal_kernel must be odd, not {self.temporal_kernel}")
        if self.fps is not None and self.stride is not None:
            raise ValueError(f"fps and stride must not both be given, not {self.fps:g} and {self.stride}")
        if self.min_duration is not None and self.min_duration > (self.max_duration or math.inf):
            raise ValueError(f"min_duration must be at most max_duration, {self.max_duration}, not {self.min_duration}")
        return self

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str) -> str:
        # The command line reads its options without torch.
        from selfcascade.upsamplers.levels import DESIGNS, FULL_DESIGNS

        if preset not in (names := (*DESIGNS, *FULL_DESIGNS)):
            raise ValueError(f"must be one of {', '.join(names)}, not {preset!r}")
        return preset

    @property
    def frozen_dtype(self) -> torch.dtype | None:
        """The type that frozen weights are cast to; None leaves them unchanged.

        Trained weights stay in float32. If the whole U-Net is trained, VAE and text encoder keep its precision, so that
        the pipeline can make pictures during training.
        """
        import torch  # imported here, since the command line reads these settings without torch

        if self.frozen_weights == "float32" or self.method == "full":
            return None
        return {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}[self.mixed_precision]

    @property
    def clips(self) -> ClipFiles | None:
        """Which clips and frames are used; None for pictures."""
        if self.frames is None:
            return None
        from selfcascade.data import ClipFiles  # as above

        return ClipFiles(
            frames=self.frames,
            fps=None if self.stride is not None else self.fps or DEFAULT_FPS,
            stride=self.stride,
            min_duration=self.min_duration or 0.0,
            max_duration=self.max_duration or math.inf,
            fixed_start=self.cache_latents is not None,
        )

    def samples(self, count: int) -> str:
        """'4 pictures', or '4 clips of 16 frames'."""
        noun = ("picture" if self.frames is None else "clip") + "s" * (count != 1)
        return f"{count} {noun}" if self.frames is None else f"{count} {noun} of {self.frames} frames"

    def steps_of(self, training_steps: int) -> int:
        """K for a model of T training steps.

        Raises:
            ValueError: `pivot_step` lies above T.
        """
        if self.pivot_step is None:
            # Local attention is for stages with a pivot, whatever is trained; pure noise has no composition yet.
            for_stages = self.method == "upsamplers" or self.attention == "local"
            return round(0.7 * training_steps) if for_stages else training_steps
        if self.pivot_step > training_steps:
            raise ValueError(f"pivot_step must be from 1 to {training_steps}, not {self.pivot_step}")
        return self.pivot_step

    def check_continues(self, earlier: dict[str, Any]) -> None:
        """Raises ValueError if a checkpoint was made with other settings that must not change."""
        now = self.model_dump(mode="json")
        # A learning rate that decays depends on the number of steps.
        free = FREE_ON_RESUME - (set() if self.lr_scheduler.startswith("constant") else {"max_train_steps"})
        known = {name: value for name, value in earlier.items() if name in now and name not in free}
        changed = [f"{name} ({value!r} then, {now[name]!r} now)" for name, value in known.items() if now[name] != value]
        if changed:
            raise ValueError(f"the checkpoint was made with other settings: {'; '.join(changed)}")

    def flat(self) -> dict[str, int | float | str]:
        """The settings in the form that trackers take."""
        values = self.model_dump(mode="json")
        return {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in values.items()}

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output_dir).expanduser()
