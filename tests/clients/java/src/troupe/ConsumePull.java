package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullCallback;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** The old pull API and the lite pull API. */
final class ConsumePull {
    private ConsumePull() {}

    static void register() {
        Main.add("pull", ConsumePull::pull).binary();
        Main.add("pull-tags", ConsumePull::pullTags);
        Main.add("pull-block", ConsumePull::pullBlock).binary();
        Main.add("pull-offsets", ConsumePull::offsets).binary();
        Main.add("search-offset", ConsumePull::searchOffset);
        Main.add("lite-assign", ConsumePull::liteAssign).binary();
        Main.add("lite-subscribe", ConsumePull::liteSubscribe).seconds(90);
    }

    private static void pull(Ctx c) throws Exception {
        String topic = c.topic(3);
        DefaultMQPullConsumer p = c.pull(c.name("CG"));
        equal(p.fetchSubscribeMessageQueues(topic).size(), 3, "queues");
        MessageQueue q = c.queues(topic).get(1);
        PullResult r = p.pull(q, "*", 0, 32);
        equal(r.getPullStatus(), PullStatus.NO_NEW_MSG, "an empty queue");
        equal(r.getNextBeginOffset(), 0L, "next offset of an empty queue");
        r = p.pull(q, "*", 5, 32);
        equal(r.getPullStatus(), PullStatus.OFFSET_ILLEGAL, "beyond an empty queue");
        equal(r.getNextBeginOffset(), 0L, "next offset beyond an empty queue");
        for (int i = 0; i < 50; i++) {
            sendOk(c.producer().send(new Message(topic, utf8("m" + i)), q));
        }
        c.readAll(q, 50);
        equal(p.minOffset(q), 0L, "minimum");
        equal(p.maxOffset(q), 50L, "maximum");
        r = p.pull(q, "*", 0, 10);
        equal(r.getPullStatus(), PullStatus.FOUND, "status");
        equal(r.getMsgFoundList().size(), 10, "messages of a pull of ten");
        equal(r.getNextBeginOffset(), 10L, "next offset");
        equal(r.getMinOffset(), 0L, "minimum in the answer");
        equal(r.getMaxOffset(), 50L, "maximum in the answer");
        r = p.pull(q, "*", 45, 32);
        equal(Ctx.bodies(r.getMsgFoundList()), List.of("m45", "m46", "m47", "m48", "m49"), "the last five");
        r = p.pull(q, "*", 50, 32);
        equal(r.getPullStatus(), PullStatus.NO_NEW_MSG, "at the end");
        equal(r.getNextBeginOffset(), 50L, "next offset at the end");
        r = p.pull(q, "*", 51, 32);
        equal(r.getPullStatus(), PullStatus.OFFSET_ILLEGAL, "beyond the end");
        equal(r.getNextBeginOffset(), 50L, "next offset beyond the end");
        AtomicReference<Object> async = new AtomicReference<>();
        p.pull(q, "*", 20, 1, new PullCallback() {
            @Override
            public void onSuccess(PullResult x) {
                async.set(x);
            }

            @Override
            public void onException(Throwable e) {
                async.set(e);
            }
        });
        Ctx.await("the callback", 10_000, () -> async.get() != null);
        check(async.get() instanceof PullResult, "callback got " + async.get());
        equal(Ctx.bodies(((PullResult) async.get()).getMsgFoundList()), List.of("m20"), "by callback");
    }

    private static void pullTags(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        for (int i = 0; i < 30; i++) {
            sendOk(c.producer().send(new Message(topic, i < 20 ? "A" : "B", utf8("m" + i)), q));
        }
        c.readAll(q, 30);
        DefaultMQPullConsumer p = c.pull(c.name("CG"));
        List<String> got = new ArrayList<>();
        long at = 0;
        for (int i = 0; at < 30; i++) {
            PullResult r = p.pull(q, "B || X", at, 8);
            check(i < 40 && (r.getNextBeginOffset() > at || r.getPullStatus() == PullStatus.FOUND), "no progress at " + at);
            if (r.getPullStatus() == PullStatus.FOUND) {
                got.addAll(Ctx.bodies(r.getMsgFoundList()));
            }
            at = r.getNextBeginOffset();
        }
        equal(got.size(), 10, "messages with tag B");
        equal(got.get(0), "m20", "the first with tag B");
        PullResult r = p.pull(q, "nothing", 0, 32);
        equal(r.getPullStatus(), PullStatus.NO_MATCHED_MSG, "status without a match");
        equal(r.getNextBeginOffset(), 30L, "next offset without a match");
    }

