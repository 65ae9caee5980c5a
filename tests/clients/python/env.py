"""What a case needs: fresh names, clients that are shut down at its end, a sink for messages, waiting."""
import threading
import time
from collections import namedtuple

import remoting
from rocketmq.client import Message, MessageModel, Producer, PullConsumer, PushConsumer, RecvMessage, SendStatus, ffi_check
from rocketmq.ffi import _CLogLevel, dll

Seen = namedtuple("Seen", "topic tags keys body id queue offset reconsumed delay_level retry_topic colour at")


CONSUMED, RETRY_LATER = 0, 1


class Failed(Exception):
    pass


def check(good, text):
    if not good:
        raise Failed(text)


def short(values):
    text = str(values)
    return text if len(text) < 300 else text[:300] + "…"


def same(what, got, wanted):
    got, wanted = sorted(got), sorted(wanted)
    check(got == wanted, f"{what}: got {len(got)} {short(got)}, wanted {len(wanted)} {short(wanted)}")


def wait(what, seconds, condition):
    """Seconds until the condition held."""
    start = time.monotonic()
    while not condition():
        check(time.monotonic() - start < seconds, f"after {seconds} s still waiting for {what}")
        time.sleep(0.01)
    return time.monotonic() - start


class Sink:
    """Collects what consumers receive. What the client hands over lives only as long as the callback."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = []

    def __call__(self, message):
        self.add(message)

    def add(self, message):
        one = Seen(message.topic, text(message.tags), text(message.keys), text(message.body), message.id,
                   message.queue_id, message.queue_offset, message.reconsume_times, message.delay_time_level,
                   text(message["RETRY_TOPIC"]), text(message["colour"]), time.time())
        with self.lock:
            self.seen.append(one)
        return one

    def all(self):
        with self.lock:
            return list(self.seen)

    def bodies(self):
        return [m.body for m in self.all()]

    def exactly(self, wanted, seconds=30, settle=0.5):
        """Waits for as many messages, then a moment for any too many."""
        wait(f"{len(wanted)} messages", seconds, lambda: len(self.all()) >= len(wanted))
        time.sleep(settle)
        same("messages received", self.bodies(), wanted)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


class Env:
    def __init__(self, namesrv, stock, name, suffix):
        self.namesrv, self.stock, self.name, self.suffix = namesrv, stock, name, suffix
        self.notes = []
        self.closers = []
        self.instances = 0
        self.shared = None
        self.broker = None

    def note(self, text):
        self.notes.append(text)

    def fresh(self, base):
        return f"py-{self.name}-{base}-{self.suffix}"

    def close(self):
        for f in reversed(self.closers):
            f()

    def instance(self):
        self.instances += 1
        return f"{self.name}-{self.suffix}-{self.instances}"

    def master(self):
        if self.broker is None:
            self.broker = self.routes("TBW102")[0][1]
        return self.broker

    def routes(self, topic):
        """What each name server that can be reached says."""
        found = []
        for namesrv in self.namesrv.split(";"):
            try:
                found.append(remoting.route(namesrv, topic))
            except ConnectionRefusedError:
                continue
        check(found, "no name server can be reached")
        return found

    def topic(self, queues, base="T"):
        """A new topic that every name server knows."""
        topic = self.fresh(base)
        remoting.create_topic(self.master(), topic, queues)
        wait(f"the route of {topic}", 20, lambda: all(r and r[0] == queues for r in self.routes(topic)))
        return topic

    def producer(self):
        """One for the whole case."""
        if self.shared is None:
            self.shared = self.new_producer()
        return self.shared

    def new_producer(self, before=lambda p: None, **options):
        p = Producer(self.fresh("PG"), timeout=10000, **options)
        p.set_namesrv_addr(self.namesrv)
        ffi_check(dll.SetProducerInstanceName(p._handle, self.instance().encode()))
        ffi_check(dll.SetProducerLogLevel(p._handle, _CLogLevel.WARN))
        before(p)
        p.start()
        self.closers.append(p.shutdown)
        return p

    def send(self, topic, body, tags=None, keys=None, level=None, colour=None, producer=None):
        m = message(topic, body, tags, keys, level, colour)
        r = (producer or self.producer()).send_sync(m)
        check(r.status == SendStatus.OK, f"send status {r.status}")
        return r

    def send_many(self, topic, prefix, n):
        bodies = [f"{prefix}{i}" for i in range(n)]
        for body in bodies:
            self.send(topic, body)
        return bodies

    def push(self, group, topic, callback, tags="*", orderly=False, broadcast=False, before=lambda c: None):
        """Starts a consumer. The message comes again later when the callback gives False."""
        c = PushConsumer(group, orderly=orderly,
                         message_model=MessageModel.BROADCASTING if broadcast else MessageModel.CLUSTERING)
        c.set_namesrv_addr(self.namesrv)
        c.set_instance_name(self.instance())
        ffi_check(dll.SetPushConsumerLogLevel(c._handle, _CLogLevel.WARN))
        before(c)
        # Not by `c.subscribe`: what it returns to the client when the callback throws is left to chance.
        ffi_check(dll.Subscribe(c._handle, topic.encode(), tags.encode()))
        c._register_callback(lambda _, m: RETRY_LATER if callback(RecvMessage(m)) is False else CONSUMED)
        c.start()
        self.closers.append(c.shutdown)
        return c

    def stop(self, consumer):
        self.closers.remove(consumer.shutdown)
        consumer.shutdown()

    def pull(self, group):
        c = PullConsumer(group)
        c.set_namesrv_addr(self.namesrv)
        ffi_check(dll.SetPullConsumerLogLevel(c._handle, _CLogLevel.WARN))
        c.start()
        self.closers.append(c.shutdown)
        return c


def message(topic, body, tags=None, keys=None, level=None, colour=None):
    m = Message(topic)
    m.set_body(body)
    if tags is not None:
        m.set_tags(tags)
    if keys is not None:
        m.set_keys(keys)
    if level is not None:
        m.set_delay_time_level(level)
    if colour is not None:
        m.set_property("colour", colour)
    return m
