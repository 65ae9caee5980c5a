#!/usr/bin/env python3
"""Writes the seeds of every fuzz target, taken from the golden vectors, to corpus/<target>/."""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE.parent / "tests" / "vectors"


def vectors(name):
    for vector in json.loads((VECTORS / name).read_text())["vectors"]:
        if isinstance(vector.get("hex"), str) and vector["hex"]:
            yield vector["name"], bytes.fromhex(vector["hex"])


def split(frame):
    """Type byte, header and body of one frame; None when it is something else."""
    if len(frame) < 8 or int.from_bytes(frame[:4], "big") != len(frame) - 4:
        return None
    size = int.from_bytes(frame[5:8], "big")
    return frame[4], frame[8 : 8 + size], frame[8 + size :]


def seeds():
    for file in ("remoting-frames.json", "remoting-client-frames.json", "remoting-acl.json"):
        for name, data in vectors(file):
            parts = split(data)
            if parts is None:
                yield "json_bodies", name, data
                continue
            kind, header, body = parts
            yield "frame_splitter", name, data
            yield ("header_binary" if kind else "header_json"), name, header
            if body[:1] == b"{":
                yield "json_bodies", name, body
            elif "send_batch" in name:
                yield "batch_body", name, body
    for name, data in vectors("remoting-batch.json"):
        if name == "batch_request_body":
            yield "batch_body", name, data
        elif name == "batch_expanded_records":
            yield "record_decoder", name, data
    for name, data in vectors("remoting-records.json"):
        yield "record_decoder", name, data
    for name, data in vectors("remoting-json-bodies.json"):
        yield "json_bodies", name, data
    register = json.loads((VECTORS / "admin-register-broker.json").read_text())
    yield "json_bodies", "register_plain", register["plain_json"].encode()
    yield "json_bodies", "register_compressed", bytes.fromhex(register["compressed_hex"])


count = 0
for target, name, data in seeds():
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    count += 1
print(f"{count} seeds")
