package troupe;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * An application that knows nothing of faults: producers and consumers with the client's default settings, while
 * somebody else kills and stops nodes. Counts what the application sees: sends that fail, messages that were
 * acknowledged and never come, messages out of order, and how late a message comes.
 */
final class Failover {
    private static final int SYNCS = 2;
    private static final int KEYS = 8;
    /** Messages an asynchronous producer has on the way at most. */
    private static final int IN_FLIGHT = 32;
    /** Later than this a message is worth a line. */
    private static final long LATE_MS = 5_000;

    private final Map<String, String> options;
    private final String run = Long.toString(System.nanoTime(), 36);
    private final Set<String> acked = ConcurrentHashMap.newKeySet();
    private final Set<String> ackedInOrder = ConcurrentHashMap.newKeySet();
    private final Map<String, AtomicLong> counts = new ConcurrentHashMap<>();
    private final ConcurrentLinkedQueue<String> examples = new ConcurrentLinkedQueue<>();
    private volatile long end;

    private Failover(Map<String, String> options) {
        this.options = options;
    }

    private AtomicLong count(String what) {
        return counts.computeIfAbsent(what, k -> new AtomicLong());
    }

    private void most(String what, long value) {
        count(what).accumulateAndGet(value, Math::max);
    }

    private void bad(String what, String text) {
        if (count(what).incrementAndGet() <= 5) {
            examples.add(what + ": " + text);
        }
    }

    private <T extends ClientConfig> T prepare(T c, String name) {
        c.setNamesrvAddr(options.get("namesrv"));
        c.setInstanceName(name + run);
        return c;
    }

    private DefaultMQProducer producer(String name) throws Exception {
        DefaultMQProducer p = prepare(new DefaultMQProducer("FO-" + name), name);
        p.start();
        return p;
    }

    private void sent(String what, long began, Set<String> to, String id, SendResult r) {
        if (r.getSendStatus() == SendStatus.SEND_OK) {
            to.add(id);
            count(what + "_sent").incrementAndGet();
            most(what + "_slowest_ms", (System.nanoTime() - began) / 1_000_000);
        } else {
            bad(what + "_failed", id + " " + r.getSendStatus());
        }
    }

    private void produce(int n, String topic) throws Exception {
        DefaultMQProducer p = producer("sync" + n);
        for (long seq = 0; System.nanoTime() < end; seq++) {
            String id = "s" + n + ":" + seq;
            long began = System.nanoTime();
            try {
                sent("sync", began, acked, id, p.send(message(topic, id)));
            } catch (Exception e) {
                bad("sync_failed", id + " after " + (System.nanoTime() - began) / 1_000_000 + " ms: " + e + " <- " + e.getCause());
            }
            Thread.sleep(5);
        }
        p.shutdown();
    }

    private void produceAsync(String topic) throws Exception {
        DefaultMQProducer p = producer("async");
        Semaphore room = new Semaphore(IN_FLIGHT);
        for (long seq = 0; System.nanoTime() < end; seq++) {
            String id = "a:" + seq;
            long began = System.nanoTime();
            room.acquire();
            try {
                p.send(message(topic, id), new SendCallback() {
                    @Override
                    public void onSuccess(SendResult r) {
                        sent("async", began, acked, id, r);
                        room.release();
                    }

                    @Override
                    public void onException(Throwable e) {
                        // What the server answers is never retried by the client; a broken connection is, but
                        // its choice of the next broker may be another one that is known by a dead address.
                        String what = e instanceof MQBrokerException ? "async_refused" : "async_failed";
                        bad(what, id + " after " + (System.nanoTime() - began) / 1_000_000 + " ms: " + e + " <- " + e.getCause());
                        room.release();
                    }
                });
            } catch (Exception e) {
                room.release();
                bad("async_failed", id + " " + e);
            }
            Thread.sleep(5);
        }
        room.acquire(IN_FLIGHT);
        p.shutdown();
    }

    /** A send to a queue of the application's choice is not retried by clients, so the application does. */
    private void produceInOrder(String topic) throws Exception {
        DefaultMQProducer p = producer("order");
        for (long seq = 0; System.nanoTime() < end; seq++) {
            int key = (int) (seq % KEYS);
            String id = "o" + key + ":" + seq;
            long began = System.nanoTime();
            while (true) {
                try {
                    SendResult r = p.send(message(topic, id), (List<MessageQueue> q, Message m, Object k) -> q.get((Integer) k % q.size()), key);
                    sent("order", began, ackedInOrder, id, r);
                    break;
                } catch (Exception e) {
                    count("order_retries").incrementAndGet();
                    Thread.sleep(20);
                }
            }
            Thread.sleep(10);
        }
        p.shutdown();
    }

