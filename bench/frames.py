"""Frames of cmd-stream, taken apart by their length alone: what costs least.

The bare program reads commands so, and the open-loop client reads results: neither
should spend time that it does not measure. Their numbers and lengths are varints.
"""

from collections.abc import Iterator


def read_frames(data: bytes, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each whole frame in *data*, where its body begins, and ends.

    What lies behind the last one is the beginning of another.
    """
    size = len(data)
    while True:
        seq = value = 0
        for field in range(3):  # seq, tag, length
            value = shift = 0
            while True:
                if offset == size:
                    return
                byte = data[offset]
                offset += 1
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
            if field == 0:
                seq = value
        body = offset
        offset += value
        if offset > size:
            return
        yield seq, body, offset


def varint(value: int) -> bytes:
    """Return the bytes of a number."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
