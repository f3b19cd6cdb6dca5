"""
Compressed messages against two other implementations, websockets and wsproto.

Both are more lenient than we are: neither sees that a message is cut short, and both throw away
what comes behind a block that is marked as the last.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from hypothesis import example, given, strategies as st
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate
from wsproto.frame_protocol import FrameProtocol

from fairway.exceptions import RemoteProtocolError
from fairway.wire.codes import TOO_BIG
from fairway.wire.deflate import Deflate, InflatingDecoder, negotiate
from fairway.wire.handshake import Extension, read_extensions
from fairway.wire.prepared import Prepared
from tests.property.wire.test_websocket import cut
from tests.unit.wire.frames import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    client_frame,
    plain,
    run,
)

LIMIT = 20000
RSV1 = 4
Message: TypeAlias = str | bytes

repetitive = st.tuples(st.binary(max_size=20), st.integers(0, 400)).map(
    lambda pair: pair[0] * pair[1]
)
texts = st.one_of(st.text(max_size=200), st.text(max_size=8).map(lambda text: text * 300))
messages: st.SearchStrategy[Message] = st.one_of(
    texts,
    repetitive,
    st.binary(max_size=400),
    st.randoms(use_true_random=False).map(
        lambda random: random.randbytes(random.choice([1000, 5000, 19999]))
    ),
)
places = st.lists(st.integers(0, 1 << 20), max_size=4)
windows = st.one_of(st.none(), st.integers(7, 16))


def decode(chunks: Sequence[bytes], message_bytes_max: int = LIMIT) -> list[object]:
    """
    What our decoder tells.
    """
    decoder = InflatingDecoder(message_bytes_max=message_bytes_max, fragments_max=1000)
    return plain(run(decoder, *chunks))


def fragments(opcode: int, payload: bytes, where: Sequence[int], *, pings: bool) -> list[bytes]:
    """
    The frames of a compressed message.
    """
    parts = cut(payload, where)
    frames = []
    for index, part in enumerate(parts):
        first, fin = index == 0, index == len(parts) - 1
        kind = opcode if first else CONTINUATION
        frames.append(client_frame(kind, part, fin=fin, rsv=RSV1 if first else 0))
        if pings:
            frames.append(client_frame(PING, b"?"))
    return frames


def by_websockets(payload: bytes) -> bytes | None:
    """
    What websockets makes of a compressed message, None if it refuses it.
    """
    oracle = PerMessageDeflate(True, True, 15, 15)
    try:
        return bytes(oracle.decode(Frame(Opcode.BINARY, payload, rsv1=True), max_size=LIMIT).data)
    except ProtocolError:
        return None


class TestReceiving:
    """
    What clients compress, and what only looks like it.
    """

    @given(st.lists(messages, max_size=4), st.integers(9, 15), places, places, st.booleans())
    def test_messages_of_websockets(
        self, sent: list[Message], window_bits: int, where: list[int], reads: list[int], pings: bool
    ) -> None:
        """
        In fragments that are flushed each, in any reads.
        """
        client = PerMessageDeflate(True, True, 15, window_bits)
        frames = []
        for message in sent:
            text = isinstance(message, str)
            parts = cut(message.encode() if isinstance(message, str) else message, where)
            for index, part in enumerate(parts):
                kind = Opcode.CONT if index else Opcode.TEXT if text else Opcode.BINARY
                frame = client.encode(Frame(kind, part, index == len(parts) - 1))
                rsv = RSV1 if frame.rsv1 else 0
                frames.append(client_frame(kind, bytes(frame.data), fin=frame.fin, rsv=rsv))
            if pings:
                frames.append(client_frame(PING, b"?"))
        told = decode(cut(b"".join(frames), reads))
        assert [event for event in told if isinstance(event, str | bytes)] == sent

    @given(st.lists(messages, max_size=4), st.integers(9, 15), places)
    def test_messages_of_wsproto(
        self, sent: list[Message], window_bits: int, reads: list[int]
    ) -> None:
        """
        The same from another client.
        """
        extension = WsprotoDeflate(True, window_bits, True, 12)
        extension.finalize("permessage-deflate")
        client = FrameProtocol(client=True, extensions=[extension])
        stream = b"".join(client.send_data(message) for message in sent)
        assert decode(cut(stream, reads)) == sent

    @given(messages, st.integers(0, 9), st.integers(9, 15), places, st.booleans())
    def test_any_cut_of_a_message(
        self, message: Message, level: int, window_bits: int, where: list[int], pings: bool
    ) -> None:
        """
        However it is compressed and wherever its frames end.
        """
        data = message.encode() if isinstance(message, str) else message
        stream = zlib.compressobj(level, zlib.DEFLATED, -window_bits, 1)
        payload = (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
        opcode = TEXT if isinstance(message, str) else BINARY
        told = decode(fragments(opcode, payload, where, pings=pings))
        assert [event for event in told if isinstance(event, str | bytes)] == [message]

    @given(
        st.one_of(st.binary(max_size=60), messages.filter(bool)), st.integers(0, 1 << 20), places
    )
    @example(b"\x03\x00\x03\x00", 0, [])
    @example(b"\xf3H\xcd\xc9\xc9\x07\x00\x00", 0, [3])
    def test_garbage(self, seed: Message, place: int, where: list[int]) -> None:
        """
        What we take as a message is what websockets takes it for, up to a last block.
        """
        data = seed.encode() if isinstance(seed, str) else seed
        if place % 3:
            stream = zlib.compressobj(6, zlib.DEFLATED, -15)
            whole = bytearray(stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)[:-4])
            if place % 3 == 2 and whole:
                whole[place % len(whole)] ^= 1 << place % 8
            else:
                del whole[place % (len(whole) + 1) :]
            data = bytes(whole)
        (told,) = decode(fragments(BINARY, data, where, pings=False))
        if isinstance(told, bytes):
            theirs = by_websockets(data)
            assert theirs is not None
            assert told.startswith(theirs)

    @given(st.integers(1, 5000), st.integers(-2, 2), st.integers(1, 4000), places)
    def test_the_limit(self, size: int, more: int, unit: int, where: list[int]) -> None:
        """
        It counts what comes out, wherever the frames end.
        """
        data = (bytes(range(256)) * 20)[:unit] * 5000
        data = data[: max(0, size + more)]
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        payload = (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
        told = decode(fragments(BINARY, payload, where, pings=False), size)
        assert told == ([TOO_BIG] if len(data) > size else [data])

    @given(st.binary(max_size=300), places)
    def test_any_bytes_raise_nothing(self, garbage: bytes, where: list[int]) -> None:
        """
        Whatever comes, an error is the last of what is told.
        """
        decoder = InflatingDecoder(message_bytes_max=100, fragments_max=3)
        events = run(decoder, *cut(garbage, where))
        assert not any(isinstance(event, RemoteProtocolError) for event in events[:-1])


class TestSending:
    """
    What clients make of our frames.
    """

    @given(messages, st.integers(9, 12), st.sampled_from([1, 50, 3000]))
    def test_clients_of_both_hear_what_we_send(
        self, message: Message, window_bits: int, bytes_min: int
    ) -> None:
        """
        Prepared and for one, compressed or not.
        """
        deflate = Deflate(window_bits, bytes_min, 10000)
        data = message.encode() if isinstance(message, str) else message
        opcode = TEXT if isinstance(message, str) else BINARY
        prepared = Prepared(message) if isinstance(message, str) else Prepared(data=message)
        frame = prepared.encode(deflate)
        assert frame == deflate.encode(opcode, data)
        assert len(frame) <= len(data) + 10

        extension = WsprotoDeflate(True, 12, True, window_bits)
        extension.finalize("permessage-deflate")
        wsproto = FrameProtocol(client=True, extensions=[extension])
        wsproto.receive_bytes(frame + frame)
        received: list[Any] = []
        parts: list[Any] = []
        for part in wsproto.received_frames():
            parts.append(part.payload)
            if part.message_finished:
                received.append(message[:0].join(parts))
                parts = []
        assert received == [message, message]

        websockets = PerMessageDeflate(True, True, window_bits, 15)
        start = {126: 4, 127: 10}.get(frame[1], 2)
        compressed = bool(frame[0] & 0x40)
        heard = websockets.decode(Frame(Opcode(opcode), frame[start:], True, compressed))
        assert bytes(heard.data) == data


class TestNegotiation:
    """
    What clients make of our answer.
    """

    @staticmethod
    def answered(offer: str, finalize: Callable[[str], object]) -> None:
        """
        Let a client read what we answer to its offer.
        """
        agreement = negotiate(read_extensions(offer.encode()))
        assert agreement is not None
        finalize(agreement.answer.decode())

    @given(
        st.booleans(),
        st.booleans(),
        st.one_of(st.none(), st.integers(9, 15)),
        st.one_of(st.none(), st.just(value=True), st.integers(9, 15)),
    )
    def test_websockets_agrees(
        self, server_alone: bool, client_alone: bool, server: int | None, client: int | bool | None
    ) -> None:
        """
        Whatever it asks for.
        """
        factory = ClientPerMessageDeflateFactory(server_alone, client_alone, server, client)

        def finalize(answer: str) -> None:
            ((name, parameters),) = parse_extension(answer)
            assert name == "permessage-deflate"
            agreed = factory.process_response_params(parameters, [])
            assert agreed.remote_no_context_takeover
            assert agreed.local_no_context_takeover
            assert agreed.remote_max_window_bits >= min(server or 15, 12)
            assert agreed.local_max_window_bits <= (15 if client is None else 12)

        offer = build_extension([(factory.name, list(factory.get_request_params()))])
        self.answered(offer, finalize)

    @given(st.booleans(), st.booleans(), st.integers(9, 15), st.integers(9, 15))
    def test_wsproto_agrees(
        self, server_alone: bool, client_alone: bool, server: int, client: int
    ) -> None:
        """
        Whatever it asks for.
        """
        extension = WsprotoDeflate(client_alone, client, server_alone, server)
        self.answered(f"permessage-deflate; {extension.offer()}", extension.finalize)
        assert extension.enabled()
        assert extension.client_no_context_takeover
        assert extension.server_no_context_takeover
        assert extension.server_max_window_bits == min(12, server)
        assert extension.client_max_window_bits == min(12, client)

    @given(st.text('permsag-dflt;=," \t\\0159_xwinobuk', max_size=60))
    @example("permessage-deflate;;")
    def test_any_field_is_read_or_refused(self, value: str) -> None:
        """
        As by websockets, which takes no list without an element.
        """
        try:
            ours: list[Extension] | None = list(read_extensions(value.encode()))
        except RemoteProtocolError:
            ours = None
        try:
            theirs: list[tuple[str, Any]] | None = list(parse_extension(value))
        except Exception:  # noqa: BLE001 - its own, several
            theirs = None
        if ours != [] and theirs is not None:
            assert ours == [(name, tuple(parameters)) for name, parameters in theirs]
