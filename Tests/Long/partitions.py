#!/usr/bin/env -S python3 -B
"""A host of three is cut off the network for 5 s, for 60 s, and until it is given up, and is joined again then.

Right: after 5 s and 60 s objects, holds, names and drivers on both sides are as they were, after 5 s without an error; a
lease there lives on, or its driver is told. A host that was given up ends what its processes have, and begins anew. Needs network namespaces.
At most 600 s.
"""

import os, signal, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life, Network
from cluster import Fail, alive, as_root, descendants, main, wait
from wire import Refused, Store


def workers(host):
    """Processes below a host's pods."""
    pods = [pid for role, pid in life.processes(host).items() if role.startswith("pod ")]
    return [pid for pod in pods for pid in descendants(pod) if alive(pid)]


def held(store):
    """An object that this process holds through a host's store: its id, and its name in `ls`."""
    high, low = 5, int.from_bytes(os.urandom(7), "big")
    store.make(high, low, b"A" * 5000)
    return high, low, f"{high:016x}{low:016x}"


def known(host, name, where):
    rows = [row for row in host.do("ls", "--json").json if row["object"] == name]
    ids = {one["name"]: one["host"] for one in host.do("status", "--json").json["hosts"]}
    return bool(rows) and ids.get(where) in rows[0]["hosts"]


def part(trial, network, head, far, hosts, seconds):
    """Cuts a host off for so long, with drivers on both sides; returns what was seen."""
    strict = seconds < 9
    text = f"cut off for {seconds} s"
    file = far.put(f"only-{seconds}", 900_000)
    both = far.put(f"both-{seconds}", 700_000)
    far.do("broadcast", f"both-{seconds}")
    store = Store(far)
    store.register()
    high, low, name = held(store)
    if not wait(lambda: known(head, name, far.name), 10, 0.2):
        raise Fail(f"{text}: the head never heard of a held object")
    near = Life(trial, hosts[2], actors=("a", "b", "c"), strict=strict, names=f"near{seconds}", pace=3)
    there = Life(trial, far, actors=("b", "c"), strict=strict, names=f"there{seconds}", pace=3)
    before = {host.name: life.processes(host) for host in hosts}
    time.sleep(2)
    cut = life.clock()
    network.cut(1)
    end = time.monotonic() + seconds
    if not strict:
        # The others go on: what is with them can be had.
        absent = lambda: [host["name"] for host in head.do("status", "--json").json["absent"]]
        if not wait(lambda: absent() == ["b"], 30, 0.5):
            raise Fail(f"{text}: after 30 s the head says that these are absent: {absent()}")
        if wrong := hosts[2].has(f"both-{seconds}", both):
            raise Fail(f"{text}: a broadcast object can't be had from the others: {wrong}")
        got = head.mobula("get", f"only-{seconds}", "-o", trial.path("none"), "--timeout", "3", seconds=20)
        if not got.refused:
            raise Fail(f"{text}: an object whose only host is away: {got}")
        # By name it needs the head; other bytes it may not bring.
        wrong = far.has(f"only-{seconds}", file)
        if wrong and "other bytes" in wrong:
            raise Fail(f"{text}: {wrong} (host b, cut off)")
    time.sleep(max(0, end - time.monotonic()))
    network.heal(1)
    healed = life.clock()
    if not wait(lambda: len(head.connected()) == 3, 60, 0.25):
        raise Fail(f"{text}: b is not back 60 s after that")
    back = life.clock() - healed
    if changed := life.changes(before, {host.name: life.processes(host) for host in hosts}):
        raise Fail(f"{text}: started again: {', '.join(changed)}")
    for host in hosts:
        if wrong := host.has(f"only-{seconds}", file) or host.has(f"both-{seconds}", both):
            raise Fail(f"{text}: {wrong} (host {host.name})")
    time.sleep(3)
    if not known(head, name, far.name):
        raise Fail(f"{text}: the head does not know what a living process of b holds")
    try:
        store.ask(8, [high, low])
    except Refused as refused:
        raise Fail(f"{text}: the process that holds an object on b can't pin it any more: {refused}")
    store.release((high, low))
    store.close()
    time.sleep(5)
    late = life.clock()
    time.sleep(5)
    things = {}
    for driver in (near, there):
        driver.check()
        if driver.process.poll() is not None:
            raise Fail(f"{text}: the driver on {driver.host.name} ended: {driver.last_words()}")
        things[driver.prefix] = driver.end()
        # What has an actor whose lease was lost fails, and says so, for good.
        fresh = [thing for thing in things[driver.prefix]
                 if thing[3] and thing[1] > late and thing[0] not in ("call", "exchange", "broadcast")]
        if fresh:
            raise Fail(f"{text}: {fresh[0][0]} of the driver on {driver.host.name} fails 10 s after it is back: "
                       f"{fresh[0][3]}")
        life.check_names(driver.named(), hosts, sample=15)
    wrong = [thing for list_ in things.values() for thing in list_ if thing[3]]
    life.check_books(head, {})
    longest = max((thing[2] - thing[1] for list_ in things.values() for thing in list_ if thing[2] > cut), default=0)
    return f"{seconds} s: back after {back:.1f} s, {len(wrong)} errors, longest pause {longest:.1f} s"


