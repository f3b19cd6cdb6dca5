"""
Measures the figures that decide: see ``README.md``.
"""
