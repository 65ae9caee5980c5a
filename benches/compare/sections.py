"""What is measured: one function for each instance of a broker, rows for the figures that come out."""
import json
import os
import subprocess

import remoting
from sides import MEMORY_HEAP, ROOT, SPEED_HEAP, Failure

ASYNC, SYNC = "ASYNC_FLUSH", "SYNC_FLUSH"


class Row:
    """A figure. `aim` is the ratio to reach, ours better by so much, one number or one for each side that ours is held
    against; `limit` is for ours alone."""

    def __init__(self, key, title, unit, higher=False, aim=None, limit=None):
        self.key, self.title, self.unit = key, title, unit
        self.higher, self.limit = higher, limit
        self.aims = aim if isinstance(aim, dict) else {"stock": aim}


ROWS = [
    Row("async.per_cpu", "send 1 KiB, 4 × 64 in flight, ASYNC_FLUSH: messages per broker CPU second", "msg", True, 5),
    Row("async.rate", "… messages per second", "msg/s", True),
    Row("async.p50", "… p50", "ms"),
    Row("async.p99", "… p99", "ms"),
    Row("sync.per_cpu", "send 1 KiB, 4 × 64 in flight, SYNC_FLUSH: messages per broker CPU second", "msg", True, 5),
    Row("sync.rate", "… messages per second", "msg/s", True),
    Row("sync.p50", "… p50", "ms"),
    Row("sync.p99", "… p99", "ms"),
    Row("one.rate", "send 1 KiB, 1 in flight, SYNC_FLUSH: messages per second", "msg/s", True, 3),
    Row("one.p50", "… p50", "ms"),
    Row("one.per_cpu", "… messages per broker CPU second", "msg", True),
    Row("open10k.p99", "send at 10,000 msg/s, ASYNC_FLUSH: p99 from the intended time", "ms", False, 5),
    Row("open10k.p50", "… p50", "ms"),
    Row("open10k.p999", "… p99.9", "ms"),
    Row("open2k.p99", "send at 2,000 msg/s, SYNC_FLUSH: p99 from the intended time", "ms", False, 5),
    Row("open2k.p50", "… p50", "ms"),
    Row("open2k.p999", "… p99.9", "ms"),
    Row("e2e.p50", "end to end at 1,000 msg/s, waiting consumer, ASYNC_FLUSH: p50", "ms", False, 3),
    Row("e2e.p99", "… p99", "ms"),
    Row("consume.per_cpu", "consume a 2 GB backlog from page cache: messages per broker CPU second", "msg", True, 1.5),
    Row("consume.rate", "… messages per second", "msg/s", True),
    Row("push.java", "Java 5.5.0 push consumer, backlog of 20,000 × 20 kB on 8 queues: time", "s", False, 1.5),
    Row("push.java.rest", "… from its first message on", "s", False, 1.5),
    Row("push.go", "Go 2.1.2 push consumer, the same: time", "s", False, 1.5),
    Row("push.go.rest", "… from its first message on", "s", False, 1.5),
    Row("large.p99", "a request behind a pull of one message of 1.0 MB, on one connection: p99", "ms", limit=20),
    Row("large.p50", "… p50", "ms"),
    Row("memory.rss", f"resident memory after load, ours with defaults, stock {MEMORY_HEAP}", "MB", False, 6),
    Row("memory.anon", "… of it anonymous", "MB"),
    Row("memory.idle", "… before the load", "MB"),
    Row("start.seconds", "start to first acknowledged send, empty directory", "s", False, 8),
    Row("topics.rss", f"resident memory with 10,000 topics × 8 queues, stock {MEMORY_HEAP}", "MB", False, 8),
    Row("topics.added", "… above the memory before", "MB"),
    Row("topics.seconds", "… time to create them", "s"),
    Row("connections.added", "10,000 idle connections with heartbeats: memory above base", "MB", limit=60),
    Row("connections.p99", "… p99 of 10,000 heartbeats in 2 s", "ms", False, 10),
    Row("connections.p50", "… p50", "ms"),
    Row("consumers.added", "the same as consumers, 1,000 groups of 10: memory above base", "MB"),
    Row("consumers.p99", "… p99 of 10,000 heartbeats in 2 s", "ms"),
    Row("restart.seconds", "restart after kill -9 with 5 GB stored, to first acknowledged send", "s", limit=2),
    Row("queues.rss", "one million queues created, 1 % active: resident memory", "MB", limit=300),
    Row("queues.added", "… above the memory before", "MB"),
]


class Scale:
    """Lengths and sizes; a quick run proves the script, not the broker."""

    def __init__(self, quick):
        self.quick = quick
        self.warmup, self.measure = (3, 3) if quick else (20, 10)
        self.backlog = 200_000 if quick else 2_000_000
        self.load_seconds = 3 if quick else 20
        self.topics = 500 if quick else 10_000
        self.connections = 500 if quick else 10_000
        self.stored = 500_000 if quick else 5_000_000
        self.large = 2_000 if quick else 20_000
        self.behind = 50 if quick else 500
        # Topics of 8 queues for the row of a million queues.
        self.wide = 1_250 if quick else 125_000


