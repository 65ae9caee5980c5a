"""The two brokers that are compared: how they start, and which settings of them are no defaults."""
import importlib.machinery
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

import remoting

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load_clients():
    """tests/clients/run knows how to resolve and start stock RocketMQ."""
    path = os.path.join(ROOT, "tests", "clients", "run")
    loader = importlib.machinery.SourceFileLoader("clients_run", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("clients_run", loader))
    loader.exec_module(module)
    return module


clients = load_clients()
Failure = clients.Failure
# Heap of stock: what its own scripts would give is more than small machines have.
SPEED_HEAP, MEMORY_HEAP = "-Xmx4g", "-Xmx1g"
START_SECONDS = 120


class Running:
    """One broker that runs, alone with its name server, on a directory of its own."""

    def __init__(self, side, home, flush, heap):
        self.side, self.home, self.flush, self.heap = side, home, flush, heap
        os.makedirs(home, exist_ok=True)
        self.server = clients.Server(home)
        self.child = None
        self.namesrv = None
        self.port = None
        self.spawned = None

    def __enter__(self):
        try:
            self.side.start(self)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pids(self):
        return [self.child.pid]

    def check(self):
        if self.child.poll() is not None:
            raise Failure(f"the broker ended with {self.child.returncode}:\n{self.log_tail()}")

    def ready(self):
        clients.wait_ready(self.namesrv, self.server.children, START_SECONDS)

    def first_ack(self, topic, seconds=START_SECONDS):
        """Seconds from the start of the broker's process to its first acknowledgement."""
        return remoting.first_ack(self.port, topic, self.child, seconds) - self.spawned

    def kill(self):
        """kill -9 of the broker; its name server goes on."""
        self.child.kill()
        self.child.wait()
        self.server.children = [c for c in self.server.children if c[1] is not self.child]

    def stop(self):
        """Ends its processes at once: the directory is thrown away, and a clean stop of stock takes its time."""
        for _, child, _ in self.server.children:
            child.kill()
        for _, child, _ in self.server.children:
            child.wait()
        self.server.children = []

    def memory(self):
        return resident(self.child.pid)

    def log_tail(self):
        return clients.tail(self.server.children[-1][2]) if self.server.children else ""


def resident(pid):
    """Resident memory in MB: all, and its parts."""
    with open(f"/proc/{pid}/status") as f:
        status = dict(line.split(":", 1) for line in f if ":" in line)
    kb = {k: int(status[k].split()[0]) for k in ("VmRSS", "RssAnon", "RssFile", "Threads")}
    return {"rss_mb": kb["VmRSS"] / 1024, "anon_mb": kb["RssAnon"] / 1024, "file_mb": kb["RssFile"] / 1024,
            "threads": kb["Threads"]}


