"""The cases of the C++ client, by name: a function that takes an `Env`, how many seconds it may take, and why it is
not run on stock RocketMQ, if so."""
import base64
import os
import time

import remoting
from env import Sink, check, message, same, wait

CASES = {}


def case(name, seconds=60, stock_differs=None):
    def add(f):
        CASES[name] = (f, seconds, stock_differs)
        return f
    return add


# The first retry comes after 10 s. Stock answers the first question for a new retry topic's route with "none",
# and the client asks again after 30 s.
FIRST_RETRY, FIRST_RETRY_STOCK = 18, 60


def first_retry(env):
    return FIRST_RETRY_STOCK if env.stock else FIRST_RETRY


@case("retry", 120)
def retry(env):
    topic, group = env.topic(2), env.fresh("CG")
    sink = Sink()

    def listen(m):
        one = sink.add(m)
        return one.body != "retry me" or one.reconsumed > 0

    env.push(group, topic, listen)
    env.send(topic, "retry me", tags="tag", keys="key", colour="blue")
    env.send(topic, "fine")
    wait("both messages", 20, lambda: len(sink.all()) >= 2)
    took = wait("the retry", first_retry(env), lambda: len(sink.all()) >= 3)
    first, again = [m for m in sink.all() if m.body == "retry me"]
    check(again.reconsumed == 1, f"reconsume times {again.reconsumed}")
    check((again.tags, again.keys, again.colour) == ("tag", "key", "blue"), f"properties {again}")
    check(again.retry_topic == topic, f"the retry's own topic is {again.retry_topic}")
    check(again.at - first.at >= 9.5, f"the retry came after {again.at - first.at:.1f} s")
    env.note(f"retry {took:.1f} s after the failure")


@case("dead-letter", 120, "a send-back without originTopic, as this client's, gets code 1 once it is for the dead letters")
def dead_letter(env):
    topic, group = env.topic(2), env.fresh("CG")
    remoting.create_group(env.master(), group, 1)
    sink = Sink()

    def listen(m):
        sink.add(m)
        return False

    env.push(group, topic, listen)
    env.send(topic, "poison", tags="tag", keys="key")
    wait("the retry", first_retry(env) + 5, lambda: len(sink.all()) >= 2)
    dead = "%DLQ%" + group
    wait("the dead letters' topic", 10, lambda: remoting.bounds(env.master(), dead, 0)[1] > 0)
    stored = remoting.pull_one(env.master(), env.fresh("READER"), dead, 0, 0)
    check(b"poison" in stored and b"RETRY_TOPIC\x01" + topic.encode() in stored, f"dead letter {stored}")
    check(len(sink.all()) == 2, f"delivered {len(sink.all())} times")


@case("delay-levels")
def delay_levels(env):
    topic = env.topic(2)
    sink = Sink()
    env.push(env.fresh("CG"), topic, sink)
    env.send(topic, "warm")
    wait("the consumer", 20, lambda: len(sink.all()) == 1)
    sent = {}
    for level in (1, 2, 3):
        sent[str(level)] = time.time()
        env.send(topic, str(level), level=level)
    wait("the delayed messages", 60, lambda: len(sink.all()) == 4)
    for m in sink.all()[1:]:
        due = {"1": 1, "2": 5, "3": 10}[m.body]
        took = m.at - sent[m.body]
        env.note(f"level {m.body}: {took:.2f} s")
        # Were each level the next one, the last would take 30 s.
        check(due - 0.05 <= took < due + 15, f"level {m.body} took {took:.2f} s")
        check(m.topic == topic, f"delivered with topic {m.topic}")


