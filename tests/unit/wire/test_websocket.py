"""
WebSocket frames, rule by rule of RFC 6455, with every limit at its edge.
"""

from __future__ import annotations

import tracemalloc

import pytest

from fairway.exceptions import LocalProtocolError, RemoteProtocolError
from fairway.wire.websocket import (
    EVENTS_MAX,
    OP_BINARY,
    OP_CONTINUATION,
    OP_TEXT,
    Close,
    Note,
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
    KEY,
    PING,
    PONG,
    TEXT,
    client_frame,
    decode,
    decoder,
    plain,
)

SIZES = [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 4095, 4096, 4097, 4100, 65535, 65536, 65537]


class TestMessages:
    """
    Whole messages (sections 5.2 and 5.6).
    """

    def test_the_example_of_the_rfc(self) -> None:
        """
        Section 5.7: a single-frame masked text message.
        """
        assert decode(bytes.fromhex("818537fa213d7f9f4d5158")) == ["Hello"]

    @pytest.mark.parametrize("size", SIZES)
    def test_every_form_of_length_and_every_way_to_unmask(self, size: int) -> None:
        """
        Sizes around each change of the length field and of the unmasking.
        """
        payload = bytes(index % 251 for index in range(size))
        frame = client_frame(BINARY, payload)
        assert decode(frame, message_bytes_max=65537) == [payload]
        assert decode(b"", frame[:3], frame[3:], message_bytes_max=65537) == [payload]
        assert decode(frame + frame, message_bytes_max=65537) == [payload, payload]

    @pytest.mark.parametrize("size", SIZES)
    def test_text_of_every_size(self, size: int) -> None:
        """
        Text is a str whichever way it was decoded.
        """
        text = "é" * (size // 2) + "x" * (size % 2)
        frame = client_frame(TEXT, text.encode())
        assert decode(frame, frame, message_bytes_max=65537) == [text, text]

    @pytest.mark.parametrize("size", [126, 127, 128, 65536, 65537])
    def test_a_cut_never_makes_a_whole_frame(self, size: int) -> None:
        """
        Wherever a longer frame is cut, its beginning is not taken for a short one.
        """
        payload = bytes(index % 251 for index in range(size))
        frame = client_frame(BINARY, payload)
        for cut in range(min(len(frame), 300)):
            assert decode(frame[:cut], frame[cut:], message_bytes_max=65537) == [payload]

    def test_messages_are_bytes_and_str_exactly(self) -> None:
        """
        No bytearray leaves the decoder, from the buffer or not, small or large.
        """
        for size in (10, 5000):
            frame = client_frame(BINARY, bytes(size))
            whole = decoder(8192).receive_data(frame)
            cut = decoder(8192)
            cut.receive_data(frame[:7])
            assert type(whole[0]) is type(cut.receive_data(frame[7:])[0]) is bytes

    @pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01"])
    def test_any_key_unmasks(self, key: bytes) -> None:
        """
        A mask with zero bytes at either end loses nothing.
        """
        for payload in (b"\0\0\0", b"abcdefg\0\0", bytes(5001)):
            frame = client_frame(BINARY, payload, key=key)
            assert decode(frame, message_bytes_max=8192) == [payload]

    def test_many_frames_in_one_read_come_out_in_order(self) -> None:
        """
        Messages and control frames keep their order.
        """
        stream = b"".join(
            [
                client_frame(TEXT, b"one"),
                client_frame(PING, b"two"),
                client_frame(BINARY, b"three"),
                client_frame(PONG),
                client_frame(CLOSE, b"\x03\xe8bye"),
            ]
        )
        assert decode(stream) == ["one", Ping(b"two"), b"three", Pong(b""), Close(1000, "bye")]

    @pytest.mark.parametrize(
        "payload", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
    )
    def test_bad_utf8_is_1007(self, payload: bytes) -> None:
        """
        Section 8.1: no stray byte, overlong form, surrogate or code point above the last.
        """
        frame = client_frame(TEXT, b"abc" + payload)
        assert decode(frame) == decode(frame[:4], frame[4:]) == [1007]

    def test_binary_is_not_checked(self) -> None:
        """
        Only text is text.
        """
        assert decode(client_frame(BINARY, b"\xff")) == [b"\xff"]


class TestFrameHeaders:
    """
    What the first bytes of a frame may say (sections 5.1, 5.2 and 5.5).
    """

    @pytest.mark.parametrize("rsv", range(1, 8))
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
    def test_reserved_bits_are_1002(self, rsv: int, opcode: int) -> None:
        """
        No extension is spoken, so no bit has a meaning.
        """
        assert decode(client_frame(opcode, rsv=rsv)) == [1002]

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    def test_unknown_opcodes_are_1002(self, opcode: int) -> None:
        """
        The reserved opcodes stay reserved.
        """
        assert decode(client_frame(opcode, b"x")) == [1002]

    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    def test_an_unmasked_frame_is_1002(self, opcode: int) -> None:
        """
        A client masks every frame, an empty one too.
        """
        assert decode(client_frame(opcode, mask=False)) == [1002]
        assert decode(client_frame(opcode, bytes(6), mask=False)) == [1002]

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_control_frames_are_short_and_whole(self, opcode: int) -> None:
        """
        125 bytes pass, 126 do not, nor does a fragment.
        """
        payload = b"\x03\xe8" + bytes(123)
        assert isinstance(decode(client_frame(opcode, payload))[0], (Ping, Pong, Close))
        assert decode(client_frame(opcode, payload + b"\0")) == [1002]
        assert decode(client_frame(opcode, fin=False)) == [1002]

    @pytest.mark.parametrize(
        ("size", "width"), [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)]
    )
    def test_lengths_take_the_shortest_form(self, size: int, width: int) -> None:
        """
        Section 5.2: the minimal number of bytes must be used.
        """
        frame = client_frame(BINARY, bytes(size), width=width)
        assert decode(frame, message_bytes_max=65536) == [1002]

    def test_the_highest_bit_of_a_length_is_clear(self) -> None:
        """
        A length of 2**63 is malformed, one less is just too large (CVE-2026-1528).
        """
        assert decode(bytes((0x82, 0xFF)) + (1 << 63).to_bytes(8, "big")) == [1002]
        assert decode(bytes((0x82, 0xFF)) + ((1 << 63) - 1).to_bytes(8, "big")) == [1009]

    def test_a_bad_header_is_told_before_its_frame_is_complete(self) -> None:
        """
        Two bytes suffice to refuse.
        """
        for start in (b"\xc1\x80", b"\x83\x80", b"\x81\x05", b"\x09\x80", b"\x89\xfe", b"\x80\x80"):
            assert decode(start) == [1002]
            assert decode(start[:1], start[1:]) == [1002]


