"""A real gateway with API keys: who gets in where, as whom, and what is said to those who do not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import bentoml
import httpx
import pytest

from loadtests.servers import Server, free_port, gateway, running
from service import cli
from service.access import Role
from service.gate import open_paths
from tests.service.collector import Collector, collecting
from tests.service.conftest import eventually, samples, sign_body
from tests.service.test_lifecycle import worker_of

INFER, BOUND, READ, ADMIN, LATER = (f"{name}-0123456789abcdef" for name in ("infer", "bound", "read", "admin", "later"))
APP = "https://app.example.org"
INFER_URL = "/v2/models/sign/versions/quick/infer"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of three roles, one of them kept as a digest; the bound one and one more are in the environment."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(
        f"asker {INFER}\nreader {READ} role=read\nops sha256:{sha256(ADMIN.encode()).hexdigest()} role=admin"
    )
    return path


@pytest.fixture(scope="module")
def admin_port() -> int:
    """Where the gateway has its admin routes."""
    return free_port()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Where the gateway sends traces of all requests."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def guarded(models: Path, keys_file: Path, admin_port: int, collector: Collector) -> Iterator[Server]:
    """A gateway that wants keys; tenant `acme` may ask a row in fifty seconds, after two at once."""
    environment = {
        "PARETO_SLOTS": "1",
        "PARETO_KEYS_FILE": str(keys_file),
        "PARETO_API_KEYS": f"shop {BOUND} tenant=acme",
        "PARETO_TENANTS": '{"acme": {"rate": 0.02, "burst": 2}, "rich": {}}',
        "PARETO_ADMIN_PORT": str(admin_port),
        "PARETO_ACCESS_LOG_SHARE": "1",
        "PARETO_CORS_ORIGINS": APP,
        "PARETO_TRACES_ENDPOINT": collector.url,
        "PARETO_TRACES_SHARE": "1",
        "PARETO_LOG_LEVEL": "debug",
    }
    with running(gateway(models, environment)) as server:
        yield server


def client_with(server: Server, key: str) -> httpx.Client:
    """A client that shows a key as a bearer token."""
    return httpx.Client(base_url=server.url, timeout=30.0, headers={"authorization": f"Bearer {key}"})


CLOSED = (
    ("POST", INFER_URL),
    ("POST", "/v2/models/nobody/infer"),
    ("POST", "/v2/models/sign/feedback"),
    ("GET", "/v2"),
    ("GET", "/v2/models/sign"),
    ("GET", "/v2/models/sign/ready"),
    ("GET", "/v2/models/stats"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/sign/unload"),
    ("POST", "/admin/reload"),
    ("GET", "/admin/canaries"),
    ("POST", "/admin/canaries/sign/promote"),
    ("GET", "/metrics"),
    ("GET", "/events"),
    ("GET", "/page/samples?family=sign"),
    ("GET", "/page/comparison"),
    ("POST", "/classify"),
    ("POST", "/families"),
    ("GET", "/native"),
    ("GET", "/docs.json"),
    ("GET", "/schema.json"),
    ("GET", "/static_content/index.css"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/v2"),
    ("GET", "/page/../metrics"),
    ("GET", "/%6detrics"),
    ("GET", "//metrics"),
)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_nothing_but_health_and_the_empty_page_answers_without_a_key(guarded: Server, method: str, path: str) -> None:
    """Whoever would answer it: 401 in the protocol's error body, with what to send; a wrong key is told the same."""
    missing = httpx.request(method, guarded.url + path)
    wrong = httpx.request(method, guarded.url + path, headers={"x-api-key": INFER + "x"})
    assert [401, 401] == [missing.status_code, wrong.status_code]
    assert missing.content == wrong.content
    assert missing.json()["error"].startswith("a valid API key is needed")
    assert 'Bearer realm="pareto"' == missing.headers["www-authenticate"] == wrong.headers["www-authenticate"]


def test_probes_and_the_files_of_the_page_are_open(guarded: Server) -> None:
    """A probe has no key, and the page has to be there to ask for one."""
    paths = ["/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/page/main.js"]
    assert [200] * len(paths) == [httpx.get(guarded.url + path).status_code for path in paths]


