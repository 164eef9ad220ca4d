"""The Open Inference Protocol v2 over gRPC, beside the HTTP data plane: same process, event loop and scheduler.

Imported only where the setting `grpc_port` opens it. `open_inference.proto` is the protocol, `make protos` makes its
messages. `reading`, `decode` and `encode` stand between bytes, messages and arrays, `calls` between metadata and
headers, errors and status; `bursts` lets calls that come together share a batch. `inference`, `descriptions`, `health`
and `reflection` answer, and `server` has the table of methods and the port.
"""
