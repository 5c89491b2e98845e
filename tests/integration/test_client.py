"""The client of the control API, where the network or the other side is not as it should be."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stoker_sdk.client import ControlClient, LogRequest
from stoker_sdk.errors import (
    BadInput,
    Conflict,
    NotFound,
    StokerError,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from stoker_sdk.function import FunctionSpec
from stoker_sdk.http_client import HttpClient, Trust


@contextmanager
def answering(answer: bytes, tls: ssl.SSLContext | None = None, hold: float = 0) -> Iterator[str]:
    """A server that gives the same bytes to every connection, after `hold` seconds; yields its address."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            try:
                with tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
                    stream.recv(1 << 20)
                    stop.wait(hold)
                    stream.sendall(answer)
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.getsockname()[1]}"
    finally:
        stop.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def client(address: str, trust: Trust | None = None, timeout: float = 10) -> ControlClient:
    return ControlClient(HttpClient(address, "Basic x", trust or Trust(), timeout))


def response(status: str, body: str, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return (head + body).encode()


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        ("400 Bad Request", BadInput, "the reason"),
        ("409 Conflict", Conflict, "the reason"),
        ("413 Content Too Large", BadInput, "the reason"),
        ("422 Unprocessable Content", Unprocessable, "the reason"),
        ("503 Service Unavailable", Unavailable, "the reason"),
        ("404 Not Found", NotFound, "the reason"),
        ("401 Unauthorized", Unauthorized, "run `stoker login --gateway http://127.0.0.1:"),
        (
            "500 Internal Server Error",
            StokerError,
            "server returned unexpected status code: 500 - the reason",
        ),
        ("301 Moved Permanently", StokerError, "server returned unexpected status code: 301 - the reason"),
    ],
)
def test_a_status_becomes_the_error_it_stands_for(status: str, kind: type[StokerError], message: str) -> None:
    with (
        answering(response(status, "the reason\n")) as address,
        pytest.raises(StokerError, match=message) as caught,
    ):
        client(address).functions()
    assert type(caught.value) is kind


def test_an_empty_body_is_replaced_by_the_name_of_the_status() -> None:
    with (
        answering(response("502 Bad Gateway", "")) as address,
        pytest.raises(Unavailable, match="502 - Bad Gateway"),
    ):
        client(address).functions()


def test_a_refused_connection_says_how_to_start_the_platform() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable, match="Is Stoker running\\? Start it with `stoker serve`"):
        client(f"http://127.0.0.1:{port}").functions()


def test_a_name_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot connect to http://nowhere"):
        client("http://nowhere.invalid").functions()


def test_a_server_that_says_nothing_is_given_up_after_the_timeout() -> None:
    began = time.monotonic()
    with (
        answering(b"", hold=30) as address,
        pytest.raises(Unavailable, match=r"did not answer in 0\.2 seconds"),
    ):
        client(address, timeout=0.2).functions()
    assert time.monotonic() - began < 10


def test_a_connection_that_closes_at_once_is_unavailable() -> None:
    with answering(b"") as address, pytest.raises(Unavailable, match="broke off"):
        client(address).functions()


def test_log_lines_are_cut_at_newlines_wherever_the_chunks_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b'{"name":"a","te', b'xt":"1"}\n{"name":"a","text":"2"}\n\n', b'{"name":"a","text":"3"}']
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with answering(head + body) as address:
        assert [line.text for line in client(address).logs(LogRequest("a"))] == ["1", "2", "3"]


def test_a_log_that_breaks_off_gives_its_lines_and_then_fails() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answering(head + b'19\r\n{"name":"a","text":"1"}\r\n\r\n5\r\nab') as address:
        lines = client(address).logs(LogRequest("a"))
        assert next(lines).text == "1"
        with pytest.raises(Unavailable, match="broke off"):
            next(lines)


def test_a_revision_is_read_from_the_header_in_any_case() -> None:
    spec = FunctionSpec("a", "b:1")
    with answering(response("202 Accepted", "", "x-stoker-revision: 7\r\n")) as address:
        assert client(address).update(spec) == 7
    with answering(response("202 Accepted", "")) as address:
        assert client(address).create(spec) == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate that signs itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def answering_over_tls(certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with answering(response("200 OK", "[]"), context) as address:
        yield address


def test_a_certificate_is_trusted_by_its_ca_or_not_at_all(certificate: Path) -> None:
    with answering_over_tls(certificate) as address:
        with pytest.raises(Unavailable, match=r"is not trusted .* name its CA with --ca"):
            client(address).functions()
        assert client(address, Trust(ca=certificate)).functions() == []
        assert client(address, Trust(verify=False)).functions() == []


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(BadInput, match="holds no CA certificate"):
        client("https://127.0.0.1:1", Trust(ca=tmp_path / "ca.pem"))
    with pytest.raises(BadInput, match="cannot be read"):
        client("https://127.0.0.1:1", Trust(ca=tmp_path / "nothing.pem"))


def test_https_spoken_to_a_server_without_tls_is_no_traceback() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address, pytest.raises(Unavailable):
        client(address.replace("http:", "https:")).functions()