@pytest.mark.parametrize(
    ("key", "may", "may_not"),
    [
        (
            INFER,
            [("GET", "/v2/models/sign"), ("GET", "/native"), ("POST", "/families")],
            ["/metrics", "/admin/canaries"],
        ),
        (READ, [("GET", "/metrics"), ("GET", "/page/samples?family=sign")], ["/v2/models/sign", "/admin/canaries"]),
        (ADMIN, [("GET", "/metrics"), ("GET", "/v2/models/sign"), ("GET", "/admin/canaries")], []),
    ],
)
def test_a_key_opens_what_its_roles_say(
    guarded: Server, key: str, may: list[tuple[str, str]], may_not: list[str]
) -> None:
    """By either header; the rest is 403, which says what is missing; what others may read is not to be stored."""
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        for method, path in may:
            answer = httpx.request(method, guarded.url + path, headers=headers, json={} if method == "POST" else None)
            assert 200 == answer.status_code, path
            if method == "GET":
                assert "no-store" == answer.headers["cache-control"]
        for path in may_not:
            answer = httpx.get(guarded.url + path, headers=headers)
            assert (403, True) == (answer.status_code, "does not have the role" in answer.json()["error"])


def test_pages_of_other_sites_are_answered_where_a_setting_names_them(guarded: Server) -> None:
    """A browser asks first, without the key, and is told the truth; so it is with the answer, and with a refusal."""
    wanted = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-slo-latency-ms",
    }
    allowed, other = (
        httpx.options(guarded.url + INFER_URL, headers={"origin": origin, **wanted})
        for origin in (APP, "https://other.example")
    )
    assert (200, APP) == (allowed.status_code, allowed.headers["access-control-allow-origin"])
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert (400, False) == (other.status_code, "access-control-allow-origin" in other.headers)
    with client_with(guarded, INFER) as client:
        answered = client.post(INFER_URL, json=sign_body(1.0), headers={"origin": APP})
        plain = client.post(INFER_URL, json=sign_body(1.0))
    refused = httpx.post(guarded.url + INFER_URL, headers={"origin": APP})
    assert [200, 401] == [answer.status_code for answer in (answered, refused)]
    assert [APP] * 2 == [answer.headers["access-control-allow-origin"] for answer in (answered, refused)]
    assert "x-variant" in answered.headers["access-control-expose-headers"]
    assert not [name for name in plain.headers if name.startswith("access-control")]


def test_admin_routes_are_on_a_port_of_their_own(guarded: Server, admin_port: int) -> None:
    """There with a key for it, which is named in the log; on the other port not even with that."""
    there = f"http://127.0.0.1:{admin_port}"
    for path in ("/admin/reload", "/v2/repository/models/sign/load"):
        statuses = [
            httpx.post(base + path, headers={"x-api-key": key}, timeout=30.0).status_code
            for base in (there, guarded.url)
            for key in (ADMIN, INFER, "")
        ]
        assert [200, 403, 401, 403, 403, 401] == statuses
    assert 200 == httpx.get(f"{there}/v2/health/ready").status_code
    assert "POST '/v2/repository/models/sign/load' for ops" in guarded.said()


def test_requests_with_a_key_are_answered(guarded: Server) -> None:
    """By the open protocol and by BentoML's client, which takes a token."""
    with client_with(guarded, INFER) as client:
        assert 200 == client.post(INFER_URL, json=sign_body(1.0)).status_code
    with bentoml.SyncHTTPClient(guarded.url, token=INFER) as native:
        assert ["yes"] == native.classify(model="sign", rows=[[1.0, 0.0, 0.0, 0.0]])["labels"]


def test_a_key_of_a_tenant_asks_as_that_tenant_whatever_it_says(guarded: Server) -> None:
    """By each way in, once, the quota is the tenant's, and then it is used up; the tenant named has no part in it."""
    said = {"x-gateway-inference-fairness-id": "rich"}
    body = {"model": "sign", "rows": [[1.0, 0.0, 0.0, 0.0]], "variant": "quick"}
    with client_with(guarded, ADMIN) as watch, client_with(guarded, BOUND) as client:
        before = samples(watch, tenant="rich")
        statuses = [
            client.post(INFER_URL, json=sign_body(1.0), headers=said).status_code,
            client.post("/classify", json=body, headers=said).status_code,
            client.post(INFER_URL, json=sign_body(1.0), headers=said).status_code,
            client.post("/classify", json=body, headers=said).status_code,
        ]
        assert [200, 200, 429, 429] == statuses
        assert (before, 4.0) == (samples(watch, tenant="rich"), samples(watch, tenant="acme"))


