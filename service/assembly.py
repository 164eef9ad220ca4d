"""What stands on a replica's scheduler, put together: its driver, where batches run, and who observes them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from router.scheduler import Scheduler
from router.words import Reason
from service.audits import Audits
from service.correction import Believe, Correction, believe_at_once
from service.dispatcher import Dispatcher
from service.hidden_families import Unmasked
from service.loaded_family import LoadedFamily
from service.memory import budget_bytes
from service.observers import Observer
from service.probing import ThreadProbe
from service.residency import Residency
from service.runner import BatchRunner, slots_of_threads
from service.spare_time import SpareTime

if TYPE_CHECKING:
    from service.gateway import Gateway
    from service.traces import Traces


class Assembly(NamedTuple):
    """The parts of a replica that need its scheduler; `None` where the settings want none."""

    dispatcher: Dispatcher
    residency: Residency | None
    correction: Correction | None
    audits: Audits | None
    traces: Traces | None


def assemble(
    gateway: Gateway, scheduler: Scheduler, loaded: dict[str, LoadedFamily], slot_cores: Sequence[int | None]
) -> Assembly:
    """What drives the scheduler, and those who observe it, on the running event loop.

    `loaded` becomes the gateway's families, and changes in place; `slot_cores` has the core of each slot.
    """
    # As `gateway.families`, and the revisions on trial under their hidden names; both change in place.
    settings, families = gateway.settings, ChainMap(loaded, gateway.canaries.families)
    runner, processes = BatchRunner(families, gateway.marker), gateway.processes
    cores: list[tuple[int, ...]] = [() if core is None else (core,) for core in slot_cores]
    if settings.devices:
        cores = [settings.devices[slot.device].cores for slot in settings.places]
    residency, traces = None, None
    by_model: list[Observer] = [gateway.metrics, gateway.statistics, gateway.access_log, gateway.breakages]
    observers: list[Observer] = [Unmasked(by_model)]
    if settings.memory_budget is not None:
        budget = budget_bytes(settings.memory_budget)
        residency = Residency(gateway.pieces, budget, settings.pinned, len(slot_cores), gateway.reader.footprint)
        residency.changed = gateway.changed
        observers.append(residency)
    if gateway.feed is not None:
        by_model.append(gateway.feed)
    if settings.traces_endpoint is not None:
        # Here, because the exporter is of an extra, and loads a client for HTTP.
        from service.traces import Traces  # noqa: PLC0415 - see above

        traces = Traces(settings.traces_endpoint, gateway.label)
        by_model.append(traces)
    dispatcher = Dispatcher(
        scheduler,
        runner,
        slots_of_threads(runner, cores) if processes is None else processes.slots(families, settings.places, cores),
        observers,
        inline_below_s=settings.inline_below_s if processes is None else 0.0,
        probe=ThreadProbe(families, gateway.reader.repository, gateway.marker),
        told=gateway.breakages.told,
    )
    correction, audits = None, None
    if settings.correct_quality:
        believe: Believe = partial(believe_at_once, scheduler, dispatcher.tell, gateway.measured)
        if residency is not None:
            believe = residency.believe
        correction = Correction(gateway.quality, gateway.measured, believe)
    if settings.audit_share > 0.0:
        audits = Audits(
            settings.audit_share,
            gateway.quality,
            gateway.for_spare_time,
            dispatcher.submit,
            dispatcher.cancel,
            gateway.next_id,
            gateway.label,
            compared=correction.compared if correction is not None else None,
        )
    gateway.canaries.begin(SpareTime(dispatcher.submit, dispatcher.cancel, gateway.next_id))
    _tell_of_crashes(gateway, scheduler, dispatcher, loaded)
    return Assembly(dispatcher, residency, correction, audits, traces)


def _tell_of_crashes(
    gateway: Gateway, scheduler: Scheduler, dispatcher: Dispatcher, loaded: dict[str, LoadedFamily]
) -> None:
    """Let the scheduler know of the variants that ended the process before."""
    for crashed in () if gateway.marker is None else gateway.marker.crashed:
        family = scheduler.families.get(crashed.family)
        if family is None or family.revision != crashed.revision:
            continue
        # What is refused answers nobody anyway, and there is nothing of it to probe.
        if crashed.variant not in loaded[family.name].refused:
            strike = partial(scheduler.strike, family.name, crashed.variant, Reason.CRASHED, crashed.times)
            dispatcher.tell(partial(strike, certain=crashed.is_certain))
