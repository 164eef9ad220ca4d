"""Runs of many policies as a table to compute with: best static in hindsight, paired differences, suite means."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtests.paired import Difference, mean_difference
from loadtests.routing_runs import Run
from loadtests.suite import SUITE

STATIC = "fixed:"
BEST_STATIC = "best static"
"""The variant that was best on each trace, had one known it before: chosen by its mean over seeds."""

_GOODPUT = frozenset(trace.name for trace in SUITE if trace.goodput)


def is_static(policy: str) -> bool:
    """Whether a policy always answers with one variant."""
    return policy.startswith(STATIC) or policy == BEST_STATIC


@dataclass(frozen=True, slots=True)
class RunTable:
    """Runs by policy, trace and seed, the best static policy among them; invalid runs are left out.

    Policies and traces are in the order in which they first came.
    """

    runs: dict[str, dict[str, dict[int, Run]]]

    @classmethod
    def of(cls, runs: Iterable[Run]) -> RunTable:
        """The table of these runs; `fixed:` policies also enter as one, the best static policy in hindsight."""
        table: dict[str, dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
        for run in runs:
            if not run.faults:
                table[run.policy][run.trace][run.seed] = run
        by_trace: dict[str, list[dict[int, Run]]] = defaultdict(list)
        for policy, traces in table.items():
            if is_static(policy):
                for trace, by_seed in traces.items():
                    by_trace[trace].append(by_seed)
        for trace, candidates in by_trace.items():
            best = max(candidates, key=_mean_accuracy)
            table[BEST_STATIC][trace] = {
                seed: dataclasses.replace(run, policy=BEST_STATIC) for seed, run in best.items()
            }
        return cls({policy: dict(traces) for policy, traces in table.items()})

    @property
    def policies(self) -> tuple[str, ...]:
        """All policies that are compared: the single static ones are in the best one."""
        return tuple(policy for policy in self.runs if not policy.startswith(STATIC))

    @property
    def traces(self) -> tuple[str, ...]:
        """All traces."""
        return tuple(dict.fromkeys(trace for traces in self.runs.values() for trace in traces))

    @property
    def suite(self) -> tuple[str, ...]:
        """The traces that suite means are over: all but those of sustained overload."""
        return tuple(trace for trace in self.traces if trace not in _GOODPUT)

    def mean(self, policy: str, trace: str, measure: str = "effective_accuracy") -> float | None:
        """The mean over seeds of one measure of `Run`, None where there is no run."""
        by_seed = self.runs.get(policy, {}).get(trace, {})
        return statistics.fmean(float(getattr(run, measure)) for run in by_seed.values()) if by_seed else None

    def suite_mean(self, policy: str, measure: str = "effective_accuracy") -> float | None:
        """The mean over the suite's traces, None where a trace has no run: means of other traces do not compare."""
        means = [self.mean(policy, trace, measure) for trace in self.suite]
        known = [mean for mean in means if mean is not None]
        return statistics.fmean(known) if known and len(known) == len(means) else None

    def difference(
        self, policy: str, subject: str, traces: Sequence[str] | None = None, measure: str = "effective_accuracy"
    ) -> Difference | None:
        """`policy` minus `subject` on the same traces and seeds (by default the suite's); None without pairs."""
        strata = []
        for trace in self.suite if traces is None else traces:
            ours, theirs = self.runs.get(subject, {}).get(trace, {}), self.runs.get(policy, {}).get(trace, {})
            common = sorted(ours.keys() & theirs.keys())
            if common:
                strata.append([getattr(theirs[seed], measure) - getattr(ours[seed], measure) for seed in common])
        return mean_difference(strata) if strata else None


def _mean_accuracy(by_seed: dict[int, Run]) -> float:
    return statistics.fmean(run.effective_accuracy for run in by_seed.values())
