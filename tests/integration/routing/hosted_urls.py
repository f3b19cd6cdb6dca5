"""
A URL configuration of its own, for one host.
"""

from __future__ import annotations

from django.urls import path

from tests.integration.routing.test_surroundings import seeing

urlpatterns = [path("hosted/<room>/", seeing, name="room")]
