#!/usr/bin/env -S python3 -B
"""Peers without the token say nothing, garbage, half of a frame, absurd lengths, and other peers' words at every port and socket of two hosts for 60 s (LONG_SECONDS), under a driver.

Right: no process ends, grows without bounds or keeps connections of theirs, the driver sees no error. At most 240 s.
"""

import glob, os, random, re, socket, struct, sys, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life, wire
from life import Life
from cluster import Fail, descendants, main, memory, wait


def ports(pids):
    """TCP ports at which one of these processes listens."""
    inodes = set()
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
                inodes |= {found[1]} if found else set()
        except OSError:
            pass
    found = set()
    with open("/proc/net/tcp") as file:
        for line in list(file)[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.add(int(words[1].split(":")[1], 16))
    return found


def opening(dice):
    hello = {"wireVersion": dice.choice([0, 1, 2, 3, 2**63]), "role": dice.choice(["host", "driver", "tool", "king", 7]),
             "name": "x" * dice.choice([0, 10, 3000]), "incarnation": dice.choice([0, 2**64 - 1]), "epoch": 2**63,
             "process": -1}
    return wire.frame(wire.encode({"magic": dice.choice(["mobula", "x"]), "hello": hello,
                                   "nonce": dice.randbytes(dice.choice([0, 32, 1000]))}))


def speech(dice):
    """What a stranger says, in pieces."""
    return dice.choice([
        lambda: [], lambda: [dice.randbytes(dice.choice([1, 3, 40, 5000]))],
        lambda: [struct.pack(">I", dice.choice([0, 1, 4096, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF]))],
        lambda: [struct.pack(">I", 4000), dice.randbytes(1000), dice.randbytes(500)],
        lambda: [opening(dice)], lambda: [opening(dice)[:dice.randrange(4, 90)]],
        lambda: [opening(dice), wire.frame(wire.encode({"proof": dice.randbytes(32)}))],
        lambda: [opening(dice), wire.frame(dice.randbytes(100))],
        lambda: [wire.frame(b"\x9b" + b"\xff" * 8)], lambda: [wire.frame(b"\x5b" + b"\xff" * 8)],
        lambda: [wire.frame(b"\x81" * 4000)], lambda: [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
        lambda: [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(500)],
        lambda: [wire.frame(b"\x01" + bytes(8) + b"\0\0\0\1" + b"\x0bhead.status" + wire.encode({}))] * 20,
    ])()


class Crowd(threading.Thread):
    """Connects again and again, to all that there is."""

    def __init__(self, seed, addresses, until):
        super().__init__(daemon=True)
        self.dice, self.addresses, self.until, self.count, self.open = random.Random(seed), addresses, until, 0, []

    def run(self):
        while time.monotonic() < self.until:
            address = self.dice.choice(self.addresses)
            kind = socket.SOCK_SEQPACKET if isinstance(address, str) and "store" in os.path.basename(address) \
                else socket.SOCK_STREAM
            peer = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
            peer.settimeout(0.3)
            try:
                peer.connect(address if isinstance(address, str) else ("127.0.0.1", address))
                for piece in speech(self.dice):
                    peer.sendall(piece)
                    if self.dice.random() < 0.2:
                        time.sleep(0.01)
                self.count += 1
                if self.dice.random() < 0.3:
                    # It stays, and says nothing more.
                    self.open.append(peer)
                    while len(self.open) > 100:
                        self.open.pop(0).close()
                    continue
                if self.dice.random() < 0.3:
                    peer.recv(100)
            except OSError:
                pass
            peer.close()
        for peer in self.open:
            peer.close()


def body(trial):
    seconds = life.number("LONG_SECONDS", 60)
    seed = life.number("LONG_SEED", random.randrange(1 << 32))
    options = ("--capacity", "128MB", "--cpus", "8")
    head = trial.head(*options, name="a")
    host = trial.join(head, *options, name="b")
    hosts = (head, host)
    kept = host.put("kept", 1_000_000)
    driver = Life(trial, host, actors=("a", "b"), names="strangers", pace=4)
    before = {one.name: life.processes(one) for one in hosts}
    pids = [pid for one in hosts for pid in [one.supervisor, *descendants(one.supervisor)]]
    addresses = sorted(ports(pids)) + sorted(path for one in hosts for path in glob.glob(one.directory + "/*.sock"))
    grown = {pid: memory(pid, "VmRSS") for pid in pids if os.path.exists(f"/proc/{pid}/statm")}
    files = {role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in before["a"].items()}
    until = time.monotonic() + seconds
    crowd = [Crowd(f"{seed} {number}", addresses, until) for number in range(4)]
    for one in crowd:
        one.start()
    while time.monotonic() < until:
        time.sleep(1)
        driver.check()
    for one in crowd:
        one.join()
    text = f"seed {seed}, {sum(one.count for one in crowd)} strangers at {len(addresses)} addresses"
    driver.end()
    if changed := life.changes(before, {one.name: life.processes(one) for one in hosts}):
        raise Fail(f"{text}: started again: {', '.join(changed)}")
    for one in hosts:
        if wrong := one.has("kept", kept):
            raise Fail(f"{text}: {wrong}")
    life.check_books(head)
    most = max(memory(pid, "VmRSS") - grown[pid] for roles in before.values() for pid in roles.values())
    if most > 100_000_000:
        raise Fail(f"{text}: a process has grown by {most / 1e6:.0f} MB")
    def left():
        return [role for role, pid in before["a"].items() if len(os.listdir(f"/proc/{pid}/fd")) > files[role] + 20]
    if not wait(lambda: not left(), 20, 0.5):
        raise Fail(f"{text}: {left()[0]} keeps descriptors: "
                   f"{len(os.listdir('/proc/%d/fd' % before['a'][left()[0]]))}, and had {files[left()[0]]}")
    life.check_nothing_left(trial, host, head)
    return f"{text}, no error, no process has grown by more than {most / 1e6:.0f} MB"


main(body)
