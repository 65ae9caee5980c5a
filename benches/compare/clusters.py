"""The clusters that are compared: three nodes of ours, stock's DLedger, stock's master with a slave."""
import json
import os
import re
import signal
import socket
import sys
import time

import remoting
from sides import ROOT, START_SECONDS, Failure, Stock, Troupe, clients, resident, wait_port

sys.path.insert(0, os.path.join(ROOT, "tests", "clients"))
from cluster import Cluster  # noqa: E402

SHARDS = ["broker-a", "broker-b", "broker-c"]
SPEED_HEAP, MEMORY_HEAP = "-Xmx2g", "-Xmx1g"


class Running:
    """A cluster that runs on directories of its own. `flush` None: whatever is the default."""

    def __init__(self, side, home, flush, heap, sets=()):
        self.side, self.home, self.flush, self.heap, self.sets = side, home, flush, heap, list(sets)
        os.makedirs(home, exist_ok=True)
        # Number and process of each node: only these are ever sent a signal. `down` are those that were killed.
        self.nodes, self.down = {}, set()
        self.namesrv = None

    def __enter__(self):
        try:
            self.start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pids(self):
        return [child.pid for node, child in self.nodes.items() if node not in self.down]

    def log_tail(self):
        return "".join(f"--- node {n}:\n{clients.tail(self.log(n), 12)}" for n in self.nodes)

    def check(self):
        for n, child in self.nodes.items():
            if n not in self.down and child.poll() is not None:
                raise Failure(f"node {n} ended with {child.returncode}:\n{clients.tail(self.log(n))}")

    def kill(self, node):
        self.down.add(node)
        self.nodes[node].kill()
        self.nodes[node].wait()

    def pause(self, node):
        self.nodes[node].send_signal(signal.SIGSTOP)

    def resume(self, node):
        self.nodes[node].send_signal(signal.SIGCONT)

    def stop(self):
        """Ends its processes at once: the directories are thrown away. A stopped process dies of SIGKILL too."""
        for child in [*self.nodes.values(), *self.helpers()]:
            child.kill()
        for child in [*self.nodes.values(), *self.helpers()]:
            child.wait()
        self.nodes = {}

    def helpers(self):
        return []

    def memory(self):
        """Resident memory of the worst node in MB."""
        return max((resident(pid) for pid in self.pids), key=lambda m: m["rss_mb"])

    def wait(self, what, done, seconds=START_SECONDS):
        end = time.monotonic() + seconds
        while True:
            found = done()
            if found:
                return found
            self.check()
            if time.monotonic() > end:
                raise Failure(f"{what}: not after {seconds} s\n{self.log_tail()}")
            time.sleep(0.05)

    MAX_OFFSET, MIN_OFFSET = 30, 31

    def offset(self, broker, topic, queue, code):
        """An end of a queue, as its leader tells it."""
        with socket.create_connection(("127.0.0.1", self.brokers(topic)[broker][0]), 2) as sock:
            sock.settimeout(10)
            answer = remoting.call(sock, code, {"topic": topic, "queueId": str(queue)})
        if answer["code"] != 0:
            raise Failure(f"offsets of {topic}: {answer}")
        return int(answer["extFields"]["offset"])

    # ---- the route of a topic, as clients see it

    def brokers(self, topic):
        """{broker name: {id: port}} of a topic's route; empty while nobody knows it."""
        for addr in self.namesrv.split(";"):
            try:
                code, body = clients.route("127.0.0.1", int(addr.rsplit(":", 1)[1]), topic)
            except (OSError, ValueError, KeyError):
                continue
            if code == 0:
                return routes(body.decode("utf-8", "replace"))
        return {}

    def create_on(self, broker, topic, queues=8):
        """The topic on this one broker, so that nobody can send elsewhere."""
        fields = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": str(queues), "writeQueueNums": str(queues),
                  "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}

        def created():
            port = self.brokers("TBW102").get(broker, {}).get(0)
            if port is None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", port), 2) as sock:
                    sock.settimeout(10)
                    return remoting.call(sock, 17, fields)["code"] == 0
            except (OSError, ValueError, KeyError):
                return False

        self.wait(f"creating {topic} on {broker}", created, 60)
        self.wait(f"a route of {topic}", lambda: list(self.brokers(topic)) == [broker], 60)