    private static void pullBlock(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        DefaultMQPullConsumer p = c.pull(c.name("CG"));
        Thread late = Main.daemon(() -> {
            try {
                Thread.sleep(1500);
                sendOk(c.producer().send(new Message(topic, utf8("late")), q));
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }, "late sender");
        c.producer();
        long t0 = System.nanoTime();
        late.start();
        PullResult r = p.pullBlockIfNotFound(q, "*", 0, 32);
        long ms = (System.nanoTime() - t0) / 1_000_000;
        equal(r.getPullStatus(), PullStatus.FOUND, "status");
        equal(Ctx.bodies(r.getMsgFoundList()), List.of("late"), "message");
        c.note("woken after " + ms + " ms, sent after 1500 ms");
        // Missed, it would be found when the wait of 20 s is over.
        check(ms >= 1400 && ms < 15_000, "answered after " + ms + " ms");
    }

    /** The consumer's own persist of one queue does nothing in any version; this is what its timer calls. */
    private static void persist(DefaultMQPullConsumer p, MessageQueue q) {
        p.getDefaultMQPullConsumerImpl().getOffsetStore().persistAll(new java.util.HashSet<>(List.of(q)));
    }

    /** A pull consumer that fetches the topic's route by itself, so that it sends heartbeats to its brokers. */
    private static DefaultMQPullConsumer offsetsConsumer(Ctx c, String group, String topic) throws Exception {
        DefaultMQPullConsumer p = c.prepare(new DefaultMQPullConsumer(group));
        p.setRegisterTopics(new java.util.HashSet<>(List.of(topic)));
        p.setHeartbeatBrokerInterval(1000);
        p.start();
        c.onClose(p::shutdown);
        return p;
    }

    private static void offsets(Ctx c) throws Exception {
        String topic = c.topic(2);
        String group = c.name("CG");
        MessageQueue q = c.queues(topic).get(1);
        for (int i = 0; i < 10; i++) {
            sendOk(c.producer().send(new Message(topic, utf8("m" + i)), q));
        }
        DefaultMQPullConsumer p = offsetsConsumer(c, group, topic);
        // A broker refuses offsets of a group it does not know; the heartbeat tells it. Reading the broker's offset
        // replaces the one in the client's memory, so each try sets it again.
        Ctx.await("offset at the broker", 10_000, () -> {
            p.updateConsumeOffset(q, 7);
            persist(p, q);
            return committed(c, group, q) == 7;
        });
        equal(p.fetchConsumeOffset(q, true), 7L, "offset at the broker");
        p.shutdown();
        DefaultMQPullConsumer again = offsetsConsumer(c, group, topic);
        equal(again.fetchConsumeOffset(q, true), 7L, "offset after a restart of the consumer");
        // Another group has its own.
        DefaultMQPullConsumer other = c.pull(c.name("CG2"));
        check(other.fetchConsumeOffset(q, true) <= 0, "another group has an offset");
        // A missing one is told apart when asked so.
        equal(c.raw(14, null, "consumerGroup", c.name("CG3"), "topic", topic, "queueId", "1", "setZeroIfNotFound", "false")
                .getCode(), 22, "code for no offset");
        // An offset may go back.
        Ctx.await("offset set back", 10_000, () -> {
            again.updateConsumeOffset(q, 3);
            persist(again, q);
            return committed(c, group, q) == 3;
        });
    }

    private static void searchOffset(Ctx c) throws Exception {
        String topic = c.topic(2);
        MessageQueue q = c.queues(topic).get(0);
        MessageQueue empty = c.queues(topic).get(1);
        long before = System.currentTimeMillis();
        Thread.sleep(50);
        for (int i = 0; i < 5; i++) {
            sendOk(c.producer().send(new Message(topic, utf8("a" + i)), q));
        }
        Thread.sleep(500);
        long middle = System.currentTimeMillis();
        Thread.sleep(500);
        for (int i = 0; i < 5; i++) {
            sendOk(c.producer().send(new Message(topic, utf8("b" + i)), q));
        }
        DefaultMQPullConsumer p = c.pull(c.name("CG"));
        equal(p.searchOffset(q, before), 0L, "before all");
        equal(p.searchOffset(q, middle), 5L, "in the middle");
        MessageExt third = c.readAll(q, 10).get(8);
        long at = p.searchOffset(q, third.getStoreTimestamp());
        check(at >= 5 && at <= 8, "at a message's own time: " + at);
        // Java brokers answer the last offset or the maximum behind the end, by version.
        long after = p.searchOffset(q, System.currentTimeMillis() + 60_000);
        c.note("after all: " + after);
        check(c.stock ? after == 9 || after == 10 : after == 10, "after all: " + after);
        equal(p.searchOffset(empty, middle), 0L, "in an empty queue");
        long earliest = p.earliestMsgStoreTime(q);
        equal(earliest, c.readAll(q).get(0).getStoreTimestamp(), "earliest store time");
        equal(p.earliestMsgStoreTime(empty), -1L, "earliest store time of an empty queue");
    }

    private static List<String> poll(DefaultLitePullConsumer l, int n) throws Exception {
        List<String> got = new ArrayList<>();
        long end = System.currentTimeMillis() + 15_000;
        while (got.size() < n && System.currentTimeMillis() < end) {
            got.addAll(Ctx.bodies(l.poll(500)));
        }
        return got;
    }

    /**
     * What comes after a seek. A pull of the client's that is under way meanwhile may hand over what it got, or take
     * the new place for its own and drop what it gets: then the client seeks again.
     */
    private static void afterSeek(DefaultLitePullConsumer l, Ctx.Act seek, List<String> want, String what) throws Exception {
        List<String> got = null;
        for (int i = 0; i < 5 && !want.equals(got); i++) {
            Ctx.await("silence", 20_000, () -> l.poll(500).isEmpty());
            seek.run();
            got = poll(l, want.size());
        }
        equal(got, want, what);
    }

    private static void liteAssign(Ctx c) throws Exception {
        String topic = c.topic(2);
        MessageQueue q = c.queues(topic).get(0);
        MessageQueue other = c.queues(topic).get(1);
        List<String> all = new ArrayList<>();
        for (int i = 0; i < 40; i++) {
            sendOk(c.producer().send(new Message(topic, utf8("m" + i)), q));
            sendOk(c.producer().send(new Message(topic, utf8("no" + i)), other));
            all.add("m" + i);
        }
        String group = c.name("CG");
        DefaultLitePullConsumer l = c.lite(group);
        l.setAutoCommit(false);
        c.start(l);
        equal(l.fetchMessageQueues(topic).size(), 2, "queues");
        l.assign(List.of(q));
        equal(poll(l, 40), all, "from where it begins");
        afterSeek(l, () -> l.seek(q, 10), all.subList(10, 40), "from 10");
        afterSeek(l, () -> l.seekToBegin(q), all, "from the beginning");
        Ctx.await("silence", 20_000, () -> l.poll(500).isEmpty());
        l.seekToEnd(q);
        equal(l.poll(300).size(), 0, "messages at the end");
        sendOk(c.producer().send(new Message(topic, utf8("m40")), q));
        equal(poll(l, 1), List.of("m40"), "the next one");
        l.commitSync();
        Ctx.await("the committed offset", 10_000, () -> l.committed(q) == 41);
        equal(l.offsetForTimestamp(q, 0L), 0L, "offset for time 0");
        l.shutdown();
        DefaultLitePullConsumer again = c.start(c.lite(group));
        again.assign(Collections.singletonList(q));
        sendOk(c.producer().send(new Message(topic, utf8("m41")), q));
        equal(poll(again, 1), List.of("m41"), "after the restart");
    }

    /** The broker's answer to code 14; 0 when it has none. */
    static long committed(Ctx c, String group, MessageQueue q) throws Exception {
        var r = c.raw(14, null, "consumerGroup", group, "topic", q.getTopic(), "queueId", String.valueOf(q.getQueueId()));
        return r.getCode() == 0 ? Long.parseLong(r.getExtFields().get("offset")) : 0;
    }

    private static void liteSubscribe(Ctx c) throws Exception {
        String topic = c.topic(4);
        String group = c.name("CG");
        List<String> want = c.sendMany(topic, "m", 40);
        for (int i = 0; i < 8; i++) {
            sendOk(c.producer().send(new Message(topic, "T", utf8("t" + i))));
        }
        DefaultLitePullConsumer l = c.lite(group);
        l.subscribe(topic, "*");
        l.setPersistConsumerOffsetInterval(500);
        c.start(l);
        for (int i = 0; i < 8; i++) {
            want.add("t" + i);
        }
        List<String> got = poll(l, 48);
        Collections.sort(got);
        Collections.sort(want);
        equal(got, want, "messages by subscription");
        equal(l.assignment().size(), 4, "queues assigned");
        // What was polled is committed before another member begins at the committed offsets.
        l.commitSync();
        Ctx.await("commits", 10_000, () -> {
            long sum = 0;
            for (MessageQueue q : c.queues(topic)) {
                sum += committed(c, group, q);
            }
            return sum == 48;
        });
        // A second member takes half.
        DefaultLitePullConsumer m = c.lite(group);
        m.subscribe(topic, "*");
        c.start(m);
        long ms = Ctx.await("half each", 45_000, () -> l.assignment().size() == 2 && m.assignment().size() == 2);
        c.note("shared after " + ms + " ms");
        m.shutdown();
        Ctx.await("all back", 45_000, () -> l.assignment().size() == 4);
        l.commitSync();
        l.shutdown();
        // A new start goes on behind the committed offsets.
        List<String> more = c.sendMany(topic, "n", 8);
        DefaultLitePullConsumer again = c.lite(group);
        again.subscribe(topic, "*");
        c.start(again);
        List<String> rest = poll(again, 8);
        rest.addAll(Ctx.bodies(again.poll(500)));
        Collections.sort(rest);
        Collections.sort(more);
        equal(rest, more, "after the restart");
        // Tags by subscription, in a group of its own.
        DefaultLitePullConsumer tags = c.lite(c.name("TAGS"));
        tags.subscribe(topic, "T");
        c.start(tags);
        List<String> tagged = poll(tags, 8);
        tagged.addAll(Ctx.bodies(tags.poll(500)));
        Collections.sort(tagged);
        equal(tagged, List.of("t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"), "messages with the tag");
    }
}
