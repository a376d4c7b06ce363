#!/usr/bin/env python3
"""Brings many small objects from a SeaweedFS on this machine to several hosts at once, which share the reading.

    make compare-s3-hosts [OBJECTS=1000] [SIZE=100000] [HOSTS=5] [RATE=840] [ROUNDS=5]

Each host has a network namespace with a line of RATE Mbit/s in either direction (0: as fast as it goes); the limit is
what a line takes for all objects. The first round is left out of the median: its memory was never used before. CPU
seconds are those of all hosts and the head, of the commands, and of the server.
"""

import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from compare import Comparison, cpu_of, cpu_of_process, free_ports


def sh(*words):
    subprocess.run(words, check=True)


def enter_namespace():
    """Runs this script again in a network of its own, where each host gets a line."""
    if "MOBULA_COMPARE_HOSTS" in os.environ:
        return
    os.environ["MOBULA_COMPARE_HOSTS"] = "1"
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    os.execvp("unshare", ["unshare", *own, "--net", sys.executable, *sys.argv])


class Host:
    """A host in a network of its own, behind a line that both ends shape."""

    def __init__(self, mobula, directory, number):
        self.mobula, self.directory, self.address = mobula, directory, f"10.77.0.{number + 2}"
        self.space = subprocess.Popen(["unshare", "--net", "sleep", "100000"])
        while os.readlink(f"/proc/{self.space.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.02)
        self.inside = ["nsenter", "-t", str(self.space.pid), "-n"]
        self.near = f"host{number}"

    def connect(self, rate):
        near = self.near
        sh("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", str(self.space.pid))
        sh("ip", "link", "set", near, "master", "br0", "up")
        sh(*self.inside, "ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        sh(*self.inside, "ip", "link", "set", "eth0", "up")
        sh(*self.inside, "ip", "link", "set", "lo", "up")
        shape = ["root", "tbf", "rate", f"{rate}mbit", "burst", "512k", "latency", "20ms"]
        for prefix, device in [([], near), (self.inside, "eth0")] if rate else []:
            sh(*prefix, "tc", "qdisc", "add", "dev", device, *shape)

    def command(self, *arguments, **options):
        environment = os.environ | {"MOBULA_DIRECTORY": str(self.directory)}
        return subprocess.Popen([*self.inside, self.mobula, *arguments], env=environment, **options)

    def run(self, *arguments):
        command = self.command(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        errors = command.communicate()[1]
        if command.returncode != 0:
            raise SystemExit(f"mobula {arguments[0]} failed: {errors.strip()}")

    def moved(self):
        """Bytes that it has sent and received over its line."""
        (line,) = (line for line in pathlib.Path("/proc/net/dev").read_text().splitlines() if f"{self.near}:" in line)
        numbers = line.split(":")[1].split()
        return int(numbers[0]), int(numbers[8])

    def stop(self):
        self.command("stop", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()
        self.space.kill()
        self.space.wait()


class Hosts:
    def __init__(self, root, comparison, count, rate):
        self.root, self.comparison, self.count, self.rate = root, comparison, count, rate
        self.hosts = []

    def start(self):
        size = f"{self.comparison.total * 2 // 1_000_000 + 256}MB"
        port = str(free_ports(1)[0])
        for number in range(self.count):
            host = Host(self.comparison.mobula, self.root / f"host{number}", number)
            self.hosts.append(host)
            host.connect(self.rate)
            joining = ["--head", "--port", port]
            if number > 0:
                token = next((self.root / "host0").rglob("token"))
                joining = ["--address", f"{self.hosts[0].address}:{port}", "--token-file", str(token)]
            host.run("start", *joining, "--listen", host.address, "--capacity", size, "--spill", "none")

    def stop(self):
        for host in reversed(self.hosts):
            host.stop()

    def cpu(self):
        return sum(cpu_of(host.directory) for host in self.hosts)

    def fetch(self):
        """Seconds until all have all, megabytes that one host sent at most, CPU s of hosts, commands and server."""
        server = pathlib.Path(f"/proc/{self.comparison.server.pid}")
        before = self.cpu(), cpu_of_process(server), os.times(), [host.moved()[0] for host in self.hosts]
        start = time.monotonic()
        commands = [host.command("fetch", self.comparison.url, "-q", stdout=subprocess.PIPE) for host in self.hosts]
        for command in commands:
            lines = command.communicate()[0].splitlines()
            if command.returncode != 0 or len(lines) != self.comparison.count:
                raise SystemExit(f"mobula fetch ended with {command.returncode} and {len(lines)} objects.")
        seconds = time.monotonic() - start
        own, of_server, times = self.cpu() - before[0], cpu_of_process(server) - before[1], os.times()
        of_commands = times.children_user + times.children_system - before[2].children_user - before[2].children_system
        sent = max(host.moved()[0] - sent for host, sent in zip(self.hosts, before[3]))
        result = seconds, sent / 1e6, own, of_commands, of_server
        self.hosts[0].run("rm", self.comparison.url)
        return result


def main():
    objects, size = int(os.environ.get("OBJECTS", 1000)), int(os.environ.get("SIZE", 100_000))
    hosts, rate = int(os.environ.get("HOSTS", 5)), int(os.environ.get("RATE", 840))
    rounds = int(os.environ.get("ROUNDS", 5))
    enter_namespace()
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
    sh("ip", "link", "set", "br0", "up")
    repository = pathlib.Path(__file__).resolve().parents[2]
    mobula = os.environ.get("MOBULA", repository / ".build/release/mobula")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = pathlib.Path(tempfile.mkdtemp(prefix="mobula-hosts-"))
    memory = pathlib.Path(tempfile.mkdtemp(prefix="mobula-hosts-", dir="/dev/shm"))
    comparison = Comparison(root, memory, size, objects, 0, mobula)
    comparison.address = "10.77.0.1"
    cluster = Hosts(root, comparison, hosts, rate)
    results = []
    try:
        comparison.start_server()
        comparison.upload()
        cluster.start()
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            results.append(cluster.fetch())
            time.sleep(1)
        print(file=sys.stderr)
    finally:
        cluster.stop()
        if comparison.server:
            comparison.server.kill()
            comparison.server.wait()
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)
    limit = objects * size * 8 / ((rate or 840) * 1e6)
    what = f"{objects} objects of {size} bytes to {hosts} hosts"
    print(f"{what}, {rate or 'unlimited'} Mbit/s each: {limit:.2f} s at best")
    for seconds, sent, own, commands, server in results:
        print(
            f"  {seconds:.2f} s, {seconds / limit:.2f} x  (CPU s: hosts {own:.2f}, commands {commands:.2f},"
            f" server {server:.2f}; most sent by one host {sent:.0f} MB)"
        )
    median = statistics.median(result[0] for result in results[1:] or results)
    print(f"  median {median:.2f} s, {median / limit:.2f} x the limit")


if __name__ == "__main__":
    main()