def routes(text):
    """Names, ids and ports of the brokers in a route; stock writes ids without quotes."""
    found = {}
    for part in re.findall(r'\{[^{}]*"brokerAddrs":\{[^{}]*\}[^{}]*\}', text):
        name = re.search(r'"brokerName":"([^"]*)"', part)
        ids = re.findall(r'"?(\d+)"?:"[^"]*:(\d+)"', re.search(r'"brokerAddrs":\{([^{}]*)\}', part).group(1))
        if name:
            found[name.group(1)] = {int(i): int(port) for i, port in ids}
    return found


class TroupeRunning(Running):
    def start_all(self):
        flush = [] if self.flush is None else [f"flush_disk_type={self.flush}"]
        sets = [*flush, *self.side.sets, *self.sets]
        self.cluster = Cluster(clients, self.side.binary, self.home, 3, SHARDS, sets, self.side.base + 300)
        self.nodes, self.namesrv = self.cluster.children, self.cluster.namesrv
        self.cluster.start_all()
        self.settled()

    def stop(self):
        super().stop()
        if hasattr(self, "cluster"):
            self.cluster.children = {}

    def log(self, node):
        return self.cluster.log(node)

    def restart(self, node):
        self.cluster.start(node)
        self.down.discard(node)

    def page(self, node):
        text = self.cluster.page(node, "/cluster")
        return json.loads(text) if text else None

    def shards(self):
        """Every shard as the node that leads it sees it; None when one has no leader that serves."""
        found = {}
        for node in self.nodes:
            page = self.page(node)
            for shard in page["shards"] if page else []:
                if shard["serving"]:
                    found[shard["name"]] = shard
        return found if len(found) == len(SHARDS) else None

    def replica(self, shard, leader, node):
        """What the leader of a shard knows of its replica on a node."""
        page = self.page(leader)
        shards = [s for s in page["shards"] if s["name"] == shard and s["serving"]] if page else []
        replicas = [r for s in shards for r in s["replicas"] if r["node"] == node]
        return replicas[0] if replicas else None

    def is_settled(self):
        shards = self.shards()
        return shards and all(s["leader"] == s["preferred"] and len(s["replicas"]) == 3 for s in shards.values()) and all(
            r["active"] and r["voter"] and r["lag_entries"] == 0 for s in shards.values() for r in s["replicas"])

    def settled(self, seconds=START_SECONDS):
        """Until all replicas are level, preferred nodes lead, and every name server says so."""
        self.wait("all level, preferred nodes lead", self.is_settled, seconds)
        self.wait("registered", lambda: len(self.brokers("TBW102")) == len(SHARDS)
                  and all(self.brokers("TBW102")[name].get(0) == self.port_of(s) for name, s in (self.shards() or {}).items()), 60)

    def port_of(self, shard):
        return self.cluster.ports[shard["leader"]][3 + SHARDS.index(shard["name"])]

    def leader(self, broker):
        return self.wait(f"a leader of {broker}", lambda: (self.shards() or {}).get(broker))["leader"]

    def recovered(self):
        self.cluster.ready(60)
        self.settled()


