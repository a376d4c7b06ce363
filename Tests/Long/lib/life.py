"""What long tests have beside the trials': a program that uses all of a cluster, names with known bytes, networks to cut."""

import os, random, shutil, signal, subprocess, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "Trials", "lib"))
from cluster import Fail, Skip, alive, command_line, descendants, send, stat, wait


def number(name, default):
    """A number from the environment, as LONG_KILLS, for shorter runs."""
    return type(default)(os.environ.get(name, default))


# MARK: Bytes that follow from a number, as Tests/MobulaTestApp/Life.swift has them

def pattern(n, size):
    return bytes((i * 31 + (i >> 8) * 7 + n * 13) & 255 for i in range(size))


def pattern_size(n):
    return 1_000 + n * 7_919 % 40_000


# MARK: The program

class Life:
    """A driver on a host that does all that there is to do, until `end`.

    `strict` says that any error is a fault; otherwise a wrong answer alone is. `actors` are the names of the hosts that
    get an actor. `urls` are objects of a stub of S3, of which number n has the pattern n.
    """

    def __init__(self, trial, host, actors=(), strict=True, names="life", stub=None, urls=(), pace=1.0, first=0):
        app = os.environ.get("MOBULA_TEST_APP") or os.path.join(os.path.dirname(trial.binary), "MobulaTestApp")
        if not os.access(app, os.X_OK):
            raise Skip("MobulaTestApp is missing beside mobula: swift build --build-tests makes it")
        keep(trial)
        self.trial, self.host, self.prefix, self.strict = trial, host, names, strict
        self.notes, self.stop = trial.path(f"{names}.notes"), trial.path(f"{names}.stop")
        environment = {
            **trial.environment, "MOBULA_DIRECTORY": host.directory, "SCENARIO": "life", "LIFE_STOP": self.stop,
            "LIFE_NOTES": self.notes, "LIFE_NAMES": names, "LIFE_HOSTS": ",".join(actors), "LIFE_PACE": str(pace),
            "LIFE_FIRST": str(first),
        }
        if strict:
            environment["LIFE_STRICT"] = "1"
        if stub:
            environment |= {"LIFE_ENDPOINT": stub.url, "LIFE_URLS": ",".join(urls)}
        self.errors = open(trial.path(f"{names}.errors"), "w+")
        self.process = subprocess.Popen(
            [*host.more.get("prefix", ()), app], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=self.errors)
        if not wait(lambda: "ready\n" in self.said() or self.process.poll() is not None, 60, 0.1):
            raise Fail(f"the driver on {host.name} was not ready within 60 s")
        self.check()

    def said(self):
        try:
            with open(self.notes, errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    @property
    def pid(self):
        """The program itself, which may run below a command that enters a network."""
        return self.process.pid

    def check(self):
        """Fails when it said that something is wrong, or, where an error is, when it has ended."""
        wrong = [line for line in self.said().splitlines() if " WRONG: " in line]
        if wrong:
            raise Fail(f"a wrong answer at {self.host.name}: {wrong[0]}")
        if self.strict and self.process.poll() is not None:
            raise Fail(f"the driver on {self.host.name} ended: {self.last_words()}")

    def last_words(self):
        self.errors.flush()
        with open(self.errors.name, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip() and " warning " not in line]
        ended = [line for line in self.said().splitlines() if line.startswith("ended: ")]
        return " / ".join((ended or lines[-3:] or [f"status {self.process.poll()}"]))[:500]

    def end(self, seconds=90):
        """Has it end, and checks what it says; returns the things it did."""
        with open(self.stop, "w"):
            pass
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            last = {}
            for line in self.said().splitlines():
                last[line.split(" ")[0]] = line
            raise Fail(f"the driver on {self.host.name} did not end within {seconds} s; it did last: "
                       + "; ".join(sorted(last.values()))[:600])
        self.check_end()
        return self.done()

    def check_end(self):
        wrong = [line for line in self.said().splitlines() if " WRONG: " in line]
        if wrong:
            raise Fail(f"a wrong answer at {self.host.name}: {wrong[0]}")
        if self.strict and (self.process.returncode != 0 or not self.said().endswith("end\n")):
            raise Fail(f"the driver on {self.host.name} ended: {self.last_words()}")

    def done(self):
        """What it did: what, from when, to when, and the error, or `None`."""
        things = []
        for line in self.said().splitlines():
            words = line.split(" ", 4)
            if len(words) >= 4 and words[1][:1].isdigit() and words[3] in ("ok", "error:", "WRONG:"):
                things.append((words[0], float(words[1]), float(words[2]),
                               None if words[3] == "ok" else " ".join(words[4:])))
        return things

    def named(self):
        """Names that it has given for sure, and the number of each one's pattern."""
        return {words[1]: int(words[2]) for words in (line.split(" ") for line in self.said().splitlines())
                if words[0] == "named" and len(words) == 3}

    def actors(self):
        """Processes of its actors at the beginning, by host."""
        return {words[1]: int(words[2]) for words in (line.split(" ") for line in self.said().splitlines())
                if words[0] == "actor"}

    def still(self):
        """Processes of its actors at the end."""
        return [int(words[2]) for words in (line.split(" ") for line in self.said().splitlines())
                if words[0] == "still"]


def keep(trial):
    """Has the notes of programs and the logs of hosts copied to the folder LONG_KEEP at the end."""
    folder = os.environ.get("LONG_KEEP")
    if not folder or hasattr(trial, "kept"):
        return
    trial.kept = True

    def copy():
        for base, folders, names in os.walk(trial.directory):
            for name in names:
                if name.endswith((".log", ".notes", ".errors")):
                    target = os.path.join(folder, os.path.relpath(base, trial.directory))
                    os.makedirs(target, exist_ok=True)
                    shutil.copy(os.path.join(base, name), target)

    trial.undo.append(copy)


def clock():
    """The clock of the program's notes."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def pauses(things, instants, span=None):
    """How long the longest thing took that was being done at or after each instant, before the next."""
    longest = []
    for at, following in zip(instants, [*instants[1:], (instants[-1] + (span or 5)) if instants else 0]):
        longest.append(max((end - begin for _, begin, end, _ in things if end > at and begin < following), default=0))
    return sorted(longest)


def percentile(numbers, share):
    return numbers[min(len(numbers) - 1, int(len(numbers) * share))] if numbers else 0


def check_names(named, hosts, sample=40, seconds=20):
    """Gets named objects by the tool, on each host, and compares all bytes; fails with what is wrong."""
    chosen = sorted(named)
    if len(chosen) > sample:
        chosen = [*random.sample(chosen, sample - 2), chosen[0], chosen[-1]]
    for host in hosts:
        for name in chosen:
            if wrong := host.has(name, pattern(named[name], pattern_size(named[name])), seconds):
                raise Fail(f"{wrong} (host {host.name}, {len(named)} names in all)")
    return len(chosen)


def processes(host):
    """The processes of a host, by role: supervisor, head, host, pods; none of its workers."""
    found = {"supervisor": host.supervisor}
    for pid in descendants(host.supervisor or 0):
        words = command_line(pid)
        if len(words) > 1 and words[1] in ("head", "host", "pod") and alive(pid):
            # A worker that its pod has just forked is still called as the pod; parents come first.
            found.setdefault(words[1] + (" " + words[2] if words[1] == "pod" else ""), pid)
    return found


def changes(before, after, besides=()):
    """Which processes are others than before."""
    return [f"{host} {role}" for host, roles in before.items() for role, pid in roles.items()
            if role not in besides and after.get(host, {}).get(role) != pid]


def check_books(host, names=None, seconds=30):
    """When all drivers are gone, nobody has anything: no lease, no job, no object but what has a name."""
    def rest():
        status = host.mobula("status", "--json")
        if status.status != 0:
            return str(status)
        status = status.json
        left = [f"pod {pod['name']} has {pod['leases']} leases" for pod in status["pods"] if pod["leases"]]
        left += [f"pod {pod['name']} has {pod['leased']} leased" for pod in status["pods"]
                 if any(float(amount) for amount in (pod.get("leased") or {}).values())]
        left += [f"jobs {status['jobs']}"] if status["jobs"] else []
        left += [f"{status['waiting']} requests wait"] if status["waiting"] else []
        if not left and names is not None:
            nameless = [row["object"] for row in host.do("ls", "--json").json if not row["names"]]
            left += [f"{len(nameless)} objects without a name"] if nameless else []
        return "; ".join(left)

    if not wait(lambda: not rest(), seconds, 0.5):
        raise Fail(f"after all drivers are gone: {rest()}")


def check_nothing_left(trial, *hosts):
    """Stops hosts, and looks for processes and sockets that are still there."""
    for host in hosts:
        result = host.mobula("stop", seconds=40)
        if result.status != 0:
            raise Fail(f"{result} (host {host.name})")
    ours = [host.directory for host in hosts]

    def rest():
        found = []
        for pid in descendants(os.getpid()):
            words = command_line(pid)
            if alive(pid) and any(word in ours for word in words):
                found.append(" ".join(words)[:120])
        return found

    if not wait(lambda: not rest(), 15, 0.2):
        raise Fail(f"after all was stopped, there runs {rest()[0]}")
    for host in hosts:
        left = [name for name in os.listdir(host.directory) if name.endswith((".sock", ".pid", ".lock"))
                or name.startswith("spill-")]
        if left:
            raise Fail(f"after all was stopped, {host.name} has {', '.join(left)}")


def kill_all(host):
    """Ends all processes of a host as a power cut does, its workers too."""
    supervisor = host.supervisor
    pids = [supervisor, *descendants(supervisor)] if supervisor else []
    for pid in pids:
        send(pid, signal.SIGKILL)
    if not wait(lambda: not any(alive(pid) for pid in pids), 15):
        raise Fail(f"processes of {host.name} did not end")


# MARK: Networks

def run(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise Skip(f"`{' '.join(words)}` is not possible here: {done.stderr.strip()[:150]}")
    return done


class Network:
    """Hosts in network namespaces of their own, on one switch; each can be cut off, and be joined again."""

    def __init__(self, trial, count):
        for tool in ("ip", "unshare", "nsenter"):
            if not shutil.which(tool):
                raise Skip(f"there is no {tool} here")
        self.spaces = [subprocess.Popen(["unshare", "-n", "sleep", "100000"]) for _ in range(count + 1)]
        trial.undo.append(self.close)
        time.sleep(0.5)
        if any(space.poll() is not None for space in self.spaces):
            raise Skip("no network namespace can be made here")
        self.switch, self.members = self.enter(0), [self.enter(number + 1) for number in range(count)]
        run(*self.switch, "ip", "link", "add", "sw", "type", "bridge")
        run(*self.switch, "ip", "link", "set", "sw", "up")
        for number in range(count):
            run(*self.switch, "ip", "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth",
                "netns", str(self.spaces[number + 1].pid))
            run(*self.switch, "ip", "link", "set", f"p{number}", "master", "sw")
            run(*self.switch, "ip", "link", "set", f"p{number}", "up")
            inside = self.members[number]
            run(*inside, "ip", "link", "set", "lo", "up")
            run(*inside, "ip", "addr", "add", f"{self.address(number)}/24", "dev", "eth")
            run(*inside, "ip", "link", "set", "eth", "up")

    def enter(self, number):
        return ("nsenter", "-t", str(self.spaces[number].pid), "-n")

    @staticmethod
    def address(number):
        return f"10.78.0.{number + 1}"

    def cut(self, number):
        """What leaves this host, or is sent to it, is lost from now on, and nobody is told."""
        run(*self.switch, "ip", "link", "set", f"p{number}", "nomaster")

    def heal(self, number):
        run(*self.switch, "ip", "link", "set", f"p{number}", "master", "sw")

    def head(self, trial, number=0, *options, name="a", **more):
        host = trial.head("--listen", self.address(number), *options, name=name, prefix=self.members[number], **more)
        host.address = f"{self.address(number)}:{host.port}"
        return self.inside(host)

    def join(self, trial, head, number, *options, name, **more):
        return self.inside(trial.join(
            head, "--address", head.address, "--listen", self.address(number), *options, name=name,
            prefix=self.members[number], **more))

    @staticmethod
    def inside(host):
        """Has all commands for a host run in its network."""
        plain = host.mobula
        host.mobula = lambda *words, **options: plain(*words, **{"prefix": host.more["prefix"], **options})
        return host

    def close(self):
        for space in self.spaces:
            space.kill()
            space.wait()


def disk(path):
    """The kind of file system that a path is on."""
    best = ("", "unknown")
    with open("/proc/mounts") as file:
        for line in file:
            _, where, kind = line.split()[:3]
            if (path + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best[0]):
                best = (where, kind)
    return best[1]
