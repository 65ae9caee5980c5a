"""Just enough of the remoting protocol to see when a broker acknowledges its first message."""
import json
import socket
import struct
import time


def call(sock, code, fields, body=b""):
    """One request with a JSON header; the response's header."""
    header = json.dumps({"code": code, "language": "JAVA", "version": 453, "opaque": 1, "flag": 0,
                         "extFields": fields}).encode()
    sock.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
    data = b""
    while len(data) < 8 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        more = sock.recv(65536)
        if not more:
            raise OSError("closed")
        data += more
    length = struct.unpack(">I", data[4:8])[0] & 0xFFFFFF
    return json.loads(data[8:8 + length])


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
