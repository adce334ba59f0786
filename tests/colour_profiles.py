"""ICC profiles written byte by byte, so that the tests need no file of anybody's."""

import struct

D50 = (0.9642, 1.0, 0.8249)
# Primaries of Adobe RGB (1998), adapted to D50.
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def _text(words: str) -> bytes:
    data = words.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(4 + 4 + 2 + 1 + 67)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = bytearray(128)
    head[8:12], head[12:16], head[16:20], head[20:24] = b"\2\x40\0\0", kind, space, connection
    head[36:40], head[68:80] = b"acsp", b"".join(map(_fixed, D50))
    head[0:4] = struct.pack(">I", 128 + 4 + len(table) + len(body))
    return bytes(head) + struct.pack(">I", len(tags)) + table + body


def adobe_rgb() -> bytes:
    """Adobe RGB (1998): its primaries and gamma 2.2 (563 / 256)."""
    curve = _gamma(563 / 256)
    tags = {b"desc": _text("Adobe RGB (1998)"), b"wtpt": _xyz(D50)}
    tags |= {name: _xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**tags, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def linear_grey() -> bytes:
    """Grey in which the values are proportional to light."""
    tags = {b"desc": _text("linear grey"), b"wtpt": _xyz(D50), b"kTRC": _gamma(1.0)}
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


def press(corners: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A press given by the Lab colours (D50) of inks laid on whole; black where a corner is not given."""
    grid = b""
    for index in range(16):
        inks = tuple(index >> shift & 1 for shift in (3, 2, 1, 0))
        lightness, a, b = corners.get(inks, (0.0, 0.0, 0.0))
        grid += bytes((round(lightness * 255 / 100), round(a + 128), round(b + 128)))
    ramp = bytes(range(256))
    identity = b"".join(_fixed(float(row == column)) for row in range(3) for column in range(3))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + grid + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"desc": _text("press"), b"wtpt": _xyz(D50), b"A2B0": table})
