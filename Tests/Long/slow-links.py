#!/usr/bin/env -S python3 -B
"""Objects of S3 go over slow lines: 5 GB at 40 Mbit/s, 500 MB at 10 Mbit/s and 8 MB at 100 kB/s, both ways.

Right: each takes at most 1.05 times what one TCP stream takes over the same line for as many bytes, and no byte is read
or sent twice, counted at the server; so for two hosts behind one line, and for one with `--receive-limit`. A line that
goes dead ends within two minutes, and the sentence names what was waited for; the next fetch reads the rest alone.
Needs root, or namespaces, and `tc`. LONG_SHARE (1) is how much of these sizes is moved. At most 3000 s.
"""

import os, shutil, socket, subprocess, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Trials", "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Fail, Skip, as_root, main, wait
from relay import Relay
from s3servers import BUCKET, KEY, SECRET, SeaweedFS, enter_environment, sha256

SHARE = float(os.environ.get("LONG_SHARE", "1"))
STEPS = os.environ.get("LONG_STEPS", "").split()
BOUND = 1.05
# Bytes of the most that a request and its answer have besides the object's, a part; and the line's share of headers.
OVERHEAD = 1.02


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"`{' '.join(words)}` is not possible here: {done.stderr.strip()[:150]}")


def enter_namespace():
    """Runs this script again in a network of its own, where the servers are at one end of every line."""
    if "LONG_SLOW_LINKS" in os.environ:
        return
    if not all(shutil.which(tool) for tool in ("ip", "tc", "unshare", "nsenter")) or subprocess.run(
            ["unshare", "-n", "true"], capture_output=True).returncode != 0:
        print("SKIP slow-links: no network namespace, ip or tc here")
        sys.exit(77)
    os.environ["LONG_SLOW_LINKS"] = "1"
    os.execvp("unshare", ["unshare", "-n", sys.executable, "-B", *sys.argv])


class Line:
    """A line to a network of its own, with a relay to the server at this end that counts."""

    count = 0

    def __init__(self, trial, server, rate, waiting=None):
        """`rate` is of both directions, in bytes a second."""
        Line.count += 1
        self.near, self.far, self.rate = f"10.79.{Line.count}.1", f"10.79.{Line.count}.2", rate
        self.device = f"line{Line.count}"
        self.space = subprocess.Popen(["unshare", "-n", "sleep", "100000"])
        trial.undo.append(self.space.kill)
        time.sleep(0.5)
        self.inside = ("nsenter", "-t", str(self.space.pid), "-n")
        run("ip", "link", "add", self.device, "type", "veth", "peer", "name", "eth", "netns", str(self.space.pid))
        for prefix, device, address in (((), self.device, self.near), (self.inside, "eth", self.far)):
            run(*prefix, "ip", "addr", "add", f"{address}/24", "dev", device)
            run(*prefix, "ip", "link", "set", device, "up")
            self.limit(prefix, device)
        run(*self.inside, "ip", "link", "set", "lo", "up")
        self.relay = Relay(server.port, host=self.near, waiting=waiting)

    def limit(self, prefix, device):
        run(*prefix, "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{int(self.rate * 8)}bit",
            "burst", "16kb", "latency", "200ms")

    def set_dead(self, dead):
        """What is sent is lost, and nobody is told."""
        if dead:
            # What is longer than the bucket is dropped.
            run("tc", "qdisc", "replace", "dev", self.device, "root", "tbf", "rate", "8bit", "burst", "40", "limit", "40")
        else:
            self.limit((), self.device)

    def seconds(self, size, up):
        """What one TCP stream takes for so many bytes: measured for some seconds, beside nothing else."""
        some = int(min(size, self.rate * 8))
        listener = socket.socket()
        listener.bind((self.near, 0))
        listener.listen(1)
        code = f"""
import socket, time
end = socket.create_connection(("{self.near}", {listener.getsockname()[1]}))
""" + (f"""
end.sendall(bytes({some}))
end.shutdown(socket.SHUT_WR)
end.recv(1)
""" if up else """
begun = None
while data := end.recv(65536):
    pass
end.close()
""")
        begun = time.monotonic()
        process = subprocess.Popen([*self.inside, sys.executable, "-c", code])
        peer, _ = listener.accept()
        if up:
            left = some
            while left > 0:
                left -= len(peer.recv(65536))
        else:
            peer.sendall(bytes(some))
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)
        seconds = time.monotonic() - begun
        peer.close()
        listener.close()
        process.wait()
        return seconds * size / some

    def host(self, trial, name, size, *options, head=None, **more):
        """A host at the other end."""
        capacity = f"{max(64, size // 1_000_000 * 5 // 4 + 64)}MB"
        start = trial.join if head else trial.head
        words = ("--listen", self.far, "--capacity", capacity, *options)
        if head:
            words = ("--address", f"{self.far}:{head.port}", *words)
        host = start(*(head,) if head else (), *words, name="host-" + name, prefix=self.inside, **more)
        plain = host.mobula
        host.mobula = lambda *words, **options: plain(*words, **{"prefix": self.inside, **options})
        return host


