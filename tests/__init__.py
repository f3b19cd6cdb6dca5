"""
The suite: one folder per kind of test, each mirroring src/fairway.
"""
