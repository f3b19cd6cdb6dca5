/*
 * The load generator: one thread, one epoll, one shared read buffer.
 *
 *   echo     every WebSocket keeps one masked text message in flight
 *   get      every connection keeps one keep-alive GET in flight
 *   connect  every slot connects, upgrades, does the close handshake, starts again
 *   fanout   the first of the members says "publish <bytes> <burst>"; once every
 *            member has its messages the next round starts
 *   sse      the same to event streams: the first connection is the publisher's WebSocket,
 *            all others read a chunked response at --stream
 *   idle     opens WebSockets and holds them (pings answered) until a line or the
 *            end of standard input
 *
 * With --deflate it offers permessage-deflate, and every message has to be
 * compressed and the same as the first one; what that says is for tests to check.
 *
 * It checks every answer and gives up at the first one that is wrong or late:
 * a run with an error is no measurement. The CPU time of the processes named by
 * --pid is read by their own clocks, exactly at both ends of the measured
 * window. The result is one line of JSON on standard output.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 512,
    OPENING_LIMIT = 64,    /* connections on their way at once: less than any server's backlog */
    PID_LIMIT = 64,
    REQUEST_LIMIT = 1024,
    CHUNK_HEAD_LIMIT = 10,    /* digits and line end of a chunk's length */
    EVENT_HEAD = 6,    /* what stands before the text of an event, and behind it */
    EVENT_TAIL = 2,
};

static const uint64_t SECOND = 1000000000;

/* ---- what is asked for ----------------------------------------------------- */

enum mode { ECHO, GET, CONNECT, FANOUT, SSE, IDLE };
static const char *const MODES[] = {"echo", "get", "connect", "fanout", "sse", "idle"};

static struct {
    enum mode mode;
    uint16_t port;
    const char *path;
    const char *stream;
    bool cookie, same, deflate;
    size_t connections;
    size_t bytes;    /* of a message; of the body in mode get */
    size_t burst;
    uint64_t warmup, window, patience;    /* nanoseconds; the last for every single answer */
    clockid_t clocks[PID_LIMIT];
    size_t clock_count;
} asked = {
    .path = "/", .stream = "/", .connections = 100, .bytes = 128, .burst = 1,
    .warmup = 500000000, .window = 2000000000, .patience = 10000000000};

/* ---- what happens ------------------------------------------------------------ */

enum state { CLOSED, CONNECTING, STARTING, OPEN, CLOSING, DRAINING };

struct connection {
    int fd;
    enum state state;
    uint64_t deadline;    /* of the answer waited for; 0 if none is */
    uint64_t received;    /* messages, in the modes fanout and sse */
    struct rest rest;
    char key[KEY_LENGTH + 1];
};

static enum { OPENING, WARMING, MEASURING, DONE } phase;
static struct connection *connections;
static size_t opened, started;
static int epoll;
static uint64_t now, phase_start, operations, round_left, rounds;
static uint64_t begun, begun_server, begun_own, begun_operations;
static struct { uint64_t wall, server, own, operations; } result;

/* One message or command, masked and ready to be sent. */
static unsigned char outgoing[HEAD_LIMIT + PAYLOAD_LIMIT], *expected, *expected_event;
static size_t outgoing_length, expected_length;
static const unsigned char MASK[4] = {0x5a, 0xc3, 0x17, 0x9e};

static uint64_t read_clock(clockid_t id)
{
    struct timespec time;
    if (clock_gettime(id, &time))
        return 0;    /* a process that has ended; its connections tell */
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t server_time(void)
{
    uint64_t total = 0;
    for (size_t i = 0; i < asked.clock_count; i++)
        total += read_clock(asked.clocks[i]);
    return total;
}

static void print_result(const char *error)
{
    printf("{\"mode\": \"%s\", \"connections\": %zu, \"operations\": %llu, \"errors\": %d, \"error\": \"%s\", "
           "\"wall_seconds\": %.6f, \"server_cpu_ns\": %llu, \"own_cpu_ns\": %llu}\n",
           MODES[asked.mode], asked.connections, (unsigned long long)result.operations, *error != 0, error,
           (double)result.wall / 1e9, (unsigned long long)result.server, (unsigned long long)result.own);
    fflush(stdout);
}

/* Ends the run. What the server sent may be in the text: what JSON could not hold is replaced. */
static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
            *c = '?';
    print_result(text);
    exit(1);
}

