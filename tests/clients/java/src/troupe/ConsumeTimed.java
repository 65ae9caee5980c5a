package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Retry, dead letters, delay levels, latencies: everything with a clock in it. */
final class ConsumeTimed {
    private ConsumeTimed() {}

    /** Stock answers the first route query of a new retry topic with "none"; the client asks again after 30 s. */
    private static final int FIRST_RETRY_STOCK_MS = 60_000;
    private static final int FIRST_RETRY_MS = 8_000;

    static void register() {
        Main.add("retry", ConsumeTimed::retry).seconds(90).binary();
        Main.add("dead-letter", ConsumeTimed::deadLetter).seconds(90);
        Main.add("delay-levels", ConsumeTimed::delayLevels);
        Main.add("reset-by-time", ConsumeTimed::resetByTime).seconds(90);
        Main.add("first-message", ConsumeTimed::firstMessage);
        Main.add("long-poll-latency", ConsumeTimed::longPollLatency);
        Main.add("consumer-before-topic", ConsumeTimed::consumerBeforeTopic).seconds(100).slow();
        Main.add("idle-long-poll", ConsumeTimed::idleLongPoll).seconds(100).slow();
    }

    private static void retry(Ctx c) throws Exception {
        String topic = c.topic(2);
        DefaultMQPushConsumer consumer = c.push(c.name("CG"));
        consumer.subscribe(topic, "*");
        List<MessageExt> seen = Collections.synchronizedList(new ArrayList<>());
        List<Long> at = Collections.synchronizedList(new ArrayList<>());
        Ctx.Sink good = new Ctx.Sink();
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
            MessageExt m = msgs.get(0);
            if ("retry me".equals(new String(m.getBody()))) {
                seen.add(m);
                at.add(System.currentTimeMillis());
                if (m.getReconsumeTimes() < 2) {
                    context.setDelayLevelWhenNextConsume(1);
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
            } else {
                good.add(msgs);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start(consumer);
        Message m = new Message(topic, "tag", "key", utf8("retry me"));
        m.putUserProperty("p", "v");
        var sent = sendOk(c.producer().send(m));
        List<String> others = c.sendMany(topic, "good", 5);
        long first = c.stock ? FIRST_RETRY_STOCK_MS : FIRST_RETRY_MS;
        Ctx.await("first delivery", 20_000, () -> seen.size() >= 1);
        Ctx.await("first retry", first, () -> seen.size() >= 2);
        Ctx.await("second retry", FIRST_RETRY_MS, () -> seen.size() >= 3);
        Thread.sleep(2500);
        equal(seen.size(), 3, "deliveries");
        for (int i = 0; i < 3; i++) {
            MessageExt x = seen.get(i);
            equal(x.getReconsumeTimes(), i, "reconsume times of delivery " + i);
            equal(x.getTopic(), topic, "topic as the consumer sees it");
            equal(x.getTags(), "tag", "tag");
            equal(x.getKeys(), "key", "key");
            equal(x.getUserProperty("p"), "v", "property");
            equal(x.getMsgId(), sent.getMsgId(), "message id");
        }
        c.note("first retry after " + (at.get(1) - at.get(0)) + " ms, second after " + (at.get(2) - at.get(1)) + " ms");
        check(at.get(1) - at.get(0) >= 990, "retried too early");
        check(at.get(2) - at.get(1) >= 990, "retried too early the second time");
        good.exactly(others, 10_000, 0);
    }

    private static void deadLetter(Ctx c) throws Exception {
        String topic = c.topic(1);
        String group = c.name("CG");
        DefaultMQPushConsumer consumer = c.push(group);
        consumer.subscribe(topic, "*");
        consumer.setMaxReconsumeTimes(1);
        List<Integer> seen = Collections.synchronizedList(new ArrayList<>());
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
            seen.add(msgs.get(0).getReconsumeTimes());
            context.setDelayLevelWhenNextConsume(1);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        c.start(consumer);
        Message m = new Message(topic, "tag", "key", utf8("never works"));
        m.putUserProperty("p", "v");
        var sent = sendOk(c.producer().send(m));
        Ctx.await("the retry", c.stock ? FIRST_RETRY_STOCK_MS + 10_000 : FIRST_RETRY_MS + 5_000, () -> seen.size() >= 2);
        String dlq = "%DLQ%" + group;
        Ctx.await("route of the dead letter topic", 20_000, () -> {
            try {
                return !c.queues(dlq).isEmpty();
            } catch (Exception e) {
                return false;
            }
        });
        MessageQueue q = c.queues(dlq).get(0);
        Ctx.await("the dead letter", 10_000, () -> c.reader().maxOffset(q) == 1);
        MessageExt dead = c.readAll(q, 1).get(0);
        equal(new String(dead.getBody()), "never works", "body");
        equal(dead.getTags(), "tag", "tag");
        equal(dead.getUserProperty("p"), "v", "property");
        equal(dead.getProperty("RETRY_TOPIC"), topic, "original topic");
        equal(dead.getMsgId(), sent.getMsgId(), "message id");
        Thread.sleep(1500);
        equal(seen, List.of(0, 1), "deliveries");
    }

    private static void delayLevels(Ctx c) throws Exception {
        String topic = c.topic(2);
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer consumer = c.push(c.name("CG"));
        consumer.subscribe(topic, "*");
        AtomicLong early = new AtomicLong(Long.MAX_VALUE);
        AtomicLong late = new AtomicLong(Long.MIN_VALUE);
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
            long now = System.currentTimeMillis();
            for (MessageExt m : msgs) {
                long due = Long.parseLong(m.getUserProperty("due"));
                early.accumulateAndGet(now - due, Math::min);
                late.accumulateAndGet(now - due, Math::max);
            }
            sink.add(msgs);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start(consumer);
        Thread.sleep(1000);
        List<String> want = new ArrayList<>();
        for (int level : new int[] {3, 2, 1, 0}) {
            for (int i = 0; i < 3; i++) {
                Message m = new Message(topic, "tag", utf8("delay-" + level + "-" + i));
                long ms = List.of(0L, 1_000L, 5_000L, 10_000L).get(level);
                m.putUserProperty("due", String.valueOf(System.currentTimeMillis() + ms));
                m.setDelayTimeLevel(level);
                sendOk(c.producer().send(m));
                want.add("delay-" + level + "-" + i);
            }
        }
        sink.exactly(want, 60_000, 1500);
        c.note("delivered " + early.get() + ".." + late.get() + " ms after due");
        check(early.get() >= -10, "delivered " + -early.get() + " ms too early");
        // Were each level the next one, the last would take 30 s.
        check(late.get() < 15_000, "delivered " + late.get() + " ms too late");
        for (MessageExt m : sink.all) {
            equal(m.getTopic(), topic, "topic");
            equal(m.getTags(), "tag", "tag");
        }
    }

    private static void resetByTime(Ctx c) throws Exception {
        String topic = c.topic(1);
        String group = c.name("CG");
        List<String> old = c.sendMany(topic, "old", 10);
        Thread.sleep(1100);
        long middle = System.currentTimeMillis();
        Thread.sleep(1100);
        List<String> fresh = c.sendMany(topic, "new", 10);
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(group, topic, "*", sink);
        List<String> all = new ArrayList<>(old);
        all.addAll(fresh);
        sink.exactly(all, 20_000, 500);
        // The offset is committed every 5 s; wait for it so that the reset has something to change.
        MessageQueue q = c.queues(topic).get(0);
        Ctx.await("commit", 15_000, () -> c.raw(14, null, "consumerGroup", group, "topic", topic, "queueId", "0")
                .getExtFields().getOrDefault("offset", "").equals("20"));
        var r = c.raw(222, null, "topic", topic, "group", group, "timestamp", String.valueOf(middle), "isForce", "true");
        equal(r.getCode(), 0, "reset (" + r.getRemark() + ")");
        List<String> again = new ArrayList<>(all);
        again.addAll(fresh);
        sink.exactly(again, 45_000, 1000);
        equal(c.reader().maxOffset(q), 20L, "messages stored");
    }

    private static void firstMessage(Ctx c) throws Exception {
        String topic = c.topic(4);
        List<String> want = c.sendMany(topic, "m", 4);
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer consumer = c.push(c.name("CG"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(sink.listener());
        long t0 = System.nanoTime();
        c.start(consumer);
        Ctx.await("first message", 20_000, () -> sink.size() > 0);
        long ms = (System.nanoTime() - t0) / 1_000_000;
        c.note("first message " + ms + " ms after start");
        // A client that missed its first chance asks again after 20 s.
        check(ms < 15_000, "first message only after " + ms + " ms");
        sink.exactly(want, 10_000, 300);
    }

    private static void longPollLatency(Ctx c) throws Exception {
        String topic = c.topic(4);
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(c.name("CG"), topic, "*", sink);
        c.send(topic, "warm");
        Ctx.await("warm-up", 20_000, () -> sink.size() == 1);
        Thread.sleep(2000);
        long max = 0;
        long sum = 0;
        for (int i = 0; i < 10; i++) {
            int have = sink.size();
            long t0 = System.nanoTime();
            c.send(topic, "m" + i);
            Ctx.await("message " + i, 10_000, () -> sink.size() > have);
            long ms = (sink.lastAt - t0) / 1_000_000;
            max = Math.max(max, ms);
            sum += ms;
            Thread.sleep(200);
        }
        c.note("send to delivery: mean " + sum / 10 + " ms, largest " + max + " ms");
        // A pull that is not woken is looked at every 5 s.
        check(max < 4_000, "a waiting consumer got its message only after " + max + " ms");
    }

    private static void consumerBeforeTopic(Ctx c) throws Exception {
        String topic = c.name("later");
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(c.name("CG"), topic, "*", sink);
        Thread.sleep(2000);
        c.makeTopic(topic, 2);
        c.awaitQueues(topic, 2);
        List<String> want = c.sendMany(topic, "m", 4);
        long ms = Ctx.await("messages of a topic made later", 60_000, () -> sink.size() >= 4);
        c.note("after " + ms + " ms");
        sink.exactly(want, 1000, 1000);
    }

    /** A consumer that waits longer than one long poll still gets the next message at once. */
    private static void idleLongPoll(Ctx c) throws Exception {
        String topic = c.topic(1);
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(c.name("CG"), topic, "*", sink);
        Thread.sleep(40_000);
        long t0 = System.nanoTime();
        c.send(topic, "late");
        Ctx.await("message", 10_000, () -> sink.size() == 1);
        long ms = (sink.lastAt - t0) / 1_000_000;
        check(ms < 4_000, "after a long wait the message took " + ms + " ms");
    }
}
