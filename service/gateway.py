"""One replica put together: families loaded, one scheduler, its driver, its observers, and its life."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from router.agreement import Rules
from router.contract import Hints
from router.family import Family
from router.policies import LAZY, policy_named
from router.quotas import Quotas
from router.scheduler import Scheduler
from router.view import CascadePolicy, Policy
from router.words import Reason
from service.access import Access
from service.access_log import AccessLog
from service.audits import Audits
from service.breakages import Breakages
from service.canaries import Canaries
from service.connections import Connections
from service.correction import Believe, Correction, believe_at_once
from service.crash_marker import CrashMarker
from service.dispatcher import Dispatcher, Observer
from service.executor_advice import tell_executors
from service.feedback import Feedback
from service.hidden_families import Unmasked, hinted, model_of
from service.intake import Intake
from service.interpreter import settle_interpreter
from service.key_file import read_keys
from service.live_quality import LiveQuality
from service.loading import LoadedFamily, cannot_be_loaded
from service.memory import budget_bytes
from service.metrics import Metrics
from service.oip.errors import ProtocolError
from service.oip.terms import TermDefaults
from service.outer_loop import OuterLoopReader, outer_loop_of
from service.page.feed import Feed
from service.piecewise import PiecewiseFamily
from service.pinning import PinningError, check_cores, core_of_slots, leave_to_slots
from service.probing import ThreadProbe
from service.processes.isolation import Processes
from service.reading import FamilyReader
from service.residency import Residency
from service.runner import BatchRunner, slots_of_threads
from service.settings import Settings
from service.spare_time import SpareTime
from service.statistics import Statistics
from service.tenants import Tenants
from variants.repository import RepositoryError

if TYPE_CHECKING:
    from service.traces import Traces

logger = logging.getLogger("pareto.gateway")


class Phase(Enum):
    """Where a replica is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    BROKEN = "broken"


class _UnservableError(Exception):
    """What the settings want cannot be served. The message is one line."""