class TestFragments:
    """
    Messages in several frames (section 5.4).
    """

    def test_fragments_become_one_message(self) -> None:
        """
        Empty fragments at every place are allowed.
        """
        stream = [
            client_frame(TEXT, b"", fin=False),
            client_frame(CONTINUATION, b"Hell", fin=False),
            client_frame(CONTINUATION, b"", fin=False),
            client_frame(CONTINUATION, b"o"),
        ]
        assert decode(*stream) == decode(b"".join(stream)) == ["Hello"]

    def test_fragmented_binary(self) -> None:
        """
        The first frame says the type.
        """
        assert decode(
            client_frame(BINARY, b"\xff", fin=False), client_frame(CONTINUATION, b"\xfe")
        ) == [b"\xff\xfe"]

    def test_control_frames_come_between_fragments(self) -> None:
        """
        They are told at once and disturb nothing.
        """
        assert decode(
            client_frame(TEXT, b"a", fin=False),
            client_frame(PING, b"p"),
            client_frame(CONTINUATION, b"b", fin=False),
            client_frame(PONG, b"q"),
            client_frame(CONTINUATION, b"c"),
        ) == [Ping(b"p"), Pong(b"q"), "abc"]

    def test_a_close_may_come_between_fragments(self) -> None:
        """
        The unfinished message is nobody's any more.
        """
        target = decoder()
        target.receive_data(client_frame(TEXT, b"a", fin=False))
        assert target.receive_data(client_frame(CLOSE)) == [Close(1005, "")]
        assert target.buffered_bytes == 0

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_new_message_inside_another_is_1002(self, opcode: int) -> None:
        """
        Whole or not, only a continuation may follow.
        """
        for fin in (True, False):
            stream = client_frame(TEXT, b"a", fin=False) + client_frame(opcode, b"b", fin=fin)
            assert decode(stream) == [1002]

    @pytest.mark.parametrize("fin", [True, False])
    def test_a_continuation_of_nothing_is_1002(self, fin: bool) -> None:
        """
        At the start, and after a message is complete.
        """
        continuation = client_frame(CONTINUATION, b"x", fin=fin)
        assert decode(continuation) == [1002]
        assert decode(client_frame(TEXT, b"a"), continuation) == ["a", 1002]

    def test_a_character_may_be_cut_anywhere(self) -> None:
        """
        UTF-8 is checked over the cuts of frames.
        """
        encoded = "€😀".encode()
        stream = [client_frame(TEXT, encoded[:1], fin=False)]
        stream += [client_frame(CONTINUATION, encoded[i : i + 1], fin=False) for i in range(1, 7)]
        assert decode(*stream, client_frame(CONTINUATION)) == ["€😀"]

    def test_bad_text_ends_in_the_fragment_that_is_bad(self) -> None:
        """
        No waiting for the end of a message that is lost already.
        """
        bad = client_frame(CONTINUATION, b"\xff", fin=False)
        assert decode(client_frame(TEXT, b"a", fin=False), bad) == [1007]

    def test_text_that_ends_inside_a_character_is_1007(self) -> None:
        """
        What may still become valid is refused at the end only.
        """
        start = client_frame(TEXT, "€".encode()[:2], fin=False)
        assert decode(start) == []
        assert decode(start, client_frame(CONTINUATION)) == [1007]

    def test_the_next_message_starts_afresh(self) -> None:
        """
        Neither size, count nor type of a message is left for the next.
        """
        message = client_frame(TEXT, b"ab", fin=False) + client_frame(CONTINUATION, b"cd")
        whole = client_frame(BINARY, b"\xff\xff\xff\xff")
        assert decode(message, whole, message + whole, message_bytes_max=4, fragments_max=2) == [
            "abcd",
            b"\xff\xff\xff\xff",
            "abcd",
            b"\xff\xff\xff\xff",
        ]


