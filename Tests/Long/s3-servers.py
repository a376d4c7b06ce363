#!/usr/bin/env -S python3 -B
"""SeaweedFS, moto, LocalStack and rclone's `serve s3` are written and read by the tool, and by boto3 for comparison.

Right: every byte is as it was sent, whoever sent it; what a server can't do, boto3 can't do there either. What came
out goes to docs/S3.md (LONG_PAGE); LONG_SERVERS chooses servers, and the others' columns stay. At most 3000 s.
"""

import datetime, fcntl, os, random, re, sys, time, unicodedata

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import life  # noqa: F401, finds the trials' lib, too
import s3servers

s3servers.enter_environment()

from cluster import Fail, main  # noqa: E402
from s3servers import BUCKET, SERVERS, after, sha256, short  # noqa: E402

SIZES = {"0 B": 0, "1 B": 1, "10 kB": 10_000, "5 MiB + 1": (5 << 20) + 1, "70 MB": 70_000_000, "100 MB": 100_000_000}
ALGORITHMS = ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"]
KEYS = {
    "spaces": " a  b ", "NFC": unicodedata.normalize("NFC", "größe/é"),
    "NFD": unicodedata.normalize("NFD", "größe/é"), "`+`": "a+b", "`%2F`": "a%2Fb", "`&`": "a&b=c", "`?`": "a?b",
    "`#`": "a#b", "leading `/`": "/leading", "trailing `/`": "trailing/", "`a//b`": "a//b", "200 bytes": "x" * 200,
    "emoji, quotes, `<`": "😀'\"<>",
}
READ_SECONDS, RATE = 6, 10_000_000

ROWS = {
    "put": "`put`, boto3 reads it: 0 B, 1 B, 10 kB, 5 MiB + 1, 70 MB, 100 MB",
    "get": "`get s3://…` of what boto3 put: the same sizes",
    "fetch": "`fetch`, then `get`: the same sizes",
    "back": "`get NAME -o s3://…`, boto3 reads it: the same sizes",
    "parts": "`fetch` of parts that boto3 uploaded",
    "checksums": "`fetch` of uploads with CRC32, CRC32C, SHA1, SHA256, CRC64NVME",
    "put keys": "`put` to odd keys, boto3 reads them",
    "fetch keys": "`fetch` of odd keys that boto3 put",
    "prefix": "`fetch` of a prefix with 0, 1, 1,000, 1,001, 5,000 keys",
    "overwritten": "object is overwritten while it is read",
    "deleted": "object is deleted while it is read",
    "secret": "`fetch` and `put` with a wrong secret",
    "reader": "rights to read, not to list",
    "lister": "rights to list, not to read",
    "nobody": "no rights",
    "restart": "server is killed during a `fetch`, and is back 2 s later",
}
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
INTRODUCTION = """# S3 servers

`Tests/Long/s3-servers.py` starts each of these servers, writes and reads it with `mobula`, and compares the SHA-256
of every object with that of the bytes that were sent. boto3 reads what `mobula put` wrote, and writes what
`mobula get` and `mobula fetch` read. Where something fails, boto3 tries the same: "boto3, too" means that it fails
there as well, "boto3 can" that it does not. LocalStack and moto lose their objects when they end, and check no rights;
rclone's server is a stand-in that serves a folder.

`ok` holds for all that a row names, except for what the cell names. `-` was not tried.

"""


class Wrong(Exception):
    """Something that the tool did not do, in words; `isFault` unless a peer can't either."""

    def __init__(self, text, isFault=True):
        super().__init__(text)
        self.isFault = isFault


def says(result):
    return f"`{result.command.split()[0]}` says: {quoted(result)}"


def quoted(result):
    return f"“{result.said.removeprefix('Error: ')}”"


def grouped(outcomes):
    """Pairs of what was tried and how it went, each sentence once."""
    groups = {}
    for variant, outcome in outcomes:
        groups.setdefault(outcome, []).append(variant)
    return "; ".join(f"{', '.join(variants)}: {outcome}" if any(variants) else outcome
                     for outcome, variants in groups.items())


