package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** One push consumer: delivery, filters, starting points, stored offsets. */
final class Consume {
    private Consume() {}

    static void register() {
        Main.add("push-concurrent", Consume::pushConcurrent).binary();
        Main.add("tag-filter", Consume::tagFilter).binary();
        Main.add("batch-consume", Consume::batchConsume);
        Main.add("consume-from-first", Consume::fromFirst);
        Main.add("consume-from-last", Consume::fromLast);
        Main.add("consume-from-timestamp", Consume::fromTimestamp);
        Main.add("offsets-persisted", Consume::offsetsPersisted).binary();
        Main.add("two-groups", Consume::twoGroups);
        Main.add("two-topics", Consume::twoTopics);
        Main.add("backlog", Consume::backlog);
    }

    private static void pushConcurrent(Ctx c) throws Exception {
        String topic = c.topic(4);
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(c.name("CG"), topic, "*", sink);
        List<String> want = c.sendMany(topic, "push-", 200);
        sink.exactly(want, 30_000, 1000);
        Set<String> ids = new HashSet<>();
        for (MessageExt m : sink.all) {
            check(ids.add(m.getMsgId()), "message id twice");
            equal(m.getTopic(), topic, "topic");
            check(m.getQueueOffset() >= 0 && m.getQueueOffset() < 200, "queue offset " + m.getQueueOffset());
        }
    }

    private static void tagFilter(Ctx c) throws Exception {
        String topic = c.topic(2);
        Ctx.Sink two = new Ctx.Sink();
        Ctx.Sink one = new Ctx.Sink();
        Ctx.Sink all = new Ctx.Sink();
        c.consume(c.name("AB"), topic, "A || B", two);
        c.consume(c.name("U"), topic, "日本", one);
        c.consume(c.name("ALL"), topic, "*", all);
        List<String> wantTwo = new ArrayList<>();
        List<String> wantOne = new ArrayList<>();
        List<String> wantAll = new ArrayList<>();
        // "BB" and "Aa" have one Java hash code: the broker may pass both on, the client must not.
        String[] tags = {"A", "B", "C", null, "日本", "Aa", "BB"};
        for (int i = 0; i < 70; i++) {
            String tag = tags[i % tags.length];
            Message m = tag == null ? new Message(topic, utf8("m" + i)) : new Message(topic, tag, utf8("m" + i));
            sendOk(c.producer().send(m));
            wantAll.add("m" + i);
            if ("A".equals(tag) || "B".equals(tag)) {
                wantTwo.add("m" + i);
            } else if ("日本".equals(tag)) {
                wantOne.add("m" + i);
            }
        }
        two.exactly(wantTwo, 20_000, 0);
        one.exactly(wantOne, 20_000, 0);
        all.exactly(wantAll, 20_000, 500);
        two.exactly(wantTwo, 0, 0);
        Ctx.Sink clash = new Ctx.Sink();
        c.consume(c.name("BB"), topic, "BB", clash);
        List<String> wantClash = new ArrayList<>();
        for (int i = 6; i < 70; i += 7) {
            wantClash.add("m" + i);
        }
        clash.exactly(wantClash, 20_000, 500);
    }

    private static void batchConsume(Ctx c) throws Exception {
        String topic = c.topic(1);
        List<String> want = c.sendMany(topic, "m", 200);
        DefaultMQPushConsumer consumer = c.push(c.name("CG"));
        consumer.setConsumeMessageBatchMaxSize(16);
        consumer.setPullBatchSize(32);
        consumer.subscribe(topic, "*");
        Ctx.Sink sink = new Ctx.Sink();
        AtomicInteger largest = new AtomicInteger();
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
            largest.accumulateAndGet(msgs.size(), Math::max);
            sink.add(msgs);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start(consumer);
        sink.exactly(want, 30_000, 500);
        equal(largest.get(), 16, "largest batch handed to the listener");
    }

    private static void start(Ctx c, String topic, String group, ConsumeFromWhere where, String time, Ctx.Sink sink) throws Exception {
        DefaultMQPushConsumer consumer = c.push(group);
        consumer.setConsumeFromWhere(where);
        if (time != null) {
            consumer.setConsumeTimestamp(time);
        }
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(sink.listener());
        c.start(consumer);
    }

    private static void fromFirst(Ctx c) throws Exception {
        String topic = c.topic(2);
        List<String> want = c.sendMany(topic, "old", 20);
        Ctx.Sink sink = new Ctx.Sink();
        start(c, topic, c.name("CG"), ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, null, sink);
        Ctx.await("old ones", 20_000, () -> sink.size() >= 20);
        want.addAll(c.sendMany(topic, "new", 20));
        sink.exactly(want, 20_000, 500);
    }

