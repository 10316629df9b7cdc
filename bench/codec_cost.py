"""What a body of 64 bytes costs each codec: ``python -m bench.codec_cost``.

Thousands of instructions, counted by ``valgrind --tool=cachegrind``, to write one
command and to read it, without seq and connection; less those of a run that only
starts. msgspec alone is there to compare with: it is what JSON would cost if it were
only a matter of C.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable

import msgspec
from google.protobuf.wrappers_pb2 import StringValue

from cmdstream import JsonCodec, MusCodec, Registry
from cmdstream.codec import Codec
from cmdstream.codecs.protobuf import ProtobufCodec

TURNS = 2000


class Note(str):
    """A bare value; __slots__ would make it another."""

    __slots__ = ()


class Order(msgspec.Struct):
    """Two texts and two numbers: 60 bytes in JSON, 60 in MUS."""

    order_id: str
    sku: str
    count: int
    cents: int


NOTE = Note("x" * 62)
JSON_ORDER = Order("o-1234567", "sku-7", 3, 1999)
MUS_ORDER = Order("o-1234567" * 3, "sku-7" * 6, 3, 1999)
_REGISTRY = Registry([Note, Order], [])
_JSON, _MUS = JsonCodec(_REGISTRY), MusCodec(_REGISTRY)

LOADS: dict[str, tuple[Codec, object]] = {
    "JSON, a text": (_JSON, NOTE),
    "JSON, four fields": (_JSON, JSON_ORDER),
    "MUS, a text": (_MUS, NOTE),
    "MUS, four fields": (_MUS, MUS_ORDER),
    "Protobuf, a text": (
        ProtobufCodec(Registry([StringValue], [])),
        StringValue(value="x" * 62),
    ),
}
BARE = "msgspec alone, four fields"
NAMES = (*LOADS, BARE)
ACTS = ("write", "read")


def act_of(name: str, act: str) -> Callable[[], object]:
    """Give what is to be done many times."""
    if name == BARE:
        body = msgspec.json.encode(JSON_ORDER)
        encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Order)
        return (
            (lambda: encoder.encode(JSON_ORDER))
            if act == "write"
            else (lambda: decoder.decode(body))
        )
    codec, value = LOADS[name]
    frame = codec.encode_command(value)
    return (
        (lambda: codec.encode_command(value))
        if act == "write"
        else (lambda: codec.decode_command(frame, 0))
    )


def instructions(name: str, act: str, turns: int) -> int:
    """Count the instructions of a process that starts, and does *act* so often."""
    done = subprocess.run(
        [
            "valgrind", "--tool=cachegrind", "--cache-sim=no",
            "--cachegrind-out-file=/dev/null", sys.executable,
            "-m", "bench.codec_cost", "--turns", str(turns), name, act,
        ],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )  # fmt: skip
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def main() -> None:
    """Count, and print; or be what is counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", nargs="?", choices=NAMES)
    parser.add_argument("act", nargs="?", choices=ACTS)
    parser.add_argument("--turns", type=int, help="be what is counted")
    chosen = parser.parse_args()
    if chosen.turns is not None:
        act = act_of(chosen.load, chosen.act)
        for _ in range(chosen.turns):
            act()
        return
    starting = instructions(BARE, "write", 0)
    for name in NAMES if chosen.load is None else (chosen.load,):
        write, read = (
            (instructions(name, act, TURNS) - starting) / TURNS / 1000 for act in ACTS
        )
        print(f"{name:28}{write:6.1f} k to write, {read:5.1f} k to read", flush=True)


if __name__ == "__main__":
    main()
