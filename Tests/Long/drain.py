#!/usr/bin/env -S python3 -B
"""A host is drained while head, source and target are killed (LONG_KILLS rounds of 10), after it was away, and beside a copy on a host that has just died.

Right: what says that a host may go is so: it is stopped then, and all that it had is on others with its bytes; all else
ends with a sentence and status 1. At most 600 s.
"""

import json, os, random, signal, subprocess, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from cluster import Fail, main, send, wait

COUNT = 40


def drained(host, name, *options, seconds=60):
    """Drains a host; returns whether it may go."""
    result = host.mobula("host", "drain", name, "--json", *options, seconds=seconds)
    if result.status not in (0, 1) or result.status == 0 and not result.json["mayGo"]:
        raise Fail(f"drain of {name}: {result}")
    return result.status == 0


def fill(trial, host, prefix):
    """Objects that only this host has, by name."""
    folder = trial.path("files-" + prefix)
    os.mkdir(folder)
    contents = {}
    for number in range(COUNT):
        name = f"{prefix}{number}"
        contents[name] = life.pattern(number, 3000 + number)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(contents[name])
    host.do("put", folder + "/", "--name", f"{prefix}/")
    return {f"{prefix}/{name}": content for name, content in contents.items()}


def check(host, contents, what):
    for name, content in random.sample(sorted(contents.items()), 10):
        if wrong := host.has(name, content):
            raise Fail(f"{what}: {name}: {wrong}")


def under_kills(trial, head, other, number):
    """One round; returns whether it came to its end by itself."""
    host = trial.join(head, "--capacity", "64MB", name=f"k{number}")
    contents = fill(trial, host, f"k{number}")
    process = subprocess.Popen(
        [os.environ["MOBULA"], "host", "drain", host.name, "--json", "--directory", head.directory],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    victims = [(head, "head"), (host, "host"), (other, "host")]
    for _ in range(3):
        time.sleep(random.uniform(0, 0.15))
        owner, role = random.choice(victims)
        if pid := owner.process(role):
            send(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    if process.returncode not in (0, 1) or "Fatal" in err:
        raise Fail(f"drain under kills ended with {process.returncode}: {err}")
    isFirst = process.returncode == 0
    if isFirst and not json.loads(out)["mayGo"]:
        raise Fail(f"drain ended with 0 and said {out}")
    if not isFirst and not wait(lambda: drained(head, host.name, "--timeout", "20"), 60, 0.5):
        raise Fail(f"a host can't be drained after kills: {err}")
    host.stop()
    check(head, contents, f"round {number}")
    return isFirst


def body(trial):
    head = trial.head("--capacity", "256MB", name="a")
    other = trial.join(head, "--capacity", "256MB", name="c")
    rounds = life.number("LONG_KILLS", 10)
    first = sum(under_kills(trial, head, other, number) for number in range(rounds))

    away = trial.join(head, "--capacity", "64MB", name="away")
    contents = fill(trial, away, "away")
    pid = away.process("host")
    send(pid, signal.SIGSTOP)
    if not wait(lambda: "away" not in {row["name"] for row in head.do("status", "--json").json["hosts"]}, 60, 0.5):
        raise Fail("a host that is stopped is never absent")
    if drained(head, "away", "--timeout", "5"):
        raise Fail("a host that is away may go")
    send(pid, signal.SIGCONT)
    if not wait(lambda: drained(head, "away", "--timeout", "20"), 60, 0.5):
        raise Fail("a host that is back can't be drained")
    away.stop()
    check(head, contents, "a host that was away")

    lone = trial.join(head, "--capacity", "64MB", name="lone")
    dying = trial.join(head, "--capacity", "64MB", name="dying")
    contents = fill(trial, lone, "lone")
    for name in contents:
        dying.do("get", name, "-o", trial.path("copy"))
    life.kill_all(dying)
    if drained(head, "lone", "--timeout", "60", seconds=90):
        lone.stop()
        check(head, contents, "beside a copy on a host that has died")
    return f"{rounds} rounds under kills, {first} went on to their end; away and beside a dead copy, as it is right"


main(body)
