"""What is so in a hall, by name, and what follows from it by plain counting: a judge that knows no arrays."""

from datahall.planning import Planner, QueueState
from datahall.planning.books import _spec
from datahall.planning.holdings import gpu_resource
from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.verdicts import Fits
from datahall.planning.types import Level, NodeState


def least(gang):
    return gang.workers if gang.min_workers is None else gang.min_workers


def shares(gang):
    return gang.gpus == 1 and gang.gpu_milli < 1000


def watts_of(gang, node):
    """Watts that one worker reserves on a node."""
    return -(-node.gpu_watts * gang.gpus * gang.gpu_milli // 1000) if node is not None else 0


class Facts:
    """Nodes, pods, queues, who waits and who holds what."""

    def __init__(self):
        self.nodes = {}
        self.last_state = {}
        self.pods = {}
        self.queues = {}
        self.waiting = {}
        self.held = {}
        self.charges = {}
        self.leaving = set()

    # ---- room

    def used_on(self, name):
        """GPUs, CPU and memory in use; a GPU that is shared counts whole."""
        used = [0, 0, 0]
        for pod in self.pods.values():
            if pod.node == name:
                used = [used[0] + pod.gpus, used[1] + pod.cpu_milli, used[2] + pod.memory_bytes]
        for gang, places in self.held.values():
            here = sum(place.node == name for place in places)
            gpus = 0 if shares(gang) else here * gang.gpus
            used = [used[0] + gpus, used[1] + here * gang.cpu_milli, used[2] + here * gang.memory_bytes]
        used[0] += len(self.cards_on(name))
        return used

    def cards_on(self, name):
        """Thousandths in use of each shared GPU of a node."""
        cards = {}
        for gang, places in self.held.values():
            if shares(gang):
                for place in places:
                    if place.node == name:
                        cards[place.card] = cards.get(place.card, 0) + gang.gpu_milli
        return cards

    def free_on(self, node):
        used = self.used_on(node.name)
        return node.gpus - used[0], node.cpu_milli - used[1], node.memory_bytes - used[2]

    def workers_on(self, gang, node):
        """How many workers of a gang one node could take now."""
        free = self.free_on(node)
        fits = [gang.workers]
        if shares(gang):
            pieces = sum(
                max(0, 1000 - used) // gang.gpu_milli
                for used in self.cards_on(node.name).values()
                if used > 0
            )
            fits.append(max(0, free[0]) * (1000 // gang.gpu_milli) + pieces)
        elif gang.gpus:
            fits.append(free[0] // gang.gpus)
        for amount, need in ((free[1], gang.cpu_milli), (free[2], gang.memory_bytes)):
            if need:
                fits.append(amount // need)
        return max(0, min(fits))

    def domain(self, node, level):
        """The domain of a node; what has no label stands alone."""
        rack, block = node.rack or None, node.block or None
        if level == Level.HOST:
            return node.name
        if level == Level.RACK:
            return (block, rack) if rack else ("", node.name)
        return block or (("rack", rack) if rack else ("node", node.name))

    def candidates(self, gang, model):
        metered = gang.gpus and self.tree().room(gang.queue, "watts") is not None
        for node in self.nodes.values():
            right = not gang.gpus or (node.gpu_model == model and node.gpus > 0)
            if right and node.schedulable and node.name not in gang.avoid_nodes:
                if metered and not node.gpu_watts:
                    continue
                yield node

    def holds_now(self, gang, model):
        """Whether enough workers fit the nodes of a model, near enough to each other."""
        rooms = {}
        for node in self.candidates(gang, model):
            where = self.domain(node, gang.level) if gang.required and gang.level is not None else ""
            rooms[where] = rooms.get(where, 0) + self.workers_on(gang, node)
        return max(rooms.values(), default=0) >= least(gang)

    # ---- quota

    def tree(self):
        tree = QueueTree()
        for queue in self.queues.values():
            tree.upsert(_spec(queue))
        for key, charges in self.charges.items():
            tree.charge(self.held[key][0].queue, charges, 1)
        return tree

    def within_quota(self, gang, model, workers):
        if not gang.gpus:
            return True
        caps = [n.gpu_watts for n in self.nodes.values() if n.gpu_model == model and n.gpus]
        watts = -(-max(caps, default=0) * gang.gpus * gang.gpu_milli // 1000)
        amounts = {gpu_resource(model): gang.gpus * gang.gpu_milli * workers}
        if watts:
            amounts["watts"] = watts * workers
            amounts["joules_per_day"] = watts * workers * 3600
        return isinstance(self.tree().verdict(gang.queue, amounts), Fits)

    def models(self, gang):
        if not gang.gpus:
            return [""]
        present = sorted({n.gpu_model for n in self.nodes.values() if n.gpus})
        return [m for m in gang.gpu_models or present if m in present]

    def fits(self, gang):
        """Whether a gang could start now, whole, on one model, within quota: by trying."""
        return any(
            self.within_quota(gang, model, least(gang)) and self.holds_now(gang, model)
            for model in self.models(gang)
        )

    # ---- what happens

    def take(self, gang, places):
        """A gang holds places from now on; what it is charged is settled now."""
        charges = {}
        for place in places if gang.gpus else ():
            resource = gpu_resource(place.gpu_model)
            charges[resource] = charges.get(resource, 0) + gang.gpus * gang.gpu_milli
            watts = watts_of(gang, self.last_state.get(place.node))
            if watts:
                charges["watts"] = charges.get("watts", 0) + watts
        self.held[gang.key] = (gang, places)
        self.charges[gang.key] = charges

    def let_go(self, key):
        self.charges.pop(key, None)
        self.leaving.discard(key)
        return self.held.pop(key, (None, ()))[0]

    def forget_nodes(self):
        """The planner remembers a node that is gone only while something is accounted on it."""
        in_use = {pod.node for pod in self.pods.values()}
        in_use |= {place.node for _, places in self.held.values() for place in places}
        for name in list(self.last_state):
            if name not in self.nodes and name not in in_use:
                del self.last_state[name]

    def rebuilt(self):
        """A planner that was told the facts as they are, in another order."""
        planner = Planner()
        for name, state in sorted(self.last_state.items()):
            planner.upsert_node(self.nodes.get(name) or state)
        for gang, places in self.held.values():
            planner.hold(gang, places, leaving=gang.key in self.leaving)
        for pod in reversed(list(self.pods.values())):
            planner.upsert_pod(pod)
        for name in self.last_state:
            if name not in self.nodes:
                planner.remove_node(name)
        for key in sorted(self.waiting, reverse=True):
            planner.submit(self.waiting[key])
        for queue in self.queues.values():
            planner.upsert_queue(queue)
        return planner


def a_queue(name, **more):
    return QueueState(name, **more)


def a_node(name, gpus=8, model="H100", **more):
    return NodeState(name, model if gpus else "", gpus, 96_000, 1 << 40, **more)
