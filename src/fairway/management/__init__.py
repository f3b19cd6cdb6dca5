"""
Django management commands.
"""
