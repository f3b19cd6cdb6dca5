"""
What ``benchmarks/run.py`` is made of; the standard library alone.
"""
