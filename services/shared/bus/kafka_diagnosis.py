"""Why a connection to Kafka fails, in a word that says what to mend.

The client says "Unable to bootstrap" whatever the cause. So the connection is made again here, one layer after the
other: the port, TLS, Kafka's greeting, SASL, and the first request that needs rights. The first layer that fails names
the cause. Nothing is written to Kafka.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from kafka.errors import KafkaTimeoutError, RequestTimedOutError

from services.shared.bus.kafka_client import open_client
from services.shared.settings.model import BusSettings

UNREACHABLE = "KAFKA_UNREACHABLE"

CONNECT_TIMEOUT_S = 2.0
ALERT_TIMEOUT_S = 0.7
"""TLS 1.3: a server refuses a client's certificate after the handshake, by an alert that follows at once."""
GREETING_TIMEOUT_MS = 3_000

_TLS = (0x15, 0x16)  # the first byte of an alert, and of a handshake
_TIMED_OUT = (TimeoutError, KafkaTimeoutError, RequestTimedOutError)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
_HOSTNAME_MISMATCH = 62  # X509_V_ERR_HOSTNAME_MISMATCH
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """`reason` is for programs, `message` says what was found and what to mend."""

    reason: str
    message: str


def diagnose(settings: BusSettings, security: dict[str, Any]) -> Diagnosis | None:
    """What keeps clients away, for the first server that gives a cause; None: nothing does.

    `security` are the client's options (`kafka_connection.security_options`). Takes a few seconds at most a server.
    """
    found: Diagnosis | None = None
    for server in settings.bootstrap_servers.split(","):
        cause = _Probe(settings, security, server.strip()).run()
        if cause is None:
            return None
        if found is None or found.reason == UNREACHABLE:
            found = cause
    return found


