#!/usr/bin/env python3
"""Downloads from a SeaweedFS on this machine with mobula fetch, aws s3 cp, s5cmd, and boto3 or rclone, in turn.

    make compare-s3 [SIZE=564000000] [ROUNDS=6] [JSON=results/s3-clients.json]
    make compare-s3 OBJECTS=1000 SIZE=10000 [DELAY=0.03]

One object of SIZE bytes, or a prefix of OBJECTS such objects; each request takes DELAY seconds more.
The others write files in memory (/dev/shm); Mobula fills its store, checks every chunk and maps the object.
Times are of whole commands, except boto3, which is measured inside a process that is already connected.
CPU seconds are those of the client: for Mobula the tool's and all of its host's processes.
"""

import asyncio
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import boto3
import botocore

BUCKET, KEY = "models", "model"
URL = f"s3://{BUCKET}/{KEY}"

BOTO3 = """
import boto3, resource, sys, time
from boto3.s3.transfer import TransferConfig
bucket, key, path = sys.argv[1:]
s3 = boto3.client("s3")
s3.head_object(Bucket=bucket, Key=key)
config = TransferConfig(max_concurrency=16, multipart_chunksize=8 << 20)
before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
s3.download_file(bucket, key, path, Config=config)
seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
print(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def free_ports(count):
    """Ports that nobody uses now, nor 10,000 above them, where SeaweedFS puts its gRPC."""
    found = []
    while len(found) < count:
        port = random.randrange(20_000, 30_000)
        try:
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found


def run_timed(command, environment):
    """The seconds of a command, and the CPU seconds of it and its children."""
    start = time.monotonic()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {errors.decode().strip()}")
    return seconds, usage.ru_utime + usage.ru_stime


def processes_of(directory):
    """The processes of the host that runs in a directory."""
    mark = f"MOBULA_DIRECTORY={directory}".encode()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield process
        except OSError:
            continue


def cpu_of_process(process):
    """The CPU seconds that a process, a folder of /proc, has used so far."""
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of(directory):
    """The CPU seconds that a host's processes have used so far."""
    seconds = 0
    for process in processes_of(directory):
        try:
            seconds += cpu_of_process(process)
        except OSError:
            continue
    return seconds


def relay(listener, target, delay):
    """Passes what clients say on to a server `delay` seconds later: as long as if it were so far away."""

    async def copy(reader, writer, delay):
        loop = asyncio.get_running_loop()
        last = loop.time()
        queue = asyncio.Queue()

        async def pass_on():
            while (item := await queue.get()) is not None:
                await asyncio.sleep(item[0] - loop.time())
                writer.write(item[1])
                await writer.drain()

        passing = asyncio.create_task(pass_on())
        try:
            while data := await reader.read(1 << 18):
                if delay:
                    last = max(last, loop.time() + delay)
                    queue.put_nowait((last, data))
                else:
                    writer.write(data)
                    await writer.drain()
            queue.put_nowait(None)
            await passing
            writer.write_eof()
        except OSError:
            pass
        finally:
            passing.cancel()

    async def serve(reader, writer):
        server_reader, server_writer = await asyncio.open_connection(*target)
        await asyncio.gather(copy(reader, server_writer, delay), copy(server_reader, writer, 0))
        writer.close()
        server_writer.close()

    async def run():
        async with await asyncio.start_server(serve, sock=listener) as server:
            await server.serve_forever()

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(run())


