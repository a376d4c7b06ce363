#!/usr/bin/env -S python3 -B
"""A host and a driver of the wire version before work with this build's head and hosts, by the bytes that they sent then.

Right: the head takes both, answers them, asks them for nothing that is newer, and says of a method that nobody knows that it is not offered; so does
the new host for a process of that version. At most 90 s.
"""

import os, struct, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Fail, main, wait
from wire import Connection, Refused, Store, object_id


def refusal(body):
    try:
        body()
    except Refused as refused:
        return refused.code
    return None


def body(trial):
    head = trial.head()
    token = head.token
    identity = os.urandom(16)
    host = Connection(head.address, token, role="host", name="old", host=identity)
    if host.peer["hello"]["wireVersion"] != 2:
        raise Fail(f"the head says wire version {host.peer['hello']['wireVersion']} where a build of version 2 looks for its own")
    object = object_id(7, 9)
    registered = host.call("head.registerHost", {
        "host": identity, "name": "old", "incarnation": 1, "bulk": "127.0.0.1:1", "capacity": 1000,
        "replicas": [{"object": object, "geometry": {"objectSize": 10, "chunkSize": 262144},
                      "digest": os.urandom(32).hex(), "contains": []}],
        "holds": [object], "names": {}, "labels": {}})
    if set(registered) < {"cluster", "epoch"}:
        raise Fail(f"the registration's answer is {registered}")
    host.call("head.setName", {"name": "of the old host", "object": object})
    driver = Connection(head.address, token, role="driver", name="driver")
    job = driver.call("head.startJob", {})["job"]
    found = driver.call("head.resolve", {"nameOrID": "of the old host"})
    if found["object"] != object or found["hosts"] != [identity]:
        raise Fail(f"the old host's object is told as {found}")
    names = [one["name"] for one in driver.call("head.status", {})["hosts"]]
    if "old" not in names:
        raise Fail(f"the old host is not among {names}")
    if (code := refusal(lambda: driver.call("head.fromTheFuture", {}))) != "notFound":
        raise Fail(f"a method that nobody knows is answered with {code}")
    store = Store(head)
    store.register()
    store.make(7, 11, b"bytes of an old process")
    if not wait(lambda: refusal(lambda: driver.call("head.resolve", {"nameOrID": "%016x%016x" % (7, 11)})) is None, 10):
        raise Fail("an object of a process of the version before is not known to the head")
    store.close()
    # What is new is not asked of who does not know it.
    file = head.put("x", 1_000_000)
    if wrong := head.has("x", file):
        raise Fail(wrong)
    rotated = head.mobula("token", "rotate")
    if rotated.status != 0 or "Host old has not" not in rotated.out:
        raise Fail(f"a rotation with an old host: {rotated} {rotated.out}")
    if asked := [method for method, _ in host.asked if "otateToken" in method]:
        raise Fail(f"the old host was asked for {asked}")
    # The token that it has is good until the rotation is finished.
    again = Connection(head.address, token, role="driver", name="again")
    if again.call("head.startJob", {})["job"] == job:
        raise Fail("two jobs have one number")
    return "a host, a driver and a process of wire version 2 are served"


main(body)
