package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.fails;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** Sending what must be refused, by the client or by the broker; nothing may be stored. */
final class ProduceBad {
    private ProduceBad() {}

    static void register() {
        Main.add("size-limit", ProduceBad::sizeLimit).binary();
        Main.add("invalid-names", ProduceBad::invalidNames);
        Main.add("forbidden-topics", ProduceBad::forbiddenTopics);
        Main.add("missing-queue", ProduceBad::missingQueue).binary();
        Main.add("permissions", ProduceBad::permissions);
        Main.add("long-properties", ProduceBad::longProperties);
        Main.add("topic-attributes", ProduceBad::topicAttributes).binary();
        Main.add("unknown-code", ProduceBad::unknownCode);
    }

    private static final int LIMIT = 4 * 1024 * 1024;

    private static void sizeLimit(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        byte[] body = new byte[LIMIT];
        new Random(7).nextBytes(body);
        DefaultMQProducer p = c.newProducer(c.name("plain"));
        p.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        c.start(p);
        sendOk(p.send(new Message(topic, body), q, 20_000));
        byte[] over = Arrays.copyOf(body, LIMIT + 1);
        Exception e = fails("a body above the limit", () -> p.send(new Message(topic, over), q, 20_000));
        check(e instanceof MQClientException, "the client should refuse: " + e);
        // A client that allows itself more is refused by the broker.
        DefaultMQProducer big = c.newProducer(c.name("big"));
        big.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        big.setMaxMessageSize(3 * LIMIT);
        c.start(big);
        e = fails("a body above the broker's limit", () -> big.send(new Message(topic, over), q, 20_000));
        check(e instanceof MQBrokerException, "the broker should refuse: " + e);
        equal(((MQBrokerException) e).getResponseCode(), 13, "code for too large a message");
        byte[] half = Arrays.copyOf(body, LIMIT / 2);
        e = fails("a batch above the broker's limit",
                () -> big.send(List.of(new Message(topic, half), new Message(topic, half), new Message(topic, half)), q, 20_000));
        check(e instanceof MQBrokerException, "the broker should refuse: " + e);
        int code = ((MQBrokerException) e).getResponseCode();
        check(code == 13 || c.stock && code == 1, "code for too large a batch: " + code);
        check(Arrays.equals(c.readAll(q, 1).get(0).getBody(), body), "body at the limit changed");
        // The connection and the queue still work.
        equal(sendOk(big.send(new Message(topic, utf8("small")), q)).getQueueOffset(), 1L, "offset afterwards");
    }

    private static void invalidNames(Ctx c) throws Exception {
        for (String bad : new String[] {"bad topic", "bad!topic", "bäd", "", "x".repeat(200)}) {
            fails("sending to '" + bad + "'", () -> c.producer().send(new Message(bad, utf8("x"))));
            fails("creating '" + bad + "'", () -> Compat.createTopic(c.producer(), bad, 1));
            // Behind the client's own checks the broker refuses too.
            RemotingCommand r = c.rawTopic(bad, 1, 6);
            check(r.getCode() != 0, "broker created '" + bad + "'");
            r = c.rawSend(bad, 0, utf8("x"));
            check(r.getCode() != 0, "broker stored a message for '" + bad + "'");
        }
        // At the longest allowed name all is well.
        String longest = (c.name("long") + "x".repeat(127)).substring(0, 127);
        c.send(longest, "fine");
        c.awaitStored(longest, 1);
    }

    private static void forbiddenTopics(Ctx c) throws Exception {
        for (String t : new String[] {"SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC",
            "TRANS_CHECK_MAX_TIME_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT"}) {
            RemotingCommand r = c.rawSend(t, 0, utf8("forged"));
            equal(r.getCode(), 16, "code for sending to " + t + " (" + r.getRemark() + ")");
            fails("sending to " + t, () -> c.producer().send(new Message(t, utf8("x"))));
            check(c.rawTopic(t, 1, 6).getCode() != 0, "broker let the system topic " + t + " be changed");
        }
    }

    private static void missingQueue(Ctx c) throws Exception {
        String topic = c.topic(2);
        MessageQueue q = c.queues(topic).get(0);
        for (int id : new int[] {2, 99, -1, Integer.MAX_VALUE}) {
            if (id < 0) {
                // Stock reads it as "any queue", and so may a server; it must not invent a queue.
                RemotingCommand r = c.rawSend(topic, id, utf8("x"));
                if (r.getCode() == 0) {
                    int got = Integer.parseInt(r.getExtFields().get("queueId"));
                    check(got == 0 || got == 1, "stored in queue " + got);
                }
                continue;
            }
            Exception e = fails("sending to queue " + id,
                    () -> c.producer().send(new Message(topic, utf8("x")), new MessageQueue(topic, q.getBrokerName(), id)));
            check(e instanceof MQBrokerException, "the broker should refuse: " + e);
            check(((MQBrokerException) e).getResponseCode() != 0, "no code");
        }
        // Nothing but the one for "any queue" can be there.
        Thread.sleep(200);
        long stored = c.stored(topic);
        check(stored <= 1, stored + " messages stored");
        equal(c.queues(topic).size(), 2, "queues");
        sendOk(c.producer().send(new Message(topic, utf8("ok")), q));
        c.awaitStored(topic, stored + 1);
    }

