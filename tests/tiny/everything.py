"""All tiny pipelines: of every class that is served and tested, at least one."""

from typing import get_type_hints

from . import TINY, TinyPipeline
from .more_images import MORE_IMAGES
from .more_videos import MORE_VIDEOS
from .other_images import OTHER_IMAGES
from .other_videos import OTHER_VIDEOS
from .parts import SMALL
from .plugins import tiny_video_xl
from .unets import PROMPT
from .variants import VARIANTS, bases

# Built in `plugins`, where other tests take it from.
VIDEO_XL = TinyPipeline("animatediff-xl", tiny_video_xl, SMALL, {**PROMPT, "num_frames": 2}, "unet", video=True)
CONTRACT: tuple[TinyPipeline, ...] = (
    *VARIANTS.values(),
    *MORE_VIDEOS,
    *MORE_IMAGES,
    *OTHER_IMAGES,
    *OTHER_VIDEOS,
    VIDEO_XL,
)
EVERYTHING: tuple[TinyPipeline, ...] = (*TINY.values(), *CONTRACT)
# Each once, as small as it can be.
EACH: tuple[TinyPipeline, ...] = (*bases().values(), *CONTRACT)
# Those whose positions end below four times the native side, as the published ones' do, and where.
ENDING = {
    "cogview3-plus": "128 pixels a side",
    "cogvideox-1.5": "104x104",
    "kandinsky-5-image": "128 pixels a side",
    "kandinsky-5-video": "80 pixels a side",
}


def class_name(entry: TinyPipeline) -> str:
    """Name of the entry's class in diffusers, without building it."""
    made = get_type_hints(entry.make)["return"].__name__
    return entry.name if made == "DiffusionPipeline" else made
