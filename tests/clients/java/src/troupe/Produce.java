package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageId;
import org.apache.rocketmq.common.message.MessageQueue;

/** Sending: what is accepted, and that it is stored as it was sent. */
final class Produce {
    private Produce() {}

    static void register() {
        Main.add("sync-send", Produce::syncSend).binary();
        Main.add("async-send", Produce::asyncSend).binary();
        Main.add("oneway-send", Produce::onewaySend).binary();
        Main.add("batch-send", Produce::batchSend).binary();
        Main.add("pipelined-order", Produce::pipelinedOrder)
                .stockDiffers("a pool of send threads reorders the pipelined messages of a connection");
        Main.add("round-trip", Produce::roundTrip).binary();
        Main.add("compressed-body", Produce::compressedBody).binary();
        Main.add("auto-created-topic", Produce::autoCreated);
        Main.add("created-topic", Produce::createdTopic);
        Main.add("wait-store-false", Produce::waitStoreFalse);
        Main.add("two-producers-one-group", Produce::twoProducers);
        Main.add("vip-channel", Produce::vipChannel);
        Main.add("view-message", Produce::viewMessage).binary();
    }

    /** Adds the offset to its queue's list. */
    private static void put(Map<Integer, List<Long>> m, SendResult r) {
        synchronized (m) {
            m.computeIfAbsent(r.getMessageQueue().getQueueId(), k -> new ArrayList<>()).add(r.getQueueOffset());
        }
    }

    private static void contiguous(Map<Integer, List<Long>> byQueue) {
        byQueue.forEach((q, offsets) -> {
            for (int i = 0; i < offsets.size(); i++) {
                equal(offsets.get(i), (long) i, "offset " + i + " of queue " + q);
            }
        });
    }

    private static void syncSend(Ctx c) throws Exception {
        String topic = c.topic(4);
        InetSocketAddress broker = null;
        String addr = c.brokerAddr();
        Map<Integer, List<Long>> offsets = new TreeMap<>();
        Map<Integer, List<String>> sent = new TreeMap<>();
        Set<String> ids = new HashSet<>();
        for (int i = 0; i < 40; i++) {
            SendResult r = c.send(topic, "sync-" + i);
            put(offsets, r);
            sent.computeIfAbsent(r.getMessageQueue().getQueueId(), k -> new ArrayList<>()).add("sync-" + i);
            check(ids.add(r.getMsgId()), "message id twice: " + r.getMsgId());
            check(ids.add(r.getOffsetMsgId()), "offset message id twice: " + r.getOffsetMsgId());
            MessageId id = MessageDecoder.decodeMessageId(r.getOffsetMsgId());
            broker = (InetSocketAddress) id.getAddress();
            equal(broker.getPort(), Integer.parseInt(addr.substring(addr.lastIndexOf(':') + 1)), "port in the message id");
            check(id.getOffset() >= 0, "offset in the message id " + id.getOffset());
            equal(r.getMessageQueue().getTopic(), topic, "topic of the result");
        }
        equal(offsets.size(), 4, "queues used round robin");
        contiguous(offsets);
        c.awaitStored(topic, 40);
        equal(c.readTopic(topic), sent, "what is stored");
    }