    private static void permissions(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        c.send(topic, "one");
        equal(c.rawTopic(topic, 1, 4).getCode(), 0, "making the topic read-only");
        RemotingCommand r = c.rawSend(topic, 0, utf8("two"));
        // Stock leaves this to the client, which finds no queue to send to; TroupeMQ refuses.
        equal(r.getCode(), c.stock ? 0 : 16, "code for writing to a read-only topic");
        check(c.readAll(q, c.stock ? 2 : 1).size() > 0, "nothing to read");
        equal(c.rawTopic(topic, 1, 2).getCode(), 0, "making the topic write-only");
        equal(c.rawSend(topic, 0, utf8("three")).getCode(), 0, "writing to a write-only topic");
        Exception e = fails("reading a write-only topic", () -> c.reader().pull(q, "*", 0, 32));
        check(e instanceof MQBrokerException, "the broker should refuse: " + e);
        equal(((MQBrokerException) e).getResponseCode(), 16, "code for reading a write-only topic");
        equal(c.rawTopic(topic, 1, 6).getCode(), 0, "back to read and write");
        c.readAll(q, c.stock ? 3 : 2);
    }

    private static void longProperties(Ctx c) throws Exception {
        String topic = c.topic(1);
        MessageQueue q = c.queues(topic).get(0);
        Message m = new Message(topic, utf8("x"));
        m.putUserProperty("big", "x".repeat(40_000));
        Exception e = fails("40,000 bytes of properties", () -> c.producer().send(m, q));
        check(e instanceof MQBrokerException, "the broker should refuse: " + e);
        equal(((MQBrokerException) e).getResponseCode(), 13, "code");
        equal(c.reader().maxOffset(q), 0L, "messages stored");
        Message fits = new Message(topic, utf8("x"));
        fits.putUserProperty("big", "x".repeat(32_000));
        sendOk(c.producer().send(fits, q));
        equal(c.readAll(q, 1).get(0).getUserProperty("big").length(), 32_000, "length of the property");
    }

    private static RemotingCommand withAttributes(Ctx c, String topic, String attributes) throws Exception {
        return c.raw(17, null, "topic", topic, "defaultTopic", "TBW102", "readQueueNums", "1", "writeQueueNums", "1",
                "perm", "6", "topicFilterType", "SINGLE_TAG", "topicSysFlag", "0", "order", "false", "attributes", attributes);
    }

    private static void topicAttributes(Ctx c) throws Exception {
        String types = "value is not in set: [UNSPECIFIED, MIXED, TRANSACTION, PRIORITY, FIFO, DELAY, LITE, NORMAL]";
        String[][] refused = {
            {"+nosuch=1", "unsupported key: nosuch"},
            {"+message.type=BOGUS", types},
            {"+message.type=fifo", types},
            {"+queue.type=x", "value is not in set: [SimpleCQ, BatchCQ]"},
            {"+cleanup.policy=x", "value is not in set: [DELETE, COMPACTION]"},
            {"-message.type", "only add attribute is supported while creating topic. key: message.type"},
            {"message.type=FIFO", "add/alter attribute format is wrong: message.type"},
            {"+message.type", "delete attribute format is wrong: +message.type"},
            {"+message.type=FIFO,+message.type=NORMAL", "key duplication: +message.type"},
        };
        String topic = c.name("refused");
        for (String[] x : refused) {
            RemotingCommand r = withAttributes(c, topic, x[0]);
            equal(r.getCode(), 1, "code for " + x[0]);
            equal(r.getRemark(), x[1], "remark for " + x[0]);
        }
        RemotingCommand mixed = withAttributes(c, topic, "+message.type=MIXED");
        equal(mixed.getCode(), 29, "code for message.type=MIXED");
        equal(mixed.getRemark(), "MIXED message type is not supported.", "remark for message.type=MIXED");
        if (!c.stock) {
            for (String x : new String[] {"queue.type=BatchCQ", "cleanup.policy=COMPACTION", "message.type=PRIORITY", "message.type=LITE"}) {
                RemotingCommand r = withAttributes(c, topic, "+" + x);
                equal(r.getCode(), 1, "code for " + x);
                equal(r.getRemark(), "the attribute " + x + " is not supported yet", "remark for " + x);
            }
        }
        equal(c.raw(351, null, "topic", topic).getCode(), 17, "code for the topic that nobody could create");
        for (String type : new String[] {"NORMAL", "FIFO", "DELAY", "TRANSACTION", "UNSPECIFIED"}) {
            String one = c.name(type);
            Compat.createTopicOfType(c, one, type);
            check(new String(c.raw(351, null, "topic", one).getBody()).contains("\"message.type\":\"" + type + "\""), "type of " + one);
        }
        String one = c.name("FIFO");
        equal(withAttributes(c, one, "+message.type=NORMAL").getCode(), 0, "code for a change");
        equal(withAttributes(c, one, "-message.type").getCode(), 0, "code for a removal");
        equal(withAttributes(c, one, "-message.type").getRemark(), "attempt to delete a nonexistent key: message.type", "remark");
        equal(withAttributes(c, one, "+queue.type=SimpleCQ").getRemark(),
                "attempt to update an unchangeable attribute. key: queue.type", "remark");
        RemotingCommand g = c.raw(200, utf8("{\"groupName\":\"" + c.name("G") + "\",\"attributes\":{\"+nosuch\":\"1\"}}"));
        equal(g.getCode(), 1, "code for a group's attribute");
        check(g.getRemark().contains("unsupported key: nosuch"), "remark for a group's attribute: " + g.getRemark());
    }

    private static void unknownCode(Ctx c) throws Exception {
        equal(c.raw(29_999, null).getCode(), 3, "code for an unknown request");
        // Missing and malformed arguments are answered, and the connection lives on.
        check(c.raw(11, null).getCode() != 0, "pull without arguments accepted");
        check(c.raw(310, utf8("x"), "b", "nothing").getCode() != 0, "send without a topic accepted");
        check(c.raw(30, null, "topic", "t", "queueId", "not a number").getCode() != 0, "a word as queue id accepted");
        check(c.raw(34, utf8("{not json")).getCode() != 0, "a heartbeat that is no JSON accepted");
        c.topic(1);
    }
}
