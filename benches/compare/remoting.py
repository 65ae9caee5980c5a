"""Just enough of the remoting protocol to see when a broker acknowledges its first message, and how long it takes to
answer behind a large answer."""
import json
import socket
import struct
import time


def call(sock, code, fields, body=b""):
    """One request with a JSON header; the response's header."""
    return exchange(sock, code, fields, body)[0]


def exchange(sock, code, fields, body=b""):
    """One request with a JSON header; the response's header and body."""
    header = json.dumps({"code": code, "language": "JAVA", "version": 453, "opaque": 1, "flag": 0,
                         "extFields": fields}).encode()
    sock.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
    data = bytearray()
    while len(data) < 8 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        more = sock.recv(1 << 20)
        if not more:
            raise OSError("closed")
        data += more
    length = struct.unpack(">I", data[4:8])[0] & 0xFFFFFF
    return json.loads(bytes(data[8:8 + length])), bytes(data[8 + length:])


def send_once(host, port, topic):
    """Sends one message on a new connection; the response's code (0: acknowledged)."""
    fields = {"producerGroup": "compare", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "8",
              "queueId": "0", "sysFlag": "0", "bornTimestamp": str(int(time.time() * 1000)), "flag": "0",
              "properties": "WAIT\x01true\x02", "reconsumeTimes": "0", "unitMode": "false", "batch": "false"}
    with socket.create_connection((host, port), 2) as sock:
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return call(sock, 10, fields, b"first")["code"]


def first_ack(port, topic, child, seconds, pause=0.005):
    """Tries until a message is acknowledged; when that was, by the monotonic clock."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        if child.poll() is not None:
            raise OSError(f"the broker ended with {child.returncode}")
        try:
            last = send_once("127.0.0.1", port, topic)
            if last == 0:
                return time.monotonic()
        except (OSError, ValueError, KeyError) as e:
            last = e
        time.sleep(pause)
    raise OSError(f"no message acknowledged within {seconds} s: {last}")


# Body of the message that is pulled before each request: 1.0 MB.
LARGE = 1 << 20


def after_large(port, topic, rounds):
    """Seconds that a request takes behind a pull of one message of 1.0 MB, on one connection: `rounds` of each pull, code
    30, pull, heartbeat."""
    send = {"producerGroup": "compare", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "8", "queueId": "0",
            "sysFlag": "0", "bornTimestamp": str(int(time.time() * 1000)), "flag": "0", "properties": "",
            "reconsumeTimes": "0", "unitMode": "false", "batch": "false"}
    pull = {"consumerGroup": "compare", "topic": topic, "queueId": "0", "queueOffset": "0", "maxMsgNums": "1", "sysFlag": "4",
            "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0"}
    beat = json.dumps({"clientID": "compare@1", "producerDataSet": [{"groupName": "compare"}], "consumerDataSet": []}).encode()
    taken = []
    with socket.create_connection(("127.0.0.1", port), 2) as sock:
        sock.settimeout(60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if (code := call(sock, 10, send, b"x" * LARGE)["code"]) != 0:
            raise OSError(f"code {code} for the large message")
        for _ in range(rounds):
            for code, fields, body in ((30, {"topic": topic, "queueId": "0"}, b""), (34, {}, beat)):
                for _ in range(100):
                    head, message = exchange(sock, 11, pull)
                    if head["code"] == 0:
                        break
                    time.sleep(0.05)
                if len(message) < LARGE:
                    raise OSError(f"the pull was answered {head}")
                began = time.perf_counter()
                head = call(sock, code, fields, body)
                taken.append(time.perf_counter() - began)
                if head["code"] != 0:
                    raise OSError(f"code {code} was answered {head}")
    return sorted(taken)
