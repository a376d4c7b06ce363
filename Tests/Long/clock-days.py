#!/usr/bin/env -S python3 -B
"""The clock of two hosts jumps a day ahead, two back and one ahead again, under a driver; each time host, pod and head are killed.

Right: all of them are started again and registered, objects and names are there, the driver notices nothing of the jumps.
At most 400 s.
"""

import os, runpy, shutil, signal, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, Skip, main, send, wait


def shim():
    """The source of what lies about the clock, from the trial that has it."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Trials", "clock-step-back.py")
    with open(path) as file:
        return file.read().split('SHIM = r"""')[1].split('"""')[0]


def body(trial):
    if not shutil.which("cc"):
        raise Skip("there is no cc here to build the clock's shim with")
    library, source, offset = trial.path("clock.so"), trial.file("clock.c", shim().encode()), trial.file("offset", b"0")
    built = subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], capture_output=True, text=True)
    if built.returncode != 0:
        raise Skip(f"cc can't build the clock's shim: {built.stderr.strip()[:200]}")
    environment = {"LD_PRELOAD": library, "CLOCK_OFFSET_FILE": offset}
    options = ("--capacity", "128MB", "--cpus", "8")
    head = trial.head(*options, name="a", env=environment)
    host = trial.join(head, *options, name="b", env=environment)
    hosts = (head, host)
    kept = host.put("kept", 1_000_000)
    seen = []
    for step, value in enumerate((86_400, -86_400, 0)):
        text = f"at {value:+d} s"
        trial.environment |= environment
        driver = Life(trial, host, actors=("a", "b"), names=f"clock{step}", pace=3)
        time.sleep(2)
        before = {one.name: life.processes(one) for one in hosts}
        trial.file("offset", str(value).encode())
        time.sleep(15)
        things = driver.end()
        if changed := life.changes(before, {one.name: life.processes(one) for one in hosts}):
            raise Fail(f"{text}: started again by the jump: {', '.join(changed)}")
        seen.append(max(thing[2] - thing[1] for thing in things))
        for role in ("host", "head", "pod"):
            owner = head if role == "head" else host
            process, supervisor = owner.process(role), owner.supervisor
            send(process, signal.SIGKILL)
            if not wait(lambda: owner.process(role) not in (None, process), 15) or owner.supervisor != supervisor:
                raise Fail(f"{text}: {role} was killed, and not started again")
            if not wait(lambda: len(head.connected()) == 2, 30, 0.3):
                raise Fail(f"{text}: {role} was killed, and 30 s later not all are connected")
            for one in hosts:
                if wrong := one.has("kept", kept):
                    raise Fail(f"{text}, after {role} was killed: {wrong} (host {one.name})")
        after = Life(trial, host, actors=("a", "b"), names=f"clock{step}after", pace=3)
        time.sleep(3)
        after.end()
        for one in (driver, after):
            life.check_names(one.named(), hosts, sample=10)
        life.check_books(head)
    life.check_nothing_left(trial, host, head)
    return "longest pauses after jumps of a day: " + ", ".join(f"{pause:.1f} s" for pause in seen)


main(body)
