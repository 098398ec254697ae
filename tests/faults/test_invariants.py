"""The invariants themselves: a good history passes, and each thing that can go wrong is found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.actions import Action, transition
from models.errors import SlipstreamError
from models.rollout import Route
from tests.faults.invariants import Answer, Failure, History, Kill, Seen, Write, broken

VERSIONS = (1, 2, 4)
ACTIONS = (
    *("start", "advance", "pause", "resume", "promote", "rollback"),
    *("shadow", "canary"),
)


def history(actions: list[Action]) -> History:
    """What an undisturbed onlooker would note while these are done, where they are legal."""
    made = History(loadable={*VERSIONS})
    made.seen.append(Seen(0.0, 0, {}, 0))
    route = Route("m", 1)
    for action in (None, *actions):
        try:
            after = route if action is None else transition(action)(route)
        except SlipstreamError:
            continue
        _note(made, route, after, action.action if action else "push")
        route = replace(after, revision=route.revision + 1)
    made.seen = made.seen[1:]
    made.kills = [Kill(10.0, "worker"), Kill(20.0, "redis")]
    made.failures = [Failure(9.9, 10.3, "reset by peer")]
    return made


def _note(made: History, before: Route, after: Route, action: str) -> None:
    revision = before.revision + 1
    document = msgspec.json.decode(msgspec.json.encode(after))
    written = {**document, "revision": revision}
    who = f"operator {revision}"
    last = made.audit[-1]["after"] if made.audit else None
    made.audit.append({"action": action, "who": who, "before": last, "after": written})
    made.writes.append(Write(who, "done", revision))
    made.seen.append(Seen(float(revision), revision, document, revision))
    made.steps[max(revision - 1, 1), revision] += 1
    made.answers[Answer(200, after.champion, "champion", revision, after.champion)] += 100
    if after.weight:
        assert after.canary is not None
        made.answers[Answer(200, after.canary, "canary", revision, after.canary)] += 10


GOOD = [
    Action("start", 2, steps=(10, 50)),
    Action("advance"),
    Action("pause"),
    Action("resume"),
    Action("advance"),
    Action("promote", 2),
    Action("rollback"),
]


def test_a_good_history_has_nothing_wrong() -> None:
    made = history(GOOD)
    assert len(made.audit) == 1 + len(GOOD)
    assert broken(made) == []


def _after(made: History, index: int) -> dict[str, Any]:
    """The route of an entry; the next entry's `before` stays as it was."""
    found = copy.deepcopy(made.audit[index]["after"])
    made.audit[index]["after"] = found
    assert isinstance(found, dict)
    return found


def entry_lost(made: History) -> None:
    del made.audit[3]


def entry_twice(made: History) -> None:
    made.audit.insert(3, made.audit[3])


def went_back(made: History) -> None:
    made.seen.append(made.seen[2])


def other_document(made: History) -> None:
    made.seen[2] = made.seen[2]._replace(document={**made.seen[2].document, "champion": 4})


def not_audited_yet(made: History) -> None:
    made.seen[2] = made.seen[2]._replace(told=2)


def no_such_champion(made: History) -> None:
    made.loadable.remove(2)


def too_heavy(made: History) -> None:
    _after(made, 2)["weight"] = 10_001


def below_nothing(made: History) -> None:
    _after(made, 2)["weight"] = -1


def own_canary(made: History) -> None:
    _after(made, 2)["canary"] = 1


def weight_of_nobody(made: History) -> None:
    _after(made, 2)["canary"] = None


def pushed_into_traffic(made: History) -> None:
    made.audit[6]["action"] = "push"


def loaded_into_the_canary(made: History) -> None:
    made.audit[2]["action"] = "load"


def shadow_answered(made: History) -> None:
    """The shadow's numbers under the champion's name."""
    made.answers[Answer(200, 1, "champion", 2, 2)] += 1


def shadow_named(made: History) -> None:
    """The shadow as a canary at the revision at which it only rides along."""
    made.answers[Answer(200, 2, "canary", 2, 2)] += 1


def old_champion(made: History) -> None:
    made.answers[Answer(200, 1, "champion", 7, 1)] += 1


def nobodys_revision(made: History) -> None:
    made.answers[Answer(200, 4, "champion", 0, 4)] += 1


