"""Who may change what is served: callers with a key for it, or, where there are no keys, on this machine alone."""

from __future__ import annotations

import socket
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.servers import free_port
from router.policies import policy_named
from service import cli
from service.access import EVERY_ROLE, Key, Keys
from service.admin_access import ON_ADMIN_PORT, check_admin, check_admin_request, is_loopback
from service.exchange import Scope
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.settings import Settings
from tests.service.inprocess import serving


def scope(
    peer: str | None = "127.0.0.1", host: str | None = "127.0.0.1:3000", origin: str = "", on_admin_port: bool = False
) -> Scope:
    """Of a request to read the settings again."""
    headers = [(b"host", host.encode())] if host is not None else []
    if origin:
        headers.append((b"origin", origin.encode()))
    told: Scope = {"method": "POST", "path": "/admin/reload", "client": peer and (peer, 1), "headers": headers}
    if on_admin_port:
        told[ON_ADMIN_PORT] = True
    return told


def gateway(admin: bool = True, keys: bool = False) -> Gateway:
    """A gateway that has not started."""
    made = Gateway(Settings(admin=admin))
    if keys:
        made.access.keys = Keys([Key("ops", EVERY_ROLE, digest=sha256(b"").digest())])
    return made


def refusal(made: Gateway, asked: Scope) -> str:
    """Why a request is refused; nothing where it is not."""
    try:
        check_admin_request(made, asked)
    except ProtocolError as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:3000", "localhost", "localhost:1", "[::1]:3000", "10.0.0.7:80"]
)
def test_without_keys_callers_on_this_machine_may(host: str) -> None:
    """By whatever address or as localhost; a request of HTTP/1.0 has no host."""
    assert ["", ""] == [refusal(gateway(), scope(host=one)) for one in (host, None)]


@pytest.mark.parametrize(
    "peer", ["10.0.0.7", "192.0.2.1", "::ffff:10.0.0.7", "fe80::1%eth0", None, "localhost.example"]
)
def test_without_keys_others_may_not(peer: str | None) -> None:
    """By whatever address; a socket without one is somebody else's."""
    assert "callers on the gateway's machine alone" in refusal(gateway(), scope(peer))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "", "[::1", "localhost."]
)
def test_without_keys_a_name_that_could_mean_another_machine_is_refused(host: str) -> None:
    """A site can have its name mean this machine, and its pages ask it then; they cannot choose the header."""
    assert "pages of browsers" in refusal(gateway(), scope(host=host))


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:3000", "null"])
def test_without_keys_a_page_may_not(origin: str) -> None:
    """A browser on this machine sends what any page wants it to send, and says so."""
    assert "pages of browsers" in refusal(gateway(), scope(origin=origin))


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip"])
def test_without_keys_a_proxy_may_not(header: str) -> None:
    """Whoever it speaks for, and whatever it says of that, which anybody may have told it."""
    asked = scope()
    asked["headers"] += [(header.encode(), b"127.0.0.1")]
    assert "closed to proxies" in refusal(gateway(), asked)


def test_with_keys_it_does_not_matter_from_where() -> None:
    """The gate has seen the key, and no page of others has one."""
    assert "" == refusal(gateway(keys=True), scope("10.0.0.7", "gateway.example", origin="https://ops.example"))


def test_it_is_closed_unless_opened_or_on_the_admin_port() -> None:
    """Whoever asks, and whether or not there are keys."""
    for keys in (False, True):
        closed = gateway(admin=False, keys=keys)
        assert "set `admin = true` or `admin_port`" in refusal(closed, scope())
        assert "" == refusal(closed, scope(on_admin_port=True))
        with pytest.raises(ProtocolError, match="closed"):
            check_admin(closed, "load", "", "127.0.0.1", [])


@pytest.mark.parametrize("name", ["origin", "forwarded", "x-forwarded-for", "x-real-ip"])
def test_metadata_of_a_call_tell_of_a_proxy_as_headers_do(name: str) -> None:
    """GRPC asks by the same rule: who speaks for others needs a key."""
    metadata = [(name.encode(), b"10.0.0.7")]
    with pytest.raises(ProtocolError, match="closed to proxies"):
        check_admin(gateway(), "load", "", "127.0.0.1", metadata)
    check_admin(gateway(keys=True), "load", "ops", "127.0.0.1", metadata)


@given(st.text(max_size=40))
def test_no_text_is_taken_for_this_machine_by_mistake(text: str) -> None:
    """What is no address of the loopback network is another machine's."""
    if is_loopback(text):
        assert text == "localhost" or text.startswith(("127.", "::1", "::ffff:127.", "::FFFF:127.", "0"))


@given(st.binary(max_size=40))
def test_any_host_header_is_judged(host: bytes) -> None:
    """Whatever bytes come, it is taken or refused, and what is taken holds an address or localhost."""
    asked = scope()
    asked["headers"] = [(b"host", host)]
    if not refusal(gateway(), asked):
        assert b"localhost" in host or b"." in host or b":" in host


def test_a_port_for_admin_routes_alone(models: Path) -> None:
    """Without keys it is there for this machine, while the other port stays closed and answers everything else."""
    port = free_port()
    with serving(Settings(models=models, slots=1, admin_port=port), policy_named("casc")) as client:
        load = "/v2/repository/models/sign/load"
        there = f"http://127.0.0.1:{port}"
        assert [403, 200] == [client.post(load).status_code, httpx.post(there + load, timeout=30.0).status_code]
        assert 403 == httpx.post(there + load, headers={"origin": "https://evil.example"}).status_code
        assert 200 == httpx.get(f"{there}/v2/models/sign").status_code
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{there}/livez")


def test_an_admin_port_in_use_is_said_in_one_line(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pareto serve` does not start, and names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("PARETO_ADMIN_PORT", str(taken.getsockname()[1]))
        assert 1 == cli.run(["serve", "--models", str(models), "--port", str(free_port())])
    (line,) = capsys.readouterr().err.splitlines()
    assert "choose another with `admin_port`" in line
