#!/usr/bin/env -S python3 -B
"""The disk of the head's journal (2 MB of its own) is filled under a driver, the head is killed while it is full, and there is room again.

Right: what needs the journal fails with a sentence that names it, all else goes on; a head that is started meanwhile does
what it can or says why it can't, and all goes on when there is room. At most 240 s. Needs root.
"""

import os, signal, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, Skip, main, send, wait


def body(trial):
    if os.geteuid() != 0:
        raise Skip("mounting a small disk needs root")
    state = trial.path("small")
    os.mkdir(state, 0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", state], capture_output=True).returncode:
        raise Skip("no small disk can be mounted here")
    trial.undo.append(lambda: subprocess.run(["umount", "-l", state]))
    options = ("--capacity", "256MB", "--cpus", "16")
    head = trial.head("--state", state, *options, name="a")
    other = trial.join(head, *options, name="b")
    hosts = (head, other)
    kept = other.put("kept", 500_000)
    driver = Life(trial, other, actors=("a", "b"), strict=False, names="full", pace=2)
    before = {host.name: life.processes(host) for host in hosts}
    time.sleep(2)
    full = life.clock()
    with open(os.path.join(state, "filler"), "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    said = None
    for number in range(300):
        result = head.mobula("put", kept, "--name", "x" * 3000 + str(number))
        if result.status != 0:
            said = result
            break
    if said is None or "journal" not in said.err or not said.refused:
        raise Fail(f"with a full disk a name was to be refused, with the journal's name: {said}")
    for host in hosts:
        if wrong := host.has("kept", kept):
            raise Fail(f"with a full disk: {wrong} (host {host.name})")
    time.sleep(3)
    send(head.process("head"), signal.SIGKILL)
    time.sleep(8)
    status = other.mobula("status", "--json")
    # It can't write down that it has started: it may refuse to, and then a host says so.
    if status.status != 0 and not status.refused:
        raise Fail(f"with a full disk and another head: {status}")
    os.unlink(os.path.join(state, "filler"))
    if not wait(lambda: len(head.connected()) == 2, 60, 0.5):
        raise Fail(f"there is room again, and after 60 s not all hosts are connected: {head.mobula('status')}")
    room = life.clock()
    time.sleep(8)
    driver.check()
    things = driver.end()
    fresh = [thing for thing in things if thing[3] and thing[1] > room + 5]
    if fresh:
        raise Fail(f"there is room again, but {fresh[0][0]} fails: {fresh[0][3]}")
    unneeded = [thing for thing in things if thing[3] and thing[0] in ("put", "view", "call", "exchange")]
    if unneeded:
        raise Fail(f"{unneeded[0][0]} failed, which needs no journal: {unneeded[0][3]}")
    if changed := life.changes(before, {host.name: life.processes(host) for host in hosts}, besides=("head",)):
        raise Fail(f"started again: {', '.join(changed)}")
    life.check_names(driver.named(), hosts, sample=30)
    if wrong := head.has("kept", kept):
        raise Fail(wrong)
    life.check_books(head)
    life.check_nothing_left(trial, other, head)
    refused = sum(1 for thing in things if thing[3])
    return (f"refused with “{said.said[:90]}…”; {refused} errors of a driver meanwhile, "
            f"{len(driver.named())} names kept, the head {'answered' if status.status == 0 else 'refused to start'} while full")


main(body)
