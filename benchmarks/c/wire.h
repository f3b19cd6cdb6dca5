/*
 * What the load generator and the floor share: the accept key, frame heads,
 * header lookup and reading a socket into one common buffer.
 *
 * Nothing here waits, opens a socket or knows what a program measures.
 */
#ifndef FAIRWAY_BENCHMARK_WIRE_H
#define FAIRWAY_BENCHMARK_WIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum opcode { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

enum {
    KEY_LENGTH = 24,             /* base64 of the client's 16 random bytes */
    ACCEPT_LENGTH = 28,          /* base64 of a SHA-1 digest */
    HEAD_LIMIT = 8,              /* longest frame head written here: 2 + 2 + 4 bytes */
    CONTROL_LIMIT = 125,         /* payload of a control frame */
    PAYLOAD_LIMIT = 65535,       /* the longest a 16-bit length can say */
    INPUT_LIMIT = 2 * (PAYLOAD_LIMIT + 1),
};

/* ---- accept key (RFC 6455, 4.2.2) ------------------------------------ */

static uint32_t rotate_left(uint32_t value, int bits)
{
    return (value << bits) | (value >> (32 - bits));
}

/* One block of SHA-1 (FIPS 180-4, 6.1.2). */
static void sha1_block(uint32_t hash[5], const unsigned char block[64])
{
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16
             | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);

    uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4];
    for (int i = 0; i < 80; i++) {
        uint32_t mixed = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999u
                         : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1u
                         : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdcu
                                  : (b ^ c ^ d) + 0xca62c1d6u;
        uint32_t next = rotate_left(a, 5) + mixed + e + w[i];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    hash[0] += a;
    hash[1] += b;
    hash[2] += c;
    hash[3] += d;
    hash[4] += e;
}

/* Writes the padded base64 of `length` bytes and a closing zero. */
static void base64(const unsigned char *data, size_t length, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = (uint32_t)data[i] << 16;
        if (left > 1)
            group |= (uint32_t)data[i + 1] << 8;
        if (left > 2)
            group |= data[i + 2];
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    *out = 0;
}

/* Computes the Sec-WebSocket-Accept that answers `key`. */
static void accept_key(const char key[KEY_LENGTH], char out[ACCEPT_LENGTH + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    enum { MESSAGE = KEY_LENGTH + sizeof guid - 1 };
    unsigned char padded[128] = {0};
    memcpy(padded, key, KEY_LENGTH);
    memcpy(padded + KEY_LENGTH, guid, sizeof guid - 1);
    padded[MESSAGE] = 0x80;
    padded[126] = MESSAGE * 8 >> 8;
    padded[127] = MESSAGE * 8 & 255;

    uint32_t hash[5] = {0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u, 0xc3d2e1f0u};
    sha1_block(hash, padded);
    sha1_block(hash, padded + 64);

    unsigned char digest[20];
    for (int i = 0; i < 20; i++)
        digest[i] = (unsigned char)(hash[i / 4] >> (24 - 8 * (i % 4)));
    base64(digest, sizeof digest, out);
}

/* ---- frames (RFC 6455, 5.2) ------------------------------------------- */

struct frame {
    enum opcode opcode;
    bool final;
    bool masked;
    bool compressed;    /* by permessage-deflate (RFC 7692) */
    unsigned char mask[4];
    unsigned char *payload;
    size_t length;    /* of the payload */
    size_t size;      /* of the whole frame, head included */
};

enum parsed { INCOMPLETE, COMPLETE, INVALID };

/* Reads one frame from the front of `data`; the payload stays where it is, still masked. */
static enum parsed parse_frame(unsigned char *data, size_t available, struct frame *frame)
{
    if (available < 2)
        return INCOMPLETE;
    size_t head = 2, length = data[1] & 0x7f;
    if (data[0] & 0x30 || length == 127)    /* other extensions and 64-bit lengths: not offered, not used */
        return INVALID;
    if (length == 126) {
        head = 4;
        if (available < head)
            return INCOMPLETE;
        length = (size_t)data[2] << 8 | data[3];
    }
    frame->opcode = data[0] & 0x0f;
    frame->final = data[0] & 0x80;
    frame->masked = data[1] & 0x80;
    frame->compressed = data[0] & 0x40;
    if (frame->masked) {
        if (available < head + 4)
            return INCOMPLETE;
        memcpy(frame->mask, data + head, 4);
        head += 4;
    }
    frame->payload = data + head;
    frame->length = length;
    frame->size = head + length;
    return available < frame->size ? INCOMPLETE : COMPLETE;
}

/* Writes the head of a final, unmasked frame and returns its length. */
static size_t write_head(unsigned char *out, enum opcode opcode, size_t payload)
{
    out[0] = 0x80 | (unsigned char)opcode;
    if (payload < 126) {
        out[1] = (unsigned char)payload;
        return 2;
    }
    out[1] = 126;
    out[2] = (unsigned char)(payload >> 8);
    out[3] = (unsigned char)payload;
    return 4;
}

/* Masks or unmasks in place, eight bytes at a time. */
static void apply_mask(unsigned char *data, size_t length, const unsigned char mask[4])
{
    uint64_t wide, word;
    memcpy(&wide, mask, 4);
    memcpy((unsigned char *)&wide + 4, mask, 4);
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < length; i++)
        data[i] ^= mask[i & 3];
}

