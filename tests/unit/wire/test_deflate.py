"""
Compressed messages: what is agreed, what is sent, and what comes out of what is received.
"""

from __future__ import annotations

import tracemalloc
import zlib

import pytest

from fairway import metrics
from fairway.wire.codes import INVALID_PAYLOAD, PROTOCOL_ERROR, TOO_BIG
from fairway.wire.deflate import Deflate, InflatingDecoder, deflate_of, negotiate
from fairway.wire.handshake import read_extensions
from fairway.wire.prepared import Prepared
from fairway.wire.websocket import (
    OP_BINARY,
    OP_TEXT,
    Ping,
    encode_binary,
    encode_text,
    websocket_frame,
)
from tests.unit.wire.frames import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    client_frame,
    plain,
    run,
)

RSV1 = 4
BASE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
CLIENT, SERVER = "client_max_window_bits", "server_max_window_bits"
HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1.


def deflated(data: bytes, *, flush: int = zlib.Z_SYNC_FLUSH, level: int = 6) -> bytes:
    """
    A message as a client compresses it, with all that flushing gives.
    """
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush(flush)


def compressed(opcode: int, data: bytes) -> bytes:
    """
    The frame of a client's compressed message.
    """
    return client_frame(opcode, deflated(data)[:-4], rsv=RSV1)


def decoder(message_bytes_max: int = 1024, fragments_max: int = 16) -> InflatingDecoder:
    """
    A decoder with small limits.
    """
    return InflatingDecoder(message_bytes_max=message_bytes_max, fragments_max=fragments_max)


def decode(*chunks: bytes, message_bytes_max: int = 1024, fragments_max: int = 16) -> list[object]:
    """
    What a fresh decoder makes of some reads.
    """
    return plain(run(decoder(message_bytes_max, fragments_max), *chunks))


def inflated(frame: bytes, window_bits: int = 12) -> tuple[int, bytes]:
    """
    The opcode of a frame of the server, and what a client of this window makes of it.
    """
    assert frame[0] & 0xF0 == 0xC0
    body = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    return frame[0] & 0x0F, zlib.decompressobj(-window_bits).decompress(body + b"\0\0\xff\xff")


class TestNegotiation:
    """
    RFC 7692 section 7.1.
    """

    @pytest.mark.parametrize(
        ("offer", "answer", "window_bits"),
        [
            (b"permessage-deflate", BASE, 12),
            (b"permessage-deflate; client_max_window_bits", f"{BASE}; {CLIENT}=12", 12),
            (b"permessage-deflate; client_max_window_bits=10", f"{BASE}; {CLIENT}=10", 12),
            (b"permessage-deflate; client_max_window_bits=8", f"{BASE}; {CLIENT}=8", 12),
            (b"permessage-deflate; server_max_window_bits=15", f"{BASE}; {SERVER}=12", 12),
            (b"permessage-deflate; server_max_window_bits=9", f"{BASE}; {SERVER}=9", 9),
            (b'permessage-deflate; server_max_window_bits="1\\0"', f"{BASE}; {SERVER}=10", 10),
            (b"permessage-deflate;server_no_context_takeover;client_no_context_takeover", BASE, 12),
            (b"x-webkit-deflate-frame, permessage-deflate", BASE, 12),
            (b"permessage-deflate; later=1, permessage-deflate", BASE, 12),
            (b"permessage-deflate; server_max_window_bits=8,permessage-deflate", BASE, 12),
        ],
    )
    def test_an_offer_is_taken_up(self, offer: bytes, answer: str, window_bits: int) -> None:
        """
        The first one that can be kept, and the answer says of windows only what was asked.
        """
        assert negotiate(read_extensions(offer)) == (window_bits, answer.encode())

    @pytest.mark.parametrize(
        "parameters",
        [
            "unknown",
            "unknown=1",
            "Server_no_context_takeover",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "client_max_window_bits=16",
            "client_max_window_bits=7",
            "client_max_window_bits=010",
            "client_max_window_bits=x",
            "server_max_window_bits",
            "server_max_window_bits=16",
            "server_max_window_bits=7",
            "server_max_window_bits=09",
            "server_max_window_bits=8",  # zlib knows no window of 256 bytes.
        ],
    )
    def test_an_offer_is_declined(self, parameters: str) -> None:
        """
        An unknown or doubled parameter, a wrong value, or what cannot be kept.
        """
        assert negotiate(read_extensions(f"permessage-deflate; {parameters}".encode())) is None

    def test_other_extensions_are_no_offer(self) -> None:
        """
        A name is compared to the letter.
        """
        assert negotiate(read_extensions(b"x, PerMessage-Deflate, deflate-stream; a=b")) is None
        assert negotiate(()) is None


