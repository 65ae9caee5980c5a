"""A cluster of TroupeMQ nodes on loopback, each a process of its own."""
import json
import os
import signal
import subprocess
import time
import urllib.request


class Cluster:
    """`nodes` nodes with `shards` (broker names). Ports are looked for from `base` on."""

    def __init__(self, run, binary, tmp, nodes, shards, sets=(), base=24000):
        self.run, self.binary, self.tmp = run, os.path.abspath(binary), tmp
        self.shards = shards
        self.sets = list(sets)
        self.children = {}
        self.bad_ends = []
        port = base + os.getpid() % 50 * 10
        self.ports = {}
        for node in range(1, nodes + 1):
            own = []
            while len(own) < 3 + len(shards):
                # Each shard has its VIP port two below.
                apart = 3 if len(own) >= 3 else 1
                if all(run.free(p) for p in (port + apart - 3, port + apart - 1)):
                    own.append(port + apart - 1)
                port += apart
            self.ports[node] = own
        self.namesrv = ";".join(f"127.0.0.1:{p[0]}" for p in self.ports.values())

    def log(self, node):
        return os.path.join(self.tmp, f"node-{node}.log")

    def start(self, node):
        namesrv, peer, http, *shards = self.ports[node]
        peers = ";".join(f"{n}=127.0.0.1:{p[1]}" for n, p in self.ports.items())
        sets = [f"cluster_id=client-test", f"node_id={node}", f"peers={peers}", f"namesrv_addr={self.namesrv}",
                f"namesrv_listen_port={namesrv}", f"peer_listen_port={peer}", f"http_listen_port={http}",
                f"shards={';'.join(self.shards)}", f"shard_ports={';'.join(map(str, shards))}", *self.sets]
        argv = [self.binary, "server", "--data-dir", os.path.join(self.tmp, f"node-{node}")]
        for x in sets:
            argv += ["--set", x]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        # The machine's disk may be full for other reasons.
        clean |= {"TROUPE_DISK_SPACE_WARNING_LEVEL_RATIO": "99", "TROUPE_DISK_MIN_FREE_BYTES": "0"}
        with open(self.log(node), "ab") as f:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, env=clean, cwd=self.tmp)
        self.children[node] = child

    def start_all(self):
        """All nodes, led by the preferred ones: a client keeps a route for 30 s, and one that was taken
        while a single node led everything would be all dead when that node is killed."""
        for node in self.ports:
            self.start(node)
        self.ready()
        self.at_home()

    def page(self, node, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[node][2]}{path}", timeout=2) as r:
                return r.read().decode()
        except OSError:
            return None

    def ready(self, seconds=60):
        end = time.monotonic() + seconds
        while not all(self.page(node, "/health/ready") for node in self.children):
            for node, child in self.children.items():
                if child.poll() is not None:
                    raise self.run.Failure(f"node {node} ended with {child.returncode}:\n{self.run.tail(self.log(node))}")
            if time.monotonic() > end:
                raise self.run.Failure(f"not every node was ready after {seconds} s")
            time.sleep(0.05)

    def at_home(self, seconds=60):
        """Waits until preferred nodes lead: leads go back to them some seconds after the start."""
        end = time.monotonic() + seconds
        while True:
            pages = [self.page(node, "/cluster") for node in self.children]
            shards = [s for page in pages if page for s in json.loads(page)["shards"]]
            if all(pages) and all(s["leader"] == s["preferred"] for s in shards):
                return
            if time.monotonic() > end:
                raise self.run.Failure(f"not every preferred node leads after {seconds} s")
            time.sleep(0.1)

    def leader(self, shard, seconds=20):
        """The node that leads this shard and serves."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for node in self.children:
                page = self.page(node, "/cluster")
                for s in json.loads(page)["shards"] if page else []:
                    if s["name"] == shard and s["serving"]:
                        return node
            time.sleep(0.05)
        raise self.run.Failure(f"nobody leads {shard}")

    def command(self, *args):
        p = subprocess.run([self.binary, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return p.returncode, p.stdout

    def create_topic(self, topic, queues):
        """On every broker, and known to every name server."""
        end = time.monotonic() + 30
        while True:
            # A broker whose leader is not registered yet would be left out.
            code, text = self.command("topic", "create", topic, "--queues", str(queues), "--namesrv", self.namesrv)
            try:
                for node in self.children if code == 0 else ():
                    self.run.wait_topic("127.0.0.1", self.ports[node][0], topic, len(self.shards), 2)
                if code == 0:
                    return
            except self.run.Failure as e:
                text = str(e)
            if time.monotonic() > end:
                raise self.run.Failure(f"cannot create {topic}: {text}")
            time.sleep(0.1)

    def kill(self, node):
        self.children[node].kill()
        self.children[node].wait()

    def pause(self, node):
        self.children[node].send_signal(signal.SIGSTOP)

    def resume(self, node):
        self.children[node].send_signal(signal.SIGCONT)

    def terminate(self, node, seconds=10):
        """SIGTERM; the complaint about how it ended, if any."""
        child = self.children[node]
        if child.poll() is not None:
            return f"node {node} was gone already, exit {child.returncode}:\n{self.run.tail(self.log(node))}"
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGTERM)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return f"node {node} did not end within {seconds} s of SIGTERM:\n{self.run.tail(self.log(node))}"
        if code != 0:
            return f"node {node} ended with {code} after SIGTERM:\n{self.run.tail(self.log(node))}"
        return None

    def alive(self):
        """The nodes that ended by themselves."""
        return [n for n, c in self.children.items() if c.poll() is not None]

    def stop(self):
        bad = [self.terminate(node) for node in list(self.children)]
        self.children = {}
        return [b for b in bad if b]
