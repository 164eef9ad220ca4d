"""`pareto serve` over TLS, with API keys: what it says, whom it answers, and that it tells no secret."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import numpy as np
import psutil
import pytest
import trustme
from tritonclient.http import InferenceServerClient, InferInput

from loadtests.servers import free_port
from service import cli
from service.addresses import base_url
from service.configuration import SettingsError
from service.connections import Connections
from service.rpc.certificate import Certificate
from service.settings import Settings
from service.tls import check_certificate, checked_pair
from tests.service.conftest import eventually, sign_body
from tests.service.families import sign_model, write_family
from tests.service.grpc_caller import Caller, sign_request
from variants.repository import Repository

ROOT = Path(__file__).resolve().parent.parent
SECRET = "tls-secret-0123456789abcdef"
LIMIT_S = 60.0
LOCKED = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBB0YwjeGPUWR/FYTU5H
H2iBAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQV2T/sAnv5GYa7Ux+
vu6N0wSBkHtPxMHMciAOWchXAUos5OBenqEwtCr+O6/khqOWbhlVGkIa7s5MLkmf
4KpW3ZFy4K4AF9NbTZeaZnQxKnpgWMO7bqvfI7gTEl7w6Yb/vanxquWpKf8wpiBn
DWbEzqZVYydqgCNc7SQluI3upTnrTOGEKzysQiccNMQT9C6WbmiK2Erl4xRuqs7G
9TqWpBc2EQ==
-----END ENCRYPTED PRIVATE KEY-----
"""
"""A private key with a password, of nobody."""


class Started(NamedTuple):
    """A gateway that serves: its process, what it printed, where its log goes, and what clients need."""

    process: subprocess.Popen[str]
    lines: list[str]
    log: Path
    trust: ssl.SSLContext
    port: int
    admin_port: int
    grpc_port: int
    folder: Path
    authority: trustme.CA

    def client(self, port: int | None = None) -> httpx.Client:
        """One that trusts the authority and shows the key."""
        headers = {"authorization": f"Bearer {SECRET}"}
        return httpx.Client(
            base_url=f"https://localhost:{port or self.port}", verify=self.trust, headers=headers, timeout=LIMIT_S
        )


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """`pareto serve` with a certificate for localhost, a key that may everything, and a port for admin routes."""
    folder = tmp_path_factory.mktemp("tls")
    write_family(Repository(folder / "models"), "sign", {"quick": (sign_model(), 0.8)})
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    write_certificate(folder, authority)
    port, admin_port, grpc_port = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "service.cli", "serve", "--models", str(folder / "models"), "--port", str(port)]
    command += ["--ssl-certfile", str(folder / "cert.pem"), "--ssl-keyfile", str(folder / "key.pem")]
    command += ["--grpc-port", str(grpc_port)]
    environment = {
        **os.environ,
        "PARETO_API_KEYS": f"ops {SECRET} role=admin",
        "PARETO_ADMIN_PORT": str(admin_port),
        "PARETO_LOG_LEVEL": "debug",
        "PARETO_ACCESS_LOG_SHARE": "1",
    }
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1].startswith("stop"):
                break
        yield Started(process, lines, log, trust, port, admin_port, grpc_port, folder, authority)
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def write_certificate(folder: Path, authority: trustme.CA, name: str = "localhost") -> None:
    """A new certificate and its key in the place of those that were there."""
    made = authority.issue_cert(name)
    made.private_key_pem.write_to_path(folder / "key.pem")
    folder.joinpath("cert.pem").write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))