class Course:
    """All that is done with one server."""

    def __init__(self, trial, title, kind, findings):
        self.trial, self.title, self.findings = trial, title, findings
        self.cells = {}
        self.server = kind(trial)
        self.server.make_bucket()
        trial.environment |= {"AWS_ENDPOINT_URL": self.server.url}
        self.host = trial.head("--capacity", "1GB", name=f"{title}-a")
        self.slow = trial.head("--capacity", "400MB", "--receive-limit", f"{RATE // 1_000_000}MB/s", name=f"{title}-s")

    # MARK: Records

    def attempt(self, row, variant, action):
        """Does one thing, and notes and prints how it went."""
        begun = time.monotonic()
        isFault = False
        try:
            outcome = action() or "ok"
        except Wrong as wrong:
            outcome, isFault = str(wrong), wrong.isFault
        except Fail as fail:
            outcome, isFault = short(fail, 300), True
        except Exception as error:
            # boto3's, before the tool was asked anything.
            outcome = "boto3: " + short(error)
        outcome = self.tidy(outcome)
        self.cells.setdefault(row, []).append((variant, outcome))
        if isFault:
            self.findings.append(f"{self.title}, {row}{', ' + variant if variant else ''}: {outcome}")
        print(f"{self.title:12}{row:12}{variant:22}{time.monotonic() - begun:6.1f} s  {'FAULT ' if isFault else ''}"
              f"{outcome}", file=sys.stderr, flush=True)

    def tidy(self, text):
        text = text.replace(self.trial.directory + "/", "").replace(self.server.url, "http://HOST:PORT")
        # The same sentence about several keys is one.
        text = re.sub(rf"s3://{BUCKET}/[^ :,”]+", "s3://BUCKET/KEY", text).replace(f"s3://{BUCKET}", "s3://BUCKET")
        text = re.sub(r", request [0-9A-Za-z-]+", "", text)
        text = re.sub(r"[\w+/]{6,}={1,2}(?!\w)", "…", text)
        text = re.sub(r': "[^"]+"', ': "KEY"', text)
        return " ".join(text.replace("|", "\\|").split())

    def cell(self, row):
        outcomes = self.cells.get(row)
        if not outcomes:
            return "-"
        others = [(variant, outcome) for variant, outcome in outcomes if outcome != "ok"]
        return ("ok, but " if others and len(others) < len(outcomes) else "") + (grouped(others) or "ok")

    # MARK: The tool

    def url(self, key):
        return f"s3://{BUCKET}/{key}"

    def run(self, *arguments, host=None, seconds=150, **options):
        result = (host or self.host).mobula(*arguments, seconds=seconds, **options)
        if result.status not in (0, 1, 64) or "Fatal error" in result.err:
            raise Wrong(str(result))
        return result

    def must(self, *arguments, key=None, content=None, **options):
        """Runs a command that has to work where boto3 can do the same to this key."""
        result = self.run(*arguments, **options)
        if result.status != 0:
            raise self.judged(says(result), key, content)
        return result

    def judged(self, text, key, content):
        """What failed, and whether it fails for boto3, too, which puts and gets another object of this key."""
        if key is None:
            return Wrong(text)
        try:
            self.server.put(key, content)
            peer = self.server.has(key, content)
        except Exception as error:
            peer = short(error)
        return Wrong(f"{text} (boto3, too)", isFault=False) if peer else Wrong(text + " (boto3 can)")

    def put_and_read(self, key, content, file):
        self.must("put", file, self.url(key), key=key, content=content)
        if said := self.server.has(key, file):
            raise self.judged(f"after `put`, boto3 says: {said}", key, content)

    def read(self, key, file, way, content=None):
        """Reads a key by a way, and compares."""
        target = self.trial.path("read")
        if os.path.exists(target):
            os.remove(target)
        name = self.url(key)
        if way == "fetch":
            rows = self.must("fetch", name, "--json", key=key, content=content or file).json
            rows = rows if isinstance(rows, list) else rows.get("objects", [rows])
            mine = [row for row in rows if row.get("name", row.get("url")) == name]
            if len(rows) != 1 or not mine:
                raise self.judged(f"`fetch` brought {len(rows)} objects, {[row.get('name') for row in rows][:2]}",
                                  key, content or file)
            if name.endswith("/"):
                # A name with a slash at its end means all below it.
                name = rows[0].get("object") or rows[0]["id"]
        self.must("get", name, "-o", target, "--timeout", "120", key=key, content=content or file)
        if not os.path.isfile(target) or sha256(target) != sha256(file):
            raise self.judged("the bytes are others", key, content or file)

    # MARK: What is done

    def sizes(self):
        for variant, size in SIZES.items():
            file = self.trial.file(f"size-{size}", size)
            self.attempt("put", variant, lambda: self.put_and_read(f"put/{size}", file, file))
            self.attempt("get", variant, lambda: (self.server.put(f"get/{size}", file),
                                                  self.read(f"get/{size}", file, "get"))[1])
            self.attempt("fetch", variant, lambda: (self.server.put(f"fetch/{size}", file),
                                                    self.read(f"fetch/{size}", file, "fetch"))[1])

            def back():
                self.host.do("put", file, "--name", f"local-{size}", seconds=60)
                self.must("get", f"local-{size}", "-o", self.url(f"back/{size}"), key=f"back/{size}", content=file)
                if said := self.server.has(f"back/{size}", file):
                    raise self.judged(f"boto3 says: {said}", f"back/{size}", file)

            self.attempt("back", variant, back)
            self.host.mobula("rm", f"local-{size}")

    def parts(self):
        mib = 1 << 20
        plans = {"equal": [8, 8, 8, 3], "unequal": [5, 9, 6, 12, 1]}
        for variant, plan in plans.items():
            for algorithm in (None, "CRC32C", "SHA256", "CRC64NVME"):
                pieces = [random.randbytes(count * mib + (index == len(plan) - 1)) for index, count in enumerate(plan)]
                file = self.trial.file("parts", b"".join(pieces))
                key = f"parts/{variant}-{algorithm}"
                options = {"ChecksumAlgorithm": algorithm} if algorithm else {}

                def check():
                    self.server.put_parts(key, pieces, **options)
                    self.checked(key, file)

                self.attempt("parts", variant + (f" {algorithm}" if algorithm else ""), check)

    def checked(self, key, file):
        """Fetches; where that fails, what boto3 has stored counts, not another upload."""
        target = self.trial.path("read")
        said = None
        result = self.run("fetch", self.url(key))
        if result.status == 0:
            result = self.run("get", self.url(key), "-o", target)
        if result.status != 0:
            said = says(result)
        elif sha256(target) != sha256(file):
            said = "the bytes are others"
        if said:
            peer = self.server.has(key, file)
            raise Wrong(f"{said} (boto3, too)", isFault=False) if peer else Wrong(said + " (boto3 can)")

    def checksums(self):
        small, large = self.trial.file("sum-small", 100_000), self.trial.file("sum-large", 12_000_000)
        for algorithm in ALGORITHMS:
            def one():
                with open(small, "rb") as opened:
                    self.server.put(f"sum/{algorithm}", opened.read(), ChecksumAlgorithm=algorithm)
                self.checked(f"sum/{algorithm}", small)

            def many():
                self.server.put(f"sum/{algorithm}-parts", large, ChecksumAlgorithm=algorithm)
                self.checked(f"sum/{algorithm}-parts", large)

            self.attempt("checksums", algorithm, one)
            self.attempt("checksums", f"{algorithm} of 12 MB", many)

    def keys(self):
        contents = {variant: random.randbytes(1000 + number) for number, variant in enumerate(KEYS)}
        put = {}
        for variant, key in KEYS.items():
            content = contents[variant]
            file = self.trial.file("key", content)
            # Where the URL ends in a slash, `put` writes below it.
            if not key.endswith("/"):
                self.attempt("put keys", variant, lambda: self.put_and_read("p/" + key, content, file))
            try:
                self.server.put("f/" + key, content)
                put[variant] = key
            except Exception as error:
                said = short(error)
                self.attempt("fetch keys", variant, lambda: f"boto3 can't put it: {said}")
        for variant, key in put.items():
            content = contents[variant]
            file = self.trial.file("key", content)
            if said := self.server.has("f/" + key, content):
                self.attempt("fetch keys", variant, lambda: f"boto3 can't read what it put: {said}")
            else:
                self.attempt("fetch keys", variant, lambda: self.read("f/" + key, file, "fetch", content))
        # One at the very beginning of the bucket.
        content = random.randbytes(999)
        file = self.trial.file("key", content)
        self.attempt("put keys", "first `/`", lambda: self.put_and_read("/first", content, file))

    def prefixes(self):
        def check(prefix, count):
            result = self.run("fetch", self.url(prefix), "--json", seconds=240)
            if count == 0:
                if result.status != 1 or not result.refused:
                    raise Wrong(f"`fetch` of nothing ended with {result.status}: {result.said}")
                return
            wanted = {key: content for key, content in objects.items() if key.startswith(prefix)}
            if result.status != 0:
                listed = self.listed(prefix)
                raise Wrong(f"{says(result)} (boto3 lists {listed})", isFault=listed == len(wanted))
            folder = self.trial.path(f"many-{count}")
            self.must("get", self.url(prefix), "-o", folder + "/", seconds=240)
            got = {os.path.relpath(os.path.join(base, name), folder)
                   for base, _, names in os.walk(folder) for name in names}
            missing = [key for key in wanted if key.removeprefix(prefix) not in got]
            if len(wanted) != count or missing or len(got) != count:
                raise Wrong(f"{len(got)} of {count} came (boto3 lists {self.listed(prefix)})",
                            isFault=self.listed(prefix) == count)
            other = [key for key, content in wanted.items()
                     if sha256(os.path.join(folder, key.removeprefix(prefix))) != sha256(content)]
            if other:
                raise Wrong(f"{len(other)} have other bytes, {other[0]}")

        names = [*(f"many/a/{n}" for n in range(1000)), *(f"many/b/{n}" for n in range(1001)), "many/c/0",
                 *(f"many/d/{n}" for n in range(2998))]
        objects = {name: random.randbytes(100 + number % 700) for number, name in enumerate(names)}
        try:
            self.server.put_many(objects)
        except Exception as error:
            said = short(error)
            self.attempt("prefix", "", lambda: f"boto3 can't put so many: {said}")
            return
        for prefix, count in {"none/": 0, "many/c/": 1, "many/a/": 1000, "many/b/": 1001, "many/": 5000}.items():
            self.attempt("prefix", f"{count:,}", lambda: check(prefix, count))

    def listed(self, prefix):
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return sum(len(page.get("Contents", [])) for page in pages)

    def changes(self):
        # Bytes, which boto3 puts as one: what parts do to checksums is another question.
        old, new = random.randbytes(READ_SECONDS * RATE), random.randbytes(READ_SECONDS * RATE)

        def check(key, change):
            self.server.put(key, old)
            target = self.trial.path("changed")
            if os.path.exists(target):
                os.remove(target)
            changed = after(READ_SECONDS / 3, change)
            result = self.run("get", self.url(key), "-o", target, "--timeout", "100", host=self.slow)
            changed.result()
            if result.status != 0:
                if result.seconds < READ_SECONDS / 3:
                    raise Wrong(f"{says(result)}, before there was a change")
                if not result.refused or os.path.exists(target):
                    raise Wrong(f"`get` ended with {result.status}, and there is a file: {os.path.exists(target)}")
                return f"an error: {quoted(result)}"
            content = sha256(target)
            if content == sha256(old):
                return "the old bytes, whole"
            if content == sha256(new):
                return "the new bytes, whole"
            raise Wrong("a mix of bytes")

        self.attempt("overwritten", "", lambda: check("changed/over", lambda: self.server.put("changed/over", new)))
        self.attempt("deleted", "", lambda: check(
            "changed/gone", lambda: self.server.client().delete_object(Bucket=BUCKET, Key="changed/gone")))

    def rights(self):
        """What a host and a tool with less rights say."""
        if self.server.checks:
            self.attempt("secret", "", lambda: self.limited(s3servers.KEY, "wrong-secret", "wrong"))
        for name in self.server.identities:
            self.attempt(name, "", lambda: self.limited(name, name + "-secret", name))

    def limited(self, key, secret, name):
        """The three operations' outcomes; boto3 is asked for the same."""
        content = random.randbytes(300_000)
        file = self.trial.file("limited", content)
        self.server.put(f"rights/{name}/key", content)
        env = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        host = self.trial.head("--capacity", "64MB", name=f"{self.title}-{name}", env=env)
        peer = self.server.client(aws_access_key_id=key, aws_secret_access_key=secret)
        tries = {
            "a key": (("fetch", self.url(f"rights/{name}/key")),
                      lambda: peer.get_object(Bucket=BUCKET, Key=f"rights/{name}/key")["Body"].read()),
            "a prefix": (("fetch", self.url(f"rights/{name}/")),
                         lambda: peer.list_objects_v2(Bucket=BUCKET, Prefix=f"rights/{name}/")),
            "`put`": (("put", file, self.url(f"rights/{name}/other")),
                      lambda: peer.put_object(Bucket=BUCKET, Key=f"rights/{name}/third", Body=content)),
        }
        texts, faults = [], []
        try:
            for what, (command, other) in tries.items():
                result = self.run(*command, host=host, env=env)
                try:
                    other()
                    said = None
                except Exception as error:
                    said = short(error)
                if result.status == 0:
                    texts.append((what, "ok"))
                    if said and what == "`put`":
                        faults.append(f"{what} works, and boto3's says {said}")
                else:
                    texts.append((what, self.tidy(quoted(result))))
                    if not said and what != "a prefix":
                        faults.append(f"{what}: boto3 can, and the tool says: {result.said}")
        finally:
            host.stop()
        if faults:
            raise Wrong("; ".join(faults))
        return grouped(texts)

    def restart(self):
        # More than the ends of connections hold, which give it up to a client after the server's end.
        file = self.trial.file("restart", 3 * READ_SECONDS * RATE)

        def check():
            self.server.put("restart", file)

            def kill():
                self.server.kill()
                time.sleep(2)
                self.server.start()

            killed = after(READ_SECONDS / 3, kill)
            result = self.run("fetch", self.url("restart"), host=self.slow, seconds=200)
            killed.result()
            if result.status != 0 and result.seconds < READ_SECONDS / 3:
                raise Wrong(f"{says(result)}, before it was killed")
            if result.status != 0:
                text = f"an error: {quoted(result)}"
                if not self.server.keeps:
                    return text + " (its objects are gone)"
                peer = self.server.has("restart", file)
                raise Wrong(text, isFault=peer is None)
            target = self.trial.path("restarted")
            self.must("get", self.url("restart"), "-o", target, host=self.slow)
            if sha256(target) != sha256(file):
                raise Wrong("the bytes are others")
            return None

        self.attempt("restart", "", check)

    def through(self):
        only = os.environ.get("LONG_STEPS", "").split(",")
        for step in (self.sizes, self.parts, self.checksums, self.keys, self.prefixes, self.changes, self.rights,
                     self.restart):
            if only == [""] or step.__name__ in only:
                step()
        for host in (self.host, self.slow):
            host.stop()
        self.server.stop()


