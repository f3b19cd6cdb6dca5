/*
 * The floor: what the same work costs a single-threaded epoll server in C.
 *
 * It does on the wire what the measured servers do, and nothing else: upgrade
 * with a real accept key, echo, one message to every open WebSocket when a
 * client says "publish <bytes> <burst>", the same as events to every reader of
 * /events, a 13-byte answer to any other keep-alive GET, the close handshake. It has no time-outs, no queues and no fragmented
 * messages: a client that reads too slowly or sends anything else is dropped.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS = 512, BACKLOG = 1024, BURST_LIMIT = 16, EVENT_LIMIT = 24 /* of a message's event, around its text */ };

struct audience {
    struct connection **all;
    size_t count, room;
};

struct connection {
    int fd;
    struct audience *audience;    /* NULL until it is a WebSocket or an event stream */
    size_t index;    /* in there */
    struct rest rest;
};

static int epoll;
static struct audience members, streams;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void close_connection(struct connection *connection)
{
    struct audience *audience = connection->audience;
    if (audience) {
        struct connection *last = audience->all[--audience->count];
        audience->all[connection->index] = last;
        last->index = connection->index;
    }
    close(connection->fd);
    drop(&connection->rest);
    free(connection);
}

static bool write_all(int fd, const void *data, size_t length)
{
    return send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length;
}

/* ---- publishing ----------------------------------------------------------- */

static void join(struct audience *audience, struct connection *connection)
{
    if (audience->count == audience->room) {
        audience->room = audience->room ? 2 * audience->room : 1024;
        audience->all = realloc(audience->all, audience->room * sizeof *audience->all);
        if (!audience->all)
            die("realloc");
    }
    connection->audience = audience;
    connection->index = audience->count;
    audience->all[audience->count++] = connection;
}

/* One write for each of them. */
static void send_to(const struct audience *audience, const void *data, size_t length)
{
    for (size_t i = 0; i < audience->count; i++)
        if (!write_all(audience->all[i]->fd, data, length))
            shutdown(audience->all[i]->fd, SHUT_RDWR);    /* its own event closes it, after this loop */
}

/* Sends `burst` messages of `bytes` bytes to every WebSocket and, as chunks with an event each, to every stream. */
static void publish(size_t bytes, size_t burst)
{
    static unsigned char out[BURST_LIMIT * (EVENT_LIMIT + PAYLOAD_LIMIT)];
    size_t length = 0;
    for (size_t i = 0; i < burst; i++) {
        length += write_head(out + length, TEXT, bytes);
        memset(out + length, 'x', bytes);
        length += bytes;
    }
    send_to(&members, out, length);
    if (!streams.count)
        return;
    length = 0;
    for (size_t i = 0; i < burst; i++) {
        length += (size_t)sprintf((char *)out + length, "%zx\r\ndata: ", bytes + 8);
        memset(out + length, 'x', bytes);
        length += bytes;
        memcpy(out + length, "\n\n\r\n", 4);
        length += 4;
    }
    send_to(&streams, out, length);
}

/* ---- WebSocket ----------------------------------------------------------- */

static bool publish_command(const struct frame *frame)
{
    char command[64];
    size_t bytes, burst;
    if (frame->length >= sizeof command || memcmp(frame->payload, "publish ", 8))
        return false;
    memcpy(command, frame->payload, frame->length);
    command[frame->length] = 0;
    if (sscanf(command, "publish %zu %zu", &bytes, &burst) != 2 || bytes > PAYLOAD_LIMIT || burst > BURST_LIMIT)
        return false;
    publish(bytes, burst);
    return true;
}

/* Sends the payload back under a new head, which fits into the room of the old one. */
static bool answer(const struct connection *connection, enum opcode opcode, const struct frame *frame)
{
    size_t head = frame->length < 126 ? 2 : 4;
    unsigned char *reply = frame->payload - head;
    write_head(reply, opcode, frame->length);
    return write_all(connection->fd, reply, head + frame->length);
}

/* Returns whether the connection goes on. */
static bool on_frame(const struct connection *connection, const struct frame *frame)
{
    if (!frame->masked || !frame->final || frame->compressed)
        return false;
    apply_mask(frame->payload, frame->length, frame->mask);
    switch (frame->opcode) {
    case TEXT:
        return (frame->length >= 8 && publish_command(frame)) || answer(connection, TEXT, frame);
    case BINARY:
        return answer(connection, BINARY, frame);
    case PING:
        return answer(connection, PONG, frame);
    case PONG:
        return true;
    case CLOSE:
        answer(connection, CLOSE, frame);
        return false;
    default:
        return false;
    }
}

/* ---- HTTP ------------------------------------------------------------------ */

static bool upgrade(struct connection *connection, const unsigned char *head, size_t length)
{
    static const char start[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    size_t key_length;
    const char *key = header(head, length, "Sec-WebSocket-Key", &key_length);
    if (!key || key_length != KEY_LENGTH)
        return false;
    char response[sizeof start + ACCEPT_LENGTH + 4];
    memcpy(response, start, sizeof start - 1);
    accept_key(key, response + sizeof start - 1);
    memcpy(response + sizeof start - 1 + ACCEPT_LENGTH, "\r\n\r\n", 4);
    join(&members, connection);
    return write_all(connection->fd, response, sizeof start - 1 + ACCEPT_LENGTH + 4);
}

static bool stream(struct connection *connection)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    join(&streams, connection);
    return write_all(connection->fd, head, sizeof head - 1);
}

static bool on_request(struct connection *connection, const unsigned char *head, size_t length)
{
    static const char page[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";
    if (memcmp(head, "GET /", 5))
        return false;
    if (header_is(head, length, "Upgrade", "websocket"))
        return upgrade(connection, head, length);
    if (!memcmp(head, "GET /events ", 12))
        return stream(connection);
    return write_all(connection->fd, page, sizeof page - 1);
}

/* ---- loop -------------------------------------------------------------------- */

/* Handles every whole request or frame of `input`; returns how much was used, or -1 to close. */
static ssize_t consume(struct connection *connection, size_t total)
{
    size_t used = 0;
    while (used < total) {
        if (connection->audience == &streams)
            return -1;    /* a reader has nothing to say */
        if (!connection->audience) {
            size_t length = http_head_length(input + used, total - used);
            if (!length)
                break;
            if (!on_request(connection, input + used, length))
                return -1;
            used += length;
            continue;
        }
        struct frame frame;
        enum parsed parsed = parse_frame(input + used, total - used, &frame);
        if (parsed == INCOMPLETE)
            break;
        if (parsed == INVALID || !on_frame(connection, &frame))
            return -1;
        used += frame.size;
    }
    return (ssize_t)used;
}

static void on_readable(struct connection *connection)
{
    ssize_t total = fill(connection->fd, &connection->rest);
    if (total < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    ssize_t used = total > 0 ? consume(connection, (size_t)total) : -1;
    if (used < 0 || !keep(&connection->rest, (size_t)used, (size_t)total))
        close_connection(connection);
}

static void on_connect(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                return;
            die("accept");
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            die("calloc");
        connection->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
    }
}

static int listen_on(uint16_t port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG))
        die("listen");
    return listener;
}

int main(int argc, char **argv)
{
    int port = argc == 3 && !strcmp(argv[1], "--port") ? atoi(argv[2]) : 0;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: floor --port 1-65535\n");
        return 2;
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on((uint16_t)port);
    struct epoll_event events[EVENTS] = {{.events = EPOLLIN, .data.ptr = NULL}};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &events[0]))
        die("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                on_readable(events[i].data.ptr);
            else
                on_connect(listener);
        }
    }
}
