"""The decision core: which variant answers which rows, in which batch, and when. Pure: no I/O, clock or randomness.

`contract` has the nouns, `latency` what a batch will take, `backlog` who waits, `view` what a policy may see,
`triage` who is too late, `policies/` the rules, `scheduler` the only mutable state.
"""
