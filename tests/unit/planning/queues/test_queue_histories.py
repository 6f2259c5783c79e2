"""Whatever happens, in whatever order, the numbers are those of a tree built anew, and those of the definitions."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.verdicts import Fits, MissingParent, ParentsInCircle
from tests.unit.planning.queues.reference import Reference
from tests.unit.planning.queues.strategies import MODELS, NAMES, RESOURCES, sound_trees, specs


def rebuilt(reference, names):
    tree = QueueTree()
    for queue, held in reversed(reference.charges.items()):
        for resource, amount in held.items():
            tree.charge(queue, {resource: amount}, 1)
    for name in names:
        tree.upsert(reference.specs[name])
    return tree


class Histories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.tree = QueueTree()
        self.reference = Reference()

    @rule(spec=specs())
    def upsert(self, spec):
        changed = self.reference.specs.get(spec.name) != spec
        assert self.tree.upsert(spec) == changed
        self.reference.specs[spec.name] = spec

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name):
        assert self.tree.remove(name) == (name in self.reference.specs)
        self.reference.specs.pop(name, None)

    @rule(
        queue=st.sampled_from(NAMES),
        amounts=st.dictionaries(st.sampled_from(RESOURCES), st.integers(0, 6), max_size=3),
    )
    def charge(self, queue, amounts):
        self.tree.charge(queue, amounts, 1)
        for resource, amount in amounts.items():
            self.reference.charge(queue, resource, amount)

    @rule(data=st.data(), queue=st.sampled_from(NAMES))
    def take_back(self, data, queue):
        held = self.reference.charges.get(queue, {})
        amounts = {r: data.draw(st.integers(0, n), label=r) for r, n in held.items()}
        self.tree.charge(queue, amounts, -1)
        for resource, amount in amounts.items():
            self.reference.charge(queue, resource, -amount)

    @rule(queue=st.sampled_from(NAMES), resource=st.sampled_from(RESOURCES), asked=st.integers(0, 12))
    def ask(self, queue, resource, asked):
        verdict = self.tree.verdict(queue, {resource: asked})
        reference = self.reference
        if queue not in reference.specs:
            assert isinstance(verdict, Fits) == (asked == 0)
            return
        assert isinstance(verdict, Fits) == reference.fits(queue, resource, asked)
        room = self.tree.room(queue, resource)
        if isinstance(verdict, Fits):
            assert asked == 0 or room is None or asked <= room
            own, nominal = (
                count(queue, reference.entry(queue, resource)) for count in (reference.own, reference.nominal)
            )
            limited = room is not None and asked
            borrowed = max(0, own + asked - max(own, nominal)) if limited else 0
            assert verdict.borrowed == ({resource: borrowed} if borrowed else {})
        else:
            assert room == verdict.room < asked
            assert verdict.where in reference.path(queue)
            empty = Reference()
            empty.specs = reference.specs
            assert verdict.ever == empty.fits(queue, resource, asked)

    def teardown(self):
        self.the_numbers_are_those_of_the_definitions_and_of_a_rebuild()
        self.the_place_of_each_queue_is_the_defined_one()

    @rule()
    def the_most_is_what_fits_where_nothing_is_used(self):
        empty = Reference()
        empty.specs = self.reference.specs
        for queue in empty.specs:
            for resource in RESOURCES:
                verdict = self.tree.verdict(queue, {resource: 10**9})
                if not isinstance(verdict, Fits):
                    assert empty.fits(queue, resource, verdict.most)
                    assert not empty.fits(queue, resource, verdict.most + 1)

    @rule()
    def the_room_is_what_fits_and_no_more(self):
        for queue in self.reference.specs:
            for resource in RESOURCES:
                room = self.tree.room(queue, resource)
                if room is not None and room > 0:
                    assert self.reference.fits(queue, resource, room)
                if room is not None:
                    assert not self.reference.fits(queue, resource, max(room, 0) + 1)

    @rule()
    def the_numbers_are_those_of_the_definitions_and_of_a_rebuild(self):
        reference = self.reference
        anew = rebuilt(reference, sorted(reference.specs, reverse=True))
        assert self.tree.names() == anew.names() == sorted(reference.specs)
        for name in NAMES:
            assert self.tree.accounts(name) == anew.accounts(name)
            assert self.tree.charged(name) == anew.charged(name)
            assert self.tree.trouble(name) == anew.trouble(name)
            assert self.tree.charged(name) == {r: n for r, n in reference.charges.get(name, {}).items() if n}
            if name not in reference.specs:
                continue
            accounts = self.tree.accounts(name)
            for entry in reference.entries(name) | set(accounts):
                numbers = [
                    count(name, entry)
                    for count in (
                        reference.nominal,
                        reference.own,
                        reference.quota,
                        reference.used,
                        reference.lent,
                        reference.overflow,
                    )
                ]
                found = accounts.get(entry)
                assert numbers == (
                    [0] * 6
                    if found is None
                    else [
                        found.nominal,
                        found.own,
                        found.quota,
                        found.used,
                        found.lent,
                        found.overflow,
                    ]
                )

    @rule()
    def the_place_of_each_queue_is_the_defined_one(self):
        reference = self.reference
        for name, spec in reference.specs.items():
            assert self.tree.parent(name) == reference.parent(name)
            assert self.tree.children(name) == sorted(reference.children(name))
            trouble, circle = self.tree.trouble(name), reference.circle(name)
            if circle:
                assert isinstance(trouble, ParentsInCircle)
                assert set(trouble.queues) == circle
            elif spec.parent and spec.parent not in reference.specs:
                assert trouble == MissingParent(name, spec.parent)
            else:
                assert trouble is None


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=30)


@given(
    made=sound_trees(),
    asks=st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.dictionaries(
                st.sampled_from([MODELS[0], "watts", "joules_per_day"]), st.integers(0, 6), max_size=3
            ),
            st.booleans(),
        ),
        max_size=30,
    ),
)
@settings(max_examples=150)
def test_what_is_only_admitted_within_quota_never_overdraws_it(made, asks):
    tree = QueueTree()
    for spec in made:
        tree.upsert(spec)
    admitted = []
    for queue, amounts, ends in asks:
        if isinstance(tree.verdict(queue, amounts), Fits):
            tree.charge(queue, amounts, 1)
            admitted.append((queue, amounts))
        if ends and admitted:
            tree.charge(*admitted.pop(0), -1)
        for name in tree.names():
            for entry, account in tree.accounts(name).items():
                assert account.room is None or account.room >= 0
                if tree.parent(name) is None and account.room is not None:
                    assert account.used <= account.quota, entry
    for queue, amounts in admitted:
        tree.charge(queue, amounts, -1)
    assert all(a.used == 0 for name in tree.names() for a in tree.accounts(name).values())
