"""What the gateway does under load: the same workload live (open loop) and simulated (virtual clock), scored alike.

`traces` when requests arrive, `load` and `workload` what each one is, `samples` the labelled rows they carry; `sender`
and `openloop` send them, `simulator` replays them; `scoring` judges the `outcomes` of both; `compare` and `overhead`
are benchmarks. `routing` compares policies on a `suite` of traces, live and simulated; `harness` is `pareto loadtest`.
"""