def check(what, seconds, least, moved, size):
    ratio, times = seconds / least, moved / size
    if times > OVERHEAD:
        raise Fail(f"{what}: {times:.3f} times its bytes went over the line")
    if ratio > BOUND:
        raise Fail(f"{what} took {seconds:.0f} s, {ratio:.3f} times what one stream takes")
    return f"{what}: {ratio:.3f} x, {times:.3f} times its bytes"


class Steps:
    def __init__(self, trial, server):
        self.trial, self.server = trial, server

    def file(self, name, size):
        path = self.trial.path(name)
        with open(path, "wb") as file:
            for _ in range(0, size, 1_000_000):
                file.write(os.urandom(1_000_000))
            file.truncate(size)
        return path

    def upload(self, key, size):
        """Puts an object there without a line; returns its file."""
        path = self.file(key, size)
        from boto3.s3.transfer import TransferConfig
        self.server.client(16).upload_file(path, BUCKET, key, Config=TransferConfig(multipart_chunksize=64_000_000))
        return path

    def down(self, name, size, rate, *options, limit=None):
        size = int(size * SHARE)
        path = self.upload(name, size)
        line = Line(self.trial, self.server, rate)
        least = size / limit if limit else line.seconds(size, up=False)
        host = line.host(self.trial, name, size, *options)
        begun = time.monotonic()
        host.do("fetch", f"s3://{BUCKET}/{name}", "--s3-endpoint", line.relay.url, seconds=least * 2 + 60)
        seconds = time.monotonic() - begun
        out = self.trial.path(name + "-got")
        host.do("get", f"s3://{BUCKET}/{name}", "-o", out, seconds=120)
        if sha256(out) != sha256(path):
            raise Fail(f"{name}: other bytes came")
        os.unlink(out)
        os.unlink(path)
        return check(f"{name} down", seconds, least, line.relay.received, size)

    def up(self, name, size, rate):
        size = int(size * SHARE)
        path = self.file(name, size)
        line = Line(self.trial, self.server, rate)
        least = line.seconds(size, up=True)
        begun = time.monotonic()
        done = self.trial.mobula(
            "put", path, f"s3://{BUCKET}/{name}", "--s3-endpoint", line.relay.url, prefix=line.inside,
            seconds=least * 2 + 60)
        seconds = time.monotonic() - begun
        if done.status != 0:
            raise Fail(f"{name}: {done}")
        if wrong := self.server.has(name, open(path, "rb").read()):
            raise Fail(f"{name}: {wrong}")
        return check(f"{name} up", seconds, least, line.relay.sent, size)

    def two(self, size, rate):
        """Two hosts behind one line."""
        size = int(size * SHARE)
        self.upload("two", size)
        line = Line(self.trial, self.server, rate)
        least = line.seconds(size, up=False)
        first = line.host(self.trial, "two-a", size)
        second = line.host(self.trial, "two-b", size, head=first)
        begun = time.monotonic()
        results = [
            self.trial.beside(lambda host=host: host.mobula(
                "fetch", f"s3://{BUCKET}/two", "--s3-endpoint", line.relay.url, seconds=least * 2 + 60))
            for host in (first, second)]
        if not wait(lambda: all(results), least * 2 + 70, 0.1):
            raise Fail("two hosts: not there")
        seconds = time.monotonic() - begun
        for result in results:
            if result[0].status != 0:
                raise Fail(f"two hosts: {result[0]}")
        return check("two hosts", seconds, least, line.relay.received, size)

    def dead(self, size, rate):
        """The line goes dead in the middle, and comes back after the fetch has failed."""
        self.upload("dead", size)
        # What waits to leave counts as read, and never comes.
        line = Line(self.trial, self.server, rate, waiting=16_384)
        host = line.host(self.trial, "dead", size)
        words = ("fetch", f"s3://{BUCKET}/dead", "--s3-endpoint", line.relay.url)
        result = self.trial.beside(lambda: host.mobula(*words, seconds=200))
        if not wait(lambda: line.relay.received > size * 0.6, 60, 0.05):
            raise Fail("dead: nothing came before it was")
        line.set_dead(True)
        begun = time.monotonic()
        if not wait(lambda: result, 180, 0.2) or result[0].status is None:
            raise Fail("dead: the fetch still waits after 3 minutes")
        ended = time.monotonic() - begun
        if not result[0].refused or "dead" not in result[0].said or ended > 120:
            raise Fail(f"dead: after {ended:.0f} s {result[0]}")
        line.set_dead(False)
        before = line.relay.received
        host.do(*words, seconds=60)
        rest, whole = line.relay.received - before, line.relay.received
        # What was on its way when the line went dead, and in chunks that were not whole, comes again.
        if rest > size * 1.15 - before:
            raise Fail(f"dead: the second fetch read {rest / size:.2f} of the object, although {before / size:.2f} had come")
        return f"a dead line: an error after {ended:.0f} s, {whole / size:.2f} times the bytes in all"


