"""
A Django project with startproject's apps and middleware and one synchronous view.

``application`` is what ``asgi.py`` holds, and Fairway serves pages in its place; ``wsgi`` is the
same site for other servers. These have no Fairway, so it is an app only where it is installed.
"""

from __future__ import annotations

from importlib.util import find_spec

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

__all__ = ["application", "urlpatterns", "wsgi"]

settings.configure(
    SECRET_KEY="for benchmarks only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        *(["fairway"] if find_spec("fairway") else []),
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    STATIC_URL="static/",
    USE_TZ=True,
)
django.setup()

# Only importable once there are settings.
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402


def page(request: HttpRequest) -> HttpResponse:
    """
    Answer 13 bytes.
    """
    return HttpResponse("Hello, world!", content_type="text/plain")


urlpatterns = [path("", page)]

application = get_asgi_application()
wsgi = get_wsgi_application()