class StockRunning(Running):
    """`count` brokers of stock with one name server, which nobody ends."""
    count, group = 3, "broker-a"

    def start_all(self):
        self.helper = clients.Server(self.home)
        ns = next(p for p in range(self.side.base + 76, 65_000, 10) if clients.free(p))
        wait_port(ns, self.helper.stock_namesrv(ns))
        self.namesrv = f"127.0.0.1:{ns}"
        self.ports = {}
        port = self.side.base + 111
        for node in range(self.count):
            # VIP port two below, replication one above, DLedger's two above.
            while not all(clients.free(port + d) for d in (-2, 0, 1, 2)):
                port += 10
            self.ports[node] = port
            port += 10
        self.servers = {node: clients.Server(self.directory(node)) for node in self.ports}
        for node in self.ports:
            self.restart(node)
        self.recovered()

    def directory(self, node):
        path = os.path.join(self.home, f"n{node}")
        os.makedirs(path, exist_ok=True)
        return path

    def helpers(self):
        return [child for _, child, _ in self.helper.children] if hasattr(self, "helper") else []

    def log(self, node):
        return os.path.join(self.directory(node), "broker.log")

    def restart(self, node):
        server = self.servers[node]
        java, env = server.stock_java()
        java = [self.heap if a.startswith("-Xmx") else a for a in java]
        home = self.directory(node)
        conf = os.path.join(home, "broker.properties")
        settings = {"brokerClusterName": "DefaultCluster", "brokerName": self.group, "brokerIP1": "127.0.0.1",
                    "listenPort": self.ports[node], "namesrvAddr": self.namesrv, "storePathRootDir": f"{home}/store",
                    "storePathCommitLog": f"{home}/store/commitlog", "flushDiskType": self.flush or "ASYNC_FLUSH",
                    "waitTimeMillsInSendQueue": 5000, "diskMaxUsedSpaceRatio": 95, **self.role(node)}
        with open(conf, "w") as f:
            f.writelines(f"{k}={v}\n" for k, v in settings.items())
        server.children = []
        self.nodes[node] = server.spawn("broker", [*java, "org.apache.rocketmq.broker.BrokerStartup", "-c", conf], env)
        self.down.discard(node)

    def recovered(self):
        """Until every member is registered and a message is acknowledged."""
        def complete():
            known = self.brokers("TBW102").get(self.group, {})
            return 0 in known and len(known) == self.count and known[0]

        port = self.wait("all brokers registered", complete)
        remoting.first_ack(port, "first", self.nodes[self.node_at(port)], START_SECONDS)

    def node_at(self, port):
        return next(node for node, p in self.ports.items() if p == port)

    def leader(self, broker):
        return self.node_at(self.wait("a leader", lambda: self.brokers("TBW102").get(self.group, {}).get(0)))


class DLedgerRunning(StockRunning):
    def role(self, node):
        peers = ";".join(f"n{n}-127.0.0.1:{p + 2}" for n, p in self.ports.items())
        return {"enableDLegerCommitLog": "true", "dLegerGroup": self.group, "dLegerPeers": peers, "dLegerSelfId": f"n{node}"}


class MasterSlaveRunning(StockRunning):
    count = 2

    def role(self, node):
        return {"brokerId": node, "brokerRole": "SLAVE" if node else "SYNC_MASTER", "totalReplicas": 2, "inSyncReplicas": 2,
                "minInSyncReplicas": 2}


class Troupe3(Troupe):
    name, title, running = "troupe3", "TroupeMQ, 3 nodes", TroupeRunning

    def settings(self):
        return {
            "flush_disk_type": "ASYNC_FLUSH in rows that say so (default SYNC_FLUSH)",
            "broker_role": "SYNC_MASTER, the default",
            "retention_bytes, log_segment_bytes": "small for catch-up by snapshot",
            "peers, namesrv_addr, ports, data_dir": "as in `config/node-1.toml` to `node-3.toml`, on free ports",
            **{x.split("=", 1)[0]: x.split("=", 1)[1] for x in self.sets},
        }


class StockCluster(Stock):
    extra = {}

    def settings(self):
        return {**super().settings(), "heap": f"{SPEED_HEAP} for each broker, {MEMORY_HEAP} in the row of memory",
                "flushDiskType": "ASYNC_FLUSH, the default", **self.extra}


class DLedger(StockCluster):
    name, title, running = "dledger", "RocketMQ 5.5.0 DLedger, 3 nodes", DLedgerRunning
    extra = {"enableDLegerCommitLog": "true", "dLegerGroup, dLegerPeers, dLegerSelfId": "three brokers"}


class MasterSlave(StockCluster):
    name, title, running = "slave", "RocketMQ 5.5.0 master + slave", MasterSlaveRunning
    extra = {"brokerRole": "SYNC_MASTER and SLAVE",
             "totalReplicas, inSyncReplicas, minInSyncReplicas": "2 (default 1: an acknowledgement does not wait for the slave)"}