class TestLimits:
    """
    Sizes and counts at their edge: the limit passes, one above is 1009.
    """

    @pytest.mark.parametrize("limit", [1, 125, 126, 4096, 65535, 65536, 1048576])
    def test_message_size(self, limit: int) -> None:
        """
        Whole messages, whichever way they are decoded.
        """
        assert decode(client_frame(BINARY, bytes(limit)), message_bytes_max=limit) == [bytes(limit)]
        assert decode(client_frame(BINARY, bytes(limit + 1)), message_bytes_max=limit) == [1009]

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_size_over_fragments(self, opcode: int) -> None:
        """
        The sum counts.
        """
        start = client_frame(opcode, bytes(60), fin=False)
        assert len(decode(start, client_frame(CONTINUATION, bytes(40)), message_bytes_max=100)) == 1
        assert decode(start, client_frame(CONTINUATION, bytes(41)), message_bytes_max=100) == [1009]

    def test_a_declared_size_is_refused_without_its_payload(self) -> None:
        """
        The last byte of the length decides; neither mask nor payload is waited for.
        """
        declared = bytes((0x82, 0xFE)) + (1025).to_bytes(2, "big")
        assert decode(declared[:3]) == []
        assert decode(declared) == [1009]
        assert decode(client_frame(BINARY, bytes(1000), fin=False), b"\x80\x99") == [1009]

    def test_fragment_count(self) -> None:
        """
        65,536 frames make a message, one more does not, however empty (CVE-2026-48779).
        """
        empty = client_frame(CONTINUATION, fin=False)
        start = client_frame(TEXT, fin=False) + empty * 65534
        assert decode(start, client_frame(CONTINUATION), fragments_max=65536) == [""]
        assert decode(start, empty, empty[:2], fragments_max=65536) == [1009]

    def test_control_frames_count_for_no_message(self) -> None:
        """
        A ping of 125 bytes passes where messages may have one.
        """
        stream = client_frame(TEXT, b"a", fin=False) + client_frame(PING, bytes(125)) * 3
        end = client_frame(CONTINUATION)
        expected = [Ping(bytes(125))] * 3 + ["a"]
        assert decode(stream, end, message_bytes_max=1, fragments_max=2) == expected


