package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** Groups that change: other tags, deleted and made again, beside a bad one; and what is told of their progress. */
final class ConsumeChange {
    private ConsumeChange() {}

    static void register() {
        Main.add("subscription-change", ConsumeChange::otherTags)
                .stockDiffers("a pull held with the old tags, and the client, drop what comes with the new ones");
        Main.add("heartbeat-partial", ConsumeChange::partialHeartbeat).seconds(90);
        Main.add("orderly-dead-letter", ConsumeChange::orderlyDeadLetter).seconds(90);
        Main.add("deleted-group", ConsumeChange::deletedGroup).seconds(90);
        Main.add("progress", ConsumeChange::progress);
        Main.add("first-offset", ConsumeChange::firstOffset);
    }

    private static Message tagged(String topic, String tag, String body) {
        return new Message(topic, tag, utf8(body));
    }

    private static void otherTags(Ctx c) throws Exception {
        String topic = c.topic(2);
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer a = c.consume(c.name("CG"), topic, "A", sink);
        List<String> want = new ArrayList<>();
        for (MessageQueue q : c.queues(topic)) {
            String body = "before" + q.getQueueId();
            sendOk(c.producer().send(tagged(topic, "A", body), q));
            want.add(body);
        }
        Ctx.await("messages with the first tag", 20_000, () -> sink.size() == want.size());
        // Both queues are pulled again by now, and held.
        Thread.sleep(500);
        a.subscribe(topic, "B");
        for (int i = 0; i < 5; i++) {
            for (MessageQueue q : c.queues(topic)) {
                String body = "after" + q.getQueueId() + "-" + i;
                sendOk(c.producer().send(tagged(topic, "B", body), q));
                want.add(body);
            }
        }
        for (MessageQueue q : c.queues(topic)) {
            sendOk(c.producer().send(tagged(topic, "A", "no more"), q));
        }
        sink.exactly(want, 10_000, 500);
    }

    /** One client with several groups, of which the server refuses some. */
    private static void partialHeartbeat(Ctx c) throws Exception {
        String topic = c.topic(2);
        String group = c.name("CG");
        equal(c.raw(200, utf8("{\"groupName\":\"" + group + "\",\"consumeEnable\":true,\"consumeBroadcastEnable\":true,"
                + "\"retryQueueNums\":1,\"retryMaxTimes\":16}")).getCode(), 0, "code of the group's creation");
        List<String> want = c.sendMany(topic, "m", 6);
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer good = c.push(group);
        // With autoCreateSubscriptionGroup=false nobody knows this one.
        DefaultMQPushConsumer unknown = c.push(c.name("UNKNOWN"));
        List<DefaultMQPushConsumer> all = new ArrayList<>(List.of(unknown, good));
        // Longer than a group's name may be here, and in clients of 5.x.
        all.add(1, c.push(c.name("LONG") + "x".repeat(120)));
        for (DefaultMQPushConsumer one : all) {
            one.setInstanceName(good.getInstanceName());
            one.subscribe(topic, "*");
            one.registerMessageListener(one == good ? sink.listener() : new Ctx.Sink().listener());
            try {
                c.start(one);
            } catch (MQClientException e) {
                check(one != good && one != unknown, "not started: " + e);
                c.note("the client refuses long names");
            }
        }
        sink.exactly(want, 40_000, 300);
    }