def for_ever(trial, network, head, far, hosts):
    """Cuts a host off and gives it up, with a driver there and an actor of another's; then it comes back."""
    text = "given up"
    far.put("lost", 500_000)
    kept = far.put("kept", 500_000)
    far.do("broadcast", "kept")
    near = Life(trial, hosts[2], actors=("b", "c"), strict=False, names="nearever", pace=3)
    there = Life(trial, far, actors=("b", "c"), strict=False, names="thereever", pace=3)
    store = Store(far)
    store.register()
    high, low, name = held(store)
    time.sleep(2)
    before = life.processes(far)
    old = workers(far)
    if not old:
        raise Fail("the actors on b have no workers")
    network.cut(1)
    if not wait(lambda: [host["name"] for host in head.do("status", "--json").json["absent"]] == ["b"], 40, 0.5):
        raise Fail(f"{text}: b is not absent 40 s after it was cut off")
    head.do("host", "forget", "b")
    if wrong := hosts[2].has("kept", kept):
        raise Fail(f"{text}: {wrong}")
    gone = head.mobula("get", "lost", "-o", trial.path("none"), "--timeout", "3", seconds=20)
    if not gone.refused:
        raise Fail(f"{text}: an object that only a host had which was given up: {gone}")
    # Its name says so until it is given to something else.
    again = trial.file("put-again", 123_456)
    head.do("put", again, "--name", "lost", "--replace")
    time.sleep(5)
    network.heal(1)
    if not wait(lambda: len(head.connected()) == 3, 60, 0.25):
        raise Fail(f"{text}: b is not back 60 s after it was joined")
    if changed := life.changes({"b": before}, {"b": life.processes(far)}):
        raise Fail(f"{text}: started again: {', '.join(changed)}")
    if not wait(lambda: not any(alive(pid) for pid in old), 30, 0.2):
        raise Fail(f"{text}: workers of b from before still run 30 s after it is back")
    if known(head, name, "b"):
        raise Fail(f"{text}: the head knows an object of b's from before")
    try:
        store.ask(8, [high, low])
        time.sleep(1)
        raise Fail(f"{text}: a process of b from before can still pin what was given up")
    except (Refused, OSError):
        pass
    # Its driver is told, and does not hang.
    if there.process.poll() is None:
        there.end()
    near.end()
    for driver in (near, there):
        driver.check_end()
    for host in hosts:
        if wrong := host.has("kept", kept) or host.has("lost", again):
            raise Fail(f"{text}: {wrong} (host {host.name})")
    # What is given out there from now on works.
    after = Life(trial, far, actors=("a", "b", "c"), names="anew", pace=2)
    time.sleep(5)
    after.end()
    life.check_names(after.named(), hosts, sample=10)
    life.check_books(head)
    return "for ever: given up, ended first, began anew"


def body(trial):
    network = Network(trial, 3)
    options = ("--capacity", "256MB", "--cpus", "16")
    head = network.head(trial, 0, *options)
    far = network.join(trial, head, 1, *options, name="b")
    hosts = [head, far, network.join(trial, head, 2, *options, name="c")]
    seen = [part(trial, network, head, far, hosts, seconds) for seconds in (5, 60)]
    seen.append(for_ever(trial, network, head, far, hosts))
    life.check_nothing_left(trial, *reversed(hosts))
    return "; ".join(seen)


as_root()
main(body)