class Gateway:
    """Loads what the settings name and answers requests until it is drained.

    `policy` stands in for the one that the settings name. A `marker` knows which variants ended the process before.
    `families` is empty until `phase` is READY. `problems` maps a family that could not be loaded to its fault.
    """

    def __init__(self, settings: Settings, policy: Policy | None = None, marker: CrashMarker | None = None) -> None:
        self.settings = settings
        self._marker = marker
        self._policy = policy or policy_named(settings.policy)
        self.phase = Phase.LOADING
        self.leaving = False
        """Whether it is about to end: requests may still be taken, but load balancers are to send no more."""
        self.families: dict[str, LoadedFamily] = {}
        self.problems: dict[str, str] = {}
        cascades = isinstance(self._policy, CascadePolicy)
        self.reader = FamilyReader(lambda: self.settings, cascades=cascades, marker=marker)
        self.tenants = Tenants(settings)
        self.access = Access(read_keys(settings.keys_file))
        ports = [settings.port, settings.admin_port, settings.grpc_port]
        self.connections = Connections(settings.max_connections, sum(port is not None for port in ports))
        self.quality = LiveQuality(Rules(settings.quality_window_s, settings.drift_margin, settings.drift_s))
        self.feedback = Feedback(settings.feedback_bytes, settings.feedback_s, settings.quality_window_s)
        self.canaries = Canaries(self)
        self.breakages = Breakages(self.canaries.broke)
        self.correction: Correction | None = None
        self.audits: Audits | None = None
        self.traces: Traces | None = None
        self._access_log = AccessLog(lambda: self.settings, self.label)
        self.metrics = Metrics(self)
        self.statistics = Statistics()
        self.feed = Feed(self) if settings.page else None
        self.scheduler: Scheduler | None = None
        self.residency: Residency | None = None
        self.outer_loop: OuterLoopReader | None = None
        self.dispatcher: Dispatcher | None = None
        self._processes: Processes | None = None
        self.intake = Intake(self)
        self._defaults: dict[str, TermDefaults] = {}
        self._pieces: dict[str, PiecewiseFamily] = {}
        self.next_id = itertools.count(1).__next__

    async def start(self) -> None:
        """Load the families off the event loop, then take requests. Sets BROKEN where none can be loaded."""
        settings = self.settings
        started_s = monotonic()
        loaded = await self._read()
        if not self._is_loading():
            return
        if not loaded:
            self.phase = Phase.BROKEN
            logger.error("nothing to serve: %s", "; ".join(self.problems.values()) or f"{settings.models} is empty")
            return
        try:
            self._check_policy(loaded)
            slot_cores = core_of_slots(settings.slot_cores, settings.slot_count)
        except (PinningError, _UnservableError) as error:
            self._nothing_is_served(str(error))
            return
        leave_to_slots(settings.slot_cores)
        # Off the event loop: with many families the tables of a policy take a second.
        self.scheduler = await asyncio.to_thread(
            Scheduler,
            [self._pieces[name].family() if name in self._pieces else loaded[name].family for name in loaded],
            settings.places,
            self._policy,
            settings.limits,
            {name: settings.margin_of(name) for name in loaded},
            self.tenants.shares,
            Quotas(self.tenants.quotas, self.tenants.quota_of_others),
            fair=settings.fair_shares,
        )
        if not self._is_loading():
            return
        self.dispatcher = self._driven(self.scheduler, loaded, slot_cores)
        if self._processes is not None and not await self._processes.are_up():
            self._nothing_is_served("isolation: the processes of the slots do not come up; the log says why")
        if not self._is_loading():
            return
        self.families = loaded
        self.metrics.expect_slos(slo_s for name in loaded if (slo_s := self.defaults(name).slo_s) is not None)
        for name, family in loaded.items():
            self.statistics.expect(name, [variant.name for variant in family.family.variants])
        tell_executors(settings, loaded)
        settle_interpreter(settings.switch_interval_s)
        if self.residency is not None:
            self.residency.begin(self.scheduler, self.dispatcher.tell)
            await self._load_pinned(self.residency)
            if not self._is_loading():
                return
        if self.correction is not None:
            self.correction.begin()
        self.outer_loop = outer_loop_of(self)
        if self.outer_loop is not None:
            self.outer_loop.start()
        self.phase = Phase.READY
        logger.info("ready: %s (%.1f s)", ", ".join(loaded), monotonic() - started_s)

    async def _read(self) -> dict[str, LoadedFamily]:
        """The families of the repository, read on a thread; the fault of each that cannot be is among the problems."""
        try:
            # First, because models are opened, and measured, on the cores of their device.
            for device, own in self.settings.devices.items():
                check_cores(device, own.cores)
            if self.settings.isolation == "processes":
                self._processes = Processes(self.settings.slot_cores)
                self.reader.open_one = self._processes.open_one
            # A thread of its own: the default pool's threads must start after the slots have got their cores.
            with ThreadPoolExecutor(1, "loading") as loading:
                return await asyncio.get_running_loop().run_in_executor(
                    loading, self.reader.read_all, self._pieces, self.problems
                )
        except PinningError as error:
            self.problems["gateway"] = str(error)
        except (RepositoryError, OSError) as error:
            self.problems["repository"] = str(error)
        return {}

    def _check_policy(self, loaded: Mapping[str, LoadedFamily]) -> None:
        policy = self.settings.policy
        named = policy.partition("fixed:")[2].removesuffix(LAZY)
        if named and all(family.family.index(named) is None for family in loaded.values()):
            raise _UnservableError(f"policy {policy!r}: no family that is served has a variant {named!r}")

    def _nothing_is_served(self, problem: str) -> None:
        self.broke(problem)
        logger.error("nothing to serve: %s", problem)

    def _driven(
        self, scheduler: Scheduler, loaded: dict[str, LoadedFamily], slot_cores: Sequence[int | None]
    ) -> Dispatcher:
        """What drives the scheduler, and those who observe it."""
        # As `self.families`, and the revisions on trial under their hidden names; both change in place.
        settings, families = self.settings, ChainMap(loaded, self.canaries.families)
        runner, processes = BatchRunner(families, self._marker), self._processes
        cores: list[tuple[int, ...]] = [() if core is None else (core,) for core in slot_cores]
        if settings.devices:
            cores = [settings.devices[slot.device].cores for slot in settings.places]
        observers: list[Observer] = [Unmasked(self.metrics), Unmasked(self.statistics), Unmasked(self._access_log)]
        observers.append(Unmasked(self.breakages))
        if settings.memory_budget is not None:
            budget = budget_bytes(settings.memory_budget)
            self.residency = Residency(self._pieces, budget, settings.pinned, len(slot_cores))
            observers.append(self.residency)
        if self.feed is not None:
            observers.append(Unmasked(self.feed))
        if settings.traces_endpoint is not None:
            # Here, because the exporter is of an extra, and loads a client for HTTP.
            from service.traces import Traces  # noqa: PLC0415 - see above

            self.traces = Traces(settings.traces_endpoint, self.label)
            observers.append(Unmasked(self.traces))
        dispatcher = Dispatcher(
            scheduler,
            runner,
            slots_of_threads(runner, cores) if processes is None else processes.slots(families, slot_cores),
            observers,
            inline_below_s=settings.inline_below_s if processes is None else 0.0,
            probe=ThreadProbe(families, self.reader.repository, self._marker),
            told=self.breakages.told,
        )
        if settings.correct_quality:
            believe: Believe = partial(believe_at_once, scheduler, dispatcher.tell, self._measured)
            if self.residency is not None:
                believe = self.residency.believe
            self.correction = Correction(self.quality, self._measured, believe)
        if settings.audit_share > 0.0:
            self.audits = Audits(
                settings.audit_share,
                self.quality,
                self.for_spare_time,
                dispatcher.submit,
                dispatcher.cancel,
                self.next_id,
                self.label,
                compared=self.correction.compared if self.correction is not None else None,
            )
        self.canaries.begin(SpareTime(dispatcher.submit, dispatcher.cancel, self.next_id))
        for crashed in () if self._marker is None else self._marker.crashed:
            family = scheduler.families.get(crashed.family)
            if family is None or family.revision != crashed.revision:
                continue
            # What is refused answers nobody anyway, and there is nothing of it to probe.
            if crashed.variant not in loaded[family.name].refused:
                strike = partial(scheduler.strike, family.name, crashed.variant, Reason.CRASHED, crashed.times)
                dispatcher.tell(partial(strike, certain=crashed.is_certain))
        return dispatcher

    async def _load_pinned(self, residency: Residency) -> None:
        for name in residency.appraisal.pinned & self.families.keys():
            if self._is_loading():
                await residency.load_first(name)

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.phase is Phase.READY

    @property
    def is_welcoming(self) -> bool:
        """What whoever asks for readiness is told: whether load balancers are to send requests."""
        return self.phase is Phase.READY and not self.leaving

    def _is_loading(self) -> bool:
        """To be asked after each pause of `start`: a signal may have ended the loading meanwhile."""
        return self.phase is Phase.LOADING

    def broke(self, problem: str) -> None:
        """Loading failed in a way nobody foresaw."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.BROKEN
        self.problems["gateway"] = problem

    async def drain(self) -> None:
        """Refuse new requests, let the accepted ones finish, then fail what is left after the drain time."""
        self.phase = Phase.DRAINING
        if self.dispatcher is None:
            self._close()
            return
        self._stop_spare_time()
        if not await self.dispatcher.drained(self.settings.drain_s):
            logger.error("drain: requests left after %.1f s are failed", self.settings.drain_s)
        self._close()
        if self.traces is not None:
            await self.traces.close()
        await asyncio.to_thread(self._access_log.close)

    def abandon(self) -> None:
        """Fail what is left, at once: somebody does not want to wait for the drain."""
        self.phase = Phase.DRAINING
        self._stop_spare_time()
        self._close()

    def _stop_spare_time(self) -> None:
        self.canaries.stop()
        if self.audits is not None:
            self.audits.stop()

    def _close(self) -> None:
        if self.correction is not None:
            self.correction.stop()
        self.canaries.close()
        if self.outer_loop is not None:
            self.outer_loop.stop()
        if self.dispatcher is not None:
            self.dispatcher.close()
        if self.residency is not None:
            self.residency.stop()
        if self._processes is not None:
            self._processes.stop()
        if self._marker is not None:
            self._marker.remove()

    def for_spare_time(self, family: str) -> Family | None:
        """A family as work in spare time may ask it; none while its requests are held."""
        scheduler = self.scheduler
        return None if scheduler is None or self.intake.is_held(family) else scheduler.families.get(family)

    def _measured(self, family: str) -> Family | None:
        """A family that is served, as it was measured."""
        loaded = self.families.get(family)
        return None if loaded is None else loaded.family

    def label(self, tenant: str) -> str:
        """A tenant in metrics, as the settings are now."""
        return self.tenants.label(tenant)

    def loaded(self, family: str) -> LoadedFamily:
        """The family of that name. Raises `ProtocolError` 404 for an unknown one, 503 while none is served."""
        if self.phase is not Phase.READY:
            raise self.unavailable()
        return self.known(family)

    def known(self, family: str) -> LoadedFamily:
        """As `loaded`, whatever the phase. Raises `ProtocolError` 404."""
        loaded = self.families.get(family)
        if loaded is None:
            raise ProtocolError(404, f"model {family[:80]!r} not found, served are {', '.join(self.families)}")
        return loaded

    def defaults(self, family: str) -> TermDefaults:
        """What holds for requests of this family that say nothing."""
        defaults = self._defaults.get(family)
        if defaults is None:
            served = self.families.get(family) or self.loaded(family)
            own = self.settings.family(family)
            slo_s = own.slo_ms / 1000.0 if own.slo_ms else served.manifest.default_slo_s
            # A floor that no variant reaches must not refuse everybody: the best there is answers then.
            floor = min(own.min_accuracy, max(served.family.variants[rung].quality for rung in served.family.rungs))
            timeout_s = self.settings.timeout_of(family)
            defaults = TermDefaults(slo_s, timeout_s, when_late=own.when_late, min_accuracy=floor)
            self._defaults[family] = defaults
        return defaults

    async def quiet(self, family: str) -> bool:
        """Wait until a family has no requests and batches left; false where it has some after the drain time."""
        assert self.dispatcher is not None, "called once requests are taken"
        return await self.dispatcher.quiet(family, self.settings.drain_s)

    def tell(self, change: Callable[[float], None]) -> None:
        """Let the scheduler know of something; see `Dispatcher.tell`."""
        assert self.dispatcher is not None, "called once requests are taken"
        self.dispatcher.tell(change)

    def slo_targets(self) -> dict[str, float]:
        """The share of requests to be in time of each family that is served."""
        return {name: self.settings.family(name).slo_target for name in list(self.families)}

    def advise(self, hints: Hints) -> None:
        """Let the scheduler go by this advice until it is too old."""
        if self.scheduler is not None:
            self.scheduler.set_hints(hinted(hints, self.canaries.families))

    def apply(self, settings: Settings) -> None:
        """Go on with other settings; those that need a restart are as before in them."""
        self.settings = settings
        self._defaults.clear()
        self.tenants = Tenants(settings)
        scheduler = self.scheduler
        if scheduler is not None:
            scheduler.set_quotas(self.tenants.quotas, self.tenants.quota_of_others, monotonic())
            scheduler.set_shares(self.tenants.shares)
            for name in (*self.families, *self.canaries.families):
                scheduler.set_margin(name, settings.margin_of(model_of(name)))

    def put(self, loaded: LoadedFamily) -> None:
        """Serve this revision of a family from now on."""
        self.families[loaded.name] = loaded
        self._defaults.pop(loaded.name, None)
        self.problems.pop(loaded.name, None)
        self.statistics.expect(loaded.name, [variant.name for variant in loaded.family.variants])

    def revision(self, family: str, revision: str) -> LoadedFamily | None:
        """A revision of a family that serves or is on trial; none where it does neither any more."""
        trial = self.canaries.trials.get(family)
        served = [self.families.get(family), None if trial is None else trial.loaded]
        return next((one for one in served if one is not None and one.family.revision == revision), None)

    def take(self, family: str) -> None:
        """Serve a family no longer."""
        self.families.pop(family, None)
        self._defaults.pop(family, None)

    def unavailable(self) -> ProtocolError:
        """Why no request is taken right now."""
        said = {
            Phase.LOADING: "loading: not ready yet",
            Phase.READY: "leaving: this replica ends soon, send requests to others",
            Phase.DRAINING: "draining: this replica takes no new requests",
            Phase.BROKEN: "nothing to serve: "
            + ("; ".join(map(cannot_be_loaded, self.problems)) or "the model repository is empty"),
        }
        reason = "draining" if self.leaving or self.phase is Phase.DRAINING else "not_ready"
        return ProtocolError(503, said[self.phase], reason=reason, retry_after_s=1.0)
