"""
A project to deploy, short folders for sockets, and certificates.
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.acceptance.deploy.site import VIEWS, Nginx
from tests.acceptance.project import Project


class Certificate(NamedTuple):
    """
    A certificate for 127.0.0.1.

    Attributes:
        chain: File of the chain.
        key: File of the private key.
        both: File of both.
        client: What trusts it.
    """

    chain: Path
    key: Path
    both: Path
    client: ssl.SSLContext


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    A folder whose path is short enough for Unix sockets in it.
    """
    path = Path(tempfile.mkdtemp(prefix="fairway-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def site(project: Project) -> Project:
    """
    The project, with pages and sockets that tell what they see.
    """
    (project.folder / "site_" / "urls.py").write_text(VIEWS)

    return project


@pytest.fixture
def nginx(project: Project, folder: Path) -> Nginx:
    """
    A proxy that is not started yet; it ends with the project.
    """
    return Nginx(project, folder)


@pytest.fixture
def certificate(folder: Path) -> Certificate:
    """
    A certificate and an authority that nobody else trusts.
    """
    return make_certificate(folder)


def make_certificate(folder: Path) -> Certificate:
    """
    Write a certificate of a new authority, instead of the one there is.
    """
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    found = Certificate(
        folder / "chain.pem", folder / "key.pem", folder / "both.pem", ssl.create_default_context()
    )
    authority.configure_trust(found.client)
    issued.cert_chain_pems[0].write_to_path(found.chain)
    issued.private_key_pem.write_to_path(found.key)
    issued.private_key_and_cert_chain_pem.write_to_path(found.both)
    return found
