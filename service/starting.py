"""How a replica comes up: its families are read, then the scheduler and all that stands on it are there.

It takes seconds, off the event loop where it can, and may be over before its end: a signal ends the loading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from router.policies import LAZY
from router.quotas import Quotas
from router.scheduler import Scheduler
from service.assembly import assemble
from service.executor_advice import tell_executors
from service.interpreter import settle_interpreter
from service.loaded_family import LoadedFamily
from service.outer_loop import outer_loop_of
from service.pinning import PinningError, check_cores, core_of_slots, leave_to_slots
from service.processes.isolation import Processes
from service.residency import Residency
from variants.repository import RepositoryError

if TYPE_CHECKING:
    from service.gateway import Gateway


class UnservableError(Exception):
    """What the settings want cannot be served. The message is one line."""


async def read_families(gateway: Gateway) -> dict[str, LoadedFamily]:
    """The families of the repository, read on a thread; the fault of each that cannot be is among the problems."""
    try:
        # First, because models are opened, and measured, on the cores of their device.
        for device, own in gateway.settings.devices.items():
            check_cores(device, own.cores)
        if gateway.settings.isolation == "processes":
            gateway.processes = Processes(gateway.settings.slot_cores)
            gateway.reader.footprint = gateway.processes.footprint
        # A thread of its own: the default pool's threads must start after the slots have got their cores.
        with ThreadPoolExecutor(1, "loading") as loading:
            return await asyncio.get_running_loop().run_in_executor(
                loading, gateway.reader.read_all, gateway.pieces, gateway.problems
            )
    except PinningError as error:
        gateway.problems["gateway"] = str(error)
    except (RepositoryError, OSError) as error:
        gateway.problems["repository"] = str(error)
    return {}


async def bring_up(gateway: Gateway, loaded: dict[str, LoadedFamily]) -> None:
    """Give a gateway these families, its scheduler and all that stands on it; it stops where the loading has ended.

    Raises `UnservableError`.
    """
    settings = gateway.settings
    _check_policy(settings.policy, loaded)
    try:
        slot_cores = core_of_slots(settings.slot_cores, settings.slot_count)
    except PinningError as error:
        raise UnservableError(str(error)) from error
    leave_to_slots(settings.slot_cores)
    # Off the event loop: with many families the tables of a policy take a second.
    gateway.scheduler = scheduler = await asyncio.to_thread(
        Scheduler,
        [gateway.pieces[name].family() if name in gateway.pieces else loaded[name].family for name in loaded],
        settings.places,
        gateway.policy,
        settings.limits,
        {name: settings.margin_of(name) for name in loaded},
        gateway.tenants.shares,
        Quotas(gateway.tenants.quotas, gateway.tenants.quota_of_others),
        fair=settings.fair_shares,
    )
    if not gateway.is_loading():
        return
    parts = assemble(gateway, scheduler, loaded, slot_cores)
    gateway.dispatcher, gateway.residency, gateway.correction, gateway.audits, gateway.traces = parts
    if gateway.processes is not None and not await gateway.processes.are_up():
        raise UnservableError("isolation: the processes of the slots do not come up; the log says why")
    if not gateway.is_loading():
        return
    gateway.families = loaded
    gateway.metrics.expect_slos(slo_s for name in loaded if (slo_s := gateway.defaults(name).slo_s) is not None)
    for name, family in loaded.items():
        gateway.statistics.expect(name, [variant.name for variant in family.family.variants])
    tell_executors(settings, loaded)
    settle_interpreter(settings.switch_interval_s)
    if parts.residency is not None:
        parts.residency.begin(scheduler, parts.dispatcher.tell)
        await parts.residency.tell_of_room()
        await _load_pinned(gateway, parts.residency)
        if not gateway.is_loading():
            return
    if parts.correction is not None:
        parts.correction.begin()
    gateway.outer_loop = outer_loop_of(gateway)
    if gateway.outer_loop is not None:
        gateway.outer_loop.start()


def _check_policy(policy: str, loaded: Mapping[str, LoadedFamily]) -> None:
    named = policy.partition("fixed:")[2].removesuffix(LAZY)
    if named and all(family.family.index(named) is None for family in loaded.values()):
        raise UnservableError(f"policy {policy!r}: no family that is served has a variant {named!r}")


async def _load_pinned(gateway: Gateway, residency: Residency) -> None:
    for name in residency.room.pinned & gateway.families.keys():
        if gateway.is_loading():
            await residency.load_first(name)
