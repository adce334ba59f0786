"""All tiny pipelines: of every class that is served and tested, at least one."""

from . import TINY, TinyPipeline
from .more_images import MORE_IMAGES
from .more_videos import MORE_VIDEOS
from .variants import VARIANTS

CONTRACT: tuple[TinyPipeline, ...] = (*VARIANTS.values(), *MORE_VIDEOS, *MORE_IMAGES)
EVERYTHING: tuple[TinyPipeline, ...] = (*TINY.values(), *CONTRACT)
