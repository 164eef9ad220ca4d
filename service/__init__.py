"""The serving process: requests come in, the router decides, executors answer.

`bento` is what `bentoml serve` loads, `dataplane` the ASGI app in front of it, `gateway` the assembly of one replica,
`dispatcher` the asyncio driver of the scheduler, `runner` where models run, `oip/` the protocol, `cli` the command.
"""

__version__ = "0.1.0"
SERVER_NAME = "pareto-gateway"
"""What the server calls itself in the open protocol."""