@case("push-concurrent")
def push_concurrent(env):
    topic = env.topic(4)
    sink = Sink()

    def signed(client):
        # Everybody who copies the client's examples signs; a server without access control takes no notice.
        client.set_session_credentials("an-access-key", "a-secret-key", "ALIYUN")

    env.push(env.fresh("CG"), topic, sink, before=signed)
    p = env.new_producer(before=signed)
    wanted, places = [], {}
    for i in range(100):
        r = env.send(topic, f"m{i}", tags=f"t{i % 3}", keys=f"k{i}", colour="blau-ü", producer=p)
        check(r.msg_id, "no message id")
        places[f"m{i}"] = r
        wanted.append(f"m{i}")
    sink.exactly(wanted)
    offsets = {}
    for m in sink.all():
        i = m.body[1:]
        check((m.tags, m.keys, m.colour) == (f"t{int(i) % 3}", f"k{i}", "blau-ü"), f"properties {m}")
        check(m.topic == topic and m.reconsumed == 0 and m.delay_level == 0, f"fields {m}")
        check(m.id == places[m.body].msg_id, f"id {m.id}, sent as {places[m.body].msg_id}")
        check(m.offset == places[m.body].offset, f"offset {m.offset}, sent as {places[m.body].offset}")
        offsets.setdefault(m.queue, []).append(m.offset)
    check(set(offsets) == {0, 1, 2, 3}, f"queues {sorted(offsets)}")
    for queue, list_ in offsets.items():
        check(sorted(list_) == list(range(len(list_))), f"queue {queue} has offsets {sorted(list_)}")


@case("tag-filter")
def tag_filter(env):
    topic = env.topic(2)
    two, one = Sink(), Sink()
    env.push(env.fresh("AB"), topic, two, tags="A || B")
    env.push(env.fresh("C"), topic, one, tags="C")
    wanted = {"A": [], "B": [], "C": [], None: []}
    for i in range(40):
        tag = ("A", "B", "C", None)[i % 4]
        env.send(topic, f"m{i}", tags=tag)
        wanted[tag].append(f"m{i}")
    two.exactly(wanted["A"] + wanted["B"])
    one.exactly(wanted["C"])


@case("push-orderly", 90)
def push_orderly(env):
    topic = env.topic(4)
    sink = Sink()
    for i in range(25):
        for key in range(6):
            env.producer().send_orderly(message(topic, f"{key}:{i}"), key)
    env.push(env.fresh("CG"), topic, sink, orderly=True)
    sink.exactly([f"{key}:{i}" for key in range(6) for i in range(25)], 60)
    for key in range(6):
        mine = [m for m in sink.all() if m.body.startswith(f"{key}:")]
        check([m.body for m in mine] == [f"{key}:{i}" for i in range(25)], f"order of {key}: {[m.body for m in mine]}")
        check({m.queue for m in mine} == {key % 4}, f"{key} is in the queues { {m.queue for m in mine} }")


@case("broadcasting")
def broadcasting(env):
    topic, group = env.topic(4), env.fresh("CG")
    sinks = [Sink(), Sink()]
    for sink in sinks:
        env.push(group, topic, sink, broadcast=True)
    # A broadcasting consumer begins at the end, which each looks for in its own time.
    for n in range(400):
        for _ in range(4):
            env.send(topic, f"warm{n}")
        time.sleep(0.1)
        if all(len({m.queue for m in sink.all()}) == 4 for sink in sinks):
            break
    wanted = env.send_many(topic, "m", 40)
    for sink in sinks:
        wait("the messages at each", 20, lambda: len([b for b in sink.bodies() if b[0] == "m"]) >= 40)
    time.sleep(0.5)
    for sink in sinks:
        same("messages of one", [b for b in sink.bodies() if b[0] == "m"], wanted)


@case("pull")
def pull(env):
    topic = env.topic(3)
    wanted = [f"m{i}" for i in range(100)]
    for i, body in enumerate(wanted):
        env.send(topic, body, tags="even" if i % 2 == 0 else "odd")
    c = env.pull(env.fresh("CG"))
    got = []
    wait("every message", 20, lambda: got.extend(text_of(m) for m in c.pull(topic)) or len(got) >= 100)
    same("messages pulled", got, wanted)
    check(not list(c.pull(topic)), "a second pull found messages again")
    type(c).offset_table.clear()
    same("messages with a tag", [text_of(m) for m in c.pull(topic, "odd")], wanted[1::2])


