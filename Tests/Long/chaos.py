#!/usr/bin/env -S python3 -B
"""For 10 minutes (LONG_SECONDS) processes of three hosts are killed and stopped in a random order that follows from a seed (LONG_SEED): heads, hosts, pods, workers, drivers, supervisors with all that they keep, also in order.

Right: no wrong answer, ever; at the end every named object of which a host lived on that had it can be read on every
host, the books are empty once the drivers are gone, and nothing is left behind when all is stopped. At most 1500 s.
"""

import os, random, signal, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life
from life import Life
from cluster import Fail, alive, command_line, descendants, main, send, wait


class Model:
    """What is to be there: each named object's bytes, and in which life of which host a replica was known to be."""

    def __init__(self, hosts):
        self.lives = {host.name: 0 for host in hosts}
        self.objects, self.replicas = {}, {}
        self.lock = threading.Lock()

    def ended(self, host):
        with self.lock:
            self.lives[host.name] += 1

    def now(self):
        with self.lock:
            return dict(self.lives)

    def there(self, name, content, hosts, lives):
        """Replicas were found or made at these hosts, all of which was begun when they had these lives."""
        with self.lock:
            self.objects[name] = content
            self.replicas.setdefault(name, set()).update((host, lives[host]) for host in hosts)

    def living(self):
        """What some host must have now."""
        with self.lock:
            return {name for name, where in self.replicas.items()
                    if any(self.lives[host] == one for host, one in where)}


class Puts(threading.Thread):
    """Puts, names and broadcasts by the tool."""

    def __init__(self, trial, hosts, model, seed):
        super().__init__(daemon=True)
        self.trial, self.hosts, self.model, self.dice = trial, hosts, model, random.Random(seed)
        self.over, self.count, self.wrong = False, 0, None

    def run(self):
        while not self.over:
            try:
                self.step()
            except Exception as error:
                self.wrong = repr(error)
                return
            time.sleep(self.dice.uniform(0, 0.5))

    def step(self):
        host = self.dice.choice(self.hosts)
        number, lives = self.count, self.model.now()
        self.count += 1
        name = f"chaos-{number}"
        content = life.pattern(number, self.dice.choice([10, 3_000, 300_000, 1_200_000]))
        path = self.trial.file("chaos-put", content)
        if host.mobula("put", path, "--name", name, seconds=60).status == 0:
            self.model.there(name, content, [host.name], lives)
        # One of those before goes everywhere.
        known = sorted(self.model.living())
        if known and self.dice.random() < 0.7:
            name, lives = self.dice.choice(known[-10:]), self.model.now()
            done = host.mobula("broadcast", name, "--json", seconds=60)
            if done.status == 0:
                complete = {one["name"] for one in done.json["hosts"] if one["isComplete"]}
                self.model.there(name, self.model.objects[name], complete & set(lives), lives)


