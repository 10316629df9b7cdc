"""The fast reader of frames agrees with cmd-stream's own writer, however it is cut."""

from bench.frames import read_frames, varint
from bench.sagas import CODEC, COMMANDS, ThreeSteps
from hypothesis import given
from hypothesis import strategies as st

from cmdstream.protocol import ClientConnection
from cmdstream.wire import write_size


def stream(numbers: list[int]) -> tuple[bytes, list[bytes]]:
    core = ClientConnection(CODEC, next_seq=120)
    core.receive_data(b"\x07default")
    assert core.next_event() is not None
    frames: list[bytes] = []
    for number in numbers:
        _, data = core.send_command(ThreeSteps(number))
        frames.append(data)
    return b"".join(frames), [b'{"number":%d}' % number for number in numbers]


@given(st.lists(st.integers(0, 10**9), max_size=20), st.data())
def test_whole_frames_are_read_and_a_rest_is_left(
    numbers: list[int], data: st.DataObject
) -> None:
    sent, bodies = stream(numbers)
    cut = data.draw(st.integers(0, len(sent)))
    first = list(read_frames(sent[:cut]))
    rest = sent[first[-1][2] if first else 0 :]
    second = list(read_frames(rest))
    assert [sent[a:b] for _, a, b in first] + [rest[a:b] for _, a, b in second] == (
        bodies
    )
    assert [seq for seq, _, _ in (*first, *second)] == [
        120 + n for n in range(len(numbers))
    ]


@given(st.integers(0, 2**62))
def test_a_varint_is_what_the_wire_has(value: int) -> None:
    assert varint(value) == write_size(value)


def test_the_open_loop_sends_the_first_command() -> None:
    assert COMMANDS[0] is ThreeSteps