def refused_without_redis(made: History) -> None:
    made.answers[Answer(503, 0, "", 0, 0, False)] += 1


def worker_went_back(made: History) -> None:
    made.steps[5, 4] += 1


def failed_for_no_reason(made: History) -> None:
    made.failures.append(Failure(15.0, 15.1, "reset by peer"))


def failed_when_redis_died(made: History) -> None:
    made.failures.append(Failure(19.9, 20.1, "reset by peer"))


def failed_twice(made: History) -> None:
    made.failures.append(Failure(9.9, 10.1, "reset by peer", "connection refused"))


def done_and_lost(made: History) -> None:
    made.writes.append(Write("operator 99", "done", 9))


def refused_and_done(made: History) -> None:
    made.writes[3] = Write("operator 4", "refused", sentence="changed meanwhile by operator 4")


def done_twice(made: History) -> None:
    made.audit[3]["who"] = "operator 6"


def worker_left_behind(made: History) -> None:
    made.stuck.append("worker 7 applies revision 3, 8 s after revision 5 stood")


def verdict_touched(made: History) -> None:
    made.verdicts.append("verdict 1-0: the gate errors says fail now, it said pass")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (entry_lost, "does not count from 1 by one"),
        (entry_twice, "does not count from 1 by one"),
        (went_back, "went back from revision 8 to 3"),
        (other_document, "as something that the audit does not know"),
        (not_audited_yet, "beside revision 3 the audit's last entry was 2"),
        (no_such_champion, "no version 2 can be loaded"),
        (too_heavy, "weight 10001 is not within"),
        (below_nothing, "weight -1 is not within"),
        (own_canary, "the canary is the champion"),
        (weight_of_nobody, "a weight without a canary"),
        (pushed_into_traffic, "'push' replaced the champion"),
        (loaded_into_the_canary, "'load' moved traffic of the canary"),
        (shadow_answered, "say version 1 and carry 2's numbers"),
        (shadow_named, "answers of version 2 as canary at revision 2"),
        (old_champion, "answers of version 1 as champion at revision 7"),
        (nobodys_revision, "at revision 0, which nobody wrote"),
        (refused_without_redis, "answered 503 while Redis was away"),
        (worker_went_back, "a worker went back from revision 5 to 4"),
        (failed_for_no_reason, "though no worker died"),
        (failed_when_redis_died, "though no worker died"),
        (failed_twice, "on a new connection too"),
        (done_and_lost, "operator 99 was told of revision 9, the audit knows []"),
        (refused_and_done, "was refused .* and yet made revision"),
        (done_twice, "asked once and made the revisions"),
        (worker_left_behind, "worker 7 applies"),
        (verdict_touched, "verdict 1-0"),
    ],
)
def test_what_goes_wrong_is_found(spoil: Callable[[History], None], sentence: str) -> None:
    made = history(GOOD)
    spoil(made)
    with pytest.raises(AssertionError, match=sentence.replace("[", r"\[").replace("]", r"\]")):
        assert not broken(made), "\n".join(broken(made))


actions = st.builds(
    Action,
    st.sampled_from(ACTIONS),
    version=st.sampled_from(VERSIONS),
    percent=st.sampled_from([None, 0.0, 0.01, 33.3, 100.0]),
    steps=st.sampled_from([(), (30,), (30, 60), (100,)]),
)


@given(st.lists(actions, max_size=40))
def test_no_order_of_changes_breaks_an_invariant(asked: list[Action]) -> None:
    """Whatever is asked for, in whatever order: what is legal leaves a lawful route."""
    assert broken(history(asked)) == []


@given(st.lists(actions, min_size=10, max_size=40), st.data())
def test_an_answer_of_anybody_else_is_found(asked: list[Action], data: st.DataObject) -> None:
    """At any revision, any version in any role that its route does not name."""
    made = history(asked)
    route = data.draw(st.sampled_from([entry["after"] for entry in made.audit]))
    role, version = data.draw(
        st.tuples(st.sampled_from(["champion", "canary"]), st.sampled_from(VERSIONS)).filter(
            lambda found: route[found[0]] != found[1]
        )
    )
    made.answers[Answer(200, version, role, route["revision"], version)] += 1
    assert any(f"of version {version} as {role}" in sentence for sentence in broken(made))
