"""
The broker of one machine: processes that find each other in a directory, without a server.
"""

from fairway.layers.brokers.ipc.broker import IPCBroker

__all__ = ["IPCBroker"]
