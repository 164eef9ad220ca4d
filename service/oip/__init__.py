"""Open Inference Protocol v2 over HTTP: pure functions between bytes and arrays, headers and terms.

`headers` and `terms` read what a request asks for; `decode` and `encode` its tensors as the model's `signature` has
them, with `json_data` and `binary` for their two forms and `datatypes` as the table of both; `compression` the content
codings; `metadata` and `statistics` the other bodies; `errors` how each failure is answered. Nothing here does I/O or
reads a clock.
"""