class TestSending:
    """
    RFC 7692 section 7.2.1.
    """

    TEXT = "it repeats, it repeats, " * 40

    def test_text_and_binary(self) -> None:
        """
        They come out as they went in, in a smaller frame.
        """
        deflate = Deflate(12, 1, 65536)
        frame = deflate(Prepared(text=self.TEXT))
        assert len(frame) < 100
        assert inflated(frame) == (TEXT, self.TEXT.encode())
        assert inflated(deflate(Prepared(data=self.TEXT.encode()))) == (BINARY, self.TEXT.encode())
        assert deflate.encode(OP_TEXT, self.TEXT.encode()) == frame

    @pytest.mark.parametrize("window_bits", [9, 10, 11, 12])
    def test_a_window_that_was_asked_for(self, window_bits: int) -> None:
        """
        A client that can look back no further understands.
        """
        data = (b"near, " * 40 + bytes(range(256)) * 12) * 4
        frame = deflate_of(window_bits, 1, 65536).encode(OP_BINARY, data)
        assert inflated(frame, window_bits) == (BINARY, data)

    def test_all_of_one_window_share_one_frame(self) -> None:
        """
        A message is compressed once, however many servers are in the process.
        """
        before = metrics.deflated.value
        prepared = Prepared(text=self.TEXT)
        frames = [prepared.encode(deflate_of(12, 1, 65536)) for _ in range(5)]
        assert all(frame is frames[0] for frame in frames)
        assert metrics.deflated.value == before + 1
        assert prepared.encode(deflate_of(9, 1, 65536)) is not frames[0]

    @pytest.mark.parametrize("size", [4, 11, 14])
    def test_a_message_outside_the_bounds_goes_as_it_is(self, size: int) -> None:
        """
        The plain frame is shared with those who agreed to nothing.
        """
        deflate = Deflate(12, 5, 10)
        prepared = Prepared(text="é" * (size // 2) + "x" * (size % 2))
        assert prepared.encode(deflate) is prepared.encode(websocket_frame)
        assert deflate.encode(OP_BINARY, bytes(size)) == encode_binary(bytes(size))

    def test_what_does_not_shrink_goes_as_it_is(self) -> None:
        """
        The same, and nothing is counted.
        """
        before = metrics.deflated.value
        noise = zlib.compress(bytes(range(256)) * 3)
        prepared = Prepared(data=noise)
        assert prepared.encode(Deflate(12, 1, 65536)) is prepared.encode(websocket_frame)
        assert metrics.deflated.value == before

    def test_empty_messages_go_as_they_are(self) -> None:
        """
        There is nothing to compress.
        """
        assert Deflate(12, 1, 10)(Prepared(text="")) == encode_text("")
        assert Deflate(12, 1, 10)(Prepared(data=b"")) == encode_binary(b"")

    def test_what_is_saved_is_counted(self) -> None:
        """
        An operator can see whether it is worth it.
        """
        before = metrics.deflated_saved_bytes.value
        frame = Deflate(12, 1, 65536).encode(OP_TEXT, self.TEXT.encode())
        saved = len(encode_text(self.TEXT)) - len(frame)
        assert 0 <= saved - (metrics.deflated_saved_bytes.value - before) <= 2


class TestExamples:
    """
    RFC 7692 section 7.2.3.
    """

    @pytest.mark.parametrize(
        "payload",
        [
            "f248cdc9c90700",  # One block.
            "000500faff48656c6c6f00",  # A block without compression.
            "f348cdc9c9070000",  # A block that is marked as the last.
            "f248050000 00ffff cac9c90700",  # Two blocks.
            "f248cdc9c90700 0000ffff",  # What should have been taken off is there.
            "f348cdc9c90700",  # Nothing behind the last block.
            "00 0000ffff f248cdc9c90700",  # An empty block first.
        ],
    )
    def test_hello(self, payload: str) -> None:
        """
        All the ways to say it.
        """
        frame = client_frame(TEXT, bytes.fromhex(payload), rsv=RSV1)
        assert decode(frame) == ["Hello"]

    @pytest.mark.parametrize("cut", range(8))
    def test_two_fragments(self, cut: int) -> None:
        """
        Section 7.2.3.1: cut anywhere, and only the first frame says that it is compressed.
        """
        first = client_frame(TEXT, HELLO[:cut], fin=False, rsv=RSV1)
        assert decode(first, client_frame(CONTINUATION, HELLO[cut:])) == ["Hello"]

    @pytest.mark.parametrize("payload", [b"\x00", b"\x02\x00", b"", b"\x03\x00", b"\x03\x00\x00"])
    def test_empty(self, payload: bytes) -> None:
        """
        Section 7.2.3.6, and the ways that senders found besides.
        """
        assert decode(client_frame(TEXT, payload, rsv=RSV1)) == [""]
        assert decode(client_frame(BINARY, payload, rsv=RSV1)) == [b""]

    def test_plain_messages_and_control_frames_in_between(self) -> None:
        """
        Who agreed to compression need not compress.
        """
        frames = (
            client_frame(TEXT, b"a"),
            compressed(BINARY, b"b" * 500),
            client_frame(TEXT, HELLO[:3], fin=False, rsv=RSV1),
            client_frame(PING, b"?"),
            client_frame(CONTINUATION, HELLO[3:]),
            client_frame(TEXT, b"c", fin=False),
            client_frame(CONTINUATION, b"d"),
        )
        expected = ["a", b"b" * 500, Ping(b"?"), "Hello", "cd"]
        assert decode(*frames) == expected
        assert decode(b"".join(frames)) == expected
        assert decode(*(bytes((byte,)) for byte in b"".join(frames))) == expected

    def test_the_largest_window_is_understood(self) -> None:
        """
        A client that was not asked to keep to less, or did not listen.
        """
        data = bytes(index * index % 251 for index in range(15000)) * 3
        assert decode(compressed(BINARY, data), message_bytes_max=50000) == [data]


class TestFaults:
    """
    What is refused, and with which code.
    """

    @pytest.mark.parametrize(
        "frame",
        [
            client_frame(CONTINUATION, HELLO, rsv=RSV1),
            client_frame(PING, b"", rsv=RSV1),
            client_frame(8, b"", rsv=RSV1),
            client_frame(TEXT, HELLO, rsv=RSV1 | 2),
            client_frame(TEXT, HELLO, rsv=1),
            client_frame(TEXT, HELLO, rsv=RSV1, mask=False),
            client_frame(TEXT, HELLO[:3], fin=False, rsv=RSV1)
            + client_frame(CONTINUATION, HELLO[3:], rsv=RSV1),
            client_frame(TEXT, HELLO[:3], fin=False, rsv=RSV1)
            + client_frame(TEXT, HELLO, rsv=RSV1),
            client_frame(TEXT, b"a", fin=False) + client_frame(CONTINUATION, HELLO, rsv=RSV1),
        ],
    )
    def test_the_bit_anywhere_else_is_1002(self, frame: bytes) -> None:
        """
        It belongs to the first frame of a message (section 6).
        """
        assert decode(frame) == [PROTOCOL_ERROR]

    @pytest.mark.parametrize(
        "payload",
        [
            b"\xff\xff\xff",
            b"hello",
            b"\x07",
            HELLO[:-1] + b"\xff",
            HELLO[:3],  # Cut short.
            HELLO[:-1],
            deflated(b"x" * 500)[:-6],
            deflated(bytes(range(256)), level=0)[:-8],
            b"\x03\x00" * 500,  # Each a block that is marked as the last.
        ],
    )
    def test_what_is_not_deflated_or_not_whole_is_1007(self, payload: bytes) -> None:
        """
        Nothing of it is delivered.
        """
        assert decode(client_frame(BINARY, payload, rsv=RSV1)) == [INVALID_PAYLOAD]

    def test_a_fault_is_told_with_its_fragment(self) -> None:
        """
        Not only when the message is complete; and so is text that is not UTF-8.
        """
        assert decode(client_frame(TEXT, b"\xff", fin=False, rsv=RSV1)) == [INVALID_PAYLOAD]
        bad = deflated(b"\xff\xfe")
        assert decode(client_frame(TEXT, bad, fin=False, rsv=RSV1)) == [INVALID_PAYLOAD]
        assert decode(client_frame(TEXT, bad[:-4], rsv=RSV1)) == [INVALID_PAYLOAD]

    def test_a_character_may_be_cut_between_fragments(self) -> None:
        """
        Text is judged as a whole.
        """
        first, second = deflated("é".encode()[:1]), deflated("é".encode()[1:])
        frames = client_frame(TEXT, first, fin=False, rsv=RSV1), client_frame(CONTINUATION, second)
        assert decode(*frames) == ["é"]

    def test_the_limit_counts_what_comes_out(self) -> None:
        """
        Exactly as much passes, a byte more does not, whole and in fragments.
        """
        assert decode(compressed(BINARY, bytes(1024))) == [bytes(1024)]
        assert decode(compressed(BINARY, bytes(1025))) == [TOO_BIG]
        payload = deflated(bytes(1024))
        first = client_frame(BINARY, payload, fin=False, rsv=RSV1)
        assert decode(first, client_frame(CONTINUATION, b"")) == [bytes(1024)]
        assert decode(first, client_frame(CONTINUATION, deflated(b"x"), fin=False)) == [TOO_BIG]

    def test_what_cannot_be_compressed_may_be_as_large(self) -> None:
        """
        Compressing makes it larger, and the limit does not count that.
        """
        noise = b"".join(zlib.crc32(bytes((n, m))).to_bytes(4) for n in range(64) for m in range(4))
        payload = deflated(noise, level=0)[:-4]
        assert len(payload) > len(noise) == 1024
        assert decode(client_frame(BINARY, payload, rsv=RSV1)) == [noise]

    def test_a_frame_that_declares_too_much_is_refused_at_its_head(self) -> None:
        """
        Before its payload has come.
        """
        frame = client_frame(BINARY, bytes(2048), rsv=RSV1)
        assert decode(frame[:8]) == [TOO_BIG]
        first = client_frame(BINARY, b"\x00\x00\x00\xff\xff" * 200, fin=False, rsv=RSV1)
        assert decode(first, client_frame(CONTINUATION, bytes(300))[:8]) == [TOO_BIG]

    def test_fragments_are_counted(self) -> None:
        """
        As those of plain messages.
        """
        more = client_frame(CONTINUATION, b"\x00\x00\x00\xff\xff", fin=False)
        frames = client_frame(BINARY, b"", fin=False, rsv=RSV1) + more * 20
        assert decode(frames) == [TOO_BIG]


class TestBombs:
    """
    A kilobyte that holds a megabyte.
    """

    def test_a_bomb_is_inflated_to_the_limit_and_no_further(self) -> None:
        """
        A message that would be 64 MiB costs what a message may have, whole and in fragments.
        """
        payload = deflated(bytes(1 << 22), flush=zlib.Z_FULL_FLUSH) * 16
        half = len(payload) // 2
        for frames in (
            [client_frame(BINARY, payload, rsv=RSV1)],
            [
                client_frame(BINARY, payload[:half], fin=False, rsv=RSV1),
                client_frame(CONTINUATION, payload[half:]),
            ],
        ):
            tracemalloc.start()
            assert decode(*frames, message_bytes_max=1 << 20) == [TOO_BIG]
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 4 << 20

    def test_many_in_one_read_are_inflated_one_by_one(self) -> None:
        """
        The decoder stops past the size of one message, and goes on when asked.
        """
        target = decoder(1 << 16)
        frame = compressed(BINARY, bytes(40000))
        events = target.receive_data(frame * 50 + client_frame(PING, b"!"))
        assert plain(events) == [bytes(40000)] * 2
        assert target.inflated_bytes == 80000
        assert plain(run(target, b"")) == [bytes(40000)] * 48 + [Ping(b"!")]
        assert target.buffered_bytes == 0

    def test_nothing_of_zlib_is_left_behind_a_message(self) -> None:
        """
        At rest, after an error too.
        """
        target = decoder()
        held = []
        for opcode, payload in ((TEXT, HELLO[:3]), (CONTINUATION, HELLO[3:])) * 2:
            first = opcode == TEXT
            target.receive_data(
                client_frame(opcode, payload, fin=not first, rsv=RSV1 if first else 0)
            )
            held.append(target._inflater is not None)
        target.receive_data(client_frame(TEXT, HELLO[:3], fin=False, rsv=RSV1))
        target.receive_data(client_frame(CONTINUATION, b"\xff\xff"))
        held.append(target._inflater is not None)
        assert held == [True, False, True, False, False]
