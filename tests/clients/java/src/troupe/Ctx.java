package troupe;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.exception.RemotingException;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** One run of one case: fresh names, clients that are shut down at its end, checks, measured notes. */
final class Ctx implements AutoCloseable {
    private static final AtomicInteger INSTANCE = new AtomicInteger();
    final String namesrv;
    /** True when the server is stock RocketMQ: cases about TroupeMQ's own promises relax there. */
    final boolean stock;
    private final String caseName;
    private final String suffix;
    private final Deque<Runnable> closers = new ConcurrentLinkedDeque<>();
    private final Collection<String> notes = new ConcurrentLinkedQueue<>();
    private DefaultMQProducer shared;
    private DefaultMQPullConsumer sharedPull;

    Ctx(String namesrv, boolean stock, String caseName, String suffix) {
        this.namesrv = namesrv;
        this.stock = stock;
        this.caseName = caseName;
        this.suffix = suffix;
    }

    // ---- names

    String name(String base) {
        return caseName + "-" + base + "-" + suffix;
    }

    /** Creates a topic and waits until the name server knows it with that many queues. */
    String topic(String base, int queues) throws Exception {
        String t = name(base);
        makeTopic(t, queues);
        awaitQueues(t, queues);
        return t;
    }

    /** The client waits 5 s for the answer, which a machine that starts many programs at once may exceed. */
    void makeTopic(String topic, int queues) throws Exception {
        await("topic " + topic, 60_000, () -> {
            try {
                Compat.createTopic(producer(), topic, queues);
                return true;
            } catch (MQClientException e) {
                for (Throwable t = e; t != null; t = t.getCause()) {
                    if (t instanceof RemotingException) {
                        return false;
                    }
                }
                throw e;
            }
        });
    }

    String topic(int queues) throws Exception {
        return topic("T", queues);
    }

    void awaitQueues(String topic, int queues) throws Exception {
        await("route of " + topic + " with " + queues + " queues", 20_000, () -> {
            try {
                return producer().fetchPublishMessageQueues(topic).size() == queues;
            } catch (Exception e) {
                return false;
            }
        });
    }

    // ---- clients

    <T extends ClientConfig> T prepare(T c) {
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(caseName + "-" + suffix + "-" + INSTANCE.incrementAndGet());
        return c;
    }

    DefaultMQProducer newProducer(String group) {
        DefaultMQProducer p = prepare(new DefaultMQProducer(group));
        p.setSendMsgTimeout(10_000);
        return p;
    }

    DefaultMQProducer start(DefaultMQProducer p) throws Exception {
        p.start();
        closers.push(p::shutdown);
        return p;
    }

    /** The producer of the case, made at the first call. */
    synchronized DefaultMQProducer producer() throws Exception {
        if (shared == null) {
            shared = start(newProducer(name("PG")));
        }
        return shared;
    }

    /**
     * On stock a change of shares can leave a consumer waiting for its next heartbeat: it refuses pulls with a
     * subscription newer than the last heartbeat's (code 25), and the client skips that heartbeat when another is
     * on its way. The default interval of 30 s stays where TroupeMQ is tested.
     */
    private <T extends ClientConfig> T heartbeats(T c) {
        if (stock) {
            c.setHeartbeatBrokerInterval(1000);
        }
        return c;
    }

    /** A push consumer, not started; a new group of it begins at the first message. */
    DefaultMQPushConsumer push(String group) {
        DefaultMQPushConsumer c = heartbeats(prepare(new DefaultMQPushConsumer(group)));
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setConsumeThreadMin(2);
        c.setConsumeThreadMax(2);
        return c;
    }

    DefaultMQPushConsumer start(DefaultMQPushConsumer c) throws Exception {
        c.start();
        closers.push(c::shutdown);
        return c;
    }

    /** A concurrent consumer of the topic that puts everything into the sink. */
    DefaultMQPushConsumer consume(String group, String topic, String tags, Sink sink) throws Exception {
        DefaultMQPushConsumer c = push(group);
        c.subscribe(topic, tags);
        c.registerMessageListener(sink.listener());
        return start(c);
    }

    DefaultMQPullConsumer pull(String group) throws Exception {
        DefaultMQPullConsumer c = prepare(new DefaultMQPullConsumer(group));
        c.start();
        closers.push(c::shutdown);
        return c;
    }

    DefaultLitePullConsumer lite(String group) {
        DefaultLitePullConsumer c = heartbeats(prepare(new DefaultLitePullConsumer(group)));
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        return c;
    }

