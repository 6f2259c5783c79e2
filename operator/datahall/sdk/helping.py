"""What a person can do about each reason: one sentence, the most useful thing first. Pure.

The words are those of `api.reasons`. A reason for which nothing is to be done says so, because that is an answer, too.
Most of a spec cannot change once the object exists, so "make it anew" is meant where it is written.
"""

from __future__ import annotations

from datahall.api.reasons import Reason

_ANEW = "make it anew"

_HELPS: dict[str, str] = {
    Reason.QUEUE_NOT_FOUND: "Ask the platform team for Queue {queue}, or "
    + _ANEW
    + " under one that exists: "
    "`datahall queue` lists them.",
    Reason.QUEUE_FORBIDDEN: "Ask the platform team to add namespace {namespace} to spec.namespaces of Queue {queue}, "
    "or " + _ANEW + " under another Queue.",
    Reason.QUOTA_EXCEEDED: "It starts when jobs of the queue end; a higher spec.priority passes others of the queue "
    "and may end lower ones, a smaller workers.min lets it start with less.",
    Reason.QUOTA_TOO_SMALL: "Waiting cannot help: "
    + _ANEW
    + " with fewer workers or GPUs, or have the quota or the "
    "borrowing limit of Queue {queue} raised.",
    Reason.NO_ROOM: "It starts when nodes come free; a smaller workers.min, fewer GPUs per worker or more models in "
    "resources.gpuModels fit sooner.",
    Reason.NO_SUCH_NODES: "Waiting cannot help: "
    + _ANEW
    + " with what the message says is too much lowered, or have "
    "nodes of that kind added.",
    Reason.BORROWED_AWAY: "Nothing: it is the queue's own quota, and who borrowed it gives it back as jobs end or, "
    "after their minimum run time, are ended for it.",
    Reason.POWER_BUDGET: "It starts when watts come free; fewer workers or GPUs with a lower power cap need fewer, or "
    "have the budget that the message names raised.",
    Reason.ENERGY_BUDGET: "Wait: each hour's joules come back a day later; or have spec.joulesPerDay of the queue "
    "that the message names raised.",
    Reason.TOPOLOGY_NO_ROOM: "Make it anew with topology.mode Preferred, a wider topology.level or a smaller "
    "workers.min, or wait until one such part of the hall comes free.",
    Reason.RESERVED_FOR_OTHER: "Give it an end before the reserved time (a shorter spec.activeDeadlineSeconds) and it "
    "may go ahead; otherwise it follows the gang that the message names.",
    Reason.MAKING_ROOM: "Nothing: it starts as soon as the others have saved and gone, within a minute or two.",
    Reason.WAITING_IN_LINE: "Raise spec.priority to go before the jobs ahead of it in queue {queue}, or look at what "
    "the first of them waits for.",
    Reason.CLAIM_NOT_FOUND: "Create the PersistentVolumeClaim in namespace {namespace}, or "
    + _ANEW
    + " with the "
    "right pvc:// URI.",
    Reason.CLAIM_NOT_BOUND: "Read `kubectl -n {namespace} describe pvc` for the provisioner's own words: it starts "
    "once the claim is bound.",
    Reason.NAME_IN_USE: "Nothing: what the deleted one left goes within a minute; if it lasts, remove the finalizer "
    "of the object that the message names.",
    Reason.PLACE_REFUSED: "Look for what the message quotes on the nodes: a taint, a volume that is bound elsewhere, "
    "room taken by pods outside Datahall.",
    Reason.REQUEST_REFUSED: "Mend what the message quotes: a ResourceQuota, pod security or an admission policy of "
    "namespace {namespace}; it is tried again every 30 s.",
    Reason.INVALID_SPEC: "Delete it and " + _ANEW + " without the field that the message names.",
    Reason.IMAGE_PULL_FAILED: "Correct the image's name and tag, or the pull secrets of the default ServiceAccount in "
    "namespace {namespace}.",
    Reason.WORKER_FAILED: "Read the failure and its last log lines: the program ended by itself, and too many of "
    "these fail the job.",
    Reason.WORKER_LOST: "Nothing: the job is not at fault, and goes on from its last checkpoint.",
    Reason.PREEMPTED: "Nothing: it goes on from its last checkpoint; a higher spec.priority is ended later, within "
    "the queue's nominal quota no other queue can end it.",
    Reason.MOVED: "Nothing: its new nodes are chosen, and it goes on from its last checkpoint.",
    Reason.RESIZED: "Nothing: it comes back with more workers, from its last checkpoint.",
    Reason.RESTARTS_EXHAUSTED: "Mend what the failure says, then " + _ANEW + ", or allow more with "
    "failurePolicy.maxRestarts.",
    Reason.BAD_INPUT: "Correct what the message names, then " + _ANEW + ".",
    Reason.DEADLINE_EXCEEDED: "Make it anew with a larger spec.activeDeadlineSeconds, or with more workers.",
    Reason.SUSPEND_REQUESTED: "Let it go on: `datahall resume {name} -n {namespace}`.",
    Reason.TRAINING_JOB_NOT_FOUND: "Create the TrainingJob in namespace {namespace}, or correct "
    "model.fromTrainingJob.name.",
    Reason.WAITING_FOR_TRAINING_JOB: "Nothing: it serves once the job has succeeded; `datahall explain` of that job "
    "says when.",
    Reason.TRAINING_JOB_FAILED: "Mend that job and train again under the same name.",
    Reason.NO_TRAINED_MODEL: "Name the model by model.uri: that job left none that could be served by name.",
    Reason.REPLICA_FAILING: "Read the failure and its last log lines: often the model cannot be loaded, or memory is "
    "short.",
    Reason.REPLICAS_STARTING: "Wait; if it lasts, `datahall describe infs/{name}` shows the pods.",
    Reason.ROLLING_OUT: "Wait: the old replicas answer meanwhile; one more replica than asked for needs room.",
    Reason.SCALED_TO_ZERO: "Set spec.replicas.min to 1 or more: `kubectl scale infs/{name} --replicas=1`.",
    Reason.PODS_STARTING: "Wait: images are pulled and processes start; `datahall describe {name}` shows the pods.",
    Reason.QUEUE_OVERCOMMITTED: "Nothing starts until use falls below what quota and borrowing allow, or the quota is "
    "raised again.",
    Reason.QUEUE_PARENT_NOT_FOUND: "Create the Queue that spec.parent names, or name another.",
    Reason.QUEUE_PARENTS_IN_CIRCLE: "Have one of the queues in the circle name another parent, or none.",
    Reason.POWER_DOMAIN_OVERCOMMITTED: "Nothing starts below it until enough work has ended, or its watts are raised "
    "again.",
    Reason.POWER_DOMAIN_PARENT_NOT_FOUND: "Create the PowerDomain that spec.parent names, or name another.",
    Reason.POWER_DOMAINS_IN_CIRCLE: "Have one of the PowerDomains in the circle name another parent, or none.",
    Reason.POWER_DOMAIN_NODES_SHARED: "Change the nodes' labels or one of the selectors, or make one PowerDomain the "
    "parent of the other.",
}