/* The first connection of mode sse is the publisher's. */
static bool is_stream(const struct connection *connection)
{
    return asked.mode == SSE && connection != connections;
}

/* ---- sending -------------------------------------------------------------------- */

static void send_all(const struct connection *connection, const void *data, size_t length)
{
    ssize_t count = send(connection->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count != (ssize_t)length)
        fail("send of %zu bytes: %s", length, count < 0 ? strerror(errno) : "cut short");
}

/* Builds a masked frame at `out` and returns its length. */
static size_t masked_frame(unsigned char *out, enum opcode opcode, const void *payload, size_t length)
{
    size_t head = write_head(out, opcode, length);
    out[1] |= 0x80;
    memcpy(out + head, MASK, 4);
    memmove(out + head + 4, payload, length);
    apply_mask(out + head + 4, length, MASK);
    return head + 4 + length;
}

static void send_control(const struct connection *connection, enum opcode opcode, const void *payload, size_t length)
{
    unsigned char frame[HEAD_LIMIT + CONTROL_LIMIT];
    send_all(connection, frame, masked_frame(frame, opcode, payload, length));
}

static void prepare_outgoing(void)
{
    char command[64];
    expected = malloc(PAYLOAD_LIMIT);
    if (!expected)
        fail("out of memory");
    memset(expected, 'x', PAYLOAD_LIMIT);
    expected_length = asked.bytes;
    if (asked.mode == SSE) {
        expected_event = malloc(EVENT_HEAD + asked.bytes + EVENT_TAIL);
        if (!expected_event)
            fail("out of memory");
        memcpy(expected_event, "data: ", EVENT_HEAD);
        memset(expected_event + EVENT_HEAD, 'x', asked.bytes);
        memcpy(expected_event + EVENT_HEAD + asked.bytes, "\n\n", EVENT_TAIL);
    }
    if (asked.mode == FANOUT || asked.mode == SSE) {
        int length = snprintf(command, sizeof command, "publish %zu %zu", asked.bytes, asked.burst);
        outgoing_length = masked_frame(outgoing, TEXT, command, (size_t)length);
    } else {
        outgoing_length = masked_frame(outgoing, TEXT, expected, asked.bytes);
    }
}

/* Sixteen random bytes as base64. */
static void make_key(char key[KEY_LENGTH + 1])
{
    static uint64_t seed = 0x9e3779b97f4a7c15;
    uint64_t bytes[2];
    for (int i = 0; i < 2; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes[i] = seed ^ (uint64_t)getpid() << 32;
    }
    base64((const unsigned char *)bytes, sizeof bytes, key);
}

static void send_get(struct connection *connection)
{
    static char request[REQUEST_LIMIT];
    static size_t length;
    if (!length)
        length = (size_t)snprintf(request, sizeof request,
            "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0\r\n"
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n"
            "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n%s\r\n", asked.path, asked.port,
            asked.cookie ? "Cookie: sessionid=q8m2x0w5v7n1t4r6z3y9k2j5h8g1f4d7\r\n" : "");
    connection->deadline = now + asked.patience;
    send_all(connection, request, length);
}

static void send_stream_request(struct connection *connection)
{
    char request[REQUEST_LIMIT];
    int length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0\r\n"
        "Accept: text/event-stream\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n\r\n", asked.stream, asked.port);
    send_all(connection, request, (size_t)length);
}

static void send_upgrade(struct connection *connection)
{
    char request[REQUEST_LIMIT];
    make_key(connection->key);
    int length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0\r\n"
        "Origin: http://127.0.0.1:%u\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: %s\r\n%s\r\n", asked.path, asked.port, asked.port, connection->key,
        asked.deflate ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "");
    send_all(connection, request, (size_t)length);
}