    private static void asyncSend(Ctx c) throws Exception {
        String topic = c.topic(4);
        int n = 200;
        CountDownLatch done = new CountDownLatch(n);
        AtomicReference<Throwable> bad = new AtomicReference<>();
        Map<Integer, List<Long>> offsets = new TreeMap<>();
        List<String> want = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            want.add("async-" + i);
            c.producer().send(new Message(topic, utf8("async-" + i)), callback(done, bad, offsets));
        }
        check(done.await(30, TimeUnit.SECONDS), done.getCount() + " callbacks missing");
        check(bad.get() == null, "a callback failed: " + bad.get());
        offsets.values().forEach(Collections::sort);
        contiguous(offsets);
        c.awaitStored(topic, n);
        List<String> got = new ArrayList<>();
        c.readTopic(topic).values().forEach(got::addAll);
        Collections.sort(got);
        Collections.sort(want);
        equal(got, want, "what is stored");
    }

    private static SendCallback callback(CountDownLatch done, AtomicReference<Throwable> bad, Map<Integer, List<Long>> offsets) {
        return new SendCallback() {
            @Override
            public void onSuccess(SendResult r) {
                try {
                    sendOk(r);
                    put(offsets, r);
                } catch (Throwable t) {
                    bad.compareAndSet(null, t);
                }
                done.countDown();
            }

            @Override
            public void onException(Throwable e) {
                bad.compareAndSet(null, e);
                done.countDown();
            }
        };
    }

    private static void onewaySend(Ctx c) throws Exception {
        String topic = c.topic(2);
        for (int i = 0; i < 50; i++) {
            c.producer().sendOneway(new Message(topic, utf8("oneway-" + i)));
        }
        Ctx.await("50 one-way messages", 10_000, () -> c.stored(topic) == 50);
        Set<String> got = new HashSet<>();
        c.readTopic(topic).values().forEach(got::addAll);
        equal(got.size(), 50, "different bodies stored");
    }

    private static void batchSend(Ctx c) throws Exception {
        String topic = c.topic(2);
        MessageQueue q = c.queues(topic).get(1);
        sendOk(c.producer().send(new Message(topic, utf8("before")), q));
        long before = 1;
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            Message m = new Message(topic, i % 2 == 0 ? "even" : "odd", "key" + i, utf8("batch-" + i + "-ä"));
            m.putUserProperty("n", String.valueOf(i));
            batch.add(m);
        }
        SendResult r = sendOk(c.producer().send(batch, q));
        equal(r.getQueueOffset(), before, "offset of the batch");
        equal(r.getMsgId().split(",").length, 20, "message ids");
        equal(r.getOffsetMsgId().split(",").length, 20, "offset message ids");
        List<MessageExt> got = c.readAll(q, 21);
        got = got.subList((int) before, got.size());
        equal(got.size(), 20, "messages stored");
        for (int i = 0; i < 20; i++) {
            MessageExt m = got.get(i);
            equal(new String(m.getBody(), "UTF-8"), "batch-" + i + "-ä", "body");
            equal(m.getTags(), i % 2 == 0 ? "even" : "odd", "tag");
            equal(m.getKeys(), "key" + i, "key");
            equal(m.getUserProperty("n"), String.valueOf(i), "property");
            equal(m.getMsgId(), r.getMsgId().split(",")[i], "message id");
        }
        // A second batch follows without a hole, chosen by the client this time.
        sendOk(c.producer().send(batch.subList(0, 3)));
        c.awaitStored(topic, 24);
    }

    private static void pipelinedOrder(Ctx c) throws Exception {
        String topic = c.topic(2);
        MessageQueue q = c.queues(topic).get(0);
        DefaultMQProducer p = c.newProducer(c.name("PG1"));
        p.setRetryTimesWhenSendAsyncFailed(0);
        // One thread hands the messages to the connection, so they leave in order.
        ExecutorService one = Executors.newSingleThreadExecutor(r -> Main.daemon(r, "sender"));
        p.getDefaultMQProducerImpl().setAsyncSenderExecutor(one);
        c.start(p);
        sendOk(p.send(new Message(topic, utf8("first")), q));
        int n = 2000;
        CountDownLatch done = new CountDownLatch(n);
        AtomicReference<Throwable> bad = new AtomicReference<>();
        List<String> want = new ArrayList<>(List.of("first"));
        for (int i = 0; i < n; i++) {
            want.add("p" + i);
            p.send(new Message(topic, utf8("p" + i)), q, callback(done, bad, new TreeMap<>()), 30_000);
        }
        check(done.await(40, TimeUnit.SECONDS), done.getCount() + " callbacks missing");
        one.shutdown();
        check(bad.get() == null, "a callback failed: " + bad.get());
        List<String> got = Ctx.bodies(c.readAll(q, n + 1));
        for (int i = 0; i < want.size(); i++) {
            equal(got.get(i), want.get(i), "message at offset " + i);
        }
        equal(got.size(), want.size(), "messages stored");
    }

    private static void roundTrip(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        byte[] body = new byte[300];
        for (int i = 0; i < body.length; i++) {
            body[i] = (byte) i;
        }
        Message m = new Message(topic, "täg-日本", "k1 k2", body);
        m.setFlag(0x1234567);
        m.setBuyerId("buyer");
        m.putUserProperty("größe", "schön \"quoted\" {} 漢字 🎉");
        m.putUserProperty("short", "-");
        m.putUserProperty("long", "x".repeat(5000));
        long t0 = System.currentTimeMillis();
        SendResult r = sendOk(c.producer().send(m, q));
        MessageExt got = c.readAll(q, 1).get(0);
        check(Arrays.equals(got.getBody(), body), "body changed");
        equal(got.getTopic(), topic, "topic");
        equal(got.getTags(), "täg-日本", "tags");
        equal(got.getKeys(), "k1 k2", "keys");
        equal(got.getFlag(), 0x1234567, "flag");
        equal(got.getBuyerId(), "buyer", "buyer id");
        equal(got.getUserProperty("größe"), "schön \"quoted\" {} 漢字 🎉", "property");
        equal(got.getUserProperty("short"), "-", "short property");
        equal(got.getUserProperty("long"), "x".repeat(5000), "long property");
        equal(got.getMsgId(), r.getMsgId(), "message id");
        equal(got.getReconsumeTimes(), 0, "reconsume times");
        check(Math.abs(got.getBornTimestamp() - t0) < 60_000, "born " + (got.getBornTimestamp() - t0) + " ms off");
        check(Math.abs(got.getStoreTimestamp() - t0) < 60_000, "stored " + (got.getStoreTimestamp() - t0) + " ms off");
        equal(got.getBornHostString(), "127.0.0.1", "born host");
        String addr = c.brokerAddr();
        equal(((InetSocketAddress) got.getStoreHost()).getPort(),
                Integer.parseInt(addr.substring(addr.lastIndexOf(':') + 1)), "port of the store host");
        equal(MessageDecoder.decodeMessageId(r.getOffsetMsgId()).getOffset(), got.getCommitLogOffset(), "physical offset");
    }

    private static void compressedBody(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        byte[] big = new byte[64 * 1024];
        Arrays.fill(big, (byte) 'z');
        sendOk(c.producer().send(new Message(topic, big), q));
        byte[] noise = new byte[4000];
        new Random(1).nextBytes(noise);
        sendOk(c.producer().send(new Message(topic, noise), q));
        List<MessageExt> got = c.readAll(q, 2);
        check(Arrays.equals(got.get(0).getBody(), big), "compressed body changed");
        check(got.get(0).getStoreSize() < 8192, "stored in " + got.get(0).getStoreSize() + " bytes");
        check(Arrays.equals(got.get(1).getBody(), noise), "plain body changed");
        equal(got.get(1).getSysFlag() & 1, 0, "compressed flag of a small body");
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(c.name("CG"), topic, "*", sink);
        Ctx.await("both by push", 20_000, () -> sink.size() == 2);
        int total = 0;
        for (MessageExt m : sink.all) {
            total += m.getBody().length;
        }
        equal(total, big.length + noise.length, "bytes by push");
    }

    private static void autoCreated(Ctx c) throws Exception {
        String topic = c.name("new");
        SendResult r = c.send(topic, "hello");
        equal(r.getQueueOffset(), 0L, "offset");
        c.awaitQueues(topic, 4);
        List<String> all = new ArrayList<>(List.of("hello"));
        all.addAll(c.sendMany(topic, "m", 7));
        c.awaitStored(topic, 8);
        List<String> got = new ArrayList<>();
        c.readTopic(topic).values().forEach(got::addAll);
        Collections.sort(all);
        Collections.sort(got);
        equal(got, all, "what is stored");
    }

    private static void createdTopic(Ctx c) throws Exception {
        String topic = c.topic(6);
        equal(c.queues(topic).size(), 6, "queues to read");
        c.sendMany(topic, "m", 6);
        c.awaitStored(topic, 6);
        // Creating it again with another number changes the number and keeps the data.
        c.makeTopic(topic, 10);
        c.awaitQueues(topic, 10);
        equal(c.stored(topic), 6L, "messages after the change");
        MessageQueue last = c.queues(topic).get(9);
        equal(sendOk(c.producer().send(new Message(topic, utf8("x")), last)).getQueueOffset(), 0L, "offset in the new queue");
    }

    private static void waitStoreFalse(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        for (int i = 0; i < 10; i++) {
            Message m = new Message(topic, utf8("w" + i));
            m.setWaitStoreMsgOK(false);
            equal(sendOk(c.producer().send(m, q)).getQueueOffset(), (long) i, "offset");
        }
        c.readAll(q, 10);
    }

    private static void twoProducers(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        DefaultMQProducer a = c.start(c.newProducer(c.name("same")));
        DefaultMQProducer b = c.start(c.newProducer(c.name("same")));
        List<String> want = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            DefaultMQProducer p = i % 2 == 0 ? a : b;
            equal(sendOk(p.send(new Message(topic, utf8("t" + i)), q)).getQueueOffset(), (long) i, "offset");
            want.add("t" + i);
        }
        a.shutdown();
        sendOk(b.send(new Message(topic, utf8("after")), q));
        want.add("after");
        equal(Ctx.bodies(c.readAll(q, want.size())), want, "what is stored");
    }

    private static void vipChannel(Ctx c) throws Exception {
        String topic = c.topic(2);
        DefaultMQProducer p = c.newProducer(c.name("VIP"));
        p.setVipChannelEnabled(true);
        c.start(p);
        List<String> want = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            sendOk(p.send(new Message(topic, utf8("vip" + i))));
            want.add("vip" + i);
        }
        Ctx.Sink sink = new Ctx.Sink();
        var consumer = c.push(c.name("CG"));
        consumer.setVipChannelEnabled(true);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(sink.listener());
        c.start(consumer);
        sink.exactly(want, 30_000, 300);
    }

    private static void viewMessage(Ctx c) throws Exception {
        String topic = c.topic(2);
        c.sendMany(topic, "other", 5);
        Message m = new Message(topic, "tag", "key", utf8("look at me"));
        SendResult r = sendOk(c.producer().send(m));
        MessageExt got = c.producer().viewMessage(topic, r.getOffsetMsgId());
        equal(new String(got.getBody(), "UTF-8"), "look at me", "body");
        equal(got.getTopic(), topic, "topic");
        equal(got.getTags(), "tag", "tag");
        equal(got.getQueueOffset(), r.getQueueOffset(), "queue offset");
        equal(got.getQueueId(), r.getMessageQueue().getQueueId(), "queue id");
        MessageId id = MessageDecoder.decodeMessageId(r.getOffsetMsgId());
        String bad = MessageDecoder.createMessageId(id.getAddress(), id.getOffset() + 1_000_000_000_000L);
        check(c.raw(33, null, "offset", String.valueOf(id.getOffset() + 1_000_000_000_000L)).getCode() != 0, "found a message at " + bad);
    }
}