    private static Message message(String topic, String id) {
        return new Message(topic, id.getBytes(StandardCharsets.UTF_8));
    }

    /** What a group got: how often each message, and per key the last number seen for the first time. */
    private final class Group {
        final String name;
        final Map<String, AtomicLong> seen = new ConcurrentHashMap<>();
        final Map<String, Long> last = new HashMap<>();
        /** Each later one than those before is printed. */
        long lateShown;

        Group(String name) {
            this.name = name;
        }

        synchronized void took(MessageExt m, boolean ordered) {
            String id = new String(m.getBody(), StandardCharsets.UTF_8);
            if (seen.computeIfAbsent(id, k -> new AtomicLong()).incrementAndGet() > 1) {
                count(name + "_again").incrementAndGet();
                return;
            }
            long late = System.currentTimeMillis() - m.getStoreTimestamp();
            most(name + "_latest_ms", late);
            if (late > LATE_MS && late > lateShown) {
                lateShown = late;
                System.err.println(java.time.Instant.now() + " late: " + name + " " + id + ", " + m.getBrokerName() + " queue " + m.getQueueId()
                        + " offset " + m.getQueueOffset() + ", " + late + " ms after its store at " + m.getStoreHost());
            }
            if (ordered) {
                int colon = id.indexOf(':');
                long seq = Long.parseLong(id.substring(colon + 1));
                Long before = last.put(id.substring(0, colon), seq);
                if (before != null && before > seq) {
                    bad(name + "_disorder", id + " after " + before);
                }
            }
        }

        boolean complete(Set<String> wanted) {
            return seen.keySet().containsAll(wanted);
        }

        void check(Set<String> wanted) {
            for (String id : wanted) {
                if (!seen.containsKey(id)) {
                    bad(name + "_missing", id);
                }
            }
            count(name + "_got").addAndGet(seen.size());
        }
    }

    private DefaultMQPushConsumer consumer(String name, String topic) throws Exception {
        DefaultMQPushConsumer c = prepare(new DefaultMQPushConsumer("FO-" + name + "-" + run), name);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe(topic, "*");
        return c;
    }

    private int run() throws Exception {
        String topic = options.get("topic");
        String orderly = options.get("orderly");
        Group all = new Group("push");
        Group inOrder = new Group("orderly");
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer push = consumer("push", topic);
            push.setInstanceName("push" + i + run);
            push.registerMessageListener((MessageListenerConcurrently) (list, ctx) -> {
                list.forEach(m -> all.took(m, false));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumers.add(push);
            DefaultMQPushConsumer order = consumer("orderly", orderly);
            order.setInstanceName("orderly" + i + run);
            order.registerMessageListener((MessageListenerOrderly) (list, ctx) -> {
                list.forEach(m -> inOrder.took(m, true));
                return ConsumeOrderlyStatus.SUCCESS;
            });
            consumers.add(order);
        }
        for (DefaultMQPushConsumer c : consumers) {
            c.start();
        }
        end = System.nanoTime() + Long.parseLong(options.getOrDefault("seconds", "60")) * 1_000_000_000L;
        List<Thread> threads = new ArrayList<>();
        for (int n = 0; n < SYNCS; n++) {
            int k = n;
            threads.add(thread(() -> produce(k, topic)));
        }
        threads.add(thread(() -> produceAsync(topic)));
        threads.add(thread(() -> produceInOrder(orderly)));
        System.out.println("READY");
        System.out.flush();
        for (Thread t : threads) {
            t.join();
        }
        long until = System.nanoTime() + 40_000_000_000L;
        while (System.nanoTime() < until && !(all.complete(acked) && inOrder.complete(ackedInOrder))) {
            Thread.sleep(100);
        }
        all.check(acked);
        inOrder.check(ackedInOrder);
        for (String what : new String[] {"sync_failed", "async_refused", "push_missing", "orderly_missing", "orderly_disorder"}) {
            count(what);
        }
        StringBuilder b = new StringBuilder("{");
        counts.keySet().stream().sorted().forEach(k -> b.append('"').append(k).append("\":").append(counts.get(k)).append(','));
        b.append("\"examples\":[");
        String comma = "";
        for (String e : examples) {
            b.append(comma).append('"').append(e.replace('\\', '/').replace('"', '\'').replaceAll("\\s+", " ")).append('"');
            comma = ",";
        }
        System.out.println("REPORT " + b.append("]}"));
        return 0;
    }

    private interface Work {
        void run() throws Exception;
    }

    private Thread thread(Work work) {
        Thread t = Main.daemon(() -> {
            try {
                work.run();
            } catch (Exception e) {
                bad("program_failed", e.toString());
            }
        }, "failover");
        t.start();
        return t;
    }

    static int failover(Map<String, String> o) throws Exception {
        return new Failover(o).run();
    }
}
