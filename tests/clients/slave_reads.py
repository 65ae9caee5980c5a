"""A push consumer that is far behind on three nodes with slaveReadEnable: followers serve it, and it gets everything."""
import os
import re
import subprocess
import threading
import time

MESSAGES = 24_000
TOPIC = "far-behind"


class SlaveReads:
    def __init__(self, run, opts, tmp, results):
        self.run, self.opts, self.tmp, self.results = run, opts, tmp, results
        # Offsets seen, by kind of consumer and queue.
        self.got = {"push": {}, "orderly": {}}
        self.disorder = []

    def all(self, clients):
        from cluster import Cluster
        sets = ["slave_read_enable=true", "tail_cache_bytes=1048576", "flush_disk_type=ASYNC_FLUSH", *self.opts.set]
        cluster = Cluster(self.run, self.opts.troupe_binary, self.tmp, 3, ["broker-a"], sets)
        t0 = time.monotonic()
        try:
            cluster.start_all()
            cluster.create_topic(TOPIC, 4)
            code, text = cluster.command("bench", "send", "-n", cluster.namesrv, "--topic", TOPIC, "--size", "1024", "-c", "2",
                                         "-w", "32", "--warmup", "0", "-d", "120", "--messages", str(MESSAGES))
            if code != 0:
                raise self.run.Failure(f"cannot fill the topic: {text}")
            for client in clients:
                self.one(cluster, client)
        except (self.run.Failure, OSError) as e:
            self.results.line("FAILED", "slave-reads", "server", f"{time.monotonic() - t0:.1f}", str(e))
        finally:
            for text in cluster.stop():
                self.results.line("FAILED", "slave-reads", "server", f"{time.monotonic() - t0:.1f}", text)

    def reads(self, cluster):
        """Reads from the store so far, by node."""
        pages = {node: cluster.page(node, "/metrics") or "" for node in cluster.children}
        found = {node: re.search(r"^\S*tail_cache_misses_total(?:\{[^}]*\})? (\d+)", page, re.M) for node, page in pages.items()}
        return {node: int(m.group(1)) if m else 0 for node, m in found.items()}

    def one(self, cluster, client):
        t0 = time.monotonic()
        home = os.path.join(self.tmp, client)
        os.makedirs(os.path.join(home, "log"), exist_ok=True)
        argv = self.run.java_command(self.run.build_java(client), home, True)
        argv += ["follow", "--namesrv", cluster.namesrv, "--topic", TOPIC, "--producer", "1", "--threads", "1", "--rate", "20"]
        leader, before = cluster.leader("broker-a"), self.reads(cluster)
        with open(os.path.join(self.tmp, client + ".err"), "wb") as err:
            child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True, cwd=self.tmp)
        threading.Thread(target=self.read, args=(child,), daemon=True).start()
        try:
            end = time.monotonic() + 90
            while time.monotonic() < end and not all(self.count(kind) >= MESSAGES for kind in self.got):
                time.sleep(0.2)
            # At the end of the queue the leader serves again, and new messages arrive.
            time.sleep(1)
        finally:
            child.kill()
            child.wait()
        after = self.reads(cluster)
        stored = {node: after[node] - before[node] for node in after}
        bad = list(self.disorder[:3])
        for kind, queues in self.got.items():
            if self.count(kind) < MESSAGES:
                bad.append(f"{kind} got {self.count(kind)} of {MESSAGES}")
            for queue, offsets in queues.items():
                if len(offsets) != max(offsets) + 1:
                    bad.append(f"{kind} skipped {max(offsets) + 1 - len(offsets)} of queue {queue}")
        followers = sum(n for node, n in stored.items() if node != leader)
        if followers <= stored[leader]:
            bad.append("followers served no more than the leader")
        text = f"pulls from the store: leader {stored[leader]}, followers {followers}"
        self.results.line("FAILED" if bad else "ok", "slave-reads", client, f"{time.monotonic() - t0:.1f}", "; ".join([*bad, text]))

    def count(self, kind):
        return sum(len(offsets) for offsets in self.got[kind].values())

    def read(self, child):
        for line in child.stdout:
            f = line.rstrip("\n").split("\t")
            if f[0] == "got" and len(f) >= 7:
                kind, queue, offset = f[4], f[6], int(f[7])
                offsets = self.got[kind].setdefault(queue, set())
                if kind == "orderly" and offset not in offsets and any(o in offsets for o in (offset + 1, offset + 2)):
                    self.disorder.append(f"orderly queue {queue}: {offset} after a later one")
                offsets.add(offset)
