"""The decision core: which variant answers which rows, in which batch, and when. Pure: no I/O, clock or randomness.

`contract` has the nouns, `latency` what a batch will take, `admission` what is known at arrival, `backlog` who waits,
`triage` who is too late, `timeouts` who expires, `view` what a policy sees and wants, `policies/` the rules,
`scheduler` the only mutable state.
"""
