"""
Consumers for one protocol each, under the names of Channels' modules; their home is ``consumers``.
"""
