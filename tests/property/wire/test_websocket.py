"""
WebSocket frames under random cuts, and against wsproto and websockets.

Known differences of the oracles, each taken into account below by name:

- wsproto refuses close code 1014, which was registered after it was written; it is left out.
- wsproto and websockets wait for a whole header or frame before they refuse it,
  so the streams here hold whole frames. websockets judges a size (1009) before
  reserved bits, order and control frames (1002), and a control frame by what its
  limit leaves of the message around it.
- websockets checks no minimal length, so its streams have none longer than needed,
  and leaves the UTF-8 of text to its callers.
- websockets refuses a close frame inside a fragmented message; RFC 6455 does not.
- Of a close frame that is wrong twice, websockets tells the bad reason (1007), we and
  wsproto the bad code (1002).
- Neither counts fragments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

from hypothesis import assume, example, given, settings, strategies as st
from websockets.frames import Frame as OracleFrame, Opcode as OracleOpcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from fairway.exceptions import RemoteProtocolError
from fairway.wire.codes import (
    BAD_GATEWAY,
    INVALID_PAYLOAD,
    PROTOCOL_ERROR,
    TOO_BIG,
    is_sendable,
)
from fairway.wire.websocket import (
    Close,
    FrameDecoder,
    Ping,
    Pong,
    encode_binary,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_text,
)
from tests.unit.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    client_frame,
    plain,
    run,
)

LIMIT = 70000
SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, 4095, 4097, 65535, 65536])


def rarely(strange: Sequence[int]) -> st.SearchStrategy[int]:
    """
    Nearly always 0, sometimes something strange.
    """
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(strange) if n == 5 else st.just(0))


def payloads() -> st.SearchStrategy[bytes]:
    """
    Text, text with a cut character, anything, and the edges of the length field.
    """
    text = st.text(max_size=20).map(str.encode)
    cut = st.tuples(text, st.integers(0, 3)).map(lambda pair: pair[0][pair[1] :])
    sized = SIZES.map(lambda size: b"x" * size)
    return st.one_of(text, text, cut, st.binary(max_size=20), sized)


def closes() -> st.SearchStrategy[bytes]:
    """
    The payload of a close frame: nothing, any code, any reason.
    """
    codes = st.one_of(st.integers(990, 1020), st.integers(2990, 5010), st.integers(0, 65535))
    codes = codes.filter(lambda code: code != BAD_GATEWAY)
    reason = st.one_of(st.text(max_size=10).map(str.encode), st.binary(max_size=10))
    full = st.tuples(codes, reason).map(lambda pair: pair[0].to_bytes(2, "big") + pair[1])
    return st.one_of(st.just(b""), full, st.binary(max_size=3))


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """
    A valid message in one or more frames, perhaps with control frames between them.
    """
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    whole = draw(st.text(max_size=40)).encode() if opcode == TEXT else draw(payloads())
    parts = cut(whole, draw(st.lists(st.integers(0, 1 << 20), max_size=3)))
    frames = []
    for index, part in enumerate(parts):
        fin = index == len(parts) - 1
        frames.append(client_frame(opcode if index == 0 else CONTINUATION, part, fin=fin))
        if draw(st.booleans()):
            control = draw(st.sampled_from([PING, PONG]))
            frames.append(client_frame(control, draw(st.binary(max_size=125))))
    return frames


@st.composite
def strays(draw: st.DrawFn, widths: Sequence[int] = (0, 2, 8)) -> list[bytes]:
    """
    One frame that fits in or does not, and is usually well formed.
    """
    opcode = draw(st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, CLOSE, PING, PONG, 3, 11]))
    payload = draw(closes() if opcode == CLOSE else payloads())
    narrowest = 0 if len(payload) < 126 else 2 if len(payload) < 65536 else 8
    frame = client_frame(
        opcode,
        payload,
        fin=not draw(rarely([True])),
        rsv=draw(rarely(range(1, 8))),
        mask=not draw(rarely([True])),
        width=max(narrowest, draw(rarely(widths))),
        key=draw(st.binary(min_size=4, max_size=4)),
    )
    return [frame]


def streams(widths: Sequence[int] = (0, 2, 8)) -> st.SearchStrategy[bytes]:
    """
    Whole frames, valid for a while.
    """
    stray = strays(widths)
    turns = st.lists(st.one_of(messages(), messages(), messages(), stray), max_size=6)
    last = closes().map(lambda payload: client_frame(CLOSE, payload))
    end = st.lists(last, max_size=1)
    return st.tuples(turns, end).map(lambda pair: b"".join(chain(*pair[0], pair[1])))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """
    The data in pieces, some of them empty.
    """
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def decode(chunks: Iterable[bytes], message_bytes_max: int = LIMIT) -> list[object]:
    """
    What our decoder tells.
    """
    decoder = FrameDecoder(message_bytes_max=message_bytes_max, fragments_max=1000)
    return plain(run(decoder, *chunks))


def by_wsproto(stream: bytes) -> list[object]:
    """
    What wsproto tells, in our words.
    """
    oracle = FrameProtocol(client=False, extensions=[])
    oracle.receive_bytes(stream)
    events: list[object] = []
    parts: list[str] | list[bytes] = []
    try:
        for frame in oracle.received_frames():
            payload = frame.payload
            if frame.opcode is Opcode.CLOSE:
                assert isinstance(payload, tuple)
                events.append(Close(int(payload[0]), str(payload[1])))
            elif frame.opcode in (Opcode.PING, Opcode.PONG):
                assert isinstance(payload, (bytes, bytearray))
                kind = Ping if frame.opcode is Opcode.PING else Pong
                events.append(kind(bytes(payload)))
            else:
                parts.append(payload)  # type: ignore[arg-type]  # All of one message's type.
                if frame.message_finished:
                    empty = parts[0][:0]
                    events.append(empty.join(parts))  # type: ignore[arg-type]  # As above.
                    parts = []
    except ParseFailed as failure:
        events.append(int(failure.code))
    return events


def by_websockets(stream: bytes, max_size: int | None = None) -> tuple[list[object], bool]:
    """
    What websockets tells, in our words, and whether a message was unfinished.
    """
    oracle = Protocol(SERVER, state=OPEN, max_size=max_size)
    oracle.receive_data(stream)
    events: list[object] = []
    parts: list[bytes] = []
    kind = OracleOpcode.TEXT
    for frame in oracle.events_received():
        assert isinstance(frame, OracleFrame)
        data = bytes(frame.data)
        if frame.opcode is OracleOpcode.CLOSE:
            assert oracle.close_rcvd is not None
            events.append(Close(int(oracle.close_rcvd.code), oracle.close_rcvd.reason))
        elif frame.opcode is OracleOpcode.PING:
            events.append(Ping(data))
        elif frame.opcode is OracleOpcode.PONG:
            events.append(Pong(data))
        else:
            kind = frame.opcode if frame.opcode is not OracleOpcode.CONT else kind
            parts.append(data)
            if frame.fin:
                message = b"".join(parts)
                text = kind is OracleOpcode.TEXT
                events.append(message.decode(errors="replace") if text else message)
                parts = []
    if oracle.parser_exc is not None:
        assert oracle.close_sent is not None
        events.append(int(oracle.close_sent.code))
    return events, bool(parts)


class TestCuts:
    """
    How bytes are cut into reads changes nothing.
    """

    @given(streams(), st.lists(st.integers(0, 1 << 20), max_size=8))
    def test_any_cuts_give_the_same_events(self, stream: bytes, places: list[int]) -> None:
        """
        Valid streams and broken ones, with errors and closes at the same place.
        """
        assert decode(cut(stream, places)) == decode([stream])

    @settings(max_examples=30)
    @given(
        st.lists(messages(), min_size=1, max_size=4),
        st.lists(st.integers(0, 1 << 20), max_size=8),
        st.lists(strays(), max_size=1),
    )
    def test_any_cuts_of_very_many(
        self, turns: list[list[bytes]], places: list[int], end: list[list[bytes]]
    ) -> None:
        """
        More frames than one call tells of, nothing lost and nothing twice.
        """
        once = b"".join(chain(*turns))
        assume(len(once) < 500)
        alone = decode([once])
        told = decode(cut(once * 200 + b"".join(chain(*end)), places))
        assert told[: 200 * len(alone)] == alone * 200

    @given(st.lists(st.one_of(messages(), strays()), max_size=3))
    def test_byte_by_byte(self, turns: list[list[bytes]]) -> None:
        """
        The finest cut of all.
        """
        stream = b"".join(frame for frames in turns for frame in frames if len(frame) < 500)
        assert decode(bytes((byte,)) for byte in stream) == decode([stream])

    @given(streams(), st.integers(1, 400), st.integers(0, 1 << 20))
    def test_cuts_around_a_limit(self, stream: bytes, limit: int, place: int) -> None:
        """
        A size is refused at the same place too.
        """
        assert decode(cut(stream, [place]), limit) == decode([stream], limit)

    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
    @example(b"", [])
    def test_garbage_raises_nothing(self, garbage: bytes, places: list[int]) -> None:
        """
        Whatever comes, events come out, an error only as the last, and nothing behind it.
        """
        decoder = FrameDecoder(message_bytes_max=100, fragments_max=3)
        events = run(decoder, *cut(garbage, places))
        for event in events[:-1]:
            assert not isinstance(event, (RemoteProtocolError, Close))
        if events and isinstance(events[-1], (RemoteProtocolError, Close)):
            assert decoder.buffered_bytes == 0
        assert decoder.buffered_bytes <= len(garbage)


class TestIdentity:
    """
    What is encoded comes out as it went in.
    """

    @staticmethod
    def as_client(frame: bytes, key: bytes) -> bytes:
        """
        The server's frame as a client would have sent it.
        """
        size = {126: 4, 127: 10}.get(frame[1], 2)
        opcode, fin = frame[0] & 0x0F, bool(frame[0] & 0x80)
        return client_frame(opcode, frame[size:], fin=fin, key=key)

    @given(st.one_of(st.text(), st.binary()), SIZES, st.binary(min_size=4, max_size=4))
    def test_messages(self, message: str | bytes, size: int, key: bytes) -> None:
        """
        Text and binary, of any size.
        """
        if isinstance(message, str):
            message += "x" * size
            frame = encode_text(message)
        else:
            message += b"x" * size
            frame = encode_binary(message)
        assert decode([self.as_client(frame, key)], 1 << 20) == [message]

    @given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
    def test_fragments(self, parts: list[bytes]) -> None:
        """
        Any cut of a message into frames.
        """
        frames = [
            encode_frame(BINARY if index == 0 else CONTINUATION, part, fin=index == len(parts) - 1)
            for index, part in enumerate(parts)
        ]
        assert decode(self.as_client(frame, b"abcd") for frame in frames) == [b"".join(parts)]

    @given(st.binary(max_size=125), st.text(max_size=40), st.integers(1000, 4999))
    def test_control_frames(self, payload: bytes, reason: str, code: int) -> None:
        """
        Pings, pongs, and every close that may be sent.
        """
        frames = [encode_ping(payload), encode_pong(payload)]
        expected: list[object] = [Ping(payload), Pong(payload)]
        if is_sendable(code) and not {"\r", "\n", "\0"} & set(reason):
            frames.append(encode_close(code, reason))
            cut_reason = reason.encode()[:123].decode(errors="ignore")
            expected.append(Close(code, cut_reason))
        assert decode(self.as_client(frame, b"abcd") for frame in frames) == expected


class TestOracles:
    """
    Two other implementations come to the same verdict.
    """

    @given(streams())
    def test_wsproto_hears_the_same_from_clients(self, stream: bytes) -> None:
        """
        The same messages, and the same close code where a stream is refused.
        """
        assert decode([stream], 1 << 20) == by_wsproto(stream)

    @given(streams(widths=[0]), st.sampled_from([None, 125, 300]))
    def test_websockets_hears_the_same_from_clients(self, stream: bytes, limit: int | None) -> None:
        """
        The same but for what it leaves to its callers, and for its own rule about closes.
        """
        ours = decode([stream], limit or 1 << 20)
        theirs, unfinished = by_websockets(stream, limit)
        mine, other = (events[-1] if events else None for events in (ours, theirs))
        if mine == INVALID_PAYLOAD:  # It tells the text, or more of it, and what comes after.
            assert ours[:-1] == theirs[: len(ours) - 1]
        elif other == TOO_BIG:
            assert ours[: len(theirs) - 1] == theirs[:-1]
            assert mine in {TOO_BIG, PROTOCOL_ERROR} or any(
                isinstance(e, Ping | Pong) for e in ours
            )
        elif isinstance(mine, Close) and unfinished:
            assert theirs == [*ours[:-1], PROTOCOL_ERROR]
        elif mine == PROTOCOL_ERROR:
            assert ours[:-1] == theirs[:-1]
            assert other in {PROTOCOL_ERROR, INVALID_PAYLOAD}
        else:
            assert ours == theirs

    @given(st.one_of(st.text(), st.binary()), SIZES, st.booleans())
    def test_clients_of_both_hear_what_we_send(
        self, message: str | bytes, size: int, padded: bool
    ) -> None:
        """
        Messages arrive unchanged.
        """
        if isinstance(message, str):
            message += "x" * size * padded
            frame = encode_text(message)
        else:
            message += b"x" * size * padded
            frame = encode_binary(message)
        wsproto = FrameProtocol(client=True, extensions=[])
        wsproto.receive_bytes(frame)
        parts = [part.payload for part in wsproto.received_frames()]
        assert message[:0].join(parts) == message  # type: ignore[arg-type]  # All of its type.
        websockets = Protocol(CLIENT, state=OPEN, max_size=None)
        websockets.receive_data(frame)
        (event,) = websockets.events_received()
        assert isinstance(event, OracleFrame)
        assert event.data == (message.encode() if isinstance(message, str) else message)

    @given(st.integers(0, 65535), st.text(max_size=40))
    def test_clients_of_both_hear_why_we_close(self, code: int, reason: str) -> None:
        """
        Code and reason arrive unchanged.
        """
        if not is_sendable(code) or {"\r", "\n", "\0"} & set(reason) or code == BAD_GATEWAY:
            return
        frame = encode_close(code, reason)
        wsproto = FrameProtocol(client=True, extensions=[])
        wsproto.receive_bytes(frame)
        (event,) = wsproto.received_frames()
        websockets = Protocol(CLIENT, state=OPEN, max_size=None)
        websockets.receive_data(frame)
        assert websockets.close_rcvd is not None
        cut_reason = reason.encode()[:123].decode(errors="ignore")
        assert event.payload == (code, cut_reason)
        assert (websockets.close_rcvd.code, websockets.close_rcvd.reason) == (code, cut_reason)
