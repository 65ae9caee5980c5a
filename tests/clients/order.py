"""What one connection sends to one queue keeps its order while the lead moves: on three nodes, a raw client at each that
sends ahead of its answers, and a look at what is stored (design: pipelined sends keep their order)."""
import json
import random
import socket
import struct
import threading
import time

TOPIC = "in-order"
WINDOW = 256
FAULTS = ["transfer", "kill", "pause"]


class Remote:
    """A connection that says frames as they are."""

    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""

    @staticmethod
    def frame(code, ext, body=b"", opaque=1):
        # Go: told code 14 instead of losing its connection when a send may have been done.
        head = json.dumps({"code": code, "flag": 0, "language": "GO", "opaque": opaque, "version": 401, "extFields": ext}).encode()
        return struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body

    def take(self, n):
        while len(self.buf) < n:
            more = self.s.recv(1 << 16)
            if not more:
                raise EOFError("closed")
            self.buf += more
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def read(self):
        frame = self.take(struct.unpack(">I", self.take(4))[0])
        head = struct.unpack(">I", frame[:4])[0] & 0xFFFFFF
        return json.loads(frame[4:4 + head]), frame[4 + head:]

    def call(self, code, ext, body=b""):
        self.s.sendall(self.frame(code, ext, body))
        return self.read()


class Order:
    def __init__(self, run, opts, tmp, results):
        self.run, self.opts, self.tmp, self.results = run, opts, tmp, results
        self.stopping = threading.Event()

    def all(self, fault):
        from cluster import Cluster
        t0 = time.monotonic()
        cluster = Cluster(self.run, self.opts.troupe_binary, self.tmp, 3, ["broker-a"], self.opts.set)
        try:
            cluster.start_all()
            cluster.create_topic(TOPIC, 3)
            # Each has a queue of its own, so that what is stored tells who sent it.
            counts = [{"sent": 0, "ok": 0} for _ in range(3)]
            clients = [threading.Thread(target=self.send, args=(cluster, node, node - 1, counts[node - 1])) for node in (1, 2, 3)]
            for client in clients:
                client.start()
            moves = self.faults(cluster, fault)
            self.stopping.set()
            for client in clients:
                client.join()
            bad = []
            for queue, count in enumerate(counts):
                stored = self.stored(cluster, queue)
                back = [f"{b} after {a}" for a, b in zip(stored, stored[1:]) if b <= a]
                if back:
                    bad.append(f"queue {queue}: {len(back)} out of order, {', '.join(back[:3])}")
                if count["ok"] == 0 or len(stored) < count["ok"]:
                    bad.append(f"queue {queue}: {len(stored)} stored, {count['ok']} acknowledged")
            text = f"{moves} times, {sum(c['sent'] for c in counts)} sent, {sum(c['ok'] for c in counts)} acknowledged"
            self.results.line("FAILED" if bad else "ok", f"order-{fault}", "raw", f"{time.monotonic() - t0:.1f}", "; ".join([*bad, text]))
        except (self.run.Failure, OSError, EOFError) as e:
            self.results.line("FAILED", f"order-{fault}", "raw", f"{time.monotonic() - t0:.1f}", str(e))
        finally:
            self.stopping.set()
            for text in cluster.stop():
                self.results.line("FAILED", f"order-{fault}", "server", f"{time.monotonic() - t0:.1f}", text)

    def faults(self, cluster, fault):
        """Moves the lead until the time is over; how often."""
        end = time.monotonic() + self.opts.seconds
        https = ",".join(f"127.0.0.1:{p[2]}" for p in cluster.ports.values())
        moves = 0
        while time.monotonic() < end:
            time.sleep(0.6 if fault == "transfer" else 3)
            node = cluster.leader("broker-a")
            if fault == "transfer":
                code, _ = cluster.command("cluster", "transfer", "--shard", "broker-a", "--to", str(node % 3 + 1), "--http", https)
                moves += code == 0
                continue
            if fault == "kill":
                cluster.kill(node)
                time.sleep(1)
                cluster.start(node)
                cluster.ready()
            else:
                cluster.pause(node)
                time.sleep(3)
                cluster.resume(node)
            moves += 1
        return moves

    def send(self, cluster, node, queue, count):
        ext = {"a": "G", "b": TOPIC, "c": "TBW102", "d": "4", "e": str(queue), "f": "0", "g": "0", "h": "0", "i": "", "j": "0",
               "k": "false", "m": "false"}
        remote, room = None, None
        while not self.stopping.is_set():
            try:
                if remote is None:
                    remote = Remote(cluster.ports[node][3])
                    room = threading.Semaphore(WINDOW)
                    threading.Thread(target=self.answers, args=(remote, room, count), daemon=True).start()
                    remote.s.settimeout(None)
                out = b""
                for _ in range(random.choice((1, 1, 3, 8))):
                    if room.acquire(timeout=0.5):
                        count["sent"] += 1
                        out += Remote.frame(310, ext, str(count["sent"]).encode(), count["sent"])
                remote.s.sendall(out)
                time.sleep(0.0005)
            except OSError:
                remote = None
                time.sleep(0.05)
        # What is under way is answered, or not, within this time.
        time.sleep(3)

    @staticmethod
    def answers(remote, room, count):
        try:
            while True:
                head, _ = remote.read()
                count["ok"] += head["code"] == 0
                room.release()
        except (OSError, EOFError):
            pass

    def stored(self, cluster, queue):
        """The numbers in a queue, by offset."""
        remote = Remote(cluster.ports[cluster.leader("broker-a")][3])
        remote.call(200, {}, b'{"groupName":"G"}')
        found, offset = [], 0
        while True:
            head, body = remote.call(11, {
                "consumerGroup": "G", "topic": TOPIC, "queueId": str(queue), "queueOffset": str(offset), "maxMsgNums": "32",
                "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "1",
                "expressionType": "TAG"})
            if head["code"] == 19:
                return found
            if head["code"] != 0:
                raise self.run.Failure(f"pull of queue {queue} at {offset}: {head}")
            at = 0
            while at < len(body):
                # Fields of fixed size, with addresses of IPv4, stand before the body's length.
                size = struct.unpack(">I", body[at + 84:at + 88])[0]
                found.append(int(body[at + 88:at + 88 + size]))
                at += struct.unpack(">I", body[at:at + 4])[0]
            offset = int(head["extFields"]["nextBeginOffset"])