    private static void orderlyDeadLetter(Ctx c) throws Exception {
        String topic = c.topic(1);
        String group = c.name("CG");
        AtomicInteger tries = new AtomicInteger();
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer consumer = c.push(group);
        consumer.setMaxReconsumeTimes(1);
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.setSuspendCurrentQueueTimeMillis(200);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (msgs, context) -> {
            if (new String(msgs.get(0).getBody(), StandardCharsets.UTF_8).equals("poison")) {
                tries.incrementAndGet();
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            sink.add(msgs);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        c.start(consumer);
        List<String> want = new ArrayList<>(c.sendMany(topic, "before", 2));
        c.send(topic, "poison");
        want.addAll(c.sendMany(topic, "after", 2));
        sink.exactly(want, 40_000, 0);
        long ms = Ctx.await("the dead letter", 20_000, () -> {
            try {
                return c.stored("%DLQ%" + group) == 1;
            } catch (MQClientException e) {
                return false; // no route yet
            }
        });
        int had = tries.get();
        // Were it in the retry topic it would come back after its delay of 30 s at this level.
        equal(c.stored("%RETRY%" + group), 0L, "messages in the retry topic");
        Thread.sleep(3_000);
        equal(tries.get(), had, "tries after it was given up");
        c.note(had + " tries, dead letter after " + ms + " ms more");
    }

    private static void deletedGroup(Ctx c) throws Exception {
        String topic = c.topic(2);
        String group = c.name("CG");
        Ctx.Sink first = new Ctx.Sink();
        DefaultMQPushConsumer one = c.consume(group, topic, "*", first);
        first.exactly(c.sendMany(topic, "one", 10), 20_000, 300);
        one.shutdown();
        Ctx.await("offsets of what was consumed", 10_000, () -> consumed(c, group, topic) == 10);
        equal(c.raw(207, null, "groupName", group).getCode(), 0, "code of the deletion");
        List<String> two = c.sendMany(topic, "two", 6);
        Ctx.Sink second = new Ctx.Sink();
        DefaultMQPushConsumer again = c.consume(group, topic, "*", second);
        second.exactly(two, 20_000, 1_000);
        again.shutdown();
        Ctx.await("offsets of what was consumed", 10_000, () -> consumed(c, group, topic) == 16);
        equal(c.raw(207, null, "groupName", group, "cleanOffset", "true").getCode(), 0, "code of the deletion");
        Ctx.Sink third = new Ctx.Sink();
        c.consume(group, topic, "*", third);
        Ctx.await("all messages anew", 20_000, () -> third.size() >= 16);
    }

    /** Sum of the offsets that a group committed in a topic. */
    private static long consumed(Ctx c, String group, String topic) throws Exception {
        long sum = 0;
        for (MessageQueue q : c.queues(topic)) {
            RemotingCommand answer = c.raw(14, null, "consumerGroup", group, "topic", topic, "queueId",
                    String.valueOf(q.getQueueId()), "setZeroIfNotFound", "false");
            if (answer.getCode() == 0) {
                sum += Long.parseLong(answer.getExtFields().get("offset"));
            }
        }
        return sum;
    }

    /** Entries in the answer to 208. */
    private static int entries(Ctx c, String group) throws Exception {
        RemotingCommand answer = c.raw(208, null, "consumerGroup", group);
        equal(answer.getCode(), 0, "code of 208");
        return new String(answer.getBody(), StandardCharsets.UTF_8).split("\"brokerOffset\"", -1).length - 1;
    }

    private static void progress(Ctx c) throws Exception {
        String topic = c.topic("T", 2);
        String left = c.topic("LEFT", 2);
        List<String> want = new ArrayList<>(c.sendMany(topic, "m", 4));
        Ctx.Sink all = new Ctx.Sink();
        DefaultMQPushConsumer broadcast = c.push(c.name("BROAD"));
        Compat.broadcasting(broadcast);
        broadcast.subscribe(topic, "*");
        broadcast.registerMessageListener(all.listener());
        c.start(broadcast);
        all.exactly(want, 20_000, 0);
        equal(entries(c, broadcast.getConsumerGroup()), 0, "entries of a group that broadcasts");
        // A group with two topics leaves one.
        want.addAll(c.sendMany(left, "m", 4));
        Ctx.Sink sink = new Ctx.Sink();
        DefaultMQPushConsumer a = c.push(c.name("CG"));
        a.setPersistConsumerOffsetInterval(500);
        a.subscribe(topic, "*");
        a.subscribe(left, "*");
        a.registerMessageListener(sink.listener());
        c.start(a);
        sink.exactly(want, 20_000, 0);
        String group = a.getConsumerGroup();
        // Stock lists the retry topic too, once an offset of it is committed.
        Ctx.await("entries of two topics", 10_000, () -> entries(c, group) >= 4);
        int before = entries(c, group);
        a.unsubscribe(left);
        a.getDefaultMQPushConsumerImpl().getmQClientFactory().sendHeartbeatToAllBrokerWithLock();
        Ctx.await("entries of one topic", 40_000, () -> entries(c, group) == before - 2);
    }

    /** A pull consumer asks where it was before its first heartbeat. */
    private static void firstOffset(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        c.send(topic, "m");
        c.awaitStored(topic, 1);
        DefaultMQPullConsumer consumer = c.pull(c.name("CG"));
        equal(consumer.fetchConsumeOffset(q, true), 0L, "first offset on a young topic");
    }
}
