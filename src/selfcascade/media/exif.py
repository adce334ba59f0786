"""EXIF of pictures: the user comment, from which other tools read the settings, and our own record."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image

EXIF_IFD, EXIF_VERSION, MAKER_NOTE, USER_COMMENT = 0x8769, 0x9000, 0x927C, 0x9286
LONG, UNDEFINED = 4, 7
OURS = b"selfcascade\0"  # makers' notes begin with the maker's name


def user_comment(text: str, record: str | None = None) -> bytes:
    """An EXIF block with this text as its user comment.

    The standard gives the comment the type UNDEFINED, with its encoding in the first eight bytes (Exif 2.32, 4.6.5 and
    table 9). Pillow writes bytes with the type BYTE, which readers that follow the standard ignore.

    Args:
        text: Any text; stored as big-endian UTF-16.
        record: Our own record, as JSON, for the maker's note.

    Returns:
        The EXIF mark and a big-endian TIFF block: IFD 0 at 8, the Exif IFD at 26.
    """
    first = struct.pack(">HHHLLL", 1, EXIF_IFD, LONG, 1, 26, 0)
    return b"Exif\0\0MM\0\x2a\0\0\0\x08" + first + _exif_ifd(">", 26, text, record)


def add_to_tiff(file: Path, text: str, record: str) -> None:
    """Adds the same EXIF to a TIFF file, which libtiff cannot: at its end, with a new first directory."""
    data = bytearray(file.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}L", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = [bytes(data[start + 2 + 12 * index :][:12]) for index in range(count)]
    after = bytes(data[start + 2 + 12 * count :][:4])
    data += bytes(len(data) % 2)  # directories begin at even places
    place = len(data)
    block = _exif_ifd(order, place, text, record)
    entries.append(struct.pack(f"{order}HHLL", EXIF_IFD, LONG, 1, place))
    entries.sort(key=lambda entry: struct.unpack_from(f"{order}H", entry))
    data += block + bytes(len(block) % 2)
    struct.pack_into(f"{order}L", data, 4, len(data))
    data += struct.pack(f"{order}H", len(entries)) + b"".join(entries) + after
    file.write_bytes(data)


def record_in(image: Image.Image) -> str | None:
    """The record in a picture's maker's note; None if there is none, or it is another maker's."""
    note = image.getexif().get_ifd(EXIF_IFD).get(MAKER_NOTE)
    return note.removeprefix(OURS).decode() if isinstance(note, bytes) and note.startswith(OURS) else None


def _exif_ifd(order: str, place: int, text: str, record: str | None) -> bytes:
    """The Exif directory with its data, for this position in a block."""
    values = {EXIF_VERSION: b"0232"}
    if record is not None:
        values[MAKER_NOTE] = OURS + record.encode()
    values[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    entries, held = struct.pack(f"{order}H", len(values)), b""
    end = place + 2 + 12 * len(values) + 4
    for tag, value in values.items():
        inline = value if len(value) == 4 else struct.pack(f"{order}L", end + len(held))
        entries += struct.pack(f"{order}HHL", tag, UNDEFINED, len(value)) + inline
        held += b"" if len(value) == 4 else value + bytes(len(value) % 2)
    return entries + bytes(4) + held
