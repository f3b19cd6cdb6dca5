"""
The broker of one machine: processes that find each other in a directory, without a server.
"""