static void send_message(struct connection *connection)
{
    connection->deadline = now + asked.patience;
    send_all(connection, outgoing, outgoing_length);
}

/* ---- opening and closing ----------------------------------------------------------- */

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(epoll, operation, connection->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

static void send_first_request(struct connection *connection)
{
    connection->state = STARTING;
    if (asked.mode == GET)
        send_get(connection);
    else if (is_stream(connection))
        send_stream_request(connection);
    else
        send_upgrade(connection);
}

static void start_connection(struct connection *connection)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(asked.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    connection->deadline = now + asked.patience;
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));

    /* On the loopback interface the connection nearly always stands already; asking spares an event. */
    socklen_t length = sizeof address;
    if (getpeername(connection->fd, (struct sockaddr *)&address, &length)) {
        connection->state = CONNECTING;
        watch(connection, EPOLL_CTL_ADD, EPOLLOUT);
        return;
    }
    watch(connection, EPOLL_CTL_ADD, EPOLLIN | EPOLLRDHUP);
    send_first_request(connection);
}

static void on_connected(struct connection *connection)
{
    int error = 0;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
    if (error)
        fail("connect: %s", strerror(error));
    watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLRDHUP);
    send_first_request(connection);
}

static void close_connection(struct connection *connection)
{
    close(connection->fd);
    drop(&connection->rest);
    connection->state = CLOSED;
    connection->deadline = 0;
}

/* ---- phases --------------------------------------------------------------------------- */

static void begin_window(void)
{
    phase_start = begun = read_clock(CLOCK_MONOTONIC);
    begun_operations = operations;
    begun_own = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    begun_server = server_time();
}

static void end_window(void)
{
    result.server = server_time() - begun_server;
    result.own = read_clock(CLOCK_PROCESS_CPUTIME_ID) - begun_own;
    result.wall = read_clock(CLOCK_MONOTONIC) - begun;
    result.operations = operations - begun_operations;
}

/* Enters the next phase when its time has come. In modes with rounds only called between them. */
static void advance(void)
{
    if (phase == WARMING && now >= phase_start + asked.warmup) {
        phase = MEASURING;
        begin_window();
    } else if (phase == MEASURING && now >= phase_start + asked.window && operations > begun_operations) {
        phase = DONE;
        end_window();
    }
}

/* The publisher's deadline is that of the round. */
static void start_round(void)
{
    now = read_clock(CLOCK_MONOTONIC);
    advance();
    if (phase == DONE)
        return;
    rounds++;
    round_left = (asked.connections - (asked.mode == SSE)) * asked.burst;
    send_message(&connections[0]);
}

/* Every connection is open: the work starts. */
static void start_work(void)
{
    phase = WARMING;
    phase_start = now;
    if (asked.mode == FANOUT || asked.mode == SSE) {
        start_round();
    } else if (asked.mode == IDLE) {
        result.operations = opened;
        print_result("");
    } else {
        for (size_t i = 0; i < asked.connections; i++)
            asked.mode == GET ? send_get(&connections[i]) : send_message(&connections[i]);
    }
}

/* The first answer was right. */
static void on_open(struct connection *connection)
{
    connection->state = OPEN;
    connection->deadline = 0;
    opened++;
    if (asked.mode == CONNECT) {
        connection->state = CLOSING;
        connection->deadline = now + asked.patience;
        send_control(connection, CLOSE, "\x03\xe8", 2);    /* 1000 */
    } else if (opened == asked.connections) {
        start_work();
    }
}

/* ---- answers ---------------------------------------------------------------------------- */

