"""
Frames arrive as they were sent however they are cut, and nothing that arrives does harm.
"""

from __future__ import annotations

from hypothesis import given, strategies as st

from fairway.layers.brokers.ipc import frames
from fairway.layers.brokers.ipc.frames import Decoder, Frame, FrameError

NUMBERS = st.integers(0, 2**64 - 1)
SUBJECTS = st.text(max_size=40)
ENCODED: st.SearchStrategy[tuple[Frame, bytes]] = st.one_of(
    st.builds(lambda a, b: (frames.Message(a, b), frames.message(a, b)), SUBJECTS, st.binary()),
    SUBJECTS.map(lambda a: (frames.Interest(a), frames.interest(a))),
    SUBJECTS.map(lambda a: (frames.Disinterest(a), frames.disinterest(a))),
    NUMBERS.map(lambda a: (frames.Ask(a), frames.ask(a))),
    NUMBERS.map(lambda a: (frames.Acknowledge(a), frames.acknowledge(a))),
    SUBJECTS.map(lambda a: (frames.Hello(frames.VERSION, a), frames.hello(a))),
    st.sampled_from(
        [
            (frames.Complete(), frames.COMPLETE),
            (frames.Gap(), frames.GAP),
            (frames.Beat(), frames.BEAT),
            (frames.Bye(), frames.BYE),
        ]
    ),
)
CUTS = st.lists(st.integers(1, 50), max_size=20)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """
    Cut bytes into pieces of these sizes, and what is left.
    """
    cut = []
    for size in sizes:
        cut.append(data[:size])
        data = data[size:]
    return [*cut, data]


@given(st.lists(ENCODED, max_size=8), CUTS)
def test_frames_survive_any_cut(sent: list[tuple[Frame, bytes]], cuts: list[int]) -> None:
    """
    Whatever is sent comes out, with its type, in order, once.
    """
    decoder = Decoder()
    data = b"".join(encoded for _, encoded in sent)
    got = [frame for piece in pieces(data, cuts) for frame in decoder.feed(piece)]
    assert got == [frame for frame, _ in sent]
    assert [type(frame) for frame in got] == [type(frame) for frame, _ in sent]


@given(st.binary(max_size=300), CUTS)
def test_garbage_gives_frames_or_a_frame_error(data: bytes, cuts: list[int]) -> None:
    """
    Nothing else is raised, and the cut changes neither what comes out nor whether it ends so.
    """

    def read(parts: list[bytes]) -> tuple[list[Frame], bool]:
        decoder, got = Decoder(), []
        for part in parts:
            try:
                got += decoder.feed(part)
            except FrameError:
                return got, True
        return got, False

    whole, cut = read([data]), read(pieces(data, cuts))
    assert whole[1] == cut[1]
    assert whole[0] == cut[0][: len(whole[0])]


@given(st.lists(ENCODED, min_size=1, max_size=4), st.integers(0, 2000), st.integers(1, 255))
def test_a_changed_byte_does_no_harm(
    sent: list[tuple[Frame, bytes]], place: int, change: int
) -> None:
    """
    A frame that was damaged gives some other frames, a FrameError, or waits for more.
    """
    data = bytearray(b"".join(encoded for _, encoded in sent))
    data[place % len(data)] ^= change
    decoder = Decoder()
    try:
        decoder.feed(bytes(data))
    except FrameError:
        return
    assert len(decoder._rest) <= len(data)
