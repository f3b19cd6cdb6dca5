"""
How often one address or one user may connect and send: token buckets in a bounded table.

``buckets`` counts, ``limits`` knows the settings and who is counted, ``connects`` refuses
handshakes and requests, ``messages`` ends sockets that send too much. Everything is off unless
the settings or a consumer ask for it, and costs a connection one look then. The limits of the
protocols (sizes, floods of control frames) are the server's, and not here.
"""

from fairway.ratelimits.connects import admit_address, admit_connect
from fairway.ratelimits.limits import connect_limits, message_limits
from fairway.ratelimits.messages import count_messages

__all__ = ["admit_address", "admit_connect", "connect_limits", "count_messages", "message_limits"]
