"""
The Django project the tests run in: a user model, sessions, a database in memory.
"""

from importlib.util import find_spec

SECRET_KEY = "the tests' own and nobody's secret"  # codespell:ignore
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# The cheapest hasher: logging in is not what the tests measure.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
if find_spec("fairway.apps"):
    INSTALLED_APPS.append("fairway")
