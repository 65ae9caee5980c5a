package troupe;

import static troupe.Ctx.check;
import static troupe.Ctx.equal;
import static troupe.Ctx.fails;
import static troupe.Ctx.sendOk;
import static troupe.Ctx.utf8;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;

/** What becomes of a message on each way that it can go: its properties, its size, and how it is found again. */
final class Delivered {
    private Delivered() {}

    static void register() {
        Main.add("delivered-properties", Delivered::properties).seconds(150);
        Main.add("delivered-properties-orderly", Delivered::orderly).seconds(120);
        Main.add("large-properties-retry", Delivered::largeProperties).seconds(120).binary();
        Main.add("view-retried", Delivered::viewMessage).seconds(120).binary();
    }

    // ---- what the consumer gets

    private static final String SENT = "KEYS=key TAGS=tag p=v UNIQ_KEY=*";
    private static final String BROKER = " CLUSTER=* MSG_REGION=DefaultRegion TRACE_ON=true";
    private static final String PLAIN = SENT + BROKER;
    private static final String REAL = " REAL_TOPIC=<topic> REAL_QID=0";
    private static final String TIMER = REAL + " TIMER_OUT_MS=* TIMER_ENQUEUE_MS=* TIMER_DEQUEUE_MS=*";
    /** On the retry topic, and in the dead letters. */
    private static final String AGAIN = " RETRY_TOPIC=<topic> ORIGIN_MESSAGE_ID=* REAL_TOPIC=<retry> REAL_QID=0 WAIT=false";

    private static Map<String, String> of(MessageExt m) {
        Map<String, String> all = new TreeMap<>(m.getProperties());
        // The client's own.
        all.keySet().removeAll(List.of("MIN_OFFSET", "MAX_OFFSET", "CONSUME_START_TIME"));
        return all;
    }

    private static Message message(String topic, String body, String... properties) {
        Message m = new Message(topic, "tag", "key", utf8(body));
        m.putUserProperty("p", "v");
        for (int i = 0; i < properties.length; i += 2) {
            MessageAccessor.putProperty(m, properties[i], properties[i + 1]);
        }
        return m;
    }

    /** Consumes a topic; what begins with "again" fails until it is a dead letter. By body and number of tries. */
    private static final class Tries {
        final Map<String, MessageExt> seen = new ConcurrentHashMap<>();
        final String topic;
        final String group;
        final String retry;
        final String dlq;
        final Ctx c;

        Tries(Ctx c, int limit) throws Exception {
            this.c = c;
            topic = c.topic(1);
            group = c.name("CG");
            retry = "%RETRY%" + group;
            dlq = "%DLQ%" + group;
            DefaultMQPushConsumer consumer = c.push(group);
            consumer.subscribe(topic, "*");
            consumer.setMaxReconsumeTimes(limit);
            consumer.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
                MessageExt m = msgs.get(0);
                String body = new String(m.getBody());
                seen.put(body + "/" + m.getReconsumeTimes(), m);
                if (body.startsWith("again")) {
                    context.setDelayLevelWhenNextConsume(body.equals("again-own") && m.getReconsumeTimes() == 0 ? 0 : 1);
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            c.start(consumer);
            // On stock the client asks for the route of the retry topic before there is one, and again after 30 s.
            awaitTopic(retry);
            var factory = consumer.getDefaultMQPushConsumerImpl().getmQClientFactory();
            factory.updateTopicRouteInfoFromNameServer(retry);
            factory.rebalanceImmediately();
        }

        void awaitTopic(String name) throws Exception {
            Ctx.await("route of " + name, 30_000, () -> {
                try {
                    return !c.queues(name).isEmpty();
                } catch (Exception e) {
                    return false;
                }
            });
        }

        MessageExt await(String key) throws Exception {
            Ctx.await(key + " of " + seen.keySet(), 40_000, () -> seen.containsKey(key));
            return seen.get(key);
        }

        Map<String, MessageExt> dead(int n) throws Exception {
            awaitTopic(dlq);
            Ctx.await(n + " dead letters", 40_000, () -> c.stored(dlq) >= n);
            Map<String, MessageExt> out = new TreeMap<>();
            for (MessageExt m : c.readAll(c.queues(dlq).get(0), n)) {
                out.put(new String(m.getBody()), m);
            }
            return out;
        }
    }