    DefaultLitePullConsumer start(DefaultLitePullConsumer c) throws Exception {
        c.start();
        closers.push(c::shutdown);
        return c;
    }

    synchronized DefaultMQPullConsumer reader() throws Exception {
        if (sharedPull == null) {
            sharedPull = pull(name("READER"));
        }
        return sharedPull;
    }

    // ---- sending and reading

    SendResult send(String topic, String body) throws Exception {
        return sendOk(producer().send(new Message(topic, utf8(body))));
    }

    /** Sends {@code n} messages {@code prefix0…} round robin; the list of bodies. */
    List<String> sendMany(String topic, String prefix, int n) throws Exception {
        List<String> bodies = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            send(topic, prefix + i);
            bodies.add(prefix + i);
        }
        return bodies;
    }

    static SendResult sendOk(SendResult r) {
        check(r.getSendStatus() == SendStatus.SEND_OK, "status " + r.getSendStatus());
        return r;
    }

    List<MessageQueue> queues(String topic) throws Exception {
        List<MessageQueue> l = new ArrayList<>(reader().fetchSubscribeMessageQueues(topic));
        Collections.sort(l);
        return l;
    }

    /** The same after waiting for n messages to be visible; stock shows them a moment after the answer. */
    List<MessageExt> readAll(MessageQueue q, int n) throws Exception {
        await(n + " messages in " + q, 5_000, () -> reader().maxOffset(q) - reader().minOffset(q) >= n);
        List<MessageExt> l = readAll(reader(), q);
        equal(l.size(), n, "messages in " + q);
        return l;
    }

    void awaitStored(String topic, long n) throws Exception {
        await(n + " messages in " + topic, 5_000, () -> stored(topic) >= n);
        equal(stored(topic), n, "messages in " + topic);
    }

    /** Everything in a queue by plain pulls, offsets checked to be contiguous from the minimum to the maximum. */
    List<MessageExt> readAll(MessageQueue q) throws Exception {
        return readAll(reader(), q);
    }

    static List<MessageExt> readAll(DefaultMQPullConsumer reader, MessageQueue q) throws Exception {
        long min = reader.minOffset(q);
        long max = reader.maxOffset(q);
        List<MessageExt> out = new ArrayList<>();
        long at = min;
        int idle = 0;
        while (at < max) {
            PullResult r = reader.pull(q, "*", at, 32);
            if (r.getPullStatus() == PullStatus.FOUND) {
                idle = 0;
                for (MessageExt m : r.getMsgFoundList()) {
                    check(m.getQueueOffset() == at, q + ": offset " + m.getQueueOffset() + " where " + at + " was due");
                    check(m.getQueueId() == q.getQueueId(), q + ": message says queue " + m.getQueueId());
                    out.add(m);
                    at++;
                }
                check(r.getNextBeginOffset() == at, "next offset " + r.getNextBeginOffset() + " where " + at + " was due");
            } else {
                check(++idle < 50, q + ": nothing at " + at + " below maximum " + max + ": " + r.getPullStatus());
                Thread.sleep(100);
            }
        }
        return out;
    }

    /** All bodies of a topic by queue id, in order. */
    Map<Integer, List<String>> readTopic(String topic) throws Exception {
        Map<Integer, List<String>> out = new TreeMap<>();
        for (MessageQueue q : queues(topic)) {
            out.put(q.getQueueId(), bodies(readAll(q)));
        }
        return out;
    }

    /** Sum of the maximum offsets: how many messages a fresh topic holds. */
    long stored(String topic) throws Exception {
        long n = 0;
        for (MessageQueue q : queues(topic)) {
            n += reader().maxOffset(q) - reader().minOffset(q);
        }
        return n;
    }

    static List<String> bodies(Collection<MessageExt> l) {
        List<String> out = new ArrayList<>();
        for (MessageExt m : l) {
            out.add(new String(m.getBody(), StandardCharsets.UTF_8));
        }
        return out;
    }

    static byte[] utf8(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    // ---- raw requests: the client's own remoting layer without its argument checks

    String brokerAddr() throws Exception {
        List<MessageQueue> l = producer().fetchPublishMessageQueues("TBW102");
        return brokerAddr(l.get(0).getBrokerName());
    }

    String brokerAddr(String brokerName) throws Exception {
        var factory = producer().getDefaultMQProducerImpl().getmQClientFactory();
        String addr = factory.findBrokerAddressInPublish(brokerName);
        if (addr == null) {
            factory.updateTopicRouteInfoFromNameServer("TBW102");
            addr = factory.findBrokerAddressInPublish(brokerName);
        }
        check(addr != null, "no address for " + brokerName);
        return addr;
    }

    RemotingCommand raw(int code, byte[] body, String... ext) throws Exception {
        RemotingCommand c = RemotingCommand.createRequestCommand(code, null);
        for (int i = 0; i < ext.length; i += 2) {
            c.addExtField(ext[i], ext[i + 1]);
        }
        c.setBody(body);
        return producer().getDefaultMQProducerImpl().getmQClientFactory().getMQClientAPIImpl()
                .getRemotingClient().invokeSync(brokerAddr(), c, 10_000);
    }

    /** SEND_MESSAGE 10 as written, whatever the topic or queue. */
    RemotingCommand rawSend(String topic, int queueId, byte[] body) throws Exception {
        return raw(10, body, "producerGroup", name("PG"), "topic", topic, "defaultTopic", "TBW102",
                "defaultTopicQueueNums", "4", "queueId", String.valueOf(queueId), "sysFlag", "0",
                "bornTimestamp", String.valueOf(System.currentTimeMillis()), "flag", "0", "properties", "",
                "reconsumeTimes", "0", "unitMode", "false", "batch", "false", "maxReconsumeTimes", "0");
    }

    RemotingCommand rawTopic(String topic, int queues, int perm) throws Exception {
        return raw(17, null, "topic", topic, "defaultTopic", "TBW102", "readQueueNums", String.valueOf(queues),
                "writeQueueNums", String.valueOf(queues), "perm", String.valueOf(perm),
                "topicFilterType", "SINGLE_TAG", "topicSysFlag", "0", "order", "false");
    }

    // ---- checks

    interface Cond {
        boolean ok() throws Exception;
    }

    interface Act {
        void run() throws Exception;
    }

    static void check(boolean ok, String what) {
        if (!ok) {
            throw new AssertionError(what);
        }
    }

    static void equal(Object got, Object want, String what) {
        check(want.equals(got), what + ": got " + cut(got) + ", wanted " + cut(want));
    }

    private static String cut(Object o) {
        String s = String.valueOf(o);
        return s.length() > 300 ? s.substring(0, 300) + "… (" + s.length() + " characters)" : s;
    }

    /** Waits; milliseconds it took. */
    static long await(String what, long ms, Cond c) throws Exception {
        long t0 = System.nanoTime();
        while (!c.ok()) {
            if ((System.nanoTime() - t0) / 1_000_000 > ms) {
                throw new AssertionError("after " + ms + " ms still waiting for " + what);
            }
            Thread.sleep(10);
        }
        return (System.nanoTime() - t0) / 1_000_000;
    }

    static Exception fails(String what, Act a) {
        try {
            a.run();
        } catch (Exception e) {
            return e;
        }
        throw new AssertionError(what + " was accepted");
    }

    void note(String s) {
        notes.add(s);
    }

    String notes() {
        return String.join(", ", notes);
    }

    void onClose(Runnable r) {
        closers.push(r);
    }

    @Override
    public void close() {
        for (Runnable r; (r = closers.poll()) != null; ) {
            try {
                r.run();
            } catch (Throwable ignored) {
                // a client that the case already shut down, or cut off on purpose
            }
        }
    }

    /** What a consumer received, in order of arrival. */
    static final class Sink {
        final List<MessageExt> all = Collections.synchronizedList(new ArrayList<>());
        volatile long lastAt = System.nanoTime();

        MessageListenerConcurrently listener() {
            return (msgs, context) -> {
                add(msgs);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            };
        }

        void add(List<MessageExt> msgs) {
            all.addAll(msgs);
            lastAt = System.nanoTime();
        }

        int size() {
            return all.size();
        }

        List<String> sorted() {
            List<String> l;
            synchronized (all) {
                l = bodies(all);
            }
            Collections.sort(l);
            return l;
        }

        /** Waits for all of these, then checks that each came exactly once and nothing else did. */
        void exactly(Collection<String> want, long ms, long settleMs) throws Exception {
            await(want.size() + " messages (have " + size() + ")", ms, () -> size() >= want.size());
            Thread.sleep(settleMs);
            List<String> w = new ArrayList<>(want);
            Collections.sort(w);
            equal(sorted(), w, "messages received");
        }
    }
}
