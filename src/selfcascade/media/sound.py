"""The sound of a clip, copied packet by packet into the clip that is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from selfcascade.media.endings import ending_of
from selfcascade.media.video_files import opened_clip

# What players read in an .mp4. Copied as it is, a sound loses nothing.
IN_MP4 = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
LEAD = 0.06  # seconds of packets from before the start, which the first one that is heard is decoded with


@dataclass(frozen=True)
class Sound:
    """A clip's sound from a time on.

    Attributes:
        path: The clip that has it.
        start: Seconds from the clip's first frame.
    """

    path: Path
    start: float = 0.0

    def obstacle(self, output: Path) -> str | None:
        """Why a clip at `output` cannot have it, in a few words; None where it can."""
        if ending_of(output) != ".mp4":
            return "only an .mp4 holds sound"
        with opened_clip(str(self.path)) as (container, _):
            codec = container.streams.audio[0].codec_context
            name = "a format that is not known" if codec is None else codec.name
        return None if name in IN_MP4 else f"an .mp4 does not hold {name}"

    def copy_into(self, container: Any, seconds: float) -> Any:
        """Adds its stream to an open .mp4; what is returned writes the packets of this many seconds into it."""
        with opened_clip(str(self.path)) as (source, video):
            heard = source.streams.audio[0]
            begin = float((video.start_time or 0) * (video.time_base or 0)) + self.start
            unit = heard.time_base or Fraction(1, heard.rate)
            stream = container.add_stream_from_template(heard)
            offset = round(begin / unit)
            packets = []
            for packet in source.demux(heard):
                if packet.pts is None or packet.dts is None:
                    continue
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                if -LEAD < packet.pts * unit < seconds:
                    packets.append(packet)

        def write() -> None:
            for packet in packets:
                packet.stream = stream
                container.mux(packet)

        return write


def sound_of(path: Path, start: float = 0.0) -> Sound | None:
    """The sound of a video file; None where it has none."""
    with opened_clip(str(path)) as (container, _):
        return Sound(path, start) if container.streams.audio else None
