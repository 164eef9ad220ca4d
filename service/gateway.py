"""One replica: what it is made of, the phases of its life, and what it serves."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING

from router.agreement import Rules
from router.contract import Hints
from router.family import Family
from router.policies import policy_named
from router.scheduler import Scheduler
from router.view import CascadePolicy, Policy
from service.access import Access
from service.access_log import AccessLog
from service.audits import Audits
from service.breakages import Breakages
from service.canaries import Canaries
from service.connections import Connections
from service.correction import Correction
from service.crash_marker import CrashMarker
from service.dispatcher import Dispatcher
from service.feedback import Feedback
from service.hidden_families import hinted, model_of
from service.intake import Intake
from service.key_file import read_keys
from service.live_quality import LiveQuality
from service.loaded_family import LoadedFamily, cannot_be_loaded
from service.log_words import NOTHING, READY
from service.metrics import Metrics
from service.oip.errors import ProtocolError
from service.oip.terms import TermDefaults
from service.outer_loop import OuterLoopReader
from service.page.feed import Feed
from service.piecewise import PiecewiseFamily
from service.processes.isolation import Processes
from service.reading import FamilyReader
from service.residency import Residency
from service.settings import Settings
from service.starting import UnservableError, bring_up, read_families
from service.statistics import Statistics
from service.tenants import Tenants

if TYPE_CHECKING:
    from service.traces import Traces

logger = logging.getLogger("pareto.gateway")


class Phase(Enum):
    """Where a replica is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    BROKEN = "broken"


class Gateway:
    """Loads what the settings name and answers requests until it is drained.

    `policy` stands in for the one that the settings name. A `marker` knows which variants ended the process before.
    `families` is empty until `phase` is READY. `problems` maps a family that could not be loaded to its fault.
    """

    def __init__(self, settings: Settings, policy: Policy | None = None, marker: CrashMarker | None = None) -> None:
        self.settings = settings
        self.marker = marker
        self.policy = policy or policy_named(settings.policy)
        self.phase = Phase.LOADING
        self.leaving = False
        """Whether it is about to end: requests may still be taken, but load balancers are to send no more."""
        self.families: dict[str, LoadedFamily] = {}
        self.problems: dict[str, str] = {}
        cascades = isinstance(self.policy, CascadePolicy)
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
        self.access_log = AccessLog(lambda: self.settings, self.label)
        self.metrics = Metrics(self)
        self.statistics = Statistics()
        self.feed = Feed(self) if settings.page else None
        self.scheduler: Scheduler | None = None
        self.residency: Residency | None = None
        self.outer_loop: OuterLoopReader | None = None
        self.dispatcher: Dispatcher | None = None
        self.processes: Processes | None = None
        self.intake = Intake(self)
        self._defaults: dict[str, TermDefaults] = {}
        self.pieces: dict[str, PiecewiseFamily] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when it may be welcoming, or no longer, though its phase is the same."""
        self.next_id = itertools.count(1).__next__

    async def start(self) -> None:
        """Load the families off the event loop, then take requests. Sets BROKEN where none can be loaded."""
        started_s = monotonic()
        loaded = await read_families(self)
        if not self.is_loading():
            return
        if not loaded:
            self.phase = Phase.BROKEN
            problem = "; ".join(self.problems.values()) or f"{self.settings.models} is empty"
            logger.error("%s%s", NOTHING, problem)
            return
        try:
            await bring_up(self, loaded)
        except UnservableError as error:
            self.broke(str(error))
            logger.error("%s%s", NOTHING, error)
        if self.is_loading():
            self.phase = Phase.READY
            if not self._is_futile:
                logger.info("%s%s (%.1f s)", READY, ", ".join(loaded), monotonic() - started_s)

    def is_loading(self) -> bool:
        """Whether it comes up. To be asked after each pause: a signal may have ended the loading meanwhile."""
        return self.phase is Phase.LOADING

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.phase is Phase.READY

    @property
    def is_welcoming(self) -> bool:
        """What whoever asks for readiness is told: whether load balancers are to send requests."""
        return self.phase is Phase.READY and not self.leaving and not self._is_futile

    @property
    def _is_futile(self) -> bool:
        """Whether nothing of any family is in memory, nor could be within a memory budget: nobody would be answered."""
        return self.residency is not None and self.residency.is_futile

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
        await asyncio.to_thread(self.access_log.close)

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
        if self.processes is not None:
            self.processes.stop()
        if self.marker is not None:
            self.marker.remove()

    # What it serves

    def for_spare_time(self, family: str) -> Family | None:
        """A family as work in spare time may ask it; none while its requests are held."""
        scheduler = self.scheduler
        return None if scheduler is None or self.intake.is_held(family) else scheduler.families.get(family)

    def measured(self, family: str) -> Family | None:
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
            raise ProtocolError(
                404, f"model {family[:80]!r} not found, served are {', '.join(self.families) or 'none'}"
            )
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
            Phase.READY: "leaving: this replica ends soon, send requests to others"
            if self.leaving
            else f"{NOTHING}no family can be loaded within memory_budget, see the log",
            Phase.DRAINING: "draining: this replica takes no new requests",
            Phase.BROKEN: NOTHING
            + ("; ".join(map(cannot_be_loaded, self.problems)) or "the model repository is empty"),
        }
        reason = "draining" if self.leaving or self.phase is Phase.DRAINING else "not_ready"
        return ProtocolError(503, said[self.phase], reason=reason, retry_after_s=1.0)