def lat(report, name, of="latency_us"):
    """A percentile in ms."""
    return report[of][name] / 1e3


def check(report, what):
    """A run in which messages got lost or refused is no measurement."""
    if report.get("failed") or report.get("unsent") or not report["ok"]:
        raise Failure(f"{what}: {report.get('failed')} messages failed, {report.get('unsent')} not sent: "
                      f"{report.get('errors')} {report.get('last_error')}")


def behind(measure, port, rounds):
    """Latencies behind large answers in ms; the first tenth warms up."""
    measure(port, "behind-warm-up", max(rounds // 10, 5))
    taken = measure(port, "behind", rounds)
    return {"large.p99": taken[len(taken) * 99 // 100] * 1e3, "large.p50": taken[len(taken) // 2] * 1e3}


def drain(run, client, topic, count):
    """Seconds from the start of a real push consumer until it has everything, and from its first message on."""
    argv = [os.path.join(ROOT, "tests", "clients", "run"), "tool", client, "drain", "--namesrv", run.namesrv, "--topic", topic,
            "--messages", str(count)]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=400)
    lines = [line for line in out.stdout.splitlines() if line.startswith("{")]
    report = json.loads(lines[-1]) if lines else {}
    if not report.get("ok"):
        raise Failure(f"{client}: {report or out.stderr[-300:]}")
    return report["seconds"], report["seconds"] - report["first_s"]


class Sections:
    """`start(flush, heap)` gives a running broker, `bench` the generator; a section gives {row key: value}."""

    def __init__(self, bench, scale):
        self.bench, self.scale = bench, scale

    def send(self, run, what, *args, seconds=None):
        seconds = seconds or self.scale.measure
        report = self.bench(run, "send", "--size", 1024, *args, "--duration", seconds, seconds=seconds + 60)
        check(report, what)
        return report

    def closed(self, run, prefix, connections, window):
        r = self.send(run, prefix, "--connections", connections, "--window", window)
        return {f"{prefix}.per_cpu": r["msgs_per_broker_cpu_s"], f"{prefix}.rate": r["msgs_per_s"],
                f"{prefix}.p50": lat(r, "p50"), f"{prefix}.p99": lat(r, "p99")}

    def open(self, run, prefix, rate):
        self.send(run, prefix + " warm-up", "--connections", 4, "--rate", rate, seconds=self.scale.warmup / 2)
        r = self.send(run, prefix, "--connections", 4, "--rate", rate)
        return {f"{prefix}.{p}": lat(r, p) for p in ("p50", "p99", "p999")}

    def warm(self, run):
        self.send(run, "warm-up", "--connections", 4, "--window", 64, seconds=self.scale.warmup)

    # ---- one function for each section; their names are what --only takes

    def async_send(self, start):
        with start(ASYNC, SPEED_HEAP) as run:
            run.ready()
            self.warm(run)
            return {**self.closed(run, "async", 4, 64), **self.open(run, "open10k", 10_000)}

    def sync_send(self, start):
        with start(SYNC, SPEED_HEAP) as run:
            run.ready()
            self.warm(run)
            return {**self.closed(run, "sync", 4, 64), **self.closed(run, "one", 1, 1), **self.open(run, "open2k", 2_000)}

    def e2e(self, start):
        with start(ASYNC, SPEED_HEAP) as run:
            run.ready()
            # Stock stores what is pipelined on one connection out of order.
            args = ["--rate", 1_000, "--size", 1024, "--warmup", self.scale.warmup, "--duration", self.scale.measure]
            if run.side.disorder:
                args.append("--allow-disorder")
            r = self.bench(run, "e2e", *args, seconds=self.scale.warmup + self.scale.measure + 60)
            check(r, "e2e")
            check({**r["send"], "ok": True}, "e2e")
            return {"e2e.p50": lat(r, "p50", "e2e_latency_us"), "e2e.p99": lat(r, "p99", "e2e_latency_us")}

    def fill(self, run, topic, messages):
        """A backlog of so many messages of 1 KiB."""
        r = self.bench(run, "send", "--topic", topic, "--size", 1024, "--messages", messages, "--connections", 4,
                       "--window", 64, seconds=messages / 5_000 + 60)
        check(r, "filling " + topic)
        return r

    def consume(self, start):
        with start(ASYNC, SPEED_HEAP) as run:
            run.ready()
            self.fill(run, "backlog", self.scale.backlog)
            # The first pass warms up: it compiles Java's code and brings the files into the page cache.
            args = ["--allow-disorder"] if run.side.disorder else []
            for _ in range(2):
                r = self.bench(run, "consume", "--topic", "backlog", *args, seconds=self.scale.backlog / 5_000 + 60)
                check(r, "consume")
                if r["messages"] < self.scale.backlog:
                    raise Failure(f"consume: {r['messages']} of {self.scale.backlog} messages read")
            return {"consume.per_cpu": r["msgs_per_broker_cpu_s"], "consume.rate": r["msgs_per_s"]}

    def push(self, start):
        """Real consumers with default settings, a new group each; the first of each kind warms up."""
        with start(ASYNC, SPEED_HEAP) as run:
            run.ready()
            count = self.scale.large
            r = self.bench(run, "send", "--topic", "large", "--queues", 8, "--size", 20_000, "--messages", count, "--connections", 1,
                           "--window", 16, seconds=300)
            check(r, "filling large")
            found = {}
            for key, client in (("push.java", "java550"), ("push.go", "go")):
                for _ in range(2):
                    found[key], found[key + ".rest"] = drain(run, client, "large", count)
            return found

    def large(self, start):
        with start(ASYNC, SPEED_HEAP) as run:
            run.ready()
            return behind(remoting.after_large, run.port, self.scale.behind)

    def memory(self, start):
        with start(ASYNC, MEMORY_HEAP) as run:
            run.ready()
            idle = run.memory()
            self.send(run, "memory", "--connections", 4, "--window", 64, seconds=self.scale.load_seconds)
            after = run.memory()
            return {"memory.rss": after["rss_mb"], "memory.anon": after["anon_mb"], "memory.idle": idle["rss_mb"]}

    def start(self, start):
        with start(SYNC, MEMORY_HEAP) as run:
            return {"start.seconds": run.first_ack("first")}

    def topics(self, start):
        with start(ASYNC, MEMORY_HEAP) as run:
            run.ready()
            base = run.memory()["rss_mb"]
            r = self.create(run, self.scale.topics)
            rss = run.memory()["rss_mb"]
            return {"topics.rss": rss, "topics.added": rss - base, "topics.seconds": r["seconds"]}

    def create(self, run, topics, *args):
        r = self.bench(run, "topics", "--topics", topics, "--queues", 8, "--timeout", 60_000, *args, seconds=1_800)
        if r["created"] < topics:
            raise Failure(f"topics: {r['created']} of {topics} created: {r['create_errors']} {r['last_error']}")
        return r

    def connections(self, start):
        found = {}
        for prefix, args in (("connections", ("--role", "producer")), ("consumers", ("--role", "consumer", "--groups",
                                                                                     self.scale.connections // 10))):
            with start(ASYNC, MEMORY_HEAP) as run:
                run.ready()
                self.send(run, "warm-up", "--connections", 4, "--window", 1, seconds=1)
                r = self.bench(run, "connections", "--connections", self.scale.connections, *args, "--timeout", 60_000,
                               seconds=600)
                if not r["ok"] or r["alive"] < self.scale.connections:
                    raise Failure(f"{prefix}: {r['alive']} of {self.scale.connections} alive: {r['errors']}")
                found[f"{prefix}.added"] = r["rss_added_kb"] / 1024
                found[f"{prefix}.p50"] = lat(r, "p50", "heartbeat_latency_us")
                found[f"{prefix}.p99"] = lat(r, "p99", "heartbeat_latency_us")
        return found

    def restart(self, start):
        with start(ASYNC, MEMORY_HEAP) as run:
            run.ready()
            self.fill(run, "stored", self.scale.stored)
            run.kill()
            run.side.start(run)
            return {"restart.seconds": run.first_ack("stored")}

    def queues(self, start):
        with start(ASYNC, MEMORY_HEAP) as run:
            run.ready()
            base = run.memory()["rss_mb"]
            # One message to each hundredth queue.
            active = self.scale.wide * 8 // 100
            r = self.create(run, self.scale.wide, "--active", 1, "--messages", active)
            check({**r["send"], "ok": r["ok"]}, "queues")
            rss = run.memory()["rss_mb"]
            return {"queues.rss": rss, "queues.added": rss - base}


BOTH, OURS = ("troupe", "stock"), ("troupe",)
# Name, bytes on disk at most (of a full run), sides, and the most rounds: what takes minutes and hardly varies is not repeated.
SECTIONS = [
    ("async_send", 16e9, BOTH, 9),
    ("sync_send", 12e9, BOTH, 9),
    ("e2e", 2e9, BOTH, 9),
    ("consume", 8e9, BOTH, 9),
    ("push", 2e9, BOTH, 9),
    ("large", 1e9, BOTH, 9),
    ("memory", 12e9, BOTH, 9),
    ("start", 2e9, BOTH, 9),
    ("topics", 4e9, BOTH, 1),
    ("connections", 2e9, BOTH, 9),
    ("restart", 16e9, BOTH, 1),
    ("queues", 4e9, OURS, 1),
]