def wait_port(port, child, seconds=START_SECONDS):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.poll() is not None:
            raise Failure(f"process ended with {child.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failure(f"nothing listens on port {port}")


class Stock:
    name = "stock"
    title = "RocketMQ 5.5.0"
    running = Running
    stock = True
    # Several threads store what one connection sends.
    disorder = True

    def __init__(self, base_port):
        self.base = base_port

    def settings(self):
        return {
            "heap": f"{SPEED_HEAP} for rows of speed, {MEMORY_HEAP} for rows of memory and start",
            "flushDiskType": "as in the row (default ASYNC_FLUSH)",
            "waitTimeMillsInSendQueue": "5000 (default 200: a JVM that warms up answers \"broker busy\")",
            "diskMaxUsedSpaceRatio": "95 (default 75: disks of test machines are fuller)",
            "listenPort, namesrvAddr, brokerIP1, storePathRootDir": "loopback, free ports, an empty directory",
        }

    def version(self):
        out = subprocess.run(["java", "-version"], capture_output=True, text=True)
        return f"RocketMQ 5.5.0 from Maven's packages on {(out.stderr or out.stdout).splitlines()[0]}"

    def java(self, run):
        java, env = run.server.stock_java()
        return [run.heap if a.startswith("-Xmx") else a for a in java], env

    def start(self, run):
        if run.namesrv is None:
            ns, run.port = clients.ports(self.base + 76, self.base + 111)
            namesrv = run.server.stock_namesrv(ns)
            wait_port(ns, namesrv)
            run.namesrv = f"127.0.0.1:{ns}"
        java, env = self.java(run)
        conf = os.path.join(run.home, "broker.properties")
        with open(conf, "w") as f:
            f.write(f"""brokerName=broker-a
brokerClusterName=DefaultCluster
brokerId=0
brokerIP1=127.0.0.1
listenPort={run.port}
namesrvAddr={run.namesrv}
storePathRootDir={run.home}/store
storePathCommitLog={run.home}/store/commitlog
flushDiskType={run.flush}
waitTimeMillsInSendQueue=5000
diskMaxUsedSpaceRatio=95
""")
        run.spawned = time.monotonic()
        run.child = run.server.spawn("broker", [*java, "org.apache.rocketmq.broker.BrokerStartup", "-c", conf], env)


class Troupe:
    name = "troupe"
    title = "TroupeMQ"
    running = Running
    stock = False
    disorder = False

    def __init__(self, base_port, binary, sets):
        self.base, self.binary, self.sets = base_port, os.path.abspath(binary), sets

    def settings(self):
        own = {x.split("=", 1)[0]: x.split("=", 1)[1] for x in self.sets}
        return {
            "flush_disk_type": "as in the row (default SYNC_FLUSH)",
            "listen_port, namesrv_listen_port, http_listen_port, data_dir": "free ports, an empty directory",
            **own,
        }

    def version(self):
        out = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        return out.stdout.strip()

    def start(self, run):
        if run.namesrv is None:
            ns, run.port = clients.ports(self.base + 176, self.base + 211)
            run.namesrv = f"127.0.0.1:{ns}"
        ns = run.namesrv.rsplit(":", 1)[1]
        sets = [f"namesrv_listen_port={ns}", f"listen_port={run.port}", f"flush_disk_type={run.flush}", *self.sets]
        if not any(x.startswith("http_") for x in self.sets):
            sets.append("http_listen_port=0")
        argv = [self.binary, "server", "--data-dir", os.path.join(run.home, "data")]
        for x in sets:
            argv += ["--set", x]
        run.spawned = time.monotonic()
        run.child = run.server.spawn("troupe", argv)


class Generator:
    """`troupe bench` against a running broker."""

    def __init__(self, binary, log):
        self.binary, self.log = os.path.abspath(binary), log

    def __call__(self, run, command, *args, seconds, may_fail=False):
        """Runs one bench; its JSON report. `may_fail`: a check of it may have failed."""
        load = self.begin(run, command, *args)
        try:
            return self.end(load, run, seconds, may_fail)
        finally:
            self.abandon(load)

    def begin(self, run, command, *args):
        """Starts a bench; `end` waits for it, and `abandon` must follow."""
        argv = [self.binary, "bench", command, "--json", "--namesrv", run.namesrv]
        for pid in run.pids:
            argv += ["--pid", str(pid)]
        argv += map(str, args)
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 cwd=run.home)
        return child, argv, time.monotonic()

    def interrupt(self, load):
        """Ends the measured time now."""
        load[0].send_signal(signal.SIGINT)

    def abandon(self, load):
        if load[0].poll() is None:
            load[0].kill()
            load[0].communicate()

    def end(self, load, run, seconds, may_fail=False):
        child, argv, started = load
        shown = " ".join(argv[1:])
        try:
            out, err = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as e:
            raise Failure(f"{shown} took more than {seconds} s") from e
        run.check()
        if child.returncode != 0 and not may_fail:
            raise Failure(f"{shown} ended with {child.returncode}:\n{err[-2000:]}\n{out[-2000:]}")
        try:
            report = json.loads(out)
        except ValueError as e:
            raise Failure(f"{shown} printed no JSON:\n{err[-2000:]}\n{out[-2000:]}") from e
        self.log({"side": run.side.name, "flush": run.flush, "heap": run.heap if run.side.stock else None,
                  "args": argv[1:], "took_s": round(time.monotonic() - started, 3), "report": report})
        return report


# ---- the machine

def fsync_probe(directory, times=200):
    """Seconds of a 4 KiB write with fdatasync: median and 99th percentile."""
    path = os.path.join(directory, "fsync-probe")
    took = []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        block = os.urandom(4096)
        for _ in range(times):
            t0 = time.monotonic()
            os.write(fd, block)
            os.fdatasync(fd)
            took.append(time.monotonic() - t0)
    finally:
        os.close(fd)
        os.unlink(path)
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def conditions(directory):
    """What a reader must know of the machine."""
    with open("/proc/meminfo") as f:
        memory = int(re.search(r"MemTotal:\s+(\d+)", f.read()).group(1)) // 1024
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*:\s*(.*)", f.read())
    p50, p99 = fsync_probe(directory)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model.group(1) if model else "",
        "memory_mb": memory,
        "kernel": " ".join(os.uname()[i] for i in (0, 2, 4)),
        "load_1m": os.getloadavg()[0],
        "fdatasync_4k_ms": {"p50": round(p50 * 1e3, 3), "p99": round(p99 * 1e3, 3)},
        "disk_free_gb": round(shutil.disk_usage(directory).free / 1e9, 1),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
