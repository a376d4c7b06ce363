#!/usr/bin/env -S python3 -B
"""The head is killed 200 times (LONG_KILLS) in a cluster of three hosts, under puts, gets, names, tasks, actors, broadcasts and fetches.

Right: no process but the head is started again, no error and no wrong answer reaches the driver, every name is there on
every host with its bytes. The pauses are reported, not judged: those of all but the broadcasts, which wait for whatever
else moves, and beside them how long broadcasts took with a head that was killed meanwhile and without. At most 1500 s.
"""

import os, random, signal, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, main, send, wait
from s3stub import Stub


def body(trial):
    kills = life.number("LONG_KILLS", 200)
    sizes = [300_000, 1_100_000, 2_500_000, 70_000]
    stub = Stub({("b", f"m{n}"): life.pattern(n, size) for n, size in enumerate(sizes)})
    # The names keep all that they name: some 250 MB by the end.
    options = ("--capacity", "1GB", "--cpus", "16")
    head = trial.head(*options)
    others = [trial.join(head, *options, name=name) for name in ("b", "c")]
    hosts = [head, *others]
    driver = Life(trial, others[0], actors=("a", "b", "c"), stub=stub,
                  urls=[f"s3://b/m{n}" for n in range(len(sizes))])
    before = {host.name: life.processes(host) for host in hosts}
    instants, missed = [], 0
    for _ in range(kills):
        time.sleep(random.uniform(2.1, 2.6))
        process = head.process("head")
        if process is None:
            # It is being started again.
            missed += 1
            continue
        instants.append(life.clock())
        send(process, signal.SIGKILL)
        driver.check()
    time.sleep(3)
    things = driver.end()
    if changed := life.changes(before, {host.name: life.processes(host) for host in hosts}, besides=("head",)):
        raise Fail(f"started again beside the head: {', '.join(changed)}")
    if driver.still() != list(driver.actors().values()):
        raise Fail(f"the actors' workers are {driver.still()} at the end, and were {driver.actors()}")
    named = driver.named()
    life.check_names(named, hosts)
    listed = {name for row in head.do("ls", "--json").json for name in row["names"]}
    if lost := [name for name in named if name not in listed]:
        raise Fail(f"{len(lost)} of {len(named)} names are gone, as {lost[0]}")
    life.check_books(head, named)
    life.check_nothing_left(trial, *reversed(hosts))
    broadcasts = [thing for thing in things if thing[0] == "broadcast"]
    longest = life.pauses([thing for thing in things if thing[0] != "broadcast"], instants)
    met, unmet = [], []
    for _, begin, end, _ in broadcasts:
        (met if any(begin <= at <= end for at in instants) else unmet).append(end - begin)
    counts = {what: sum(thing[0] == what for thing in things) for what in sorted({thing[0] for thing in things})}
    return (f"{len(instants)} kills, {len(things)} things done ("
            + ", ".join(f"{what} {count}" for what, count in counts.items())
            + f"), {len(named)} names, no error; pause after a kill: median {life.percentile(longest, 0.5):.2f} s, "
            f"p99 {life.percentile(longest, 0.99):.2f} s, longest {longest[-1]:.2f} s; broadcasts took "
            f"{life.percentile(sorted(met), 0.5):.2f} s with a kill, {life.percentile(sorted(unmet), 0.5):.2f} s without (median)")


main(body)
