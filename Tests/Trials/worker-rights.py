#!/usr/bin/env -S python3 -B
"""A worker uses the token that its pod gave it to register as a host and as a pod, to end another job and to take leases
for it, to list objects and to take a name away; then its job ends.

Right: each of these is refused with a sentence that names its token and what is needed, what a worker has to do works,
and after the end of the job nothing does. At most 90 s.
"""

import hashlib, json, os, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from cluster import Fail, Skip, main, wait
from wire import Connection, Refused

LIB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib")
WORKER = f"""#!{sys.executable} -B
import json, os, sys, time
told = json.loads(os.environ["MOBULA_WORKER"])
open(sys.argv[0] + ".part", "w").write(json.dumps(told))
os.rename(sys.argv[0] + ".part", sys.argv[0] + ".told")
sys.path.insert(0, {LIB!r})
from wire import Connection
pod = Connection(told["podSocket"], told["token"].split()[0], role="worker", name="w")
pod.call("pod.workerReady", {{"worker": bytes.fromhex(told["worker"]), "endpoint": "127.0.0.1:1"}})
time.sleep(600)
"""


def body(trial):
    head = trial.head()
    head.put("secret", b"x" * 1000)
    program = trial.file("worker", WORKER.encode())
    os.chmod(program, 0o700)
    driver = Connection(head.address, head.token, role="driver", name="driver")
    other = Connection(head.address, head.token, role="driver", name="other")
    job, theirs = (one.call("head.startJob", {"resumes": True}) for one in (driver, other))

    def request(number):
        return {"lease": os.urandom(16), "job": number, "demand": {"amounts": {"CPU": 1000}}, "strategy": {"pack": {}},
                "program": {"executable": program, "build": hashlib.sha256(WORKER.encode()).hexdigest()}}

    driver.call("head.requestLease", request(job["job"]), 30)
    told = json.load(open(program + ".told"))
    if "token" not in told:
        raise Skip("workers are given their token in another way, bring this trial up to date")
    token = told["token"].split()[0]
    if head.token in json.dumps(told):
        raise Fail("the worker was given the cluster's token")
    worker = Connection(head.address, token, role="worker", name="w")
    identity = os.urandom(16)
    tried = {
        "head.registerHost": {"host": identity, "name": "forged", "incarnation": 1, "bulk": "127.0.0.1:1",
                              "capacity": 1, "replicas": [], "holds": [], "names": {}, "labels": {}},
        "head.registerPod": {"pod": identity, "name": "forged", "host": identity, "incarnation": 1,
                             "resources": {"amounts": {"CPU": 10000}}, "leases": []},
        "head.endJob": {"job": theirs["job"], "secret": theirs["secret"]},
        "head.resumeJob": {"job": theirs["job"], "secret": theirs["secret"], "leases": []},
        "head.claimLeases": {"job": theirs["job"], "leases": []},
        "head.requestLease": request(theirs["job"]),
        "head.jobToken": {"job": theirs["job"]},
        "head.list": {},
        "head.removeName": {"nameOrID": "secret"},
        "head.remove": {"nameOrID": "secret"},
        "head.replicasChanged": {"host": identity, "changes": []},
        "head.rotateToken": {"sealed": b""},
        "head.startJob": {},
        "head.forgetHost": {"nameOrID": "a"},
    }
    wrong = []

    def attempt(connection, method, body):
        try:
            wrong.append(f"{method} was answered with {connection.call(method, body)}")
        except Refused as refused:
            if refused.code != "denied" or f"A worker's token (job {job['job']})" not in str(refused):
                wrong.append(f"{method} was refused with {refused.code}: {refused}")

    for method, arguments in tried.items():
        attempt(worker, method, arguments)
    host = Connection(head.directory + "/host.sock", token, role="worker", name="w")
    attempt(host, "host.drives", {"job": theirs["job"]})
    attempt(host, "host.removeName", {"nameOrID": "secret"})
    if wrong:
        raise Fail(wrong)
    # What a worker has to do.
    if worker.call("head.status", {})["jobs"] != [job["job"], theirs["job"]]:
        raise Fail("the other job is gone")
    host.call("host.welcome", {})
    if worker.call("head.resolve", {"nameOrID": "secret"})["names"] != ["secret"]:
        raise Fail("an object that the worker knows by its name is not told")
    driver.call("head.endJob", {"job": job["job"], "secret": job["secret"]})

    def after():
        try:
            worker.call("head.status", {})
        except Refused as refused:
            return refused.code == "denied" and f"Job {job['job']} has ended" in str(refused)

    if not wait(after, 10):
        raise Fail("the token of a job that has ended is still good")
    return f"{len(tried) + 2} calls refused, each with what it needs; and all once the job had ended"


main(body)
