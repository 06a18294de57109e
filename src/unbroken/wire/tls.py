"""TLS: contexts, by default verified by the system's trust store, and TLS without I/O."""

from __future__ import annotations

import os
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from unbroken.errors import UsageError

CHUNK = 64 * 1024
"""Bytes that are encrypted, or decrypted, at a time."""

_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, BSD
)
"""Where systems keep their certificates, for a Python that was built elsewhere."""

_HASHED = re.compile(r"[0-9a-f]{8}\.\d")
"""The name of a certificate in a folder of OpenSSL's."""

_naming_protocols = threading.Lock()


class Tls:
    """TLS over memory buffers, so that it can run inside TLS (an https proxy) and in any loop.

    Args:
        context: its ALPN protocols are replaced.
        hostname: the name to verify; ``None`` or ``""`` for none.
        protocols: what is offered by ALPN.

    Attributes:
        established: whether the handshake is complete.
        ended: whether the other side has ended the session (close_notify).
    """

    def __init__(self, context: ssl.SSLContext, hostname: str | None, protocols: list[str]) -> None:
        self.established = self.ended = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with _naming_protocols:  # the context may be shared, also by a proxy's TLS and its target's
            context.set_alpn_protocols(protocols)
            self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname or None)

    @property
    def protocol(self) -> str | None:
        """What was agreed by ALPN."""
        return self._object.selected_alpn_protocol()

    @property
    def certificate(self) -> bytes | None:
        """The certificate of the other side in DER, once the handshake is complete."""
        return self._object.getpeercert(binary_form=True)

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is complete.

        Raises:
            ssl.SSLError: it failed; the alert with the reason is still to be sent.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        return True

    def receive(self, data: bytes) -> None:
        """Take encrypted bytes."""
        self._incoming.write(data)

    def receive_eof(self) -> NoReturn:
        """Take the end of the connection before that of the session.

        Raises:
            ssl.SSLEOFError: always. OpenSSL itself would take it for a clean end if the context allows that
                (``OP_IGNORE_UNEXPECTED_EOF``).
        """
        raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "TLS ended without close_notify")

    def decrypted(self) -> Iterator[bytes]:
        """Yield what can be decrypted of the bytes that came.

        Raises:
            ssl.SSLError: TLS is broken; what came before that has been yielded.
        """
        while not self.ended:
            try:
                data = self._object.read(CHUNK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self.ended = True
                return
            yield data
            if not (self._incoming.pending or self._object.pending()):
                return  # as nearly always; OpenSSL would say so by an exception

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return bytes for the network: those of the session itself, and the data."""
        if data:
            self._object.write(data)
        return self._outgoing.read() if self._outgoing.pending else b""


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
        return _trusting_the_system()
    except OSError as exc:
        named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "")
        culprit = _culprit(exc) or (f"{named} {os.environ[named]!r}" if named else "the system's trust store")
        raise UsageError(f"cannot use {culprit}: {_reason(exc)}") from None


def _trusting_the_system() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file := os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(cafile=file)
    elif folder := os.environ.get("SSL_CERT_DIR"):
        context.load_verify_locations(capath=folder)
    elif sys.platform in ("win32", "darwin"):
        import truststore  # asks the system for each certificate; installed only where it is needed

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    elif compiled_in := _compiled_in():
        context.load_verify_locations(*compiled_in)
    elif found := next(filter(os.path.isfile, _CA_FILES), None):
        context.load_verify_locations(found)
    return context


def _compiled_in() -> tuple[str | None, str | None] | None:
    """Return the file and the folder of certificates that OpenSSL was built with, as far as they hold any."""
    paths = ssl.get_default_verify_paths()
    file = paths.openssl_cafile if Path(paths.openssl_cafile).is_file() else None
    folder = Path(paths.openssl_capath)
    has_any = folder.is_dir() and any(_HASHED.fullmatch(entry.name) for entry in folder.iterdir())
    return (file, str(folder) if has_any else None) if file or has_any else None


def _culprit(exc: OSError) -> str:
    """Return the file that OpenSSL was to log keys to, if that is the file that failed."""
    log = os.environ.get("SSLKEYLOGFILE")
    return f"SSLKEYLOGFILE {log!r}" if log and exc.filename == log else ""


def _reason(exc: OSError) -> str | None:
    return "it holds no PEM certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
