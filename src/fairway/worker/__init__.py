"""
What reads named channels and runs an application for each: ``manage.py runworker``.

A worker takes a message out of its channel only when the application wants one, so what is
not being handled waits in the channel layer, for this worker or another. A busy channel keeps
no other waiting. What is asked for on the command line is the command's.
"""

from fairway.worker.reading import Worker

__all__ = ["Worker"]