    private static void same(String what, MessageExt got, String wanted, Tries t) {
        same(what, of(got), wanted, t);
    }

    /** Exactly these properties; {@code *} is any value. */
    private static void same(String what, Map<String, String> have, String wanted, Tries t) {
        Map<String, String> want = new TreeMap<>();
        for (String item : wanted.split(" ")) {
            int at = item.indexOf('=');
            String value = item.substring(at + 1);
            if (t != null) {
                value = value.replace("<topic>", t.topic).replace("<retry>", t.retry);
            }
            want.put(item.substring(0, at), value);
        }
        equal(have.keySet().toString(), want.keySet().toString(), "names of " + what);
        want.forEach((name, value) -> {
            if (!"*".equals(value)) {
                equal(have.get(name), value, name + " of " + what);
            }
        });
        if (have.containsKey("TIMER_OUT_MS")) {
            long out = Long.parseLong(have.get("TIMER_OUT_MS"));
            long enqueued = Long.parseLong(have.get("TIMER_ENQUEUE_MS"));
            long dequeued = Long.parseLong(have.get("TIMER_DEQUEUE_MS"));
            equal(out % 1000 + enqueued % 1000, 0L, "part of a second in the times of " + what);
            check(enqueued <= out && out < dequeued, "times of " + what + ": " + have);
        }
    }

