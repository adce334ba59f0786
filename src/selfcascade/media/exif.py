"""The one EXIF field that pictures carry: the user comment, where other tools of the field read the settings."""

from __future__ import annotations

import struct

EXIF_IFD, EXIF_VERSION, USER_COMMENT = 0x8769, 0x9000, 0x9286
LONG, UNDEFINED = 4, 7


def user_comment(text: str) -> bytes:
    """An EXIF block with this text as its user comment.

    The standard gives the comment the type UNDEFINED, with its encoding in the first eight bytes (Exif 2.32, 4.6.5 and
    table 9); Pillow, given bytes, writes the type BYTE, which readers that follow the standard pass over.

    Args:
        text: Any; stored as UTF-16 in the block's byte order.

    Returns:
        The EXIF mark and a big-endian TIFF block: IFD 0 at 8, the Exif IFD at 26, the comment at 56.
    """
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    first = struct.pack(">HHHLLL", 1, EXIF_IFD, LONG, 1, 26, 0)
    version = struct.pack(">HHL4s", EXIF_VERSION, UNDEFINED, 4, b"0232")
    entry = struct.pack(">HHLL", USER_COMMENT, UNDEFINED, len(comment), 56)
    return b"Exif\0\0MM\0\x2a\0\0\0\x08" + first + struct.pack(">H", 2) + version + entry + bytes(4) + comment
