"""Copies the sound of a clip, packet by packet, into the clip made from it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from selfcascade.media.endings import ending_of
from selfcascade.media.video_files import opened_clip

# Codecs that players support in an .mp4. Copying packets is lossless.
IN_MP4 = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
LEAD = 0.06  # seconds of packets before the start, which are needed to decode the first audible one


@dataclass(frozen=True)
class Sound:
    """The sound of a clip from a given time on.

    Attributes:
        path: Path of the clip.
        start: Seconds from the clip's first frame.
    """

    path: Path
    start: float = 0.0

    def obstacle(self, output: Path) -> str | None:
        """Why a clip at `output` cannot have this sound, in a few words; None if it can."""
        if ending_of(output) != ".mp4":
            return "only an .mp4 holds sound"
        with opened_clip(str(self.path)) as (container, _):
            codec = container.streams.audio[0].codec_context
            name = "a format that is not known" if codec is None else codec.name
        return None if name in IN_MP4 else f"an .mp4 does not hold {name}"

    def copy_into(self, container: Any, seconds: float) -> Any:
        """Adds a stream to an open .mp4, and returns a function that writes the packets of this many seconds."""
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
    """The sound of a video file; None if it has none."""
    with opened_clip(str(path)) as (container, _):
        return Sound(path, start) if container.streams.audio else None
