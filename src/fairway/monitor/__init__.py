"""
What the operators of a project get to see. Views here change nothing.

``path("metrics/", fairway.monitor.metrics)`` shows the counters to staff.
"""

from __future__ import annotations

from fairway.monitor.views import metrics

__all__ = ["metrics"]
