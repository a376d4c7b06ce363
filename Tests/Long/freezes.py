#!/usr/bin/env -S python3 -B
"""Each kind of process (supervisor, head, host, pod, an actor's worker, driver) is stopped for 3 s, 15 s and 90 s, and goes on.

Right: nothing but what was stopped notices after 3 s; after all of it no process was started again, named objects have
their bytes, a driver can do everything, and no wrong answer was given. At most 600 s.
"""

import os, signal, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, alive, main, send, wait

ROLES = ("supervisor", "head", "host", "pod", "worker", "driver")


def stopped(trial, role, index):
    """One cluster, of which a process of a role is stopped for longer and longer; returns what was seen."""
    options = ("--capacity", "128MB", "--cpus", "8")
    head = trial.head(*options, name=f"{role}-a")
    host = trial.join(head, *options, name=f"{role}-b")
    hosts, seen = (head, host), []
    for seconds in (3, 15, 90):
        text = f"{role} stopped for {seconds} s"
        file = trial.file(f"{role}-{seconds}", 600_000)
        host.do("put", file, "--name", f"x{seconds}")
        # Of a head that is stopped for a while nobody needs an answer within 30 s.
        strict = seconds == 3 or seconds == 15 and role in ("head", "supervisor")
        driver = Life(trial, host, actors=(head.name, host.name), strict=strict, names=f"{role}{seconds}", pace=6)
        before = {one.name: life.processes(one) for one in hosts}
        pid = {
            "supervisor": lambda: host.supervisor, "head": lambda: head.process("head"),
            "host": lambda: host.process("host"), "pod": lambda: host.process("pod"),
            "worker": lambda: driver.actors()[host.name], "driver": lambda: driver.process.pid,
        }[role]()
        time.sleep(2)
        send(pid, signal.SIGSTOP)
        time.sleep(seconds)
        send(pid, signal.SIGCONT)
        if not wait(lambda: len(head.connected()) == 2, 60, 0.5):
            raise Fail(f"{text}: a host is not back 60 s later")
        for one in hosts:
            if wrong := wait_right(one, f"x{seconds}", open(file, "rb").read()):
                raise Fail(f"{text}: {wrong} (host {one.name})")
        time.sleep(12)
        late = life.clock()
        time.sleep(4)
        driver.check()
        if driver.process.poll() is not None and not (role == "driver" and seconds == 90):
            raise Fail(f"{text}: the driver ended: {driver.last_words()}")
        things = driver.end() if driver.process.poll() is None else driver.done()
        fresh = [thing for thing in things
                 if thing[3] and thing[1] > late and thing[0] not in ("call", "exchange", "broadcast")]
        if fresh and not (role == "driver" and seconds == 90 and "has ended" in fresh[0][3]):
            raise Fail(f"{text}: {fresh[0][0]} still fails 12 s later: {fresh[0][3]}")
        if changed := life.changes(before, {one.name: life.processes(one) for one in hosts}):
            raise Fail(f"{text}: started again: {', '.join(changed)}")
        for name, number in list(driver.named().items())[-5:]:
            if wrong := wait_right(head, name, life.pattern(number, life.pattern_size(number))):
                raise Fail(f"{text}: {wrong}")
        # What runs anew, runs.
        after = Life(trial, host, actors=(head.name, host.name), names=f"{role}{seconds}after", pace=6)
        time.sleep(3)
        after.end()
        try:
            life.check_books(head)
        except Fail as fail:
            raise Fail(f"{text}: {fail}")
        errors = sum(1 for thing in things if thing[3])
        seen.append(f"{seconds} s {errors}")
    life.check_nothing_left(trial, host, head)
    return f"{role} ({', '.join(seen)} errors)"


def wait_right(host, name, content):
    """As `Host.has`, with a file of its own: many do this at a time."""
    path = host.trial.path(f"got-{host.name}-{name}")
    result = host.mobula("get", name, "-o", path, "--timeout", "20", seconds=40)
    if result.status != 0:
        return str(result)
    with open(path, "rb") as file:
        return None if file.read() == content else f"`get {name}` brought other bytes"


def body(trial):
    roles = [role for role in ROLES if role in os.environ.get("LONG_ROLES", ",".join(ROLES)).split(",")]
    outcomes = {}

    def attempt(role, index):
        try:
            outcomes[role] = (True, stopped(trial, role, index))
        except Exception as error:
            outcomes[role] = (False, str(error) if isinstance(error, Fail) else repr(error))

    threads = [threading.Thread(target=attempt, args=(role, index), daemon=True) for index, role in enumerate(roles)]
    for thread in threads:
        thread.start()
        time.sleep(1)
    for thread in threads:
        thread.join()
    if failed := [text for fine, text in outcomes.values() if not fine]:
        raise Fail(failed)
    return "; ".join(text for _, text in outcomes.values())


main(body)