_OF_SERVICES: dict[str, str] = {
    Reason.QUOTA_EXCEEDED: "The other replicas start when the queue's GPUs come free; fewer replicas, or a larger "
    "quota of Queue {queue}, need no waiting.",
    Reason.NO_ROOM: "The other replicas start when nodes come free; fewer GPUs per replica or more models in "
    "resources.gpuModels fit sooner.",
    Reason.TOPOLOGY_NO_ROOM: "The other replicas start when nodes come free.",
    Reason.RESERVED_FOR_OTHER: "The room is kept for a gang ahead: the replica follows it.",
    Reason.WAITING_IN_LINE: "Look at what the first job in line of queue {queue} waits for: `datahall queue {queue}`.",
    Reason.BAD_INPUT: "Correct what the message names: a model that is moved or damaged, or another digest.",
}
"""Where a service has other means than a job: no priority, no gang, and a spec that may change."""


def help_for(reason: str, *, service: bool, name: str, namespace: str, queue: str) -> str:
    """What helps, in a sentence; "" for a word that says nothing of trouble, or that a newer operator made up.

    Args:
        reason: a word of the reason catalogue.
        service: whether it is an InferenceService that waits, not a TrainingJob.
        name: the object's name.
        namespace: its namespace.
        queue: the Queue that it names.
    """
    sentence = (_OF_SERVICES.get(reason) if service else None) or _HELPS.get(reason, "")
    return sentence.format(name=name, namespace=namespace, queue=queue)