def body(trial):
    seed = life.number("LONG_SEED", random.randrange(1 << 32))
    seconds = life.number("LONG_SECONDS", 600)
    dice = random.Random(seed)
    print(f"chaos: seed {seed}", file=sys.stderr, flush=True)
    options = ("--capacity", "256MB", "--cpus", "16")
    state = trial.path("state-of-head")
    head = trial.head("--state", state, *options, name="a")
    hosts = [head, *(trial.join(head, *options, name=name) for name in ("b", "c"))]
    model = Model(hosts)
    puts = Puts(trial, hosts, model, f"{seed} puts")
    puts.start()
    drivers, count, done, numbers = [], {}, [], iter(range(100_000))

    def start_driver():
        host, lives, number = dice.choice(hosts), model.now(), next(numbers)
        try:
            drivers.append((Life(trial, host, actors=dice.sample(["a", "b", "c"], 2), strict=False,
                                 names=f"driver{number}", pace=5), lives))
        except Fail as fail:
            if "wrong answer" in str(fail):
                raise

    def forget_driver(entry):
        """A driver is gone: what it named lives as long as its host's life."""
        driver, lives = entry
        drivers.remove(entry)
        driver.check_end()
        for name, number in driver.named().items():
            model.there(name, life.pattern(number, life.pattern_size(number)), [driver.host.name], lives)

    def kill(role):
        host = head if role == "head" else dice.choice(hosts)
        if pid := host.process(role):
            send(pid, signal.SIGKILL)

    def stop(role):
        host = head if role == "head" else dice.choice(hosts)
        pid = host.supervisor if role == "supervisor" else host.process(role)
        if pid:
            send(pid, signal.SIGSTOP)
            time.sleep(dice.choice([0.1, 0.5, 2, 6, 14]))
            send(pid, signal.SIGCONT)

    def kill_worker():
        for host in dice.sample(hosts, len(hosts)):
            pod = host.process("pod")
            workers = [pid for pid in descendants(pod or 0) if alive(pid)]
            if workers:
                return send(dice.choice(sorted(workers)), signal.SIGKILL)

    def kill_driver():
        if drivers:
            entry = dice.choice(drivers)
            send(entry[0].process.pid, signal.SIGKILL)
            entry[0].process.wait()
            forget_driver(entry)

    def restart(host, action):
        # Whatever is done from here on may meet an empty store.
        model.ended(host)
        action()
        time.sleep(dice.choice([0, 1, 5, 12]))
        for _ in range(20):
            if host.mobula("start", *host.arguments, seconds=60).status == 0:
                break
            time.sleep(1)
        else:
            raise Fail(f"seed {seed}: {host.name} can't be started again: {host.mobula('start', *host.arguments)}")
        # What was begun meanwhile may have met the old store.
        model.ended(host)

    def power_cut():
        host = dice.choice(hosts)
        restart(host, lambda: life.kill_all(host))

    def stopped_in_order():
        host = dice.choice(hosts[1:])
        restart(host, lambda: host.mobula("stop", seconds=40))

    actions = [
        (6, "head killed", lambda: kill("head")), (5, "host killed", lambda: kill("host")),
        (4, "pod killed", lambda: kill("pod")), (4, "worker killed", kill_worker), (3, "driver killed", kill_driver),
        (2, "head frozen", lambda: stop("head")), (2, "host frozen", lambda: stop("host")),
        (2, "pod frozen", lambda: stop("pod")), (1, "supervisor frozen", lambda: stop("supervisor")),
        (1.5, "power cut", power_cut), (1, "stopped in order", stopped_in_order),
    ]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        while len(drivers) < 2:
            start_driver()
        _, what, action = dice.choices(actions, [action[0] for action in actions])[0]
        done.append(what)
        count[what] = count.get(what, 0) + 1
        action()
        for entry in list(drivers):
            entry[0].check()
            if entry[0].process.poll() is not None:
                forget_driver(entry)
        if puts.wrong:
            raise Fail(f"seed {seed}: the trial's puts broke: {puts.wrong}")
        time.sleep(dice.choice([0.05, 0.3, 1, 3]))
    puts.over = True
    puts.join(90)
    text = f"seed {seed}, the last of it {', '.join(done[-4:])}"
    if not wait(lambda: len(head.connected()) == 3, 90, 0.5):
        raise Fail(f"{text}: after 90 s without a fault {[one['name'] for one in head.connected()]} are connected")
    time.sleep(12)
    for entry in list(drivers):
        entry[0].end()
        forget_driver(entry)
    expected = model.living()
    listed = {name for row in head.do("ls", "--json").json for name in row["names"]}
    if lost := sorted(expected - listed):
        raise Fail(f"{text}: {len(lost)} of {len(expected)} names are gone that a host should have, as {lost[0]} "
                   f"({model.replicas[lost[0]]}, now {model.lives})")
    chosen = dice.sample(sorted(expected), min(60, len(expected)))
    for host in hosts:
        for name in chosen:
            if wrong := host.has(name, model.objects[name]):
                raise Fail(f"{text}: {wrong} (host {host.name}; replicas were at {model.replicas[name]}, "
                           f"lives are {model.lives})")
    # What may be gone is gone, or right.
    for name in dice.sample(sorted(set(model.objects) - expected), min(20, len(set(model.objects) - expected))):
        got = hosts[0].mobula("get", name, "-o", trial.path("perhaps"), "--timeout", "5", seconds=30)
        if got.status == 0 and open(trial.path("perhaps"), "rb").read() != model.objects[name]:
            raise Fail(f"{text}: {name} has other bytes")
        if got.status != 0 and not got.refused:
            raise Fail(f"{text}: {got}")
    life.check_books(head, {}, seconds=90)
    life.check_nothing_left(trial, *reversed(hosts))
    return (f"seed {seed}: " + ", ".join(f"{number} × {what}" for what, number in sorted(count.items()))
            + f"; {puts.count} objects by commands, {len(expected)} names of {len(model.objects)} had to be there and are")


main(body)
