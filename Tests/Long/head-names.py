#!/usr/bin/env -S python3 -B
"""64 clients, each with connections of its own, name objects for 10 s, with the journal on disk (three runs).

Right: at least 2,000 names a second in the median. At most 120 s.
"""

import os, re, shutil, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from cluster import Fail, Skip, main


def body(trial):
    app = os.environ.get("MOBULA_TEST_APP") or os.path.join(os.path.dirname(trial.binary), "MobulaTestApp")
    if not os.access(app, os.X_OK):
        raise Skip("MobulaTestApp is missing beside mobula: swift build --build-tests makes it")
    folder = os.environ.get("LONG_DISK")
    rates = []
    for number in range(3):
        state = os.path.join(folder, f"names-{os.getpid()}-{number}") if folder else trial.path(f"state{number}")
        trial.undo.append(lambda state=state: shutil.rmtree(state, ignore_errors=True))
        head = trial.head("--state", state, "--capacity", "256MB", name=f"head{number}")
        environment = {**trial.environment, "MOBULA_DIRECTORY": head.directory, "SCENARIO": "names"}
        done = subprocess.run([app], env=environment, capture_output=True, text=True, timeout=60)
        found = re.search(r"(\d+) names by 64 clients in [\d.]+ s: (\d+) a second", done.stdout)
        if not found:
            raise Fail(f"the clients said {done.stdout[-200:]} {done.stderr[-300:]}")
        named = sum(len(row["names"]) for row in head.do("ls", "--json", seconds=60).json)
        if named != int(found[1]):
            raise Fail(f"{found[1]} names were given, and {named} are there")
        rates.append(int(found[2]))
        head.stop()
    rates.sort()
    text = f"{rates[1]} names a second by 64 clients ({rates[0]} to {rates[-1]}), the journal on {life.disk(state)}"
    if rates[1] < 2000:
        raise Fail(text)
    return text


main(body)
