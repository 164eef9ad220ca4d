"""A memory budget beside devices: a variant comes to all of them and goes from all, and the budget holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import httpx
import pytest

from loadtests.servers import gateway, running
from router.contract import Spell
from router.words import Reason
from service.footprint import OWN, Footprint, OwnFootprint
from service.loading import Device
from service.model_sizes import is_table
from service.piecewise import Opened, PiecewiseFamily
from service.probing import ThreadProbe
from tests.service.conftest import samples, sign_body
from tests.service.families import looking_up, share_family, sign_model, write_chain, write_family
from tests.service.test_lifecycle import gauge
from tests.service.test_residency import bulky_model, sum_of
from variants.manifest import ModelFile
from variants.profiles import load_profile
from variants.repository import Repository, RevisionFolder
from variants.session import ModelLoadError, Session, SessionClosedError, SessionOptions, open_file
from variants.tables import tables_bytes

FAMILIES = 5
DEVICES = (Device("wide", SessionOptions(threads=2)), Device("narrow", SessionOptions(threads=1, slots=2)))
SETTINGS = {"PARETO_DEVICES": '{"narrow": {"threads": 1}, "wide": {"threads": 2}}'}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """`pair` has two variants, `chain` two exits of one network, `alike` two variants with the same table."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_family(repository, "pair", {"quick": (sign_model(), 0.8), "slow": (sign_model(1), 0.9)})
    write_chain(repository, "chain")
    write_family(repository, "alike", {"small": (looking_up(1.0), 0.8), "large": (looking_up(2.0), 0.9)})
    share_family(repository, "alike")
    return repository


def piece(
    repository: Repository, name: str, devices: Sequence[Device] = DEVICES, footprint: Footprint = OWN
) -> PiecewiseFamily:
    """The family as a gateway with these devices has it, nothing in memory."""
    return PiecewiseFamily(
        repository,
        name,
        SessionOptions(),
        None,
        stages="auto",
        cascades=True,
        footprint=footprint,
        devices=devices,
    )


def load(family: PiecewiseFamily, variant: str) -> None:
    family.hold(variant, family.open(variant))


def test_a_variant_comes_to_all_devices_and_goes_from_all(repository: Repository) -> None:
    """Each has sessions of its own; none runs any more once the variant is dropped."""
    family = piece(repository, "pair")
    load(family, "quick")
    wide, narrow = (family.loaded.paths_on(name)["quick"][0] for name in ("wide", "narrow"))
    assert wide is not narrow
    assert family.loaded.paths is family.loaded.paths_on("wide")
    family.drop("quick")
    assert [{}, {}] == [family.loaded.paths_on(name) for name in ("wide", "narrow")]
    for session in (wide, narrow):
        with pytest.raises(SessionClosedError):
            session.run({})


def test_stages_are_shared_on_each_device(repository: Repository) -> None:
    """The second exit goes on in the sessions of the first one, which stay open for it."""
    family = piece(repository, "chain")
    for variant in ("small", "large"):
        load(family, variant)
    for device in ("wide", "narrow"):
        paths = family.loaded.paths_on(device)
        assert paths["small"][0] is paths["large"][0]
    first = {family.loaded.paths_on(device)["large"][0] for device in ("wide", "narrow")}
    assert 2 == len(first)
    family.drop("small")
    assert all(session.input_names == ("x",) for session in first)
    for device in ("wide", "narrow"):
        family.loaded.paths_on(device)["large"][0].run({"x": repository.open("chain").samples()["x"][:1]})


def test_a_variant_that_one_device_refuses_is_in_memory_on_none(repository: Repository) -> None:
    """It is refused by name, what was opened of it before is closed, and the other variant serves on both."""
    opened: list[Session] = []

    def open_one(folder: RevisionFolder, file: ModelFile, options: SessionOptions) -> Session:
        if options.threads == 1 and file.path.startswith("slow"):
            raise ModelLoadError("it does not like to be alone")
        opened.append(open_file(folder, file, options))
        return opened[-1]

    # Its profiles are there from then on.
    piece(repository, "pair")
    family = piece(repository, "pair", footprint=OwnFootprint(open_one))
    with pytest.raises(ModelLoadError, match="it does not like to be alone"):
        family.open("slow")
    assert {"slow": "it does not like to be alone"} == family.refused
    (session,) = opened
    with pytest.raises(SessionClosedError):
        session.run({})
    load(family, "quick")
    assert [["quick"]] * 2 == [list(family.loaded.paths_on(name)) for name in ("wide", "narrow")]
    assert [0] == list(family.loadable())


