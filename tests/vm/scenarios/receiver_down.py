"""The receiver is down for the whole incident; then it answers 503, then 429, then it takes one message of all."""

import itertools


def act(rig):
    rig.burst(200, limit=64)
    rig.wait_until_named()
    rig.stop("phones", "shop")
    rig.wait("the incident is closed", lambda: rig.incidents() and rig.incidents()[0]["closed_at"], seconds=60)
    rig.note("shown", rig.run("sockmem-agent", "incidents", "show", "last"))
    rig.listen(503, 429, 200)
    rig.wait_until_all_is_told()


def check(found):
    incident = found.the_incident()
    found.check_orphans(incident, unit="shop.service")
    assert "waiting since" in found.notes["shown"]
    assert [503, 429, 200] == [post["answered"] for post in found.posts][:3]
    at = [post["at"] for post in found.posts[:3]]
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(at))  # Retry-After, of 503 and 429
    assert 1 == len({post["headers"]["webhook-id"] for post in found.posts[:3]})
    # What began and ended before it could be told is one late message.
    assert ["resolved"] == found.told(incident)