static void check_upgrade(const struct connection *connection, const unsigned char *head, size_t length)
{
    char wanted[ACCEPT_LENGTH + 1];
    size_t value_length;
    accept_key(connection->key, wanted);
    if (memcmp(head, "HTTP/1.1 101 ", 13))
        fail("upgrade answered with: %.12s", head);
    if (!header_is(head, length, "Upgrade", "websocket") || !header_is(head, length, "Connection", "Upgrade"))
        fail("101 without Upgrade: websocket and Connection: Upgrade");
    const char *accept = header(head, length, "Sec-WebSocket-Accept", &value_length);
    if (!accept || value_length != ACCEPT_LENGTH || memcmp(accept, wanted, ACCEPT_LENGTH))
        fail("wrong Sec-WebSocket-Accept");
    const char *extension = header(head, length, "Sec-WebSocket-Extensions", &value_length);
    if (extension && !asked.deflate)
        fail("an extension was accepted that nobody offered");
    if (asked.deflate && (!extension || strncasecmp(extension, "permessage-deflate", 18)))
        fail("permessage-deflate was not accepted");
}

/* Returns the length of the whole response, or 0 if more must come. */
static size_t check_response(const unsigned char *data, size_t available)
{
    size_t value_length, length = http_head_length(data, available);
    if (!length)
        return 0;
    if (memcmp(data, "HTTP/1.1 200 ", 13))
        fail("GET answered with: %.12s", data);
    const char *value = header(data, length, "Content-Length", &value_length);
    if (!value || strtoul(value, NULL, 10) != asked.bytes)
        fail("Content-Length is not %zu: %.*s", asked.bytes, value ? (int)value_length : 7, value ? value : "missing");
    return available < length + asked.bytes ? 0 : length + asked.bytes;
}

static void check_stream(const unsigned char *head, size_t length)
{
    size_t value_length;
    if (memcmp(head, "HTTP/1.1 200 ", 13))
        fail("event stream answered with: %.12s", head);
    const char *type = header(head, length, "Content-Type", &value_length);
    if (!type || value_length < 17 || strncasecmp(type, "text/event-stream", 17))
        fail("Content-Type is not text/event-stream: %.*s", type ? (int)value_length : 7, type ? type : "missing");
    if (!header_is(head, length, "Transfer-Encoding", "chunked"))
        fail("an event stream that is not chunked");
}

/* One member has one message more. */
static void on_delivery(struct connection *connection)
{
    operations++;
    if (++connection->received > rounds * asked.burst || !round_left)
        fail("a member got more than the %zu messages of its round", asked.burst);
    if (--round_left == 0)
        start_round();
}

/* Handles one chunk, which holds whole events; returns its length, or 0 if more must come. */
static size_t on_chunk(struct connection *connection, const unsigned char *data, size_t available)
{
    const size_t event = EVENT_HEAD + asked.bytes + EVENT_TAIL;
    const unsigned char *end = memmem(data, available < CHUNK_HEAD_LIMIT ? available : CHUNK_HEAD_LIMIT, "\r\n", 2);
    if (!end && available >= CHUNK_HEAD_LIMIT)
        fail("a chunk without a length");
    if (!end)
        return 0;
    const size_t length = strtoul((const char *)data, NULL, 16), head = (size_t)(end - data) + 2;
    if (!length)
        fail("an event stream was ended by the server");
    if (available < head + length + 2)
        return 0;
    data += head;
    if (memcmp(data + length, "\r\n", 2))
        fail("a chunk is longer than its length");
    if (memmem(data, length, "data:", 5)) {    /* else comments, and when to come back */
        if (length % event)
            fail("not whole events of %zu bytes: a chunk of %zu", event, length);
        for (size_t at = 0; at < length; at += event) {
            if (memcmp(data + at, expected_event, event))
                fail("not the expected event");
            on_delivery(connection);
        }
    }
    return head + length + 2;
}

/* With --same the first message says what all others have to be. */
static void expect_the_same(const struct frame *frame)
{
    static bool seen;
    if (!seen) {
        seen = true;
        expected_length = frame->length;
        memcpy(expected, frame->payload, frame->length);
    }
}

static void on_message(struct connection *connection, const struct frame *frame)
{
    if (asked.mode != ECHO && asked.mode != FANOUT)
        return;    /* greetings are allowed where nothing is asked */
    if (asked.same)
        expect_the_same(frame);
    if (frame->opcode != TEXT || !frame->final || frame->length != expected_length || frame->compressed != asked.deflate
        || memcmp(frame->payload, expected, frame->length))
        fail("not the expected text of %zu bytes: opcode %d, final %d, compressed %d, %zu bytes",
             expected_length, frame->opcode, frame->final, frame->compressed, frame->length);
    if (asked.mode == FANOUT) {
        on_delivery(connection);
        return;
    }
    operations++;
    send_message(connection);
}