class TestClose:
    """
    Close frames (sections 5.5.1 and 7.4).
    """

    def test_without_a_code(self) -> None:
        """
        1005 says that there was none.
        """
        assert decode(client_frame(CLOSE)) == [Close(1005, "")]

    def test_with_half_a_code(self) -> None:
        """
        One byte is no code.
        """
        assert decode(client_frame(CLOSE, b"\x03")) == [1002]

    @pytest.mark.parametrize("code", [1000, 1003, 1007, 1010, 1014, 3000, 4999])
    def test_allowed_codes(self, code: int) -> None:
        """
        At the edges of the allowed ranges.
        """
        assert decode(client_frame(CLOSE, code.to_bytes(2, "big"))) == [Close(code, "")]

    @pytest.mark.parametrize(
        "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535]
    )
    def test_codes_that_never_travel(self, code: int) -> None:
        """
        One beyond each of them.
        """
        assert decode(client_frame(CLOSE, code.to_bytes(2, "big"))) == [1002]

    def test_the_reason_is_text(self) -> None:
        """
        Bad UTF-8 is 1007 there too.
        """
        assert decode(client_frame(CLOSE, b"\x0f\xa0" + "später".encode())) == [
            Close(4000, "später")
        ]
        assert decode(client_frame(CLOSE, b"\x0f\xa0\xff")) == [1007]

    def test_nothing_counts_afterwards(self) -> None:
        """
        Section 1.4: data after a close frame is discarded, in the same read and later.
        """
        target = decoder()
        close = client_frame(CLOSE, b"\x03\xe8")
        assert target.receive_data(close + client_frame(TEXT, b"a")) == [Close(1000, "")]
        assert target.receive_data(client_frame(TEXT, b"b")) == []
        assert target.receive_data(b"\xff\xff") == []
        assert target.buffered_bytes == 0


class TestErrors:
    """
    What an error leaves behind: nothing.
    """

    @pytest.mark.parametrize(
        "bad",
        [
            client_frame(TEXT, b"\xff"),
            client_frame(TEXT, bytes(1025)),
            client_frame(3),
            client_frame(TEXT, rsv=4),
        ],
    )
    def test_an_error_comes_last_and_ends_everything(self, bad: bytes) -> None:
        """
        Earlier messages of the same read are told; nothing after it is.
        """
        target = decoder()
        good = client_frame(TEXT, b"good")
        events = target.receive_data(good + bad + good)
        assert events[0] == "good"
        assert isinstance(events[1], RemoteProtocolError)
        assert len(events) == 2
        assert target.receive_data(good) == []
        assert target.buffered_bytes == 0

    def test_an_error_carries_code_and_reason(self) -> None:
        """
        Both go into the close frame that the server answers with.
        """
        (error,) = decoder().receive_data(client_frame(TEXT, bytes(1025)))
        assert isinstance(error, RemoteProtocolError)
        assert (error.code, error.reason) == (1009, "message is larger than 1024 bytes")