    /**
     * A new group on a young topic may begin at 0 whatever its policy (the broker says 0 while message 0 is in
     * memory). So the old messages come all or not at all; those sent after the start come in any case.
     */
    private static void oldAllOrNone(Ctx c, Ctx.Sink sink, List<String> old, List<String> sure) throws Exception {
        Ctx.await("the new ones", 20_000, () -> sink.sorted().containsAll(sure));
        Thread.sleep(700);
        List<String> want = new ArrayList<>(sure);
        boolean withOld = sink.size() > sure.size();
        if (withOld) {
            want.addAll(old);
        }
        c.note(withOld ? "began at 0 (young topic)" : "began at its policy's place");
        sink.exactly(want, 20_000, 0);
    }

    private static void fromLast(Ctx c) throws Exception {
        String topic = c.topic(2);
        List<String> old = c.sendMany(topic, "old", 20);
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer consumer = c.push(c.name("CG"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(sink.listener());
        c.start(consumer);
        Ctx.await("its queues", 30_000, () -> ConsumeGroup.held(consumer, topic).size() == 2);
        oldAllOrNone(c, sink, old, c.sendMany(topic, "new", 20));
    }

    private static void fromTimestamp(Ctx c) throws Exception {
        String topic = c.topic(2);
        List<String> old = c.sendMany(topic, "old", 20);
        Thread.sleep(2100);
        String time = UtilAll.timeMillisToHumanString3(System.currentTimeMillis() - 1000).substring(0, 14);
        Thread.sleep(1000);
        List<String> sure = c.sendMany(topic, "mid", 20);
        Ctx.Sink sink = new Ctx.Sink();
        start(c, topic, c.name("CG"), ConsumeFromWhere.CONSUME_FROM_TIMESTAMP, time, sink);
        sure.addAll(c.sendMany(topic, "new", 20));
        oldAllOrNone(c, sink, old, sure);
    }

    private static void offsetsPersisted(Ctx c) throws Exception {
        String topic = c.topic(4);
        String group = c.name("CG");
        Ctx.Sink first = new Ctx.Sink();
        DefaultMQPushConsumer a = c.push(group);
        a.subscribe(topic, "*");
        a.registerMessageListener(first.listener());
        c.start(a);
        List<String> one = c.sendMany(topic, "one", 60);
        first.exactly(one, 20_000, 300);
        if (c.stock) {
            // Stock may lose the offsets that a consumer sends last before it closes its connection.
            a.getDefaultMQPushConsumerImpl().persistConsumerOffset();
            Ctx.await("committed offsets", 20_000, () -> {
                long sum = 0;
                for (MessageQueue q : c.queues(topic)) {
                    sum += ConsumePull.committed(c, group, q);
                }
                return sum == 60;
            });
        }
        a.shutdown();
        List<String> two = c.sendMany(topic, "two", 40);
        Ctx.Sink second = new Ctx.Sink();
        c.consume(group, topic, "*", second);
        second.exactly(two, 20_000, 1000);
        equal(first.size(), 60, "messages at the one that left");
    }

    private static void twoGroups(Ctx c) throws Exception {
        String topic = c.topic(2);
        Ctx.Sink a = new Ctx.Sink();
        Ctx.Sink b = new Ctx.Sink();
        c.consume(c.name("G1"), topic, "*", a);
        c.consume(c.name("G2"), topic, "*", b);
        List<String> want = c.sendMany(topic, "m", 30);
        a.exactly(want, 20_000, 0);
        b.exactly(want, 20_000, 300);
    }

    private static void twoTopics(Ctx c) throws Exception {
        String t1 = c.topic("T1", 2);
        String t2 = c.topic("T2", 3);
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer consumer = c.push(c.name("CG"));
        consumer.subscribe(t1, "*");
        consumer.subscribe(t2, "yes");
        consumer.registerMessageListener(sink.listener());
        c.start(consumer);
        List<String> want = c.sendMany(t1, "first", 10);
        c.sendMany(t2, "untagged", 10);
        for (int i = 0; i < 10; i++) {
            sendOk(c.producer().send(new Message(t2, "yes", utf8("second" + i))));
            want.add("second" + i);
        }
        sink.exactly(want, 20_000, 500);
    }

    /** More than one pull's worth, with bodies that fill the answers. */
    private static void backlog(Ctx c) throws Exception {
        String topic = c.topic(3);
        String pad = "y".repeat(3000);
        List<String> want = new ArrayList<>();
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 600; i++) {
            want.add(i + pad);
            batch.add(new Message(topic, utf8(i + pad)));
            if (batch.size() == 50) {
                sendOk(c.producer().send(batch));
                batch.clear();
            }
        }
        Ctx.Sink sink = new Ctx.Sink();
        c.consume(c.name("CG"), topic, "*", sink);
        sink.exactly(want, 40_000, 500);
    }
}
