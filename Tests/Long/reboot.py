#!/usr/bin/env -S python3 -B
"""The head's machine is rebooted: all its processes end, its run directory is emptied; first its state is kept, then nothing is.

Right: names and what was broadcast are there, on every host, no process of another host is started again, drivers there
go on; what the machine alone had is said to be gone. Without state, by `mobula head recover`. At most 400 s.
"""

import os, shutil, signal, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, main, wait


def reboot(trial, head, others, state, keeps):
    """Reboots the head's machine and starts it as before; returns what was seen."""
    text = "with its disk" if keeps else "without its disk"
    word = "kept" if keeps else "lost"
    files = {"both": head.put(f"{word}-both", 900_000), "far": others[0].put(f"{word}-far", 800_000)}
    head.do("broadcast", f"{word}-both")
    alone = trial.file(f"{word}-alone", 300_000)
    head.do("put", alone, "--name", f"{word}-alone")
    driver = Life(trial, others[0], actors=("b", "c"), strict=False, names=f"life-{word}", pace=2)
    before = {host.name: life.processes(host) for host in others}
    cluster = head.do("status", "--json").json["cluster"]
    token = trial.file("token", head.token.encode())
    os.chmod(token, 0o600)
    time.sleep(3)
    down = life.clock()
    life.kill_all(head)
    shutil.rmtree(head.directory)
    if not keeps:
        shutil.rmtree(state)
    time.sleep(2)
    if not keeps:
        done = trial.mobula("head", "recover", "--state", state, "--directory", head.directory, "--token-file", token,
                            "--cluster", cluster)
        if done.status != 0:
            raise Fail(f"{text}: {done}")
    head.start()
    up = life.clock()
    if not wait(lambda: len(head.connected()) == 3, 40, 0.25):
        raise Fail(f"{text}: {[host['name'] for host in head.connected()]} are connected 40 s after the reboot")
    back = life.clock() - up
    if head.do("status", "--json").json["cluster"] != cluster:
        raise Fail(f"{text}: it is another cluster")
    for host in (head, *others):
        for name, file in files.items():
            if wrong := host.has(f"{word}-{name}", file):
                raise Fail(f"{text}: {wrong} (host {host.name})")
    gone = head.mobula("get", f"{word}-alone", "-o", trial.path("none"), "--timeout", "5", seconds=20)
    if not gone.refused:
        raise Fail(f"{text}: what the machine alone had: {gone}")
    # Where nobody has it any more, its name can be given anew.
    def given():
        return others[1].mobula("put", alone, "--name", f"{word}-alone").status == 0
    if not wait(given, 30, 1):
        raise Fail(f"{text}: the name of what is gone can't be given anew 30 s later: "
                   f"{others[1].mobula('put', alone, '--name', f'{word}-alone')}")
    if wrong := head.has(f"{word}-alone", alone):
        raise Fail(f"{text}: {wrong}")
    late = life.clock()
    time.sleep(6)
    driver.check()
    if driver.process.poll() is not None:
        raise Fail(f"{text}: the driver on another host ended: {driver.last_words()}")
    things = driver.end()
    fresh = [thing for thing in things if thing[3] and thing[1] > late]
    if fresh:
        raise Fail(f"{text}: {fresh[0][0]} of a driver on another host still fails: {fresh[0][3]}")
    if changed := life.changes(before, {host.name: life.processes(host) for host in others}):
        raise Fail(f"{text}: started again: {', '.join(changed)}")
    if driver.still() != list(driver.actors().values()):
        raise Fail(f"{text}: the actors' workers are {driver.still()}, and were {driver.actors()}")
    life.check_names(driver.named(), (head, *others), sample=20)
    # Of a job of which only named objects are left a recovered head can't tell that it is over, before a minute.
    life.check_books(head, {}, seconds=30 if keeps else 90)
    errors = [thing for thing in things if thing[3]]
    longest = max(thing[2] - thing[1] for thing in things if thing[2] > down)
    return (f"{text}: others back after {back:.1f} s, {len(driver.named())} names there, {len(errors)} errors of a driver "
            f"meanwhile, longest pause {longest:.1f} s")


def body(trial):
    options = ("--capacity", "256MB", "--cpus", "16")
    state = trial.path("state-of-head")
    head = trial.head("--state", state, *options)
    others = [trial.join(head, *options, name=name) for name in ("b", "c")]
    seen = [reboot(trial, head, others, state, keeps) for keeps in (True, False)]
    life.check_nothing_left(trial, *reversed(others), head)
    return "; ".join(seen)


main(body)
