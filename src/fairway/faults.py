"""
Every fault that a user can cause at run time, by its id: the floor's list of names.

A line of the log that reports one ends with its id in brackets, ``[fairway.R201]``, under which
``docs/errors.md`` says what was found, what follows and what helps. What ``manage.py check``
finds has ids of its own, in ``checks``.

R1xx start and configuration, R2xx routes and handshakes, R3xx consumers and messages, R4xx
channel layer and publishing, R5xx identity and limits, R6xx pages and threads, R7xx commands.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Fault"]


class Fault(StrEnum):
    """
    The ids of faults, as they are logged.
    """

    SETTING_INVALID = "fairway.R101"
    """
    A flag, setting or variable has a value of the wrong type or out of bounds, or one that
    contradicts another; nothing starts.
    """
    UNKNOWN_FLAG = "fairway.R102"
    """
    The command line has a flag that does not exist, or lacks what it needs; nothing starts.
    """
    FLAGS_CONFLICT = "fairway.R103"
    """
    Flags exclude each other, need each other, or ask for what this system lacks; nothing
    starts.
    """
    ADDRESS_IN_USE = "fairway.R104"
    """
    Another program listens on the port or Unix socket; nothing starts.
    """
    ADDRESS_INVALID = "fairway.R105"
    """
    The address cannot be listened on: no such host, no privilege, no such folder; nothing
    starts.
    """
    SOCKET_INVALID = "fairway.R106"
    """
    A descriptor given to the server is not a listening socket; nothing starts.
    """
    CERTIFICATE_INVALID = "fairway.R107"
    """
    Certificate or key cannot be read or do not fit; nothing starts.
    """
    APPLICATION_NOT_FOUND = "fairway.R108"
    """
    The application's module or name does not exist, or is no application; nothing starts.
    """
    APPLICATION_BROKEN = "fairway.R109"
    """
    Importing the application fails with an exception; nothing starts.
    """
    PROJECT_BROKEN = "fairway.R110"
    """
    Settings, an app or urls.py cannot be loaded; nothing starts.
    """
    LIFESPAN_FAILED = "fairway.R111"
    """
    The application refused to start, or does not know lifespan though that was asked for.
    """
    LAYER_INVALID = "fairway.R112"
    """
    CHANNEL_LAYERS does not describe a channel layer; nothing starts.
    """
    RUNTIME_DIR_UNSAFE = "fairway.R113"
    """
    The directory of the sockets between processes cannot be used; nothing starts.
    """
    LAYER_NOT_SHARED = "fairway.R114"
    """
    Several processes are to serve, over a channel layer that knows one; nothing starts.
    """
    DJANGO_HANDLER_REPLACED = "fairway.R115"
    """
    The application named is Django's own handler, which knows no WebSockets; Fairway's serves
    in its place.
    """
    ROUTE_NOT_FOUND = "fairway.R201"
    """
    A WebSocket asks for a path that leads to no consumer; it is refused with 404.
    """
    UPGRADE_MISSING = "fairway.R202"
    """
    A plain request came for the path of a WebSocket; it is answered with 426.
    """
    SERVER_WITHOUT_WEBSOCKETS = "fairway.R203"
    """
    A WebSocket handshake reached Django by a server that speaks WSGI; it is answered with 426.
    """
    ORIGIN_REFUSED = "fairway.R204"
    """
    A page of another site opened a WebSocket or sent an unsafe request; it is refused with 403.
    """
    HOST_REFUSED = "fairway.R205"
    """
    The Host of a handshake is not in ALLOWED_HOSTS; it is refused, with 403 or 400.
    """
    REQUEST_MALFORMED = "fairway.R206"
    """
    What came is not a request or handshake that can be served; it is refused with a status of
    4xx or 5xx.
    """
    AS_ASGI_MISSING = "fairway.R207"
    """
    A route names a consumer class without .as_asgi(); it is served all the same.
    """
    URLCONF_INVALID = "fairway.R208"
    """
    FAIRWAY["URLCONF"] leads to no URL configuration and no function; nothing starts.
    """
    URLCONF_FAILED = "fairway.R209"
    """
    The function in FAIRWAY["URLCONF"] raised, or gave no URL configuration; this connection fails.
    """
    INVALID_JSON = "fairway.R301"
    """
    A client's message is not JSON; its socket is closed with 1007.
    """
    INVALID_MESSAGE = "fairway.R302"
    """
    A client's message has the wrong kind or shape; its socket is closed with 4400.
    """
    NO_HANDLER = "fairway.R303"
    """
    A message's type has no handler in a consumer that gets it; it is dropped.
    """
    APPLICATION_ERROR = "fairway.R304"
    """
    The project's code raised an exception; a socket is closed with 1011, a request answered
    with 500.
    """
    SYNC_ONLY = "fairway.R305"
    """
    A coroutine called what only works in ordinary functions, as the ORM; as for R304.
    """
    NEVER_AWAITED = "fairway.R306"
    """
    A coroutine was made and thrown away without await; what it should do was not done.
    """
    PROTOCOL_MISUSED = "fairway.R307"
    """
    The application broke ASGI without raising; the connection is ended.
    """
    FRAME_MALFORMED = "fairway.R308"
    """
    A client broke the WebSocket protocol; its socket is closed with 1002, 1007 or 1009.
    """
    HANDSHAKE_UNANSWERED = "fairway.R309"
    """
    A consumer neither accepted nor closed, and waits for messages; its client waited in vain.
    """
    MESSAGE_NOT_SENT = "fairway.R401"
    """
    A broadcast did not reach the broker in time; it is lost and counted, and its caller goes on.
    """
    LOST_AT_EXIT = "fairway.R402"
    """
    Messages had not left when the process had to end; they are lost.
    """
    MESSAGE_UNDECIPHERABLE = "fairway.R403"
    """
    A message was encrypted with a key that is not known here, not at all, or was changed on its
    way; it is dropped and counted.
    """
    LAYER_AWAY = "fairway.R404"
    """
    A consumer needed the channel layer while it is away; who could not begin is refused with 503,
    everybody else stays.
    """
    REDIS_AWAY = "fairway.R405"
    """
    A Redis server cannot be reached or refuses; it is tried again until it answers.
    """
    ORDER_NOT_SENT = "fairway.R501"
    """
    A login ended, and a process or connection could not be told; its sockets stay until the
    next re-check.
    """
    ORDERS_NOT_HEARD = "fairway.R502"
    """
    A process cannot hear at present of logins that end elsewhere; as for R501.
    """
    RECHECK_FAILED = "fairway.R503"
    """
    The database could not be asked whether logins still hold; asked again after the interval.
    """
    LAYER_CARRIES_NO_ORDERS = "fairway.R504"
    """
    The default channel layer is none of Fairway's; as for R501, for what happens elsewhere.
    """
    LOGIN_REQUIRED = "fairway.R505"
    """
    A consumer for users who are logged in was asked for by somebody else; 403, or 401 for requests.
    """
    USER_MISSING = "fairway.R506"
    """
    A consumer for users who are logged in runs where nothing tells who the user is; 500.
    """
    CONNECTS_LIMITED = "fairway.R511"
    """
    An address or a user connects too often; it is refused with 429.
    """
    MESSAGES_LIMITED = "fairway.R512"
    """
    An address or a user sends too many messages; the WebSocket is closed with 1008.
    """
    BODY_TOO_SLOW = "fairway.R513"
    """
    The body of a request comes more slowly than a client may send; it is refused with 408.
    """
    FLOODED = "fairway.R514"
    """
    A client sends nothing but control frames or tiny fragments; the WebSocket is closed with 1008.
    """
    PAGES_BUSY = "fairway.R601"
    """
    As many pages wait for a thread as may; what comes meanwhile is answered with 503.
    """
    PAGE_EXITED = "fairway.R602"
    """
    A page raised SystemExit or KeyboardInterrupt; it is answered with 500 and the server goes on.
    """
    PAGE_CLOSE_FAILED = "fairway.R603"
    """
    Cleaning up after a page raised an exception; its answer was not affected.
    """
    STATIC_NOT_SERVED = "fairway.R604"
    """
    A static file was asked for, and nothing serves these where DEBUG is off; it is answered
    with 404.
    """
    THREAD_STUCK = "fairway.R605"
    """
    A thread runs what nobody waits for any more and does not return; another takes its place.
    """
    TRANSACTION_ABANDONED = "fairway.R606"
    """
    A connection ended with a transaction open in a thread; it is rolled back.
    """
    WORKER_WITHOUT_CHANNELS = "fairway.R701"
    """
    runworker was given no channel to read, or one that cannot be read; it does not start.
    """
    WORKER_LAYER_UNKNOWN = "fairway.R702"
    """
    runworker was told to read a channel layer that is not configured; it does not start.
    """
    WORKER_LAYER_ALONE = "fairway.R703"
    """
    runworker was to read a channel layer that other processes do not reach; it does not start.
    """
    WORKER_WITHOUT_ROUTE = "fairway.R704"
    """
    The project has no application for channels, or none for this one; runworker does not start.
    """
    WORKER_APPLICATION_ERROR = "fairway.R705"
    """
    An application raised an exception on a message of its channel, which is lost.
    """
    WORKER_MESSAGE_INVALID = "fairway.R706"
    """
    A message on a worker's channel has no type; it is dropped.
    """
    WORKER_LAYER_UNAVAILABLE = "fairway.R707"
    """
    A worker cannot read its channel layer at present; it tries again.
    """
    WORKER_APPLICATION_LATE = "fairway.R708"
    """
    A handler did not end in time as its worker stopped; it is cancelled and its message lost.
    """
    PUBLISHED_TO_NOBODY = "fairway.R711"
    """
    fairway publish found no process that would take its message.
    """