    private static void properties(Ctx c) throws Exception {
        Tries t = new Tries(c, 2);
        var p = c.producer();
        String at = String.valueOf(System.currentTimeMillis() + 2000);
        String past = String.valueOf(System.currentTimeMillis() - 1000);
        Map<String, String> want = new TreeMap<>();
        sendOk(p.send(message(t.topic, "plain")));
        want.put("plain/0", PLAIN + " WAIT=true");
        sendOk(p.send(message(t.topic, "wait", "WAIT", "false")));
        want.put("wait/0", PLAIN + " WAIT=false");
        sendOk(p.send(message(t.topic, "delay", "DELAY", "1")));
        want.put("delay/0", PLAIN + REAL + " DELAY=1 WAIT=true");
        sendOk(p.send(message(t.topic, "delay-wait", "DELAY", "1", "WAIT", "false")));
        want.put("delay-wait/0", PLAIN + REAL + " DELAY=1 WAIT=false");
        sendOk(p.send(message(t.topic, "sec", "TIMER_DELAY_SEC", "2")));
        want.put("sec/0", PLAIN + TIMER + " TIMER_DELAY_SEC=2 WAIT=true");
        sendOk(p.send(message(t.topic, "ms", "TIMER_DELAY_MS", "2000")));
        want.put("ms/0", PLAIN + TIMER + " TIMER_DELAY_MS=2000 WAIT=true");
        sendOk(p.send(message(t.topic, "at", "TIMER_DELIVER_MS", at)));
        want.put("at/0", PLAIN + TIMER + " TIMER_DELIVER_MS=" + at + " WAIT=true");
        sendOk(p.send(message(t.topic, "past", "TIMER_DELIVER_MS", past)));
        want.put("past/0", PLAIN + " TIMER_DELIVER_MS=" + past + " WAIT=true");
        sendOk(p.send(message(t.topic, "both", "DELAY", "1", "TIMER_DELAY_SEC", "2", "TIMER_DELAY_MS", "2000", "TIMER_DELIVER_MS", at)));
        want.put("both/0", PLAIN + REAL + " DELAY=1 WAIT=true");
        sendOk(p.send(message(t.topic, "zero", "DELAY", "0")));
        want.put("zero/0", PLAIN + " DELAY=0 WAIT=true");
        sendOk(p.send(message(t.topic, "zero-ms", "DELAY", "0", "TIMER_DELAY_MS", "2000")));
        want.put("zero-ms/0", PLAIN + TIMER + " DELAY=0 TIMER_DELAY_MS=2000 WAIT=true");
        sendOk(p.send(message(t.topic, "timers", "TIMER_DELAY_SEC", "2", "TIMER_DELAY_MS", "2000", "TIMER_DELIVER_MS", at)));
        want.put("timers/0", PLAIN + TIMER + " TIMER_DELAY_SEC=2 TIMER_DELAY_MS=2000 TIMER_DELIVER_MS=" + at + " WAIT=true");
        sendOk(p.send(List.of(message(t.topic, "batch"), message(t.topic, "again-batch"))));
        want.put("batch/0", SENT + " WAIT=true");
        // As a client's own way of retrying sends it.
        sendOk(p.send(message(t.retry, "self", "DELAY", "1", "RETRY_TOPIC", t.topic, "RECONSUME_TIME", "1", "MAX_RECONSUME_TIMES", "3")));
        want.put("self/1", PLAIN + " RETRY_TOPIC=<topic> REAL_TOPIC=<retry> REAL_QID=0 DELAY=1 RECONSUME_TIME=1 MAX_RECONSUME_TIMES=3 WAIT=true");
        Map<String, String> again = new TreeMap<>(Map.of("again", PLAIN, "again-wait", PLAIN, "again-own", PLAIN,
                "again-delay", PLAIN, "again-batch", SENT, "again-ms", PLAIN + " TIMER_OUT_MS=* TIMER_ENQUEUE_MS=* TIMER_DEQUEUE_MS=*"));
        sendOk(p.send(message(t.topic, "again")));
        sendOk(p.send(message(t.topic, "again-wait", "WAIT", "false")));
        sendOk(p.send(message(t.topic, "again-own")));
        sendOk(p.send(message(t.topic, "again-delay", "DELAY", "1")));
        sendOk(p.send(message(t.topic, "again-ms", "TIMER_DELAY_MS", "2000")));
        again.forEach((body, sent) -> {
            want.put(body + "/1", sent + AGAIN + " DELAY=" + (body.equals("again-own") ? 3 : 1));
            want.put(body + "/2", sent + AGAIN + " DELAY=1");
        });
        for (var e : want.entrySet()) {
            MessageExt got = t.await(e.getKey());
            same(e.getKey(), got, e.getValue(), t);
            equal(got.getTopic(), t.topic, "topic of " + e.getKey());
            equal(got.getMsgId(), got.getProperty("UNIQ_KEY"), "message id of " + e.getKey());
        }
        sendOk(p.send(message(t.retry, "self-dead", "DELAY", "4", "RETRY_TOPIC", t.topic, "RECONSUME_TIME", "4", "MAX_RECONSUME_TIMES", "3")));
        Map<String, MessageExt> dead = t.dead(again.size() + 1);
        same("the dead letter self-dead", dead.get("self-dead"),
                PLAIN + " RETRY_TOPIC=<topic> DELAY=-1 RECONSUME_TIME=4 MAX_RECONSUME_TIMES=3 WAIT=true", t);
        again.forEach((body, sent) -> {
            same("the dead letter " + body, dead.get(body), sent + AGAIN + " DELAY=0", t);
            String first = ((MessageClientExt) t.seen.get(body + "/0")).getOffsetMsgId();
            for (MessageExt m : List.of(t.seen.get(body + "/1"), t.seen.get(body + "/2"), dead.get(body))) {
                equal(m.getProperty("ORIGIN_MESSAGE_ID"), first, "id of the first delivery in " + body);
            }
        });
        c.note((want.size() + dead.size()) + " deliveries compared");
    }

    private static void orderly(Ctx c) throws Exception {
        String topic = c.topic(1);
        String group = c.name("CG");
        // By body: the client changes the message itself when it gives up.
        Map<String, List<Map<String, String>>> seen = new ConcurrentHashMap<>(Map.of("first", new ArrayList<>(), "second", new ArrayList<>()));
        DefaultMQPushConsumer consumer = c.push(group);
        consumer.subscribe(topic, "*");
        consumer.setMaxReconsumeTimes(1);
        consumer.setSuspendCurrentQueueTimeMillis(500);
        consumer.registerMessageListener((MessageListenerOrderly) (msgs, context) -> {
            synchronized (seen) {
                seen.get(new String(msgs.get(0).getBody())).add(of(msgs.get(0)));
            }
            return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
        });
        c.start(consumer);
        Map<String, MessageExt> dead = new TreeMap<>();
        sendOk(c.producer().send(message(topic, "first")));
        sendOk(c.producer().send(message(topic, "second", "DELAY", "1")));
        String dlq = "%DLQ%" + group;
        Ctx.await("dead letters", 100_000, () -> {
            try {
                return c.stored(dlq) >= 2;
            } catch (Exception e) {
                return false;
            }
        });
        for (MessageExt m : c.readAll(c.queues(dlq).get(0), 2)) {
            dead.put(new String(m.getBody()), m);
        }
        Map<String, String> more = Map.of("first", "", "second", REAL.replace("<topic>", topic));
        String given = " WAIT=true RETRY_TOPIC=" + topic + " ORIGIN_MESSAGE_ID=* RECONSUME_TIME=* MAX_RECONSUME_TIMES=1 DELAY=-1";
        synchronized (seen) {
            seen.forEach((body, all) -> {
                String delay = body.equals("second") ? " DELAY=1" : "";
                check(all.size() >= 2, all.size() + " deliveries of " + body);
                all.forEach(got -> same(body, got, PLAIN + " WAIT=true" + more.get(body) + delay, null));
            });
        }
        for (String body : more.keySet()) {
            same("the dead letter " + body, dead.get(body), PLAIN + more.get(body) + given, null);
        }
    }

