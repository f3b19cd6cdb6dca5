"""
Realtime for Django in one package, server included.
"""
