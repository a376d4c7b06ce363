#!/usr/bin/env -S python3 -B
"""A host tells the head of 1,000,000 objects (LONG_OBJECTS) that it has and holds.

Right: the head's process has grown by no more than 600 bytes for each, and answers. At most 600 s.
"""

import os, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from cluster import Fail, main, memory
from wire import Connection, object_id

BATCH = 10_000


def body(trial):
    count = life.number("LONG_OBJECTS", 1_000_000)
    head, guest = trial.head(), os.urandom(16)
    host = Connection(head.address, head.token, role="host", name="guest", host=guest, incarnation=1)
    host.call("head.registerHost", {"host": guest, "name": "guest", "incarnation": 1, "bulk": "127.0.0.1:1",
                                    "capacity": 10**12, "replicas": [], "holds": [], "names": {}, "labels": {}})
    pid = head.process("head")

    def tell(first, last):
        for begin in range(first, last, BATCH):
            host.call("head.replicasChanged", {"host": guest, "changes": [
                {"sealed": {"held": True, "_0": {
                    "object": object_id(5, number), "geometry": {"objectSize": 100, "chunkSize": 262144},
                    "digest": f"{number:064x}", "contains": []}}} for number in range(begin, min(last, begin + BATCH))]},
                120)

    # What frames and queues take once is no object's.
    tell(0, BATCH)
    time.sleep(1)
    before, begun = memory(pid, "VmRSS"), time.monotonic()
    tell(BATCH, count + BATCH)
    seconds = time.monotonic() - begun
    time.sleep(2)
    grown = memory(pid, "VmRSS") - before
    known = head.do("status", "--json", seconds=60).json["objects"]
    if known != count + BATCH:
        raise Fail(f"the head knows {known} of {count + BATCH} objects")
    text = f"{grown / count:.0f} bytes for each of {count} objects, told in {seconds:.0f} s"
    if grown > 600 * count:
        raise Fail(text)
    return text


main(body)