def shown_certificate(started: Started, port: int) -> str:
    """The digest of the certificate that a new connection is shown."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    trust = ssl.create_default_context()
    started.authority.configure_trust(trust)
    # gRPC wants to hear that it is HTTP/2; HTTP/1.1 does not mind.
    trust.set_alpn_protocols(["h2"])
    with trust.wrap_socket(plain, server_hostname="localhost") as wrapped:
        certificate = wrapped.getpeercert(binary_form=True)
    assert certificate is not None
    return hashlib.sha256(certificate).hexdigest()


def test_the_banner_says_where_it_is(started: Started) -> None:
    """With https, on both ports."""
    told = dict(line.split(maxsplit=1) for line in started.lines if len(line.split()) > 1)
    assert f"https://127.0.0.1:{started.port}" == told["address"]
    assert f"https://127.0.0.1:{started.port}/metrics" == told["metrics"]
    assert f"https://127.0.0.1:{started.admin_port}" == told["admin"]
    assert f"127.0.0.1:{started.grpc_port}" == told["gRPC"]


def test_clients_that_trust_the_authority_are_answered(started: Started) -> None:
    """Httpx and Triton's client, which check the certificate; one that does not know the authority does not go on."""
    with started.client() as client:
        assert 200 == client.post("/v2/models/sign/infer", json=sign_body(1.0)).status_code
    triton = InferenceServerClient(f"localhost:{started.port}", ssl=True, ssl_context_factory=lambda: started.trust)
    with triton as triton_client:
        rows = InferInput("x", [1, 4], "FP32")
        rows.set_data_from_numpy(np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32))
        answer = triton_client.infer("sign", [rows], headers={"authorization": f"Bearer {SECRET}"})
        assert [b"yes"] == answer.as_numpy("label").tolist()
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"https://localhost:{started.port}/livez")


def test_clients_over_grpc_that_trust_the_authority_are_answered(started: Started) -> None:
    """With the key in the metadata; neither plain text nor who does not know the authority gets a connection."""
    address = f"localhost:{started.grpc_port}"
    known = grpc.ssl_channel_credentials(started.authority.cert_pem.bytes())
    with grpc.secure_channel(address, known) as channel:
        answer, _ = Caller(channel).infer(sign_request(1.0), [("authorization", f"Bearer {SECRET}")])
        assert "quick" == answer.model_version
        assert "UNAUTHENTICATED" == Caller(channel).refusal(sign_request(1.0))[0]
    for stranger in (grpc.insecure_channel(address), grpc.secure_channel(address, grpc.ssl_channel_credentials())):
        with stranger as channel:
            assert "UNAVAILABLE" == Caller(channel).refusal(sign_request(1.0))[0]


def test_what_is_not_encrypted_is_not_answered(started: Started) -> None:
    """HTTP at either port ends without an answer."""
    for port in (started.port, started.admin_port):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{port}/livez")


def test_admin_routes_are_encrypted_too(started: Started) -> None:
    """On their own port, with the same certificate."""
    with started.client(started.admin_port) as client:
        assert 200 == client.post("/v2/repository/models/sign/load").status_code


def test_another_certificate_is_shown_after_a_signal(started: Started) -> None:
    """Without a restart, on all ports; one that cannot be used leaves the old one."""
    ports = started.port, started.grpc_port
    before = shown_certificate(started, started.port)
    assert before == shown_certificate(started, started.grpc_port)
    write_certificate(started.folder, started.authority)
    started.process.send_signal(signal.SIGHUP)
    eventually(lambda: before not in [shown_certificate(started, port) for port in ports], "the new one is shown")
    after, key = shown_certificate(started, started.port), started.folder.joinpath("key.pem")
    sound = key.read_bytes()
    key.write_text("none")
    with started.client(started.admin_port) as client:
        refused = client.post("/admin/reload")
        key.write_bytes(sound)
        assert "certificate" in client.post("/admin/reload").json()["applied"]
    assert (400, True) == (refused.status_code, "ssl_certfile: " in refused.json()["error"])
    assert [after] * 2 == [shown_certificate(started, port) for port in ports]


