"""
Bytes to events and events to bytes, for each protocol the server speaks.

Everything here is sans-I/O: no loop, no socket, no clock, no thread, no log. A
decoder takes the bytes that arrived and returns events; an encoder returns the
bytes to send. When to read, how long to wait and whom to tell is for others.
"""
