#!/usr/bin/env -S python3 -B
"""The head's journal is damaged at random bytes, cut, or torn at the end of its log, 60 times (LONG_DAMAGES, LONG_SEED), after the head was killed.

Right: the head starts with every name as it was, or, where the log ends earlier, without the last of them; or it refuses in
a sentence that names the file and `mobula head recover`, which then gives a head that knows the names from the hosts.
Never another answer. At most 1200 s.
"""

import os, random, shutil, signal, sys, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from cluster import Fail, main, send, wait


def damage(dice, folder):
    """Damages the journal, and says how."""
    files = [name for name in ("journal.sqlite", "journal.sqlite-wal") if os.path.exists(os.path.join(folder, name))
             and os.path.getsize(os.path.join(folder, name)) > 0]
    name = dice.choice(files)
    path = os.path.join(folder, name)
    size = os.path.getsize(path)
    kind = dice.choice(["bytes", "bytes", "bytes", "block", "zeros", "cut", "tail"])
    with open(path, "r+b") as file:
        if kind == "bytes":
            for _ in range(dice.choice([1, 1, 3, 20])):
                at = dice.randrange(size)
                file.seek(at)
                old = file.read(1)[0]
                file.seek(at)
                file.write(bytes([old ^ dice.randrange(1, 256)]))
        elif kind in ("block", "zeros"):
            length = min(size, dice.choice([512, 4096]))
            file.seek(dice.randrange(size - length + 1))
            file.write(bytes(length) if kind == "zeros" else dice.randbytes(length))
        elif kind == "cut":
            file.truncate(dice.randrange(size))
        else:
            file.seek(0, 2)
            file.write(dice.randbytes(dice.choice([1, 100, 5000])))
    return f"{kind} of {name}", name.endswith("-wal")


def body(trial):
    seed = life.number("LONG_SEED", random.randrange(1 << 32))
    rounds = life.number("LONG_DAMAGES", 60)
    dice = random.Random(seed)
    state = trial.path("state-of-head")
    head = trial.head("--state", state, name="a", check=False)
    other = trial.join(head, name="b")
    # In the order in which they were given.
    numbers, contents = range(30), {}
    for n in numbers:
        contents[f"n{n}"] = life.pattern(n, life.pattern_size(n))
        path = trial.file("content", contents[f"n{n}"])
        other.do("put", path, "--name", f"n{n}")
    starts = recoveries = lost = 0
    for number in range(rounds):
        # What is in the log alone differs from round to round.
        fresh = f"fresh{number}"
        contents[fresh] = life.pattern(number + 100, life.pattern_size(number + 100))
        other.do("put", trial.file("content", contents[fresh]), "--name", fresh)
        life.kill_all(head)
        how, is_log = damage(dice, state)
        how = f"seed {seed}, round {number}, {how}"
        started = head.mobula("start", *head.arguments, seconds=40)
        if started.status != 0:
            if "newer build" in started.err:
                # The row that says who has written it: no way leads on but without the file.
                os.unlink(os.path.join(state, "journal.sqlite"))
            elif not (started.refused and state in started.err and "mobula head recover" in started.err):
                raise Fail(f"{how}: {started}")
            recovered = head.mobula("head", "recover", "--state", state)
            if recovered.status != 0:
                raise Fail(f"{how}: {recovered}")
            started = head.mobula("start", *head.arguments, seconds=40)
            if started.status != 0:
                raise Fail(f"{how}: after `head recover` {started}")
            recoveries += 1
        else:
            starts += 1
        if not wait(lambda: len(head.connected()) == 2, 30, 0.2):
            raise Fail(f"{how}: the other host is not back within 30 s: {head.mobula('status')} "
                       f"{other.mobula('status').out[-300:]}")
        # The host that has the objects knows their names: none may be gone, and none may be another's.
        listed = {}
        def all_there():
            listed.clear()
            listed.update({name: row for row in head.do("ls", "--json").json for name in row["names"]})
            return set(contents) <= set(listed)
        if not wait(all_there, 15, 0.5):
            # Of a log that ends earlier than it did nobody can tell: it is as it was some commits ago.
            order = list(contents)
            gone = [name for name in order if name not in listed]
            if not is_log or order[-len(gone):] != gone:
                raise Fail(f"{how}: {gone[:3]} are gone, {len(gone)} of {len(order)}")
            lost += len(gone)
            for name in gone:
                other.do("put", trial.file("content", contents[name]), "--name", name)
        if strange := set(listed) - set(contents):
            raise Fail(f"{how}: names that nobody gave: {sorted(strange)[:3]}")
        for name in dice.sample(sorted(contents), 4) + [fresh]:
            if wrong := head.has(name, contents[name]):
                raise Fail(f"{how}: {wrong}")
        shutil.rmtree(trial.path("content"), ignore_errors=True)
        for name in os.listdir(state):
            if ".damaged-" in name:
                os.unlink(os.path.join(state, name))
    life.check_nothing_left(trial, other, head)
    return (f"seed {seed}: {rounds} times damaged, {starts} times started all the same, {recoveries} times recovered, "
            f"{lost} names were lost with the end of the log")


main(body)