def text_of(m):
    return m.body.decode()


@case("big-message", 90)
def big_message(env):
    topic = env.topic(1)
    sink = Sink()
    env.push(env.fresh("CG"), topic, sink)
    p = env.new_producer(max_message_size=4 * 1024 * 1024)
    # The client compresses what is above 4 kB: random text to three quarters, the repeated one to nearly nothing.
    wanted = [base64.b64encode(os.urandom(750_000)).decode(), "a" * 3_900_000, "small",
              base64.b64encode(os.urandom(2_900_000)).decode()]
    for body in wanted:
        env.send(topic, body, producer=p)
    wait("the messages", 60, lambda: len(sink.all()) >= 4)
    same("lengths", [len(b) for b in sink.bodies()], [len(b) for b in wanted])
    check(sorted(sink.bodies()) == sorted(wanted), "the bodies differ")


@case("offsets-persisted", 90)
def offsets_persisted(env):
    topic, group = env.topic(4), env.fresh("CG")
    first = Sink()
    c = env.push(group, topic, first)
    first.exactly(env.send_many(topic, "one", 60))
    # The client commits every 5 s; what it sends just before it closes may be lost on stock.
    wait("the commit", 15, lambda: sum(max(0, remoting.committed(env.master(), group, topic, q)) for q in range(4)) == 60)
    env.stop(c)
    two = env.send_many(topic, "two", 40)
    second = Sink()
    env.push(group, topic, second)
    second.exactly(two, settle=1)
    check(len(first.all()) == 60, f"the one that left has {len(first.all())}")


@case("rebalance", 120)
def rebalance(env):
    topic, group = env.topic(4), env.fresh("CG")
    a, b = Sink(), Sink()
    env.push(group, topic, a)
    leaving = env.push(group, topic, b)

    def queues(prefix):
        n = 0
        while True:
            n += 1
            env.send_many(topic, f"{prefix}{n}-", 8)
            time.sleep(0.25)
            last = [{m.queue for m in sink.all() if m.body.startswith(f"{prefix}{n}-")} for sink in (a, b)]
            yield last

    end = time.monotonic() + 60
    for one, other in queues("join"):
        if len(one) == 2 and len(other) == 2 and not one & other:
            break
        check(time.monotonic() < end, f"the queues are not shared: {one}, {other}")
    env.stop(leaving)
    start = time.monotonic()
    for one, _ in queues("leave"):
        if len(one) == 4:
            break
        check(time.monotonic() - start < 45, f"the one that stays has only {one}")
    env.note(f"all queues {time.monotonic() - start:.1f} s after the other left")


@case("batch-send", 60, "this client's batch (code 10, batch=1) is stored as one message")
def batch_send(env):
    topic = env.topic(4)
    sink = Sink()
    env.push(env.fresh("CG"), topic, sink)
    wanted = [f"b{i}" for i in range(30)]
    env.producer().send_batch([message(topic, body, tags="t", keys="k" + body) for body in wanted])
    sink.exactly(wanted)
    check(len({m.queue for m in sink.all()}) == 1, "a batch is in several queues")
    ordered = sorted(sink.all(), key=lambda m: m.offset)
    check([m.body for m in ordered] == wanted, "the batch is in another order")
    check([m.keys for m in ordered] == ["k" + body for body in wanted], "keys differ")


@case("async-oneway")
def async_oneway(env):
    topic = env.topic(4)
    sink = Sink()
    env.push(env.fresh("CG"), topic, sink)
    p, good, bad = env.producer(), [], []
    wanted = [f"a{i}" for i in range(50)]
    for body in wanted:
        p.send_async(message(topic, body), good.append, bad.append)
    wait("the callbacks", 20, lambda: len(good) + len(bad) == 50)
    check(not bad, f"failed: {bad[:1]}")
    for i in range(20):
        p.send_oneway(message(topic, f"o{i}"))
        wanted.append(f"o{i}")
    sink.exactly(wanted)
