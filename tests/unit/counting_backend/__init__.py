"""
A database backend that counts its open connections.
"""
