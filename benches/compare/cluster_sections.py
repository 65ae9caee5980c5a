"""What is measured of clusters of three nodes: rows and sections, as in sections.py."""
import os
import statistics
import time

import remoting
from clusters import MEMORY_HEAP, SHARDS, SPEED_HEAP
from sections import ASYNC, Row, Sections, behind, check, lat
from sides import Failure

# While nodes are stopped: messages a second, the generator's time limit for a request in ms, and seconds of load after the
# fault. A client that waits longer for a node that hangs cannot see service return; RocketMQ's own clients wait 3 s unless
# told otherwise. Stock gets that, because it falls behind for good when clients send again after half a second.
FAILOVER = {False: (500, 500, 6), True: (200, 3_000, 40)}
# Messages a second while a follower catches up.
CATCHUP_RATE = 2_000
# Bytes of the log of each shard that stay when a snapshot is to be needed.
RETAINED = 2_100_000_000

NOTE = (" Fail-over: {} messages/s over one connection to a topic whose queues are all on the shard whose leader "
        "is stopped, so nothing else can take them; the connection reads the route when it breaks, or when a request is not "
        "answered within {} ms, and connects again after 10 to 100 ms; SYNC_MASTER + SYNC_FLUSH for ours. "
        "DLedger: {} messages/s, {} ms, ASYNC_FLUSH, few trials for orientation.").format(*FAILOVER[False][:2], *FAILOVER[True][:2])

ROWS = [
    Row("cluster.rate", "send 1 KiB, 4 × 64 in flight, ASYNC_FLUSH, majority or slave confirmed: messages per second", "msg/s",
        True, {"dledger": 8, "slave": 1.5}),
    Row("cluster.per_cpu", "… messages per CPU second of all brokers", "msg", True, {"dledger": 10, "slave": 2}),
    Row("cluster.p50", "… p50", "ms"),
    Row("cluster.p99", "… p99", "ms"),
    Row("behind.leader", "a request behind a pull of one message of 1.0 MB, on one connection to the leader: p99", "ms", limit=20),
    Row("behind.follower", "… through a follower's port: p99", "ms", limit=20),
    Row("cluster.rss", f"resident memory of the largest node after load, ours with defaults, stock {MEMORY_HEAP}", "MB", False,
        {"dledger": 6, "slave": 6}),
    Row("kill.median", "time without an acknowledgement after kill -9 of the leader of the topic's only shard: median", "s",
        limit=0.5),
    Row("kill.worst", "… worst", "s", limit=1),
    Row("pause.median", "the same after SIGSTOP of the leader (nothing closes): median", "s", limit=1.5),
    Row("pause.worst", "… worst", "s", limit=3),
    Row("failover.trials", "trials, each of kill -9 and SIGSTOP", ""),
    Row("failover.failed", "messages that the generator gave up in all trials", "", limit=0),
    Row("failover.lost", "acknowledged messages lost in all trials", "", limit=0),
    Row("log.ratio", "a follower catches up 2 GB by log at 2,000 msg/s: p99 to p99 before", "×", limit=2),
    Row("log.p99", "… p99 meanwhile", "ms"),
    Row("log.before", "… p99 before", "ms"),
    Row("log.seconds", "… time from its start until it is level", "s"),
    Row("snapshot.ratio", "a follower catches up 2 GB by snapshot at 2,000 msg/s: p99 to p99 before", "×", limit=2),
    Row("snapshot.p99", "… p99 meanwhile", "ms"),
    Row("snapshot.before", "… p99 before", "ms"),
    Row("snapshot.seconds", "… time from its start until it is level", "s"),
]


class Scale:
    def __init__(self, quick):
        self.warmup, self.measure = (3, 3) if quick else (20, 10)
        self.load_seconds = 3 if quick else 20
        self.behind = 50 if quick else 500
        self.trials, self.stock_trials = (2, 1) if quick else (20, 3)
        self.stored = 200_000 if quick else 2_000_000
        self.retained = RETAINED // 10 if quick else RETAINED


