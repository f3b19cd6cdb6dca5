"""
``runserver`` for development and ``serve`` for production.
"""