/* ---- heads of HTTP messages -------------------------------------------- */

/* Length of the head at the front of `data` with its empty line, or 0 if it is not all there. */
static size_t http_head_length(const unsigned char *data, size_t available)
{
    const unsigned char *end = memmem(data, available, "\r\n\r\n", 4);
    return end ? (size_t)(end - data) + 4 : 0;
}

/* Value of a header of that head, or NULL; names are compared without case. */
static const char *header(const unsigned char *head, size_t length, const char *name, size_t *value_length)
{
    size_t name_length = strlen(name);
    const char *line = (const char *)head, *end = line + length - 2;
    while ((line = memchr(line, '\n', (size_t)(end - line))) && ++line < end) {
        if ((size_t)(end - line) <= name_length || line[name_length] != ':' || strncasecmp(line, name, name_length))
            continue;
        const char *value = line + name_length + 1;
        while (*value == ' ' || *value == '\t')
            value++;
        const char *stop = memchr(value, '\r', (size_t)(end - value) + 1);
        *value_length = stop ? (size_t)(stop - value) : 0;
        return stop ? value : NULL;
    }
    return NULL;
}

static bool header_is(const unsigned char *head, size_t length, const char *name, const char *wanted)
{
    size_t value_length;
    const char *value = header(head, length, name, &value_length);
    return value && value_length == strlen(wanted) && !strncasecmp(value, wanted, value_length);
}

/* ---- input -------------------------------------------------------------- */

/*
 * Every connection is read into this one buffer, which therefore stays in the
 * cache; what a connection leaves unfinished waits in its own `rest`.
 */
static unsigned char input[INPUT_LIMIT];

struct rest {
    unsigned char *data;
    size_t length;
};

/* Puts the rest and what the socket holds into `input`; returns the length in all, 0 at the end, -1 with errno. */
static ssize_t fill(int fd, const struct rest *rest)
{
    if (rest->length)
        memcpy(input, rest->data, rest->length);
    ssize_t count = recv(fd, input + rest->length, INPUT_LIMIT - rest->length, MSG_DONTWAIT);
    return count > 0 ? count + (ssize_t)rest->length : count;
}

/* Keeps what was not used of `total` bytes for the next fill(); false if memory is out or a message has no end. */
static bool keep(struct rest *rest, size_t used, size_t total)
{
    rest->length = total - used;
    if (!rest->length)
        return true;
    if (rest->length == INPUT_LIMIT)
        return false;
    unsigned char *data = realloc(rest->data, rest->length);
    if (!data)
        return false;
    rest->data = data;
    memcpy(data, input + used, rest->length);
    return true;
}

static void drop(struct rest *rest)
{
    free(rest->data);
    *rest = (struct rest){0};
}

#endif