def body(trial):
    run("ip", "link", "set", "lo", "up")
    server = SeaweedFS(trial)
    trial.undo.append(server.stop)
    server.make_bucket()
    steps = Steps(trial, server)
    all_ = {
        "down40": lambda: steps.down("5GB", 5_000_000_000, 5_000_000),
        "down10": lambda: steps.down("500MB", 500_000_000, 1_250_000),
        "up10": lambda: steps.up("500MB-up", 500_000_000, 1_250_000),
        "down1": lambda: steps.down("8MB", 8_000_000, 100_000),
        "up1": lambda: steps.up("8MB-up", 8_000_000, 100_000),
        "two": lambda: steps.two(200_000_000, 2_500_000),
        "limit": lambda: steps.down("limited", 8_000_000, 12_500_000, "--receive-limit", "1mbit", limit=125_000),
        "dead": lambda: steps.dead(40_000_000, 2_500_000),
    }
    results, failures, threads = {}, [], []

    def do(name):
        try:
            results[name] = all_[name]()
            print(results[name], file=sys.stderr, flush=True)
        except Exception as failure:
            failures.append(failure)

    # Lines are slow and processors are not: all at the same time.
    for name in STEPS or all_:
        threads.append(threading.Thread(target=do, args=(name,), daemon=True))
        threads[-1].start()
        time.sleep(1)
    for thread in threads:
        thread.join()
    for failure in failures:
        if not isinstance(failure, Fail):
            raise failure
    if failures:
        raise Fail([str(failure) for failure in failures] + [f"right: {'; '.join(results.values())}"])
    return "; ".join(results[name] for name in all_ if name in results)


enter_environment()
as_root()
enter_namespace()
main(body)
