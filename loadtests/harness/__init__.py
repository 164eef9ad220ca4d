"""The harness of `pareto loadtest`: a load is planned, sent by locust processes, judged, written down and drawn.

`target` asks the gateway what it serves, `rows` finds labelled rows; `cargo` is what may be sent, `subject` draws plans
of it; `conductor` has a `generator` process send them, alone or through `workers`. Profiles (`steady`, `smoke`,
`search`, `soak`, `spike`) decide what is sent next and end in a `verdict`; `record` writes results down, `page` draws
them, `comparison` holds two against each other.
"""