# MARK: The page

def read_table(text):
    """The columns of a page: by the server's title, by row."""
    columns, heads = {}, []
    lines = text.split(BEGIN)[1].split(END)[0].splitlines() if BEGIN in text else []
    for line in lines:
        if not line.startswith("| "):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not heads:
            heads = cells[1:]
            columns = {head: {} for head in heads}
        else:
            for head, cell in zip(heads, cells[1:]):
                columns[head][cells[0]] = cell
    return columns


def write_page(results):
    """Puts columns into the page; those of servers that were not tried now stay."""
    path = os.environ.get("LONG_PAGE") or os.path.join(s3servers.ROOT, "docs", "S3.md")
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        columns = read_table(text)
        today = datetime.date.today().isoformat()
        for name, cells in results.items():
            kind = SERVERS[name]
            mine = [head for head in columns if head.startswith(kind.title + " ")]
            column = columns.pop(mine[0]) if mine else {}
            # What LONG_STEPS leaves out stays.
            column |= {ROWS[row]: cell for row, cell in cells.items() if cell != "-" or ROWS[row] not in column}
            columns[f"{kind.title} {kind.version()}, {today}"] = column
        order = [kind.title for kind in SERVERS.values()]
        heads = sorted(columns, key=lambda head: next(n for n, title in enumerate(order) if head.startswith(title)))
        lines = ["| operation | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        lines += [f"| {row} | " + " | ".join(columns[head].get(row, "-") for head in heads) + " |"
                  for row in ROWS.values()]
        table = "\n".join([BEGIN, *lines, END])
        if BEGIN in text:
            text = text.split(BEGIN)[0] + table + text.split(END)[1]
        else:
            text = INTRODUCTION + table + "\n"
        file.truncate(0)
        file.write(text)


def body(trial):
    chosen = os.environ.get("LONG_SERVERS") or ",".join(SERVERS)
    findings, done = [], 0
    for name in chosen.split(","):
        course = Course(trial, name, SERVERS[name], findings)
        course.through()
        write_page({name: {row: course.cell(row) for row in ROWS}})
        done += sum(len(outcomes) for outcomes in course.cells.values())
    if findings:
        raise Fail(findings)
    return f"{done} things done with {chosen.replace(',', ', ')}, as it is right"


main(body)