class Comparison:
    def __init__(self, root, memory, size, count, delay, mobula):
        self.root, self.memory, self.size, self.mobula = root, memory, size, mobula
        self.count, self.delay, self.total = count, delay, size * count
        # One object, or all below a prefix.
        self.url = URL if count == 1 else f"s3://{BUCKET}/set/"
        self.programs = pathlib.Path(sys.executable).parent
        self.host = root / "host"
        self.results = {}
        self.server, self.address = None, "127.0.0.1"

    def start_server(self):
        master, volume, filer, s3 = free_ports(4)
        configuration = self.root / "s3.json"
        credentials = [{"accessKey": "compare", "secretKey": "compare-secret"}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        configuration.write_text(
            json.dumps({"identities": [{"name": "compare", "credentials": credentials, "actions": actions}]})
        )
        data = self.root / "weed"
        data.mkdir()
        home = {"PATH": "/usr/bin:/bin", "HOME": str(self.root), "GOMEMLIMIT": "400MiB"}
        self.server = subprocess.Popen(
            [
                self.programs / "weed", "-logtostderr=true", "server", f"-dir={data}", f"-ip={self.address}",
                f"-ip.bind={self.address}", "-master.telemetry=false", f"-master.port={master}",
                "-master.electionTimeout=1s",
                "-master.volumeSizeLimitMB=1024", f"-volume.port={volume}", "-volume.max=200", "-filer",
                f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0",
                f"-s3.config={configuration}",
            ],
            env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        endpoint = f"http://{self.address}:{s3}"
        aws = self.root / "aws"
        aws.write_text("[default]\ns3 =\n  max_concurrent_requests = 16\n  multipart_chunksize = 8MB\n")
        os.environ.update(
            AWS_ACCESS_KEY_ID="compare", AWS_SECRET_ACCESS_KEY="compare-secret", AWS_REGION="us-east-1",
            AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=endpoint, S3_ENDPOINT_URL=endpoint,
            AWS_CONFIG_FILE=str(aws), AWS_EC2_METADATA_DISABLED="true", MOBULA_DIRECTORY=str(self.host),
        )
        client = boto3.client("s3")
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except Exception as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"SeaweedFS did not start within 60 s: {error}")
                time.sleep(0.3)
        if self.delay:
            listener = socket.create_server((self.address, 0), backlog=512)
            endpoint = f"http://{self.address}:{listener.getsockname()[1]}"
            # In a process of its own, so that nothing else waits for it.
            arguments = (listener, (self.address, s3), self.delay)
            self.relay = multiprocessing.get_context("fork").Process(target=relay, args=arguments, daemon=True)
            self.relay.start()
            os.environ.update(AWS_ENDPOINT_URL=endpoint, S3_ENDPOINT_URL=endpoint)
        rclone = self.root / "rclone"
        rclone.write_text(
            "[s3]\ntype = s3\nprovider = SeaweedFS\naccess_key_id = compare\nsecret_access_key = compare-secret\n"
            f"endpoint = {endpoint}\nregion = us-east-1\n"
        )
        os.environ["RCLONE_CONFIG"] = str(rclone)

    def start_host(self):
        port = str(free_ports(1)[0])
        capacity = f"{self.total * 2 // 1_000_000 + 256}MB"
        subprocess.run(
            [self.mobula, "start", "--head", "--port", port, "--capacity", capacity, "--spill", "none"],
            check=True, stdout=subprocess.DEVNULL,
        )

    def upload(self):
        source = self.memory / "source"
        if self.count > 1:
            source.mkdir()
            for number in range(self.count):
                (source / f"{number:05}").write_bytes(random.Random(number).randbytes(self.size))
            subprocess.run(
                [self.programs / "s5cmd", "cp", f"{source}/", self.url],
                check=True, stdout=subprocess.DEVNULL,
            )
            shutil.rmtree(source)
            return
        block = random.Random(564).randbytes(1 << 20)
        with source.open("wb") as file:
            for offset in range(0, self.size, len(block)):
                file.write(block[: self.size - offset])
        subprocess.run(
            [self.mobula, "put", source, URL], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        source.unlink()

    def measure(self, name, seconds, cpu):
        self.results.setdefault(name, []).append((seconds, cpu))

    def round(self, first):
        other = self.run_boto3 if self.count == 1 else self.run_rclone
        clients = [other, self.run_aws, self.run_s5cmd, self.run_mobula]
        for client in clients[first:] + clients[:first]:
            client()
            time.sleep(0.3)

    def run_boto3(self):
        path = self.memory / "boto3"
        output = subprocess.run(
            [sys.executable, "-c", BOTO3, BUCKET, KEY, path], check=True, capture_output=True, text=True
        ).stdout.split()
        self.measure("boto3 16 x 8 MiB", float(output[0]), float(output[1]))
        self.check_and_remove(path)

    def run_rclone(self):
        path = self.memory / "rclone"
        command = [self.programs / "rclone", "copy", "--transfers=32", f"s3:{BUCKET}/set", path]
        self.measure("rclone copy", *run_timed(command, os.environ))
        self.check_and_remove(path)

    def run_aws(self):
        path = self.memory / "aws"
        many = ["--recursive"] if self.count > 1 else []
        self.measure("aws s3 cp", *run_timed([self.programs / "aws", "s3", "cp", *many, self.url, path], os.environ))
        self.check_and_remove(path)

    def run_s5cmd(self):
        path = self.memory / "s5cmd"
        source = self.url if self.count == 1 else self.url + "*"
        self.measure("s5cmd cp", *run_timed([self.programs / "s5cmd", "cp", source, path], os.environ))
        self.check_and_remove(path)

    def run_mobula(self):
        before = cpu_of(self.host)
        seconds, cpu = run_timed([self.mobula, "fetch", self.url], os.environ)
        self.measure("mobula fetch", seconds, cpu + cpu_of(self.host) - before)
        subprocess.run([self.mobula, "rm", self.url], check=True, stdout=subprocess.DEVNULL)

    def check_and_remove(self, path):
        files = [path] if self.count == 1 else [file for file in path.rglob("*") if file.is_file()]
        brought = sum(file.stat().st_size for file in files)
        if brought != self.total or len(files) != self.count:
            raise SystemExit(f"{path.name} brought {brought} bytes in {len(files)} files, not {self.total}.")
        if self.count == 1:
            path.unlink()
        else:
            shutil.rmtree(path)

    def summary(self):
        rows = {}
        for name, runs in self.results.items():
            seconds = [run[0] for run in runs]
            rows[name] = {
                "medianSeconds": statistics.median(seconds),
                "bestSeconds": min(seconds),
                "megabytesPerSecond": self.total / statistics.median(seconds) / 1e6,
                "cpuSeconds": statistics.median(run[1] for run in runs),
                "cpuSecondsPerGB": statistics.median(run[1] for run in runs) / (self.total / 1e9),
                "seconds": seconds,
            }
        others = [row["medianSeconds"] for name, row in rows.items() if name != "mobula fetch"]
        return {
            "size": self.size,
            "objects": self.count,
            "delaySeconds": self.delay,
            "boto3": boto3.__version__,
            "botocore": botocore.__version__,
            "clients": rows,
            "ratioToBestOther": min(others) / rows["mobula fetch"]["medianSeconds"],
        }

    def stop(self):
        subprocess.run([self.mobula, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.server:
            self.server.kill()
            self.server.wait()


def main():
    size = int(os.environ.get("SIZE", 564_000_000))
    count = int(os.environ.get("OBJECTS", 1))
    delay = float(os.environ.get("DELAY", 0))
    rounds = int(os.environ.get("ROUNDS", 6))
    repository = pathlib.Path(__file__).resolve().parents[2]
    mobula = os.environ.get("MOBULA", repository / ".build/release/mobula")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = pathlib.Path(tempfile.mkdtemp(prefix="mobula-compare-"))
    memory = pathlib.Path(tempfile.mkdtemp(prefix="mobula-compare-", dir="/dev/shm"))
    comparison = Comparison(root, memory, size, count, delay, mobula)
    try:
        comparison.start_server()
        comparison.upload()
        comparison.start_host()
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            comparison.round(number % 4)
        print(file=sys.stderr)
    except KeyboardInterrupt:
        raise SystemExit(130)
    finally:
        comparison.stop()
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)
    summary = comparison.summary()
    what = f"{size / 1e6:.0f} MB" if count == 1 else f"{count} objects of {size} bytes"
    later = f", each request {delay} s later" if delay else ""
    print(f"{what} from SeaweedFS on this machine{later}, {rounds} rounds, medians")
    for name, row in sorted(summary["clients"].items(), key=lambda item: item[1]["medianSeconds"]):
        print(
            f"  {name:18s} {row['medianSeconds']:6.2f} s  (best {row['bestSeconds']:.2f})"
            f"  {row['megabytesPerSecond']:6.0f} MB/s  {row['cpuSeconds']:6.2f} CPU s"
        )
    print(f"  mobula fetch is {summary['ratioToBestOther']:.2f} x as fast as the best of the others")
    if os.environ.get("JSON"):
        path = pathlib.Path(os.environ["JSON"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
