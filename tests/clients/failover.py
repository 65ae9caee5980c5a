"""Real clients with their default settings while leaders are killed: what does the application see?"""
import json
import os
import subprocess
import threading
import time

SHARDS = ["broker-a", "broker-b", "broker-c"]
# What an application must not see.
NEVER = ("sync_failed", "async_refused", "push_missing", "orderly_missing", "orderly_disorder", "program_failed")
# Longest time from the store of a message to its consumption, in ms.
# Go waits for the time-out of a pull (30 s) that was under way on a connection that broke. So does Java, now and then: 5.5.0
# where another thread connects anew before the broken connection is dealt with, 4.9.8 where a write meets the broken
# connection before a read does; what was under way on it is forgotten.
LATEST = {"go": 100_000, "java498": 45_000, "java550": 45_000}
LATEST_ELSE = 10_000
FAULTS = ("kill", "pause", "restart")


class Failover:
    def __init__(self, run, opts, tmp, results):
        self.run, self.opts, self.tmp, self.results = run, opts, tmp, results

    def command(self, client, namesrv, topic, orderly):
        flags = ["--namesrv", namesrv, "--topic", topic, "--orderly", orderly, "--seconds", str(self.opts.seconds)]
        if client == "go":
            return [self.run.build_go(), "failover", *flags]
        home = os.path.join(self.tmp, client)
        os.makedirs(os.path.join(home, "log"), exist_ok=True)
        return self.run.java_command(self.run.build_java(client), home, True) + ["failover", *flags]

    def all(self, clients, fault):
        from cluster import Cluster
        commands = {}
        cluster = Cluster(self.run, self.opts.troupe_binary, self.tmp, 3, SHARDS, self.opts.set)
        programs = []
        t0 = time.monotonic()
        try:
            cluster.start_all()
            for client in clients:
                topic, orderly = f"failover-{client}", f"failover-orderly-{client}"
                for t in (topic, orderly):
                    # Go tries the next queue, also when it is of the same broker: with two each, three tries reach another.
                    cluster.create_topic(t, 2 if client == "go" else 4)
                commands[client] = self.command(client, cluster.namesrv, topic, orderly)
            for client, argv in commands.items():
                programs.append(Program(client, argv, self.tmp))
            for p in programs:
                p.ready.wait(60)
            # Consumers have found their queues.
            time.sleep(3)
            faults = self.faults(cluster, fault, programs)
            for p in programs:
                self.judge(p, fault, faults, t0)
            for node in cluster.alive():
                self.line(False, fault, "server", t0, f"node {node} ended by itself:\n{self.run.tail(cluster.log(node))}")
        except (self.run.Failure, OSError) as e:
            self.line(False, fault, "server", t0, str(e))
        finally:
            for p in programs:
                p.stop()
            for text in cluster.stop():
                self.line(False, fault, "server", t0, text)

    def line(self, good, fault, client, t0, text):
        self.results.line("ok" if good else "FAILED", "failover-" + fault, client, f"{time.monotonic() - t0:.1f}", text)

    def faults(self, cluster, fault, programs):
        """A fault on the leader of each shard in turn, as long as the producers are at work."""
        end = time.monotonic() + self.opts.seconds - 6
        count = 0
        while time.monotonic() < end and not any(p.done.is_set() for p in programs):
            # A node that led two shards would take two of a producer's three tries with it.
            cluster.at_home()
            node = cluster.leader(SHARDS[count % 3])
            began = time.monotonic()
            if fault == "kill":
                cluster.kill(node)
                time.sleep(1)
                cluster.start(node)
            elif fault == "pause":
                cluster.pause(node)
                # Shorter than the clients' own time-out: a client that waits for it cannot try elsewhere.
                time.sleep(2)
                cluster.resume(node)
            else:
                bad = cluster.terminate(node)
                if bad:
                    raise self.run.Failure(bad)
                cluster.start(node)
            cluster.ready(30)
            count += 1
            time.sleep(max(0, self.opts.every - (time.monotonic() - began)))
        return count

    def judge(self, program, fault, faults, t0):
        program.done.wait(self.opts.seconds + 120)
        report = program.report
        if report is None:
            return self.line(False, fault, program.name, t0, f"no report:\n{self.run.tail(program.log)}")
        bad = [f"{k} {report[k]}" for k in NEVER if report.get(k)]
        bad += [f"{k} {v}" for k, v in report.items() if k.endswith("_latest_ms") and v > LATEST.get(program.name, LATEST_ELSE)]
        if not report.get("sync_sent") or not report.get("push_got", 1) or faults == 0:
            bad.append(f"nothing was tested: {faults} faults")
        figures = ", ".join(f"{k} {v}" for k, v in sorted(report.items()) if k != "examples" and v)
        text = f"{faults} faults, {figures}"
        if bad:
            text = "; ".join(bad + (report["examples"] or [])) + f" ({text})"
        self.line(not bad, fault, program.name, t0, text)


class Program:
    """A client program: READY when it sends, REPORT at its end."""

    def __init__(self, name, argv, tmp):
        self.name = name
        self.log = os.path.join(tmp, name + ".failover.err")
        self.ready, self.done, self.report = threading.Event(), threading.Event(), None
        with open(self.log, "wb") as err:
            self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True, cwd=tmp)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            if line.startswith("READY"):
                self.ready.set()
            elif line.startswith("REPORT "):
                self.report = json.loads(line[7:])
        self.ready.set()
        self.done.set()

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