class _Found(Exception):
    """Carries the cause out of the layers."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.diagnosis = Diagnosis(reason=reason, message=message)


class _Probe:
    """One server."""

    def __init__(self, settings: BusSettings, security: dict[str, Any], server: str) -> None:
        self._settings = settings
        self._security = security
        self._server = server
        host, _, port = server.rpartition(":")
        self._host, self._port = host or server, int(port) if port.isdigit() else 9092

    def run(self) -> Diagnosis | None:
        try:
            with self._connected() as plain:
                if self._settings.security_protocol in ("SSL", "SASL_SSL"):
                    self._check_tls(plain)
                else:
                    self._check_plain_text(plain)
            self._check_client()
        except _Found as found:
            return found.diagnosis
        return None

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        try:
            connection = socket.create_connection((self._host, self._port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise _Found(
                UNREACHABLE,
                f"nobody listens at {self._server} ({error}). Start Kafka, or set THUMBLOOP_BUS__BOOTSTRAP_SERVERS to"
                " where it is.",
            ) from error
        with connection:
            yield connection

    def _check_tls(self, plain: socket.socket) -> None:
        """The handshake, and what the server says of our certificate right after it."""
        context = self._context()
        try:
            secured = _handshaken(context, plain, self._host)
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(error) from error
        except ssl.SSLError as error:
            raise self._refused(error) from error
        except OSError as error:
            raise self._no_handshake(error) from error
        with secured:
            secured.settimeout(ALERT_TIMEOUT_S)
            try:
                if not secured.recv(1):
                    raise self._client_certificate("the connection was closed")
            except TimeoutError:
                self._check_mechanism(secured)
            except ssl.SSLError as error:
                raise self._refused(error) from error
            except OSError as error:
                raise self._client_certificate(str(error)) from error

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=None if not settings.ssl_cafile else str(settings.ssl_cafile))
            context.check_hostname = settings.ssl_check_hostname
            if settings.ssl_certfile:
                context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
        except (OSError, ssl.SSLError) as error:
            raise _Found(
                "KAFKA_CERTIFICATE_FILES",
                f"the certificate files cannot be used ({error}). Check THUMBLOOP_BUS__SSL_CAFILE, __SSL_CERTFILE and"
                " __SSL_KEYFILE: PEM files that this process may read, the key that of the certificate.",
            ) from error
        return context

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> _Found:
        if error.verify_code == _HOSTNAME_MISMATCH:
            return _Found(
                "KAFKA_HOSTNAME_MISMATCH",
                f"the certificate of {self._server} is for another name ({error.verify_message}). Connect by a name"
                " that it holds, or give the broker one for this name.",
            )
        if error.verify_code == _EXPIRED:
            return _Found("KAFKA_CERTIFICATE_EXPIRED", f"the certificate of {self._server} has expired; renew it.")
        return _Found(
            "KAFKA_CERTIFICATE_UNTRUSTED",
            f"the certificate of {self._server} is signed by nobody that is trusted here ({error.verify_message}). Set"
            " THUMBLOOP_BUS__SSL_CAFILE to the certificate of the authority that signed it.",
        )

    def _refused(self, error: ssl.SSLError) -> _Found:
        reason = error.reason or ""
        if isinstance(error, ssl.SSLEOFError):
            return self._no_handshake(error)
        if reason in _NOT_TLS:
            return self._no_tls()
        if "CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason or "UNKNOWN_CA" in reason:
            return self._client_certificate(reason)
        return _Found("KAFKA_TLS_FAILED", f"the TLS handshake with {self._server} failed: {error}.")

    def _client_certificate(self, cause: str) -> _Found:
        if self._settings.ssl_certfile is None:
            return _Found(
                "KAFKA_CLIENT_CERTIFICATE_REQUIRED",
                f"{self._server} asks for a client certificate (mutual TLS: {cause}). Set THUMBLOOP_BUS__SSL_CERTFILE"
                " and THUMBLOOP_BUS__SSL_KEYFILE.",
            )
        return _Found(
            "KAFKA_CLIENT_CERTIFICATE_REFUSED",
            f"{self._server} refuses the client certificate {self._settings.ssl_certfile} ({cause}). Use one that is"
            " valid now and signed by an authority that the brokers trust.",
        )

    def _no_tls(self) -> _Found:
        return _Found(
            "KAFKA_NO_TLS",
            f"{self._server} does not speak TLS; it seems to be a port for plain text. Connect to its TLS port, or set"
            " THUMBLOOP_BUS__SECURITY_PROTOCOL to PLAINTEXT (or SASL_PLAINTEXT).",
        )

    def _no_handshake(self, error: OSError) -> _Found:
        """It hangs up or keeps silent, as a port for plain text does, and one behind which nobody is."""
        with self._connected() as plain:
            first = _first_byte(plain)
        if first and first[0] not in _TLS:
            return self._no_tls()
        if first:
            return _Found("KAFKA_TLS_FAILED", f"the TLS handshake with {self._server} failed: {error}.")
        return self._mute(None if isinstance(error, TimeoutError) else b"")

    def _check_plain_text(self, plain: socket.socket) -> None:
        """A TLS port answers plain text with a TLS alert, or not at all; so do those behind which nobody is."""
        first = _first_byte(plain)
        if (first and first[0] in _TLS) or (not first and self._shakes_hands()):
            raise _Found(
                "KAFKA_SPEAKS_TLS",
                f"{self._server} does not answer plain text; it seems to be a TLS port. Set"
                " THUMBLOOP_BUS__SECURITY_PROTOCOL to SSL or SASL_SSL (and THUMBLOOP_BUS__SSL_CAFILE).",
            )
        if not first:
            raise self._mute(first)
        self._check_mechanism(plain)

    def _shakes_hands(self) -> bool:
        """Whether it speaks TLS, whoever it is: an alert is TLS, too."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self._connected() as plain:
            try:
                _handshaken(context, plain, self._host).close()
            except ssl.SSLError as error:
                return not (isinstance(error, ssl.SSLEOFError) or error.reason in _NOT_TLS)
            except OSError:
                return False
        return True

    def _mute(self, first: bytes | None) -> _Found:
        """Neither plain text nor TLS is answered; `first` as in `_first_byte`."""
        if first is None:
            return self._silent("answers nothing")
        return _Found(
            "KAFKA_NO_GREETING",
            f"{self._server} hangs up without an answer, to plain text and to TLS: it is starting, a proxy without a"
            " backend, or no Kafka. Look there, or set THUMBLOOP_BUS__BOOTSTRAP_SERVERS to where Kafka is.",
        )

    def _silent(self, what: str) -> _Found:
        return _Found(
            "KAFKA_SILENT",
            f"{self._server} accepts connections and {what}: it is starting, overloaded, stopped, or a proxy without a"
            " backend. Look there, or set THUMBLOOP_BUS__BOOTSTRAP_SERVERS to where Kafka is.",
        )

    def _check_mechanism(self, connection: socket.socket) -> None:
        """Asks as the client will. Brokers hang up right after a refusal, so the client may not even see it."""
        settings = self._settings
        if not settings.security_protocol.startswith("SASL"):
            return
        with self._connected() if settings.security_protocol == "SASL_PLAINTEXT" else nullcontext(connection) as asked:
            asked.settimeout(CONNECT_TIMEOUT_S)
            try:
                asked.sendall(_request(17, 1, _string(settings.sasl_mechanism)))
                answer = asked.recv(4096)
            except OSError:
                return
        error_code, offered = _mechanisms(answer)
        if error_code:
            raise _Found(
                "KAFKA_SASL_MECHANISM",
                f"{self._server} does not offer {settings.sasl_mechanism}, it offers {offered or 'no SASL'}. Set"
                " THUMBLOOP_BUS__SASL_MECHANISM to one that it offers, or THUMBLOOP_BUS__SECURITY_PROTOCOL without"
                " SASL.",
            )

    def _check_client(self) -> None:
        """Kafka's greeting and SASL, as the client itself does them; then a request that needs them."""
        client = _quiet_client(self._server, self._security)
        try:
            manager = client._manager
            node = manager.cluster.bootstrap_brokers()[0].node_id
            with _silence():
                connection = manager.get_connection(node, timeout_ms=GREETING_TIMEOUT_MS, pop_on_close=False)
                error = _outcome(client, connection.init_future)
                if error is None:
                    refused = _outcome(client, manager.call_soon(manager.cluster.refresh_metadata, node))
                    if refused is not None:
                        raise self._rights_needed(refused)
            if error is not None:
                raise self._not_authenticated(error)
        finally:
            client.close()

    def _not_authenticated(self, error: BaseException) -> _Found:
        settings, name = self._settings, type(error).__name__
        if isinstance(error, _TIMED_OUT):
            return self._silent("does not bring Kafka's greeting to its end")
        if not settings.security_protocol.startswith("SASL"):
            return _Found("KAFKA_NO_GREETING", f"{self._server} does not answer Kafka's greeting ({name}: {error}).")
        return _Found(
            "KAFKA_AUTHENTICATION_FAILED",
            f"{self._server} does not accept user {settings.sasl_username!r} with this password ({name}: {error}). Set"
            " THUMBLOOP_BUS__SASL_USERNAME and THUMBLOOP_BUS__SASL_PASSWORD.",
        )

    def _rights_needed(self, error: BaseException) -> _Found:
        if isinstance(error, _TIMED_OUT):
            return self._silent("answers nothing after Kafka's greeting")
        return _Found(
            "KAFKA_SASL_REQUIRED",
            f"{self._server} closes the connection after the greeting ({type(error).__name__}: {error}): it asks for a"
            " user and a password. Set THUMBLOOP_BUS__SECURITY_PROTOCOL to SASL_SSL (or SASL_PLAINTEXT), and user and"
            " password.",
        )


