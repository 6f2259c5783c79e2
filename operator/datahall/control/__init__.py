"""The operator: kopf as event source, a keyed work queue, one level-triggered reconcile per kind.

    events -> store -> work queue -> plan (pure) -> executor -> status, written once and only when it changes

`feed` brings events, `store` keeps the newest state of each object, `workqueue` says which key is next, the rooms
`training`, `serving` and `queues` hold the pure decisions, `executor` makes the writes, `scheduling` is the seam to the
planner, `lease` says who leads, `web` answers probes and takes the trainers' reports.
"""
