"""All tiny pipelines: of every class that is served and tested, at least one."""

from . import TINY, TinyPipeline
from .more_images import MORE_IMAGES
from .more_videos import MORE_VIDEOS
from .other_images import OTHER_IMAGES
from .other_videos import OTHER_VIDEOS
from .variants import VARIANTS

CONTRACT: tuple[TinyPipeline, ...] = (
    *VARIANTS.values(),
    *MORE_VIDEOS,
    *MORE_IMAGES,
    *OTHER_IMAGES,
    *OTHER_VIDEOS,
)
EVERYTHING: tuple[TinyPipeline, ...] = (*TINY.values(), *CONTRACT)
