"""Nobody starves: a large gang that came late starts in a hall of small jobs, whatever their estimates say."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.backfill import Need, RunningGang
from datahall.planning.placing import Demand, NoPlace, Placing, place
from datahall.planning.topology import Level
from tests.unit.planning.reservations import free, need, racks, reserve


class Site:
    """A hall of 8-GPU hosts under an endless stream of small jobs, with one big gang that has come late."""

    def __init__(self, sizes, big_hosts, *, lasts, claims, restates=None, reserves=True, remembers=True):
        self.topology = racks(*sizes)
        hosts = sum(sizes)
        self.big = need(big_hosts, 8, hosts, Level.RACK, True)
        self.free = free(*[8] * hosts)
        self.jobs = []
        self.lasts, self.claims, self.restates = lasts, claims, restates
        self.reserves, self.remembers = reserves, remembers
        self.reservation = None
        self.first_promise = None
        self.overtakers = 0
        self.started = 0

    def gangs(self, now):
        return [
            RunningGang(f"j{j['id']}", self.restates(now, j) if self.restates else j["claim"], j["columns"], j["held"])
            for j in self.jobs
        ]  # fmt: skip

    def small_jobs(self, now, limit):
        """Start one-host jobs of 4 GPUs while they may go."""
        wish = Need(Demand(1, 1), np.array([4, 1]), np.ones(self.free.shape[1], dtype=bool))
        for _ in range(limit):
            claim = now + self.claims
            usable = self.free if self.reservation is None else self.reservation.usable(self.free, claim)
            placing = place(self.topology, wish.slots(usable), wish.demand)
            if isinstance(placing, NoPlace):
                return
            if self.reservation is not None:
                self.reservation = self.reservation.after(placing, claim, wish.amounts)
                self.overtakers += 1
            self.started += 1
            held = wish.amounts[:, None] * placing.workers
            self.free[:, placing.columns] -= held
            end = now + self.lasts(self.started)
            self.jobs.append(
                {"id": self.started, "claim": claim, "end": end, "columns": placing.columns, "held": held}
            )

    def run(self, until):
        """Seconds at which the big gang starts; None if it does not until then."""
        for now in map(float, range(until)):
            for job in [j for j in self.jobs if j["end"] <= now]:
                self.jobs.remove(job)
                self.free[:, job["columns"]] += job["held"]
            if now >= 10:
                if isinstance(place(self.topology, self.big.slots(self.free), self.big.demand), Placing):
                    return now
                if self.reserves:
                    previous = self.reservation if self.remembers else None
                    self.reservation = reserve(
                        self.topology,
                        self.free,
                        self.gangs(now),
                        self.big,
                        now_seconds=now,
                        previous=previous,
                    )
                    self.first_promise = self.first_promise or self.reservation.at_seconds
            self.small_jobs(now, 2)
        return None


class TestLargeGangDoesNotStarve:
    """kubernetes-sigs/kueue, issue 8309: small jobs take each GPU that comes free, and the large gang never starts."""

    def lasts(self, number):
        return 20 + 7 * (number % 5)

    def test_without_a_reservation_it_does(self):
        assert Site([6], 4, lasts=self.lasts, claims=50, reserves=False).run(2000) is None

    def test_with_one_it_starts_by_the_time_it_was_told(self):
        site = Site([6], 4, lasts=self.lasts, claims=50)
        started = site.run(2000)
        assert started is not None
        assert 10 < started <= site.first_promise
        assert site.overtakers > 0, "and others used the hall meanwhile"

    def test_jobs_that_outlive_their_estimates_delay_it_only_as_long_as_they_last(self):
        site = Site([6], 4, lasts=lambda number: 60, claims=15)
        started = site.run(2000)
        assert started is not None
        assert started <= 10 + 60 + 15

    def test_a_job_that_never_ends_is_given_up_for_another_rack(self):
        site = Site([4, 4], 4, lasts=lambda n: 10**9 if n == 1 else self.lasts(n), claims=50)
        started = site.run(2000)
        assert site.jobs[0]["columns"].tolist() == [0], (
            "it is on the first rack, where the gang waits at first"
        )
        assert started is not None
        assert started <= 10 + 3 * (50 + 50)

    def stalling(self, **options):
        """Every job claims to be short, runs four times as long, and says again and again that it is nearly done."""
        return Site(
            [6], 4, lasts=lambda n: 17 + n % 9, claims=5, restates=lambda now, job: now + 5, **options
        )

    def test_even_if_every_estimate_is_wrong_for_ever(self):
        started = self.stalling().run(1000)
        assert started is not None
        assert started <= 10 + 3 * (5 + 26)

    def test_which_is_what_remembering_the_promise_is_for(self):
        assert self.stalling(remembers=False).run(1000) is None


@given(st.lists(st.integers(0, 40), min_size=50, max_size=50), st.integers(1, 20), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_no_estimates_whatever_starve_it(says, claims, big_hosts):
    """Jobs of at most 30 s, whose estimates are anything up to 40 s ahead."""
    site = Site(
        [6],
        big_hosts,
        lasts=lambda n: 3 + 7 * n % 28,
        claims=claims,
        restates=lambda now, job: now + says[(job["id"] + int(now)) % 50],
    )
    started = site.run(1000)
    assert started is not None
    assert started <= 10 + 3 * (40 + 31)