def test_what_is_renewed_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes another pair while one is read gets that one shown, whole; gRPC takes it once."""
    authority, checks = trustme.CA(), itertools.count()
    write_certificate(tmp_path, authority)
    settings = Settings(ssl_certfile=tmp_path / "cert.pem", ssl_keyfile=tmp_path / "key.pem")
    monkeypatch.setattr(
        "service.tls.check_certificate", lambda _: write_certificate(tmp_path, authority) if next(checks) == 1 else None
    )
    pair = checked_pair(settings)
    assert pair == ((tmp_path / "key.pem").read_bytes(), (tmp_path / "cert.pem").read_bytes())
    connections = Connections(1)
    certificate = Certificate(settings, connections)
    assert certificate.fetch() is None
    connections.renew(lambda _: None, pair)
    assert certificate.fetch() is not None
    assert certificate.fetch() is None


def test_doctor_knows_it(started: Started, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a gateway, over TLS and though it answers nobody without a key; keys and certificate are looked at."""
    monkeypatch.setenv("PARETO_API_KEYS", f"ops {SECRET}")
    monkeypatch.setenv("PARETO_SSL_CERTFILE", str(started.folder / "cert.pem"))
    monkeypatch.setenv("PARETO_SSL_KEYFILE", str(started.folder / "key.pem"))
    assert 0 == cli.run(["doctor", "--models", str(started.folder / "models"), "--port", str(started.port)])
    found = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert "serves at" in found["port"]
    assert "1 API key: nobody gets in without one" in found["keys"]
    assert found["certificate"].startswith("ok")


def test_no_secret_is_in_what_it_says(started: Started) -> None:
    """Neither in the banner, nor in the log at its most talkative, nor in the arguments of its processes."""
    told = started.log.read_text() + "\n".join(started.lines)
    arguments = [path.read_bytes().decode(errors="replace") for path in _command_lines(started.process.pid)]
    key = started.folder.joinpath("key.pem").read_text().splitlines()[1]
    everything = told + "\n".join(arguments)
    assert "pareto" in told
    assert [] == [
        secret for secret in (SECRET, hashlib.sha256(SECRET.encode()).hexdigest(), key) if secret in everything
    ]


def _command_lines(process: int) -> list[Path]:
    tree = [process, *(child.pid for child in psutil.Process(process).children(recursive=True))]
    return [Path(f"/proc/{one}/cmdline") for one in tree]


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("missing.pem", "key.pem", "ssl_certfile: {folder}/missing.pem: No such file or directory"),
        ("cert.pem", "missing.pem", "ssl_keyfile: {folder}/missing.pem: No such file or directory"),
        ("odd.pem", "key.pem", "ssl_certfile: {folder}/odd.pem: expected a certificate chain"),
        ("cert.pem", None, "ssl_certfile: {folder}/cert.pem: expected a certificate chain"),
        ("cert.pem", "other.pem", "ssl_keyfile: {folder}/other.pem: is not the private key of this certificate"),
        ("cert.pem", "locked.pem", "ssl_keyfile: {folder}/locked.pem: the private key has a password"),
        ("both.pem", None, ""),
    ],
)
def test_a_certificate_that_cannot_be_used_is_one_line(
    tmp_path: Path, certificate: str, key: str | None, said: str
) -> None:
    """Which file, what is wrong with it; nobody is asked for a password at a terminal."""
    authority = trustme.CA()
    write_certificate(tmp_path, authority)
    (tmp_path / "odd.pem").write_text("none")
    authority.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "locked.pem").write_text(LOCKED)
    (tmp_path / "both.pem").write_bytes((tmp_path / "key.pem").read_bytes() + (tmp_path / "cert.pem").read_bytes())
    settings = Settings(ssl_certfile=tmp_path / certificate, ssl_keyfile=key and tmp_path / key)
    if not said:
        check_certificate(settings)
        return
    with pytest.raises(SettingsError) as fault:
        check_certificate(settings)
    assert str(fault.value).startswith(said.format(folder=tmp_path))
    assert 1 == len(str(fault.value).splitlines())


def test_serve_does_not_start_with_a_certificate_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the line alone."""
    (tmp_path / "cert.pem").write_text("none")
    arguments = ["serve", "--models", str(tmp_path), "--ssl-certfile", str(tmp_path / "cert.pem")]
    assert 2 == cli.run(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pareto: ssl_certfile: {tmp_path}/cert.pem: expected a certificate chain")


@pytest.mark.parametrize(
    ("host", "tls", "expected"),
    [
        ("0.0.0.0", False, "http://127.0.0.1:1"),
        ("::", True, "https://[::1]:1"),
        ("gateway.example", True, "https://gateway.example:1"),
    ],
)
def test_a_server_is_reached_at_its_address(host: str, tls: bool, expected: str) -> None:
    """One that listens everywhere is reached on this machine."""
    assert expected == base_url(host, 1, tls=tls)