static void on_frame(struct connection *connection, const struct frame *frame)
{
    if (frame->masked)
        fail("the server masked a frame");
    if (frame->opcode >= CLOSE && (frame->length > CONTROL_LIMIT || !frame->final))
        fail("a control frame is fragmented or longer than %d bytes", CONTROL_LIMIT);
    switch (frame->opcode) {
    case PING:
        send_control(connection, PONG, frame->payload, frame->length);
        return;
    case PONG:
        return;
    case CLOSE:
        if (connection->state != CLOSING)
            fail("closed by the server with code %d",
                 frame->length < 2 ? 1005 : frame->payload[0] << 8 | frame->payload[1]);
        connection->state = DRAINING;
        return;
    default:
        on_message(connection, frame);
    }
}

/* Handles one answer at the front of `data`; returns its length, or 0 if more must come. */
static size_t consume_one(struct connection *connection, unsigned char *data, size_t available)
{
    if (asked.mode == GET) {
        size_t length = check_response(data, available);
        if (length && connection->state == STARTING) {
            on_open(connection);
        } else if (length) {
            operations++;
            send_get(connection);
        }
        return length;
    }
    if (connection->state == STARTING) {
        size_t length = http_head_length(data, available);
        if (length) {
            is_stream(connection) ? check_stream(data, length) : check_upgrade(connection, data, length);
            on_open(connection);
        }
        return length;
    }
    if (is_stream(connection))
        return on_chunk(connection, data, available);
    struct frame frame;
    switch (parse_frame(data, available, &frame)) {
    case COMPLETE:
        on_frame(connection, &frame);
        return frame.size;
    case INCOMPLETE:
        return 0;
    default:
        fail("bad frame: %02x %02x", data[0], data[1]);
    }
}

static void on_end(struct connection *connection)
{
    if (connection->state != DRAINING)
        fail("connection ended by the server without a close handshake");
    close_connection(connection);
    operations++;
    start_connection(connection);
}

static void on_readable(struct connection *connection, bool ended)
{
    ssize_t total = fill(connection->fd, &connection->rest);
    if (total < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (total < 0)
        fail("recv: %s", strerror(errno));
    size_t used = 0, length = 1;
    while (used < (size_t)total && length) {
        length = consume_one(connection, input + used, (size_t)total - used);
        used += length;
    }
    if (!keep(&connection->rest, used, (size_t)total))
        fail("an answer has no end");
    /* After the close frame the end has usually come along: no second event is needed to see it. */
    if (total == 0 || (ended && connection->state == DRAINING))
        on_end(connection);
}

/* ---- loop ----------------------------------------------------------------------------------- */

static void check_deadlines(void)
{
    static uint64_t next;
    if (now < next)
        return;
    next = now + SECOND / 2;
    for (size_t i = 0; i < started; i++)
        if (connections[i].deadline && connections[i].deadline < now)
            fail("nothing in %llu s: connection %zu in state %d, %zu of %zu opened, %llu deliveries of a round missing",
                 (unsigned long long)(asked.patience / SECOND), i, connections[i].state, opened, asked.connections,
                 (unsigned long long)round_left);
}

/* In mode connect the slots are the limit themselves. */
static void start_more(void)
{
    while (started < asked.connections && (asked.mode == CONNECT || started - opened < OPENING_LIMIT))
        start_connection(&connections[started++]);
}

static bool told_to_stop(void)
{
    struct pollfd standard_input = {.fd = STDIN_FILENO, .events = POLLIN};
    return asked.mode == IDLE && phase != OPENING && poll(&standard_input, 1, 0) > 0;
}

static void run(void)
{
    struct epoll_event events[EVENTS];
    now = read_clock(CLOCK_MONOTONIC);
    if (asked.mode == CONNECT)
        phase = WARMING;    /* opening is the work itself */
    phase_start = now;
    while (phase != DONE && !told_to_stop()) {
        start_more();
        int count = epoll_wait(epoll, events, EVENTS, 100);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait: %s", strerror(errno));
        now = read_clock(CLOCK_MONOTONIC);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection->state == CONNECTING)
                on_connected(connection);
            else
                on_readable(connection, events[i].events & EPOLLRDHUP);
        }
        check_deadlines();
        if (asked.mode != FANOUT && asked.mode != SSE && asked.mode != IDLE)
            advance();
    }
}

