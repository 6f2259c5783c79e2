"""The quota tree by definition: plain recursion over specifications and charges, without a number kept anywhere."""

from __future__ import annotations


class Reference:
    """What is granted and charged, and what follows from it."""

    def __init__(self):
        self.specs = {}
        self.charges = {}

    def charge(self, queue, resource, amount):
        held = self.charges.setdefault(queue, {})
        held[resource] = held.get(resource, 0) + amount
        assert held[resource] >= 0

    def circle(self, name):
        """The queues that are each other's ancestors with this one."""
        seen, here = [], name
        while here in self.specs and here not in seen:
            seen.append(here)
            here = self.specs[here].parent
        return set(seen) if here == name else set()

    def parent(self, name):
        parent = self.specs[name].parent
        return None if parent not in self.specs or self.circle(name) else parent

    def children(self, name):
        return [child for child in self.specs if self.parent(child) == name]

    def path(self, name):
        names = [name]
        while (parent := self.parent(names[-1])) is not None:
            names.append(parent)
        return names

    def entry(self, name, resource):
        limits = self.specs[name].limits
        of, colon, _ = resource.partition(":")
        return f"{of}:Any" if colon and resource not in limits and f"{of}:Any" in limits else resource

    def denied(self, name, resource):
        limits = self.specs[name].limits
        of, colon, _ = resource.partition(":")
        if not colon or self.entry(name, resource) in limits:
            return False
        return any(entry.startswith(f"{of}:") for entry in limits)

    def limit(self, name, entry):
        return self.specs[name].limits.get(entry)

    def nominal(self, name, entry):
        limit = self.limit(name, entry)
        return 0 if limit is None else limit.nominal

    def own(self, name, entry):
        held = self.charges.get(name, {})
        return sum(amount for resource, amount in held.items() if self.entry(name, resource) == entry)

    def from_below(self, name, entry):
        """Entries of the children that this one takes in."""
        for child in self.children(name):
            for lower in self.entries(child):
                if self.entry(name, lower) == entry:
                    yield child, lower

    def entries(self, name):
        """Entries of a queue that may have numbers."""
        own = {self.entry(name, resource) for resource in self.charges.get(name, {})}
        below = {self.entry(name, lower) for child in self.children(name) for lower in self.entries(child)}
        return {*self.specs[name].limits, *own, *below}

    def quota(self, name, entry):
        lent = sum(self.lent(child, lower) for child, lower in self.from_below(name, entry))
        return self.nominal(name, entry) + lent

    def lent(self, name, entry):
        limit = self.limit(name, entry)
        quota = self.quota(name, entry)
        return quota if limit is None or limit.lending_limit is None else min(quota, limit.lending_limit)

    def used(self, name, entry):
        over = sum(self.overflow(child, lower) for child, lower in self.from_below(name, entry))
        return self.own(name, entry) + over

    def overflow(self, name, entry):
        kept = self.quota(name, entry) - self.lent(name, entry)
        return max(0, self.used(name, entry) - kept)

    def chain(self, name, resource):
        """(queue, entry) from the queue to the top of the resource."""
        links = []
        for queue in self.path(name):
            resource = self.entry(queue, resource)
            links.append((queue, resource))
        if ":" not in resource:
            while links and links[-1][1] not in self.specs[links[-1][0]].limits:
                links.pop()
        return links

    def fits(self, name, resource, asked):
        """Whether an amount fits now, by charging it and looking at what became worse."""
        if asked == 0:
            return True
        if self.denied(name, resource):
            return False
        links = self.chain(name, resource)
        before = [self.overflow(*link) for link in links]
        self.charge(name, resource, asked)
        try:
            for i, link in enumerate(links):
                used, quota, limit = self.used(*link), self.quota(*link), self.limit(*link)
                if i == len(links) - 1:
                    return used <= quota
                if self.overflow(*link) == before[i]:
                    return True
                if (
                    limit is not None
                    and limit.borrowing_limit is not None
                    and used > quota + limit.borrowing_limit
                ):
                    return False
            return True
        finally:
            self.charge(name, resource, -asked)

    def within_nominal(self, name, resource, asked):
        entry = self.entry(name, resource)
        return self.own(name, entry) + asked <= self.nominal(name, entry)