def test_a_key_of_a_tenant_judges_its_own_answers_alone(guarded: Server) -> None:
    """Those of others are as unknown as if they had never been; a key of nobody's judges all."""
    told = {"answers": [{"id": "of-a-proxy", "labels": ["yes"]}]}
    url = "/v2/models/sign/feedback"
    with client_with(guarded, INFER) as proxy, client_with(guarded, BOUND) as shop:
        named = {"x-request-id": "of-a-proxy", "x-gateway-inference-fairness-id": "rich"}
        assert 200 == proxy.post(INFER_URL, json=sign_body(1.0), headers=named).status_code
        assert [0, 1] == [one.post(url, json=told).json()["answers"] for one in (shop, proxy)]


def test_refusals_are_counted_by_status_and_role(guarded: Server) -> None:
    """However many keys and paths are tried, there are as many series as roles and statuses."""
    with client_with(guarded, READ) as reader:
        for number in range(30):
            httpx.get(f"{guarded.url}/made-up/{number}", headers={"x-api-key": f"{number}"})
        lines = [
            line for line in reader.get("/metrics").text.splitlines() if line.startswith("pareto_access_refusals_t")
        ]
        assert len(lines) <= 2 * len(Role)
        (counted,) = [line for line in lines if 'role="infer",status="401"' in line]
        assert float(counted.rpartition(" ")[2]) >= 30


def test_keys_are_read_again_on_a_signal(guarded: Server, keys_file: Path, admin_port: int) -> None:
    """A new key gets in and one that is gone does not, without a restart; a file with a fault changes nothing."""
    worker, old, reload = worker_of(guarded), keys_file.read_text(), f"http://127.0.0.1:{admin_port}/admin/reload"

    def status(key: str) -> int:
        with client_with(guarded, key) as client:
            return client.get("/v2/models/sign").status_code

    try:
        keys_file.write_text(old.replace(INFER, LATER))
        worker.send_signal(signal.SIGHUP)
        eventually(lambda: status(LATER) == 200, "the new key gets in")
        assert 401 == status(INFER)
        keys_file.write_text("asker short")
        fault = httpx.post(reload, headers={"x-api-key": ADMIN})
        assert (400, True) == (fault.status_code, "line 1: expected as the secret" in fault.json()["error"])
        assert 200 == status(LATER)
    finally:
        keys_file.write_text(old)
        assert "API keys" in httpx.post(reload, headers={"x-api-key": ADMIN}).json()["applied"]


def test_no_secret_is_told_anywhere(guarded: Server, collector: Collector) -> None:
    """Neither in logs, nor in traces, nor in metrics, nor in any answer; nor is what was tried."""
    tried = "tried-0123456789abcdef"
    with client_with(guarded, ADMIN) as client:
        answers = [client.get(path) for path in ("/metrics", "/v2", "/docs.json", "/admin/canaries", "/nowhere")]
        answers += [client.post(INFER_URL, json=sign_body(1.0), headers={"x-request-id": "traced"})]
        answers += [client.post(path, content=b"{") for path in (INFER_URL, "/classify", "/admin/reload")]
    answers += [httpx.get(guarded.url + "/v2", headers={"x-api-key": tried})]
    with client_with(guarded, READ) as client, client.stream("GET", "/events") as events:
        told = next(events.iter_text())
    eventually(lambda: "traced" in str(collector.spans), "the request is traced")
    eventually(lambda: "traced: sign/quick served" in guarded.said(), "the request is in the access log")
    log = guarded.said()
    everything = log + told + str(collector.spans) + "".join(answer.text + str(answer.headers) for answer in answers)
    digests = [sha256(key.encode()).hexdigest() for key in (INFER, BOUND, READ, ADMIN)]
    secrets = (INFER, BOUND, READ, ADMIN, LATER, tried, *digests)
    assert [] == [secret for secret in secrets if secret in everything]


@pytest.mark.parametrize(
    ("keyless", "expected"),
    [("metrics", [200, 401, 401]), ("page", [401, 200, 401]), ("metrics,page", [200, 200, 401])],
)
def test_what_may_be_read_without_a_key_is_a_setting(keyless: str, expected: list[int]) -> None:
    """Metrics, what the page shows, or both; inference never."""
    opened = open_paths(keyless.split(","))
    found = [200 if path in opened else 401 for path in ("/metrics", "/events", INFER_URL)]
    assert expected == found


def test_a_server_with_a_fault_in_its_keys_does_not_start(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pareto serve` says in one line what is wrong where, and exits with 2."""
    path = tmp_path / "keys"
    path.write_text("asker short")
    monkeypatch.setenv("PARETO_KEYS_FILE", str(path))
    assert 2 == cli.run(["serve", "--models", str(models), "--port", str(free_port())])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pareto: {path}: line 1: expected as the secret")