def test_what_a_variant_takes_is_counted_for_all_devices(repository: Repository) -> None:
    """The model once for each, as its profile there says, and a lookup table once."""
    family, alone = piece(repository, "alike"), piece(repository, "alike", ())
    folder = repository.open("alike")
    profiles = [load_profile(folder, threads) for threads in (2, 1)]
    (table,) = (size for file, size in alone.sizes(0).items() if is_table(file))
    name = family.loaded.family.variants[0].name
    graph = f"alike/graphs/{name}.onnx"
    least = folder.size_bytes(f"graphs/{name}.onnx") - table
    assert table == sum(size for file, size in family.sizes(0).items() if is_table(file))
    assert family.bytes[graph] == sum(
        max(profile.variants[name].memory_bytes - table, least) for profile in profiles if profile is not None
    )
    assert family.bytes[graph] >= 2 * least
    before = tables_bytes()
    load(family, name)
    assert table == tables_bytes() - before
    family.drop(name)


def test_each_device_has_its_latencies(repository: Repository) -> None:
    """From the profile of its threads, whatever is in memory."""
    variants = piece(repository, "pair").family().variants
    assert [("narrow",)] * 2 == [tuple(name for name, _ in variant.elsewhere) for variant in variants]
    assert all(variant.on("narrow") is not variant.latency for variant in variants)


def test_a_probe_tries_a_variant_on_all_devices(repository: Repository) -> None:
    """Where it breaks on the second one alone, it does not answer there again."""

    class Broken:
        def run(self, _: object) -> None:
            raise ValueError("not here")

    family = piece(repository, "pair")
    load(family, "quick")
    loaded = family.loaded
    spell = Spell(1, "pair", loaded.family.revision, "quick", Reason.EXECUTOR_ERROR, 1, 0.0)

    def probed() -> Reason | None:
        return asyncio.run(ThreadProbe({"pair": loaded}, repository)(spell))

    assert probed() is None
    family.hold("quick", Opened({"wide": loaded.paths["quick"], "narrow": (cast(Session, Broken()),)}, 0.0))
    assert Reason.EXECUTOR_ERROR is probed()


def test_a_tight_budget_moves_families_in_and_out_of_both_devices(tmp_path: Path) -> None:
    """With room for few, all are answered in turn and by both devices, and resident memory stays below."""
    repository = Repository(tmp_path)
    for number in range(FAMILIES):
        write_family(repository, f"f{number}", {"quick": (bulky_model(), 0.8), "slow": (bulky_model(30), 0.9)})
    roomy = {**SETTINGS, "PARETO_MEMORY_BUDGET": "8GiB"}
    with running(gateway(tmp_path, roomy)):
        # Profiles of both widths are taken once.
        pass
    with running(gateway(tmp_path, roomy)) as server, httpx.Client(base_url=server.url, timeout=60.0) as client:
        for number in range(FAMILIES):
            for variant in ("quick", "slow"):
                path = f"/v2/models/f{number}/versions/{variant}/infer"
                assert 200 == client.post(path, json=sign_body(1.0)).status_code
        empty = gauge(client, "pareto_memory_resident_bytes") - sum_of(client, "pareto_model_bytes")
        each = sum_of(client, "pareto_model_bytes") / FAMILIES
    budget = int(empty + 2.5 * each)
    settings = {**SETTINGS, "PARETO_MEMORY_BUDGET": str(budget)}
    with running(gateway(tmp_path, settings)) as server, httpx.Client(base_url=server.url, timeout=60.0) as client:
        devices: set[str] = set()

        def ask(path: str) -> tuple[int, str]:
            answer = client.post(path, json=sign_body(1.0), headers={"x-slo-latency-ms": "30000"})
            devices.add(answer.headers.get("x-device", ""))
            return answer.status_code, answer.json()["outputs"][0]["data"][0]

        with ThreadPoolExecutor(6) as callers:
            for _ in range(2):
                for number in range(FAMILIES):
                    for variant in ("", "/versions/slow"):
                        path = f"/v2/models/f{number}{variant}/infer"
                        assert [(200, "yes")] * 6 == list(callers.map(ask, [path] * 6))
                        assert gauge(client, "pareto_memory_resident_bytes") < 1.03 * budget
        assert {"wide", "narrow"} == devices
        assert 0 < gauge(client, "pareto_model_evictions_total")
        assert 2 * 2 * FAMILIES * 6 == samples(client)