def _handshaken(context: ssl.SSLContext, plain: socket.socket, host: str) -> ssl.SSLSocket:
    """Takes the connection over, and closes it when it raises OSError (all of ssl's errors are)."""
    secured = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    try:
        secured.do_handshake()  # unlike `wrap_socket`'s own it fails on a connection that is lost already
    except BaseException:
        secured.close()
        raise
    return secured


def _first_byte(plain: socket.socket) -> bytes | None:
    """Of the answer to Kafka's greeting in plain text. Empty: it hangs up; None: it is silent."""
    plain.settimeout(CONNECT_TIMEOUT_S)
    try:
        plain.sendall(_greeting())
        return plain.recv(1)
    except TimeoutError:
        return None
    except OSError:
        return b""


def _greeting() -> bytes:
    """ApiVersionsRequest version 0."""
    return _request(18, 0, b"")


def _request(api_key: int, version: int, body: bytes) -> bytes:
    """Size, header (api key, version, correlation id, client id), body: https://kafka.apache.org/protocol."""
    whole = struct.pack(">hhi", api_key, version, 1) + _string("thumbloop") + body
    return struct.pack(">i", len(whole)) + whole


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _mechanisms(answer: bytes) -> tuple[int, str]:
    """Of a SaslHandshakeResponse version 1: error code, and what the broker offers."""
    try:
        error_code, count = struct.unpack_from(">hi", answer, 8)
        names, at = [], 14
        for _ in range(max(0, count)):
            (length,) = struct.unpack_from(">h", answer, at)
            names.append(answer[at + 2 : at + 2 + length].decode(errors="replace"))
            at += 2 + length
    except struct.error:  # cut short, or no Kafka at all
        return 0, ""
    return error_code, ", ".join(names)


def _quiet_client(server: str, security: dict[str, Any]) -> Any:
    return open_client(bootstrap_servers=[server], client_id="thumbloop-diagnosis", **security)


def _outcome(client: Any, future: Any) -> BaseException | None:
    """Waits for a future of the client, and gives its error."""
    client._net.poll(timeout_ms=GREETING_TIMEOUT_MS, future=future)
    if future.is_done:
        return cast(BaseException | None, future.exception)
    return TimeoutError(f"no answer within {GREETING_TIMEOUT_MS} ms")


@contextmanager
def _silence() -> Iterator[None]:
    """The client logs each failure as an error of its own, which here is an answer."""
    logger = logging.getLogger("kafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