class TestMemory:
    """
    What is held between reads, and the work done for it.
    """

    def test_buffered_bytes_counts_frame_and_message(self) -> None:
        """
        The parts of a frame and the fragments before it, until they are told.
        """
        target = decoder()
        target.receive_data(client_frame(BINARY, bytes(100), fin=False))
        assert target.buffered_bytes == 100
        final = client_frame(CONTINUATION, bytes(50))
        target.receive_data(final[:20])
        assert target.buffered_bytes == 120
        assert target.receive_data(final[20:]) == [bytes(150)]
        assert target.buffered_bytes == 0

    def test_trickled_bytes(self) -> None:
        """
        A message that comes byte by byte is looked at once.
        """
        target = decoder(65536)
        frame = client_frame(TEXT, b"x" * 65536)
        events = [event for byte in frame for event in target.receive_data(bytes((byte,)))]
        assert events == ["x" * 65536]

    def test_a_large_message_takes_few_times_its_size(self) -> None:
        """
        1 MiB in reads of 64 KiB stays below 6 MiB at the worst moment.
        """
        frame = client_frame(TEXT, b"x" * 1048576)
        chunks = [frame[start : start + 65536] for start in range(0, len(frame), 65536)]
        target = decoder(1048576)
        tracemalloc.start()
        try:
            events = [event for chunk in chunks for event in target.receive_data(chunk)]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert plain(events) == ["x" * 1048576]
        assert peak < 6 * 1048576

    def test_tiny_fragments_take_no_more_than_their_bytes(self) -> None:
        """
        Ten thousand fragments of one byte are not ten thousand objects.
        """
        target = decoder(65536, 65536)
        fragment = client_frame(CONTINUATION, b"x", fin=False)
        target.receive_data(client_frame(TEXT, b"x", fin=False))
        tracemalloc.start()
        try:
            for _ in range(100):
                target.receive_data(fragment * 100)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert target.buffered_bytes == 10001
        assert held < 4 * 10001

    def test_a_rest_after_a_message_is_kept_short(self) -> None:
        """
        What was told is not held, even when a frame is always unfinished at the end.
        """
        target = decoder()
        frame = client_frame(TEXT, b"x" * 20)
        stream = frame * 100
        for start in range(0, len(stream), 17):
            target.receive_data(stream[start : start + 17])
            assert target.buffered_bytes < len(frame)


class TestMany:
    """
    Very many frames in one read, and what is told of those that bring nothing.
    """

    def test_some_hundred_at_a_time(self) -> None:
        """
        The rest stays inside as bytes, and comes out in order.
        """
        target = decoder()
        stream = b"".join(client_frame(TEXT, b"%d" % number) for number in range(1000))
        told = target.receive_data(stream + b"\x81")
        assert (len(told), told[-1]) == (EVENTS_MAX + 1, Note.MORE)
        while told[-1] is Note.MORE:
            told.pop()
            told += target.receive_data(b"")
        assert told == [str(number) for number in range(1000)]
        assert target.buffered_bytes == 1
        assert target.receive_data(b"") == []

    def test_no_more_where_nothing_is_left(self) -> None:
        """
        As many as one call tells, and no byte behind them.
        """
        target = decoder()
        assert Note.MORE not in target.receive_data(client_frame(TEXT, b"x") * EVENTS_MAX)
        assert target.receive_data(client_frame(TEXT, b"x")) == ["x"]

    def test_more_may_arrive_meanwhile(self) -> None:
        """
        It goes behind what is left.
        """
        target = decoder()
        target.receive_data(client_frame(TEXT, b"a") * (EVENTS_MAX + 1))
        assert target.receive_data(client_frame(TEXT, b"b")) == ["a", "b"]

    def test_an_error_and_a_close_are_last(self) -> None:
        """
        Nothing is told to be left behind them.
        """
        for end in (client_frame(CLOSE), client_frame(3)):
            target = decoder()
            stream = client_frame(TEXT, b"a") * (EVENTS_MAX - 1) + end + client_frame(TEXT, b"b")
            assert len(target.receive_data(stream)) == EVENTS_MAX
            assert target.receive_data(b"") == []

    def test_fragments_that_bring_nothing(self) -> None:
        """
        Empty and tiny ones are told, but for the first and the last of a message.
        """
        target = decoder()
        for payload, note in (
            (b"x" * 16, []),
            (b"", [Note.EMPTY_FRAGMENT]),
            (b"x", [Note.TINY_FRAGMENT]),
            (b"x" * 15, [Note.TINY_FRAGMENT]),
        ):
            assert target.receive_data(client_frame(BINARY, payload, fin=False)) == []
            assert target.receive_data(client_frame(CONTINUATION, payload, fin=False)) == note
            assert target.receive_data(client_frame(CONTINUATION, b"")) == [payload * 2]


