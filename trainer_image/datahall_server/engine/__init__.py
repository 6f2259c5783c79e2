"""The process that holds the model, and the HTTP process's end of the line to it.

`protocol.py`, `threads.py` and `client.py` belong to both or to the HTTP process and never import torch;
`worker.py` and `classifier.py` run only inside the engine process, started as `python -m datahall_server.engine`.
"""
