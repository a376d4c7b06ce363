#!/usr/bin/env -S python3 -B
"""Two heads are started on one state directory, and a copy of a host's directory is started beside the original, 5 times; then in its place.

Right: the second is refused with a sentence and the first goes on undisturbed, its processes too; a copy that takes the
place of a host that is gone is that host, with nothing of its objects. At most 300 s.
"""

import os, shutil, signal, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, Host, free_port, main, send, wait


def copied(trial, host, head, name, directory):
    """A host in a copy of another's directory, not started yet."""
    shutil.copytree(host.directory, directory, ignore=lambda folder, names: [
        name for name in names if name.endswith((".sock", ".pid", ".lock"))], symlinks=True)
    return trial.join(head, "--capacity", "128MB", "--cpus", "8", name=name, directory=directory, begin=False, check=False)


def body(trial):
    state = trial.path("state-of-head")
    options = ("--capacity", "128MB", "--cpus", "8")
    head = trial.head("--state", state, *options, name="a")
    host = trial.join(head, *options, name="b")
    hosts = (head, host)
    kept = host.put("kept", 1_000_000)
    # Which no other host ever reads.
    host.put("alone", 1_000_000)
    driver = Life(trial, host, actors=("a", "b"), names="twins", pace=2)
    before = {one.name: life.processes(one) for one in hosts}
    for number in range(5):
        second = Host(trial, f"second{number}", free_port(), None, ("--state", state), {"check": False})
        if not (second.started.refused and "state folder" in second.started.err):
            raise Fail(f"a second head on one state directory: {second.started}")
        if second.supervisor:
            raise Fail("the supervisor of a second head on one state directory stays")
        # Also while the first is being started again.
        send(head.process("head"), signal.SIGKILL)
        second.start()
        if second.started.status == 0:
            second.stop()
        elif not second.started.refused:
            raise Fail(f"a second head while the first is started again: {second.started}")
        if not wait(lambda: len(head.connected()) == 2, 30, 0.2):
            raise Fail("after a second head was tried, the first has not all its hosts within 30 s")
        # A call under which the head ends four times within a second each is taken for what ends it.
        time.sleep(1.5)
        driver.check()
    for number in range(5):
        copy = copied(trial, host, head, f"copy{number}", trial.path(f"copy{number}"))
        copy.start()
        time.sleep(2)
        # It may be started, and is refused then.
        if copy.started.status == 0:
            state_of = copy.mobula("status", "--json")
            if state_of.status == 0 and state_of.json["here"]["head"]["state"] == "connected":
                raise Fail(f"a copy of a host that runs is connected, too")
        elif not copy.started.refused:
            raise Fail(f"a copy of a host that runs: {copy.started}")
        driver.check()
        copy.stop()
        shutil.rmtree(copy.directory, ignore_errors=True)
    if not wait(lambda: len(head.connected()) == 2, 20, 0.2):
        raise Fail("after copies of a host were tried, it is not connected")
    driver.end()
    if changed := life.changes(before, {one.name: life.processes(one) for one in hosts}, besides=("head",)):
        raise Fail(f"started again: {', '.join(changed)}")
    for one in hosts:
        if wrong := one.has("kept", kept):
            raise Fail(f"{wrong} (host {one.name})")
    life.check_names(driver.named(), hosts, sample=20)
    life.check_books(head)
    # The original is gone for good: its copy takes its place.
    copy = copied(trial, host, head, "b", trial.path("heir"))
    life.kill_all(host)
    copy.check = True
    copy.start()
    if not wait(lambda: len(head.connected()) == 2, 40, 0.5):
        raise Fail(f"a copy of a host that is gone does not take its place within 40 s: {copy.mobula('status')}")
    if wrong := head.has("kept", kept):
        raise Fail(f"what another host has a copy of: {wrong}")
    gone = head.mobula("get", "alone", "-o", trial.path("none"), "--timeout", "5", seconds=20)
    if not gone.refused:
        raise Fail(f"the objects of a host that is gone: {gone}")
    after = Life(trial, copy, actors=("a", "b"), names="heir", pace=2)
    time.sleep(3)
    after.end()
    life.check_books(head)
    life.check_nothing_left(trial, copy, head)
    return "five second heads and five copies were refused, one took its original's place"


main(body)
