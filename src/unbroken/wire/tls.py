"""TLS contexts: by default verified by the system's trust store."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpcore2

from unbroken.errors import UsageError


def client_context(verify: bool | str | Path | ssl.SSLContext = True) -> ssl.SSLContext:
    """Return a context for connecting to servers.

    Args:
        verify: ``True`` for the system's trust store (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured), a path to
            a file of CA certificates in PEM, a context that is taken as it is, or ``False`` for no verification.

    Raises:
        UsageError: the file, or one that the environment names, cannot be read or holds no certificate.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is True:
        return _system_context()
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as exc:
        raise UsageError(f"cannot use {_culprit(exc) or f'the CA file {str(verify)!r}'}: {_reason(exc)}") from None


def check_environment() -> None:
    """Check the certificates that the environment names, without reading them.

    Raises:
        UsageError: ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names something that is not there.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        if not Path(file).exists():
            raise UsageError(f"cannot use SSL_CERT_FILE {file!r}: No such file or directory")
    elif folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise UsageError(f"cannot use SSL_CERT_DIR {folders!r}: No such file or directory")


def _system_context() -> ssl.SSLContext:
    check_environment()
    try:
        return httpcore2.default_ssl_context()
    except OSError as exc:
        named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "")
        culprit = _culprit(exc) or (f"{named} {os.environ[named]!r}" if named else "the system's trust store")
        raise UsageError(f"cannot use {culprit}: {_reason(exc)}") from None


def _culprit(exc: OSError) -> str:
    """Return the file that OpenSSL was to log keys to, if that is the file that failed."""
    log = os.environ.get("SSLKEYLOGFILE")
    return f"SSLKEYLOGFILE {log!r}" if log and exc.filename == log else ""


def _reason(exc: OSError) -> str | None:
    return "it holds no PEM certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