    // ---- what is accepted can be retried

    private static void largeProperties(Ctx c) throws Exception {
        Tries t = new Tries(c, 1);
        if (!c.stock) {
            // Stock stores it, and can neither retry it nor make it a dead letter.
            Message m = new Message(t.topic, utf8("again-refused"));
            m.putUserProperty("big", "x".repeat(32_600));
            Exception e = fails("32,600 bytes that leave no room", () -> c.producer().send(m));
            check(e instanceof MQBrokerException, "the broker should refuse: " + e);
            equal(((MQBrokerException) e).getResponseCode(), 13, "code");
        }
        int n = 0;
        for (String body : List.of("again", "again-delay", "again-ms")) {
            Message m = new Message(t.topic, utf8(body));
            m.putUserProperty("big", "x".repeat(32_000));
            if (body.equals("again-delay")) {
                m.setDelayTimeLevel(1);
            } else if (body.equals("again-ms")) {
                MessageAccessor.putProperty(m, "TIMER_DELAY_MS", "1000");
            }
            sendOk(c.producer().send(m));
            n++;
        }
        Message part = new Message(t.topic, utf8("again-batch"));
        part.putUserProperty("big", "x".repeat(32_000));
        sendOk(c.producer().send(List.of(part)));
        for (var e : t.dead(n + 1).entrySet()) {
            equal(e.getValue().getUserProperty("big").length(), 32_000, "property of the dead letter " + e.getKey());
            equal(t.await(e.getKey() + "/1").getUserProperty("big").length(), 32_000, "property of the retried " + e.getKey());
            equal(t.await(e.getKey() + "/1").getTopic(), t.topic, "topic of the retried " + e.getKey());
        }
    }

    // ---- a message by the topic and the id that its consumer logs

    private static void viewMessage(Ctx c) throws Exception {
        Tries t = new Tries(c, 1);
        var p = c.producer();
        String parked = sendOk(p.send(message(t.topic, "delay", "DELAY", "2"))).getOffsetMsgId();
        equal(new String(c.reader().viewMessage(t.topic, parked).getBody()), "delay", "body of a message that waits");
        sendOk(p.send(message(t.topic, "plain")));
        sendOk(p.send(message(t.topic, "ms", "TIMER_DELAY_MS", "1000")));
        sendOk(p.send(message(t.topic, "again")));
        List<MessageExt> all = new ArrayList<>();
        for (String key : List.of("plain/0", "delay/0", "ms/0", "again/0", "again/1")) {
            all.add(t.await(key));
        }
        all.addAll(t.dead(1).values());
        for (MessageExt m : all) {
            String id = ((MessageClientExt) m).getOffsetMsgId();
            String what = new String(m.getBody()) + "/" + m.getReconsumeTimes() + " in " + m.getTopic();
            MessageExt found = c.reader().viewMessage(m.getTopic(), id);
            equal(new String(found.getBody()), new String(m.getBody()), "body of " + what);
            equal(found.getReconsumeTimes(), m.getReconsumeTimes(), "tries of " + what);
            equal(((MessageClientExt) found).getOffsetMsgId(), id, "id of " + what);
        }
        // The dead letter by the topic that it came from, as its own properties name it.
        MessageExt dead = all.get(all.size() - 1);
        String id = ((MessageClientExt) dead).getOffsetMsgId();
        equal(new String(c.reader().viewMessage(t.topic, id).getBody()), "again", "body of the dead letter");
    }
}