class TestEncoding:
    """
    Frames as the server sends them.
    """

    @pytest.mark.parametrize(
        ("size", "head"),
        [
            (0, b"\x81\x00"),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ],
    )
    def test_lengths_at_their_edges(self, size: int, head: bytes) -> None:
        """
        The minimal form, unmasked, for text and binary.
        """
        assert encode_text("x" * size) == head + b"x" * size
        assert encode_binary(bytes(size)) == b"\x82" + head[1:] + bytes(size)

    def test_fragments(self) -> None:
        """
        Without FIN, and going on without an opcode.
        """
        assert encode_frame(OP_TEXT, b"a", fin=False) == b"\x01\x01a"
        assert encode_frame(OP_CONTINUATION, b"b") == b"\x80\x01b"
        assert encode_frame(OP_BINARY, b"") == b"\x82\x00"

    def test_ping_and_pong(self) -> None:
        """
        125 bytes pass, 126 are a mistake of the caller.
        """
        assert encode_ping() == b"\x89\x00"
        assert encode_pong(b"abc") == b"\x8a\x03abc"
        assert len(encode_ping(bytes(125))) == 127
        with pytest.raises(LocalProtocolError, match="at most 125 bytes, not 126"):
            encode_ping(bytes(126))

    def test_close(self) -> None:
        """
        Code and reason; 1005 is said by saying nothing.
        """
        assert encode_close() == b"\x88\x02\x03\xe8"
        assert encode_close(4401, "bye") == b"\x88\x05\x11\x31bye"
        assert encode_close(1005) == b"\x88\x00"

    @pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1010, 1015, 2999, 5000, 70000, -1])
    def test_close_codes_that_no_server_sends(self, code: int) -> None:
        """
        The message tells which ones it may.
        """
        with pytest.raises(LocalProtocolError, match=f"not {code}"):
            encode_close(code)

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        """
        123 bytes is what a control frame has room for.
        """
        assert encode_close(1000, "x" * 124) == b"\x88\x7d\x03\xe8" + b"x" * 123
        assert encode_close(1000, "x" * 122 + "é")[4:] == b"x" * 122

    @pytest.mark.parametrize("character", ["\r", "\n", "\0"])
    def test_a_reason_of_several_lines_is_refused(self, character: str) -> None:
        """
        It would end up in somebody's log as lines of its own.
        """
        with pytest.raises(LocalProtocolError, match="no CR, LF or NUL"):
            encode_close(1000, f"a{character}b")

    def test_text_that_utf8_cannot_say(self) -> None:
        """
        A lone surrogate never reaches the wire.
        """
        with pytest.raises(UnicodeEncodeError):
            encode_text("\ud800")

    def test_the_key_of_the_tests_is_the_rfcs(self) -> None:
        """
        Section 5.7 holds for the helper too.
        """
        assert client_frame(TEXT, b"Hello", key=KEY).hex() == "818537fa213d7f9f4d5158"
