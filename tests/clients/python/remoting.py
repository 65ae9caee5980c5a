"""The few requests that administer a broker, which the C++ client cannot send."""
import json
import re
import socket
import struct


class Refused(Exception):
    def __init__(self, code, remark):
        super().__init__(f"code {code}: {remark}")
        self.code = code


def request(address, code, fields, body=b"", seconds=5):
    """One request on a connection of its own; the answer's ext fields and body. Raises `Refused`."""
    header = json.dumps({"code": code, "language": "PYTHON", "version": 409, "opaque": 1, "flag": 0,
                         "extFields": {k: str(v) for k, v in fields.items()}}).encode()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), seconds) as s:
        s.settimeout(seconds)
        s.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        data = b""
        while len(data) < 8 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
            more = s.recv(65536)
            if not more:
                raise OSError(f"{address} closed the connection")
            data += more
    length = struct.unpack(">I", data[4:8])[0] & 0xFFFFFF
    answer = json.loads(data[8:8 + length])
    if answer["code"] != 0:
        raise Refused(answer["code"], answer.get("remark"))
    return answer.get("extFields") or {}, data[8 + length:]


def route(namesrv, topic):
    """Queues to write to and the master's address; None while the name server does not know them."""
    try:
        _, body = request(namesrv, 105, {"topic": topic})
    except Refused:
        return None
    # The keys of `brokerAddrs` are numbers without quotes, as fastjson writes them.
    found = json.loads(re.sub(rb"([{,])(\d+):", rb'\1"\2":', body))
    masters = [b["brokerAddrs"].get("0") for b in found["brokerDatas"]]
    if not masters or None in masters:
        return None
    return sum(q["writeQueueNums"] for q in found["queueDatas"]), masters[0]


def create_topic(broker, topic, queues):
    request(broker, 17, {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": queues, "writeQueueNums": queues,
                         "perm": 6, "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"})


def create_group(broker, group, retries):
    """A consumer group whose messages go to the dead letters after this many retries."""
    config = {"groupName": group, "consumeEnable": True, "consumeFromMinEnable": True, "consumeBroadcastEnable": True,
              "retryQueueNums": 1, "retryMaxTimes": retries, "brokerId": 0, "whichBrokerWhenConsumeSlowly": 1,
              "notifyConsumerIdsChangedEnable": True}
    request(broker, 200, {}, json.dumps(config).encode())


def committed(broker, group, topic, queue):
    """The group's committed offset in a queue; -1 when it has none."""
    try:
        fields, _ = request(broker, 14, {"consumerGroup": group, "topic": topic, "queueId": queue, "setZeroIfNotFound": "false"})
        return int(fields["offset"])
    except Refused:
        return -1


def bounds(broker, topic, queue):
    """The first offset of a queue and the one behind its last; (0, 0) when there is no such queue."""
    try:
        return tuple(int(request(broker, code, {"topic": topic, "queueId": queue})[0]["offset"]) for code in (31, 30))
    except Refused:
        return 0, 0


def pull_one(broker, group, topic, queue, offset):
    """The stored bytes of one message."""
    return request(broker, 11, {"consumerGroup": group, "topic": topic, "queueId": queue, "queueOffset": offset,
                                "maxMsgNums": 1, "sysFlag": 4, "commitOffset": 0, "suspendTimeoutMillis": 0,
                                "subscription": "*", "subVersion": 0, "expressionType": "TAG"})[1]
