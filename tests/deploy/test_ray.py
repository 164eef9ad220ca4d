"""The gateway as an application of Ray Serve, on a real cluster of three raylets, one of which is killed."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from loadtests.namespaces import NamespaceError
from tests.deploy.ray_cluster import BIN, Cluster, cluster, wait_until
from tests.service.conftest import sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository

REPLICAS = 2
CALLERS = 6
ROWS = 6
"""Of a request, some hundred milliseconds: callers wait in both replicas nearly always, so who is killed holds some."""
ATTEMPTS = 50
PAUSE_S = 0.02
SLOW = "/v2/models/sign/versions/slow/infer"


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not (BIN / "ray").exists():
        pytest.skip("Ray is not installed: make clients")
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_family(repository, "sign", {"quick": (sign_model(), 0.8), "slow": (sign_model(300), 0.9)})
    # Ray's sockets are in it, whose paths have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        with cluster(2, folder) as running:
            running.serve({"PARETO_MODELS": str(repository.root), "PARETO_ACCESS_LOG_SHARE": "1"})
            wait_until(
                lambda: running.count() == REPLICAS and is_ready(running.proxies[0]),
                "all replicas are ready",
                running.serving,
            )
            yield running
    except NamespaceError as error:
        pytest.skip(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Callers:
    """Callers that try again, elsewhere, what failed. `answered` has the ids of what was answered in the end.

    `broken` counts attempts that ended without an answer or with an error; not those that found no connection.
    """

    def __init__(self, proxies: list[str]) -> None:
        self._proxies = proxies
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS)
        self.answered: list[str] = []
        self.given_up: list[str] = []
        self.broken: Counter[str] = Counter()
        self._callers = [self._pool.submit(self._call, number) for number in range(CALLERS)]

    def stop(self) -> None:
        """Returns once all have their last answer."""
        self._stop.set()
        self._pool.shutdown()
        for caller in self._callers:
            caller.result()

    def _call(self, caller: int) -> None:
        with httpx.Client(timeout=30.0) as client:
            number = 0
            while not self._stop.wait(PAUSE_S):
                name = f"call-{caller}-{number}"
                succeeded = any(self._ask(client, name, caller + number + attempt) for attempt in range(ATTEMPTS))
                (self.answered if succeeded else self.given_up).append(name)
                number += 1

    def _ask(self, client: httpx.Client, name: str, turn: int) -> bool:
        proxy = self._proxies[turn % len(self._proxies)]
        try:
            answer = client.post(f"{proxy}{SLOW}", json=sign_body(*[1.0] * ROWS), headers=_headers(name))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return False
        except httpx.TransportError as error:
            self.broken[type(error).__name__] += 1
            return False
        if answer.status_code != 200:
            self.broken[f"{answer.status_code} {answer.text[:200]}"] += 1
        return answer.status_code == 200


def test_a_killed_node_takes_no_request_and_no_replica_with_it(ray: Cluster) -> None:
    """Replicas are spread; a node is killed under load: who tries again sees no error, and two replicas serve again."""
    assert [1, 1] == [ray.replicas(node) for node in ray.nodes]
    callers = Callers(ray.proxies)
    try:
        wait_until(lambda: len(callers.answered) > 2 * CALLERS, "requests flow", ray.serving)
        before = _answering(ray)
        ray.nodes[0].kill()
        wait_until(lambda: ray.replicas(ray.nodes[1]) == REPLICAS, "the other node has both replicas", ray.serving)
        wait_until(lambda: bool(_answering(ray) - before), "the new one answers", ray.serving)
    finally:
        callers.stop()
    assert [] == callers.given_up
    assert callers.broken.total() <= CALLERS, callers.broken
    assert set(callers.answered) <= {name for names in ray.answered().values() for name in names}


def test_what_was_accepted_is_answered_before_replicas_end(ray: Cluster) -> None:
    """Whoever waits when the application is deleted gets an answer, and the replicas end."""
    at_once, answers = 2 * REPLICAS, list[Future[int]]()
    with ray.operator() as delete, ThreadPoolExecutor(at_once) as pool:

        def accepted() -> bool:
            """Whether requests wait at a replica. Where all were answered before that was seen, others are sent."""
            if all(answer.done() for answer in answers):
                names = [f"last-{len(answers) + number}" for number in range(at_once)]
                answers.extend(pool.submit(_ask_slowly, ray.proxies[0], name, 2 * ROWS) for name in names)
            return _unfinished(ray.proxies[0]) > 0

        wait_until(accepted, "requests are accepted", ray.serving)
        delete()
        assert {200} == {answer.result() for answer in answers}
    wait_until(lambda: ray.count() == 0, "the replicas have ended", ray.head)


def _answering(ray: Cluster) -> set[str]:
    """The logs of the replicas that have answered something."""
    return {name for name, ids in ray.answered().items() if ids}


def _ask_slowly(proxy: str, name: str, rows: int) -> int:
    body = sign_body(*[1.0] * rows)
    return httpx.post(f"{proxy}{SLOW}", json=body, headers=_headers(name), timeout=60.0).status_code


def _headers(name: str) -> dict[str, str]:
    """Of a request that has this id and no SLO: a busy machine refuses it not."""
    return {"x-request-id": name, "x-gateway-inference-objective": "batch"}


def _unfinished(proxy: str) -> float:
    """Requests without an outcome at some replica."""
    text = httpx.get(f"{proxy}/metrics", timeout=30.0).text
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("pareto_unfinished_requests "))


def is_ready(proxy: str) -> bool:
    try:
        return httpx.get(f"{proxy}/v2/health/ready", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False