/* ---- command line ------------------------------------------------------------------------------ */

static void __attribute__((noreturn)) usage(const char *wrong)
{
    fprintf(stderr, "load: %s\nusage: load echo|get|connect|fanout|sse|idle --port N [--path /] [--stream /] [--cookie] [--same] [--deflate]\n"
                    "            [--connections 100] [--bytes 128] [--burst 1] [--warmup 0.5] [--seconds 2]\n"
                    "            [--patience 10] [--pid N]...\n", wrong);
    exit(2);
}

static double number(const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= least && value <= most)) {
        char wrong[128];
        snprintf(wrong, sizeof wrong, "a number from %g to %g was expected, not %.40s", least, most, text);
        usage(wrong);
    }
    return value;
}

static void add_clock(const char *text)
{
    if (asked.clock_count == PID_LIMIT)
        usage("too many --pid");
    if (clock_getcpuclockid((pid_t)number(text, 1, 1 << 30), &asked.clocks[asked.clock_count++]))
        usage("--pid names no process");
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},    {"path", required_argument, NULL, 'u'}, {"cookie", no_argument, NULL, 'q'},
        {"connections", required_argument, NULL, 'n'}, {"bytes", required_argument, NULL, 'b'},
        {"burst", required_argument, NULL, 'k'},   {"warmup", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 's'}, {"pid", required_argument, NULL, 'c'},
        {"same", no_argument, NULL, 'm'},          {"deflate", no_argument, NULL, 'd'},
        {"stream", required_argument, NULL, 'e'},  {"patience", required_argument, NULL, 't'},
        {0}};
    while (asked.mode <= IDLE && (argc < 2 || strcmp(argv[1], MODES[asked.mode])))
        asked.mode++;
    if (asked.mode > IDLE)
        usage("the first argument names the mode");
    optind = 2;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'p': asked.port = (uint16_t)number(optarg, 1, 65535); break;
        case 'u': asked.path = optarg; break;
        case 'q': asked.cookie = true; break;
        case 'm': asked.same = true; break;
        case 'd': asked.deflate = asked.same = true; break;
        case 'n': asked.connections = (size_t)number(optarg, 1, 100000); break;
        case 'b': asked.bytes = (size_t)number(optarg, 0, PAYLOAD_LIMIT - HEAD_LIMIT); break;
        case 'k': asked.burst = (size_t)number(optarg, 1, 16); break;
        case 'w': asked.warmup = (uint64_t)(number(optarg, 0, 600) * 1e9); break;
        case 's': asked.window = (uint64_t)(number(optarg, 0, 600) * 1e9); break;
        case 'c': add_clock(optarg); break;
        case 'e': asked.stream = optarg; break;
        case 't': asked.patience = (uint64_t)(number(optarg, 1, 600) * 1e9); break;
        default: usage("unknown option");
        }
    }
    if (!asked.port || optind != argc)
        usage("--port is needed, and nothing but options");
    if (strlen(asked.path) > 256 || strlen(asked.stream) > 256)
        usage("--path or --stream is longer than 256 bytes");
    if (asked.mode == SSE && asked.connections < 2)
        usage("mode sse needs the publisher's connection and a stream");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare_outgoing();
    connections = calloc(asked.connections, sizeof *connections);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || epoll < 0)
        fail("start: %s", strerror(errno));
    run();
    if (asked.mode != IDLE)
        print_result("");
    return 0;
}