class ClusterSections(Sections):
    """`start(flush, heap, sets)` gives a running cluster."""

    def cluster_send(self, start):
        with start(ASYNC, SPEED_HEAP) as run:
            self.warm(run)
            return self.closed(run, "cluster", 4, 64)

    def cluster_memory(self, start):
        with start(ASYNC, MEMORY_HEAP) as run:
            self.send(run, "memory", "--connections", 4, "--window", 64, seconds=self.scale.load_seconds)
            return {"cluster.rss": run.memory()["rss_mb"]}

    def cluster_large(self, start):
        """On the leader's connection and through a follower's, which hands everything to the leader."""
        found, shard = {}, SHARDS[0]
        with start(ASYNC, SPEED_HEAP) as run:
            for topic in ("behind-warm-up", "behind"):
                run.create_on(shard, topic)
            leader = run.leader(shard)
            ports = {node: all_of[3 + SHARDS.index(shard)] for node, all_of in run.cluster.ports.items()}
            follower = next(node for node in ports if node != leader)
            for place, node in (("leader", leader), ("follower", follower)):
                found[f"behind.{place}"] = behind(remoting.after_large, ports[node], self.scale.behind)["large.p99"]
            if run.leader(shard) != leader:
                raise Failure(f"{shard} got another leader meanwhile")
        return found

    # ---- fail-over

    def failover(self, start):
        """Trials on the shards in turn: the topic has queues on one shard alone, the node that leads it is stopped."""
        ours = not start.side.stock
        found, failed, lost = {}, 0, 0
        with start(None, SPEED_HEAP) as run:
            brokers = SHARDS if ours else SHARDS[:1]
            for broker in brokers:
                run.create_on(broker, "failover-" + broker)
            if not ours:
                # Code is compiled; topics reach stock's other brokers every 10 s.
                self.send(run, "fail-over warm-up", "--connections", 1, "--rate", FAILOVER[True][0], seconds=self.scale.warmup)
                time.sleep(15)
            trials = self.scale.trials if ours else self.scale.stock_trials
            for fault in ("kill", "pause"):
                gaps = []
                for trial in range(trials):
                    broker = brokers[trial % len(brokers)]
                    gap, given_up, missing = self.trial(run, fault, broker, *FAILOVER[run.side.stock])
                    gaps.append(gap)
                    failed, lost = failed + given_up, lost + missing
                found[f"{fault}.median"], found[f"{fault}.worst"] = statistics.median(gaps), max(gaps)
        return {**found, "failover.trials": trials, "failover.failed": failed, "failover.lost": lost}

    def trial(self, run, fault, broker, rate, timeout, seconds):
        """The longest time without an acknowledgement in s, messages given up, acknowledged messages lost."""
        topic, record = "failover-" + broker, os.path.join(run.home, "acks")
        node = run.leader(broker)
        load = self.bench.begin(run, "send", "--topic", topic, "--connections", 1, "--size", 1024, "--rate", rate,
                                "--window", 64, "--retries", 1_000, "--timeout", timeout, "--duration", 2 + seconds,
                                "--record", record)
        try:
            time.sleep(2)
            at = time.time() * 1e3
            run.kill(node) if fault == "kill" else run.pause(node)
            # A paused node wakes up while the load still runs: what it then says must do no harm.
            if fault == "pause":
                time.sleep(seconds * 0.75)
                run.resume(node)
            report = self.bench.end(load, run, seconds + 60)
        finally:
            self.bench.abandon(load)
            run.restart(node) if fault == "kill" else run.resume(node)
        counted = ", ".join(f"{k} {report[k]}" for k in ("acked_total", "failed", "unsent", "retries", "errors", "last_error"))
        if report["first_ack_unix_ms"] is None or report["first_ack_unix_ms"] > at:
            raise Failure(f"{fault} of {broker}: nothing was acknowledged before it: {counted}")
        # Service that does not return leaves no gap between acknowledgements.
        if report["acked_total"] < rate * 2.5:
            raise Failure(f"{fault} of {broker}: no service for {seconds} s after it: {counted}")
        end = report["longest_gap_end_unix_ms"] or at
        # Nothing after the fault took as long as something before it did: that counts then, as a bound from above.
        if end < at:
            print(f"  {fault} -> node {node}, {broker}: less than a gap before it", flush=True)
        run.recovered()
        args = ["--allow-disorder", "--verify", record]
        seen = self.bench(run, "consume", "--topic", topic, *args, seconds=300, may_fail=True)
        verify = seen["verify"]
        missing = verify["missing"] + verify["mismatched"]
        if not missing and not seen["ok"]:
            raise Failure(f"{fault} of {broker}: reading back failed: {seen}")
        print(f"  {fault} -> node {node}, {broker}: {report['longest_gap_ms']:.0f} ms, began "
              f"{end - report['longest_gap_ms'] - at:.0f} ms after it, {verify['acked']} acknowledged, {missing} lost, "
              f"{report['failed'] + report['unsent']} given up {report['errors'] or ''}", flush=True)
        return report["longest_gap_ms"] / 1e3, report["failed"] + report["unsent"], missing

    # ---- catching up

    def catchup_log(self, start):
        return self.catchup(start, "log", self.scale.stored, [])

    def catchup_snapshot(self, start):
        limit = self.scale.retained
        sets = [f"retention_bytes={limit * len(SHARDS)}", f"log_segment_bytes={min(64 << 20, limit // 8)}"]
        return self.catchup(start, "snapshot", self.scale.stored * 2 + self.scale.stored // 4, sets)

    def catchup(self, start, kind, messages, sets):
        """p99 of sends to a shard while a follower of it comes back, to p99 while all were there."""
        shard, topic = SHARDS[0], "catchup"
        with start(ASYNC, SPEED_HEAP, sets) as run:
            run.create_on(shard, topic)
            rate = ["--topic", topic, "--connections", 4, "--rate", CATCHUP_RATE]
            self.send(run, "catch-up warm-up", *rate, seconds=self.scale.warmup)
            before = lat(self.send(run, "before catch-up", *rate, seconds=self.scale.measure * 2), "p99")
            leader = run.leader(shard)
            node = next(n for n in run.nodes if n != leader)
            last = run.replica(shard, leader, node)["matched"]
            known = run.offset(shard, topic, 0, run.MAX_OFFSET)
            run.kill(node)
            run.wait(f"{shard} goes on", run.shards, 30)
            self.fill(run, topic, messages)
            if kind == "snapshot":
                # Retention looks every 10 s.
                time.sleep(12)
            # The follower lacks what came after `known`: the log cannot tell it any more when that is gone.
            gone = run.offset(shard, topic, 0, run.MIN_OFFSET) > known
            if gone != (kind == "snapshot"):
                raise Failure(f"the log has {'not all' if gone else 'all'} that the follower needs")
            load = self.bench.begin(run, "send", *rate, "--size", 1024, "--warmup", 2, "--duration", 600)
            try:
                # Only what is due while the follower catches up is measured.
                time.sleep(2.1)
                run.restart(node)
                began = time.monotonic()
                seconds = self.level(run, shard, leader, node, began, last)
                self.bench.interrupt(load)
                report = self.bench.end(load, run, 60)
            finally:
                self.bench.abandon(load)
            check(report, "load during catch-up")
            p99 = lat(report, "p99")
            return {f"{kind}.ratio": p99 / before, f"{kind}.p99": p99, f"{kind}.before": before, f"{kind}.seconds": seconds}

    def level(self, run, shard, leader, node, began, last):
        """Seconds until the leader sees the replica level with it."""
        def done():
            page = run.page(leader)
            if page is None:
                return False
            if not any(s["name"] == shard and s["serving"] for s in page["shards"]):
                raise Failure(f"node {leader} does not lead {shard} any more\n{run.log_tail()}")
            replica = run.replica(shard, leader, node)
            if replica is None:
                return False
            # Under load the newest entries are always on their way.
            return replica["active"] and replica["matched"] > last and replica["lag_entries"] <= 100

        run.wait(f"node {node} level", done, 600)
        return time.monotonic() - began


THREE = ("troupe3", "dledger", "slave")
# As SECTIONS: name, bytes on disk at most, sides, and the most rounds.
CLUSTER_SECTIONS = [
    ("cluster_send", 24e9, THREE, 9),
    ("cluster_large", 2e9, ("troupe3",), 9),
    ("cluster_memory", 20e9, THREE, 9),
    ("failover", 4e9, ("troupe3", "dledger"), 1),
    ("catchup_log", 20e9, ("troupe3",), 9),
    ("catchup_snapshot", 36e9, ("troupe3",), 9),
]
