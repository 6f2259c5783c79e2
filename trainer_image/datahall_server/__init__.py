"""The inference server of a replica: one model, loaded by digest, behind HTTP.

Two processes share the work. The HTTP process (this package without `engine/`) parses, queues, batches and
answers; it never imports torch, so it is up in a second and its event loop never waits for a matrix product. The
engine process (`engine/`) holds the model. They speak length-prefixed frames over a socket pair
(`engine/protocol.py`).

The rooms, in the order a request passes them: `http/` turns bytes into instances, `batching.py` decides which
instances go together and when, `dispatch.py` carries that decision out, `engine/` computes, `tasks/` names the
classes. README.md beside this file is the reference for clients and operators.
"""
