"""Generated values that both languages can hold: the plain form of `Everything`.

They are made with `random`, not with Hypothesis: a value has some fifty parts, of which
Hypothesis makes some thousand a second, and each of 2,000 crosses the border six times.
There is nothing to shrink in them either: what differs is a field, and has a name.
"""

import base64
import datetime as dt
import math
import struct
from random import Random

from tests.interop.wires import Plain

__all__ = ["EMPTY", "everything"]

INT_EDGES = (0, 1, -1, 63, 64, -64, -65, 127, -128, 2**14, 2**31, 2**53 + 1)
FLOAT_EDGES = (0.0, -0.0, 1.0, 1e21, 1e-7, 5e-324, 1.7976931348623157e308, 0.1)
TEXT_EDGES = ("", "<a>&\u2028\u2029", "\0", "é\U0001f600", "\ufffd", '"\\/')
SURROGATES = range(0xD800, 0xE000)

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
YEAR_1_S = -62_135_596_800
YEAR_9999_END_S = 253_402_300_799
NANOS_S = 9_223_372_036
"""Go counts the nanoseconds since 1970 in 64 bits, which is from 1677 to 2262."""


def everything(random: Random) -> Plain:
    """Make one more value."""
    return {
        "number": _int(random, 64),
        "natural": _uint(random, 64),
        "fraction": _float(random),
        "flag": random.random() < 0.5,
        "text": _text(random),
        "data": base64.b64encode(random.randbytes(_size(random))).decode(),
        "at": _time(random.randint(YEAR_1_S, YEAR_9999_END_S), 0),
        "wait": _int(random, 64),
        "numbers": [_int(random, 64) for _ in range(_size(random))],
        "counts": {_text(random): _int(random, 64) for _ in range(_size(random))},
        "maybe": None if random.random() < 0.3 else _text(random),
        "point": _point(random),
        "path": [_point(random) for _ in range(_size(random))],
        "widths": {
            "tiny": _int(random, 8),
            "octet": _uint(random, 8),
            "short": _int(random, 16),
            "port": _uint(random, 16),
            "word": _int(random, 32),
            "index": _uint(random, 32),
            "long": _int(random, 64),
            "mask": _uint(random, 64),
            "size": _int(random, 64),
            # Exact in 32 bits and in few digits: JSON has as few as will do.
            "half": _int(random, 20) / 4,
            "ratio": _float(random),
            "millis": _time(_seconds(random), random.randrange(1000) * 1000),
            "nanos": _time(_seconds(random), random.randrange(1_000_000)),
        },
    }


def _int(random: Random, bits: int) -> int:
    most = (1 << (bits - 1)) - 1
    number = random.choice((*INT_EDGES, most, -most - 1))
    if random.random() < 0.3 and -most - 1 <= number <= most:
        return number
    number = random.getrandbits(random.randrange(bits))  # of any size, large or small
    return number if random.random() < 0.5 else ~number


def _uint(random: Random, bits: int) -> int:
    if random.random() < 0.1:
        return (1 << bits) - 1
    return random.getrandbits(random.randint(0, bits))


def _float(random: Random) -> float:
    if random.random() < 0.3:
        return random.choice(FLOAT_EDGES)
    number: float = struct.unpack("<d", random.randbytes(8))[0]
    return number if math.isfinite(number) else 0.5


def _text(random: Random) -> str:
    if random.random() < 0.3:
        return random.choice(TEXT_EDGES)
    codes = (random.getrandbits(random.choice((7, 11, 16, 20))) for _ in range(12))
    return "".join(chr(code) for code in codes if code not in SURROGATES)


def _size(random: Random) -> int:
    return random.choice((0, 1, 3, 20))


def _point(random: Random) -> Plain:
    return {"x": _int(random, 64), "y": _int(random, 64)}


def _seconds(random: Random) -> int:
    return random.randrange(-NANOS_S, NANOS_S)


def _time(seconds: int, micros: int) -> str:
    moment = EPOCH + dt.timedelta(seconds=seconds, microseconds=micros)
    return moment.isoformat().replace("+00:00", "Z")


_NEW_YEAR_1970 = "1970-01-01T00:00:00Z"

EMPTY: Plain = {
    **dict.fromkeys(("number", "natural", "fraction", "wait"), 0),
    "flag": False,
    "text": "",
    "maybe": None,
    "at": _NEW_YEAR_1970,
    "data": "",
    "numbers": [],
    "counts": {},
    "path": [],
    "point": {"x": 0, "y": 0},
    "widths": {
        **dict.fromkeys(("tiny", "octet", "short", "port", "word", "index"), 0),
        **dict.fromkeys(("long", "mask", "size", "half", "ratio"), 0),
        "millis": _NEW_YEAR_1970,
        "nanos": _NEW_YEAR_1970,
    },
}
"""One without anything in it."""
