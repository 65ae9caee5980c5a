package troupe;

import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * For crash tests: {@code load} sends while the server may die and come back and writes down what was acked;
 * {@code verify} reads everything and compares. A message is never sent twice, so a body found twice is the
 * server's doing; a message that was not acked may be there or not.
 */
final class Load {
    private Load() {}

    private static String need(Map<String, String> o, String key) {
        String v = o.get(key);
        if (v == null) {
            throw new IllegalArgumentException("--" + key + " is needed");
        }
        return v;
    }

    /** Messages an asynchronous producer has on the way at most. */
    private static final int IN_FLIGHT = 64;

    static int load(Map<String, String> o) throws Exception {
        String topic = need(o, "topic");
        int queues = Integer.parseInt(o.getOrDefault("queues", "4"));
        int syncs = Integer.parseInt(o.getOrDefault("sync", "2"));
        int asyncs = Integer.parseInt(o.getOrDefault("async", "1"));
        int seconds = Integer.parseInt(o.getOrDefault("seconds", "10"));
        int size = Integer.parseInt(o.getOrDefault("size", "100"));
        int timeout = Integer.parseInt(o.getOrDefault("timeout-ms", "3000"));
        long max = Long.parseLong(o.getOrDefault("rate", "1000000"));
        String run = o.getOrDefault("run", "java");
        AtomicLong acked = new AtomicLong();
        AtomicLong failed = new AtomicLong();
        DefaultMQProducer admin = producer(o, "admin", timeout);
        Compat.createTopic(admin, topic, queues);
        List<MessageQueue> mqs = awaitQueues(admin, topic, queues);
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        List<Thread> threads = new ArrayList<>();
        try (BufferedWriter out = Files.newBufferedWriter(Path.of(need(o, "out")), StandardCharsets.UTF_8)) {
            for (int k = 0; k < syncs + asyncs; k++) {
                boolean sync = k < syncs;
                String id = run + (sync ? "-s" + k : "-a" + (k - syncs));
                DefaultMQProducer p = producer(o, id, timeout);
                Thread t = Main.daemon(() -> {
                    Semaphore room = new Semaphore(IN_FLIGHT);
                    long pause = 1_000_000_000L * (syncs + asyncs) / max;
                    long next = System.nanoTime();
                    for (long seq = 0; System.nanoTime() < end; seq++) {
                        MessageQueue q = mqs.get((int) (seq % mqs.size()));
                        String key = id + ":" + seq;
                        StringBuilder body = new StringBuilder(key).append(' ');
                        while (body.length() < size) {
                            body.append('x');
                        }
                        Message m = new Message(topic, body.toString().getBytes(StandardCharsets.UTF_8));
                        try {
                            if (sync) {
                                ack(out, acked, failed, topic, key, p.send(m, q));
                            } else {
                                room.acquire();
                                p.send(m, q, new SendCallback() {
                                    @Override
                                    public void onSuccess(SendResult r) {
                                        ack(out, acked, failed, topic, key, r);
                                        room.release();
                                    }

                                    @Override
                                    public void onException(Throwable e) {
                                        failed.incrementAndGet();
                                        room.release();
                                    }
                                });
                            }
                        } catch (Exception e) {
                            if (!sync) {
                                room.release();
                            }
                            failed.incrementAndGet();
                            sleep(50);
                        }
                        next += pause;
                        long wait = next - System.nanoTime();
                        if (wait > 1_000_000) {
                            sleep(wait / 1_000_000);
                        }
                    }
                    // Callbacks of the last ones; they come within the send timeout.
                    room.acquireUninterruptibly(IN_FLIGHT);
                }, id);
                t.start();
                threads.add(t);
            }
            for (Thread t : threads) {
                t.join((seconds + 60) * 1000L);
            }
            synchronized (out) {
                out.flush();
            }
            System.out.printf("{\"acked\":%d,\"failed\":%d,\"seconds\":%d}%n", acked.get(), failed.get(), seconds);
            // Callbacks that come after this are of no use to anyone.
            synchronized (out) {
                out.flush();
                Runtime.getRuntime().halt(acked.get() > 0 ? 0 : 1);
            }
        }
        return 0;
    }

    private static void ack(BufferedWriter out, AtomicLong acked, AtomicLong failed, String topic, String key, SendResult r) {
        if (r.getSendStatus() != SendStatus.SEND_OK) {
            failed.incrementAndGet();
            return;
        }
        try {
            synchronized (out) {
                out.write(topic + "\t" + r.getMessageQueue().getQueueId() + "\t" + r.getQueueOffset() + "\t" + key + "\n");
                if (acked.incrementAndGet() % 100 == 0) {
                    out.flush();
                }
            }
        } catch (java.io.IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    private static void sleep(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static DefaultMQProducer producer(Map<String, String> o, String id, int timeout) throws Exception {
        DefaultMQProducer p = new DefaultMQProducer("LOAD-" + id);
        p.setNamesrvAddr(need(o, "namesrv"));
        p.setInstanceName("load-" + id + "-" + System.nanoTime());
        p.setRetryTimesWhenSendFailed(0);
        p.setRetryTimesWhenSendAsyncFailed(0);
        p.setSendMsgTimeout(timeout);
        ExecutorService one = Executors.newSingleThreadExecutor(r -> Main.daemon(r, "sender " + id));
        p.getDefaultMQProducerImpl().setAsyncSenderExecutor(one);
        p.start();
        return p;
    }

    private static List<MessageQueue> awaitQueues(DefaultMQProducer p, String topic, int queues) throws Exception {
        for (int i = 0; ; i++) {
            try {
                List<MessageQueue> l = p.fetchPublishMessageQueues(topic);
                if (l.size() == queues || i > 100) {
                    return l;
                }
            } catch (Exception e) {
                if (i > 100) {
                    throw e;
                }
            }
            Thread.sleep(100);
        }
    }

    private static final class Acked {
        final int queue;
        final long offset;

        Acked(int queue, long offset) {
            this.queue = queue;
            this.offset = offset;
        }
    }

    static int verify(Map<String, String> o) throws Exception {
        Map<String, Acked> acked = new HashMap<>();
        Set<String> topics = new HashSet<>();
        long ackedTwice = 0;
        for (String file : need(o, "acked").split(",")) {
            try (BufferedReader r = Files.newBufferedReader(Path.of(file), StandardCharsets.UTF_8)) {
                for (String line; (line = r.readLine()) != null; ) {
                    String[] f = line.split("\t");
                    topics.add(f[0]);
                    if (acked.put(f[0] + "/" + f[3], new Acked(Integer.parseInt(f[1]), Long.parseLong(f[2]))) != null) {
                        ackedTwice++;
                    }
                }
            }
        }
        if (o.get("topic") != null) {
            topics.add(o.get("topic"));
        }
        DefaultMQPullConsumer c = new DefaultMQPullConsumer("VERIFY-" + System.nanoTime());
        c.setNamesrvAddr(need(o, "namesrv"));
        c.start();
        Map<String, Long> n = new TreeMap<>();
        for (String k : new String[] {"read", "missing", "duplicates", "moved", "order_sync", "order_async", "holes", "not_acked_present"}) {
            n.put(k, 0L);
        }
        List<String> examples = new ArrayList<>();
        Set<String> seen = new HashSet<>();
        for (String topic : topics) {
            for (MessageQueue q : c.fetchSubscribeMessageQueues(topic)) {
                List<MessageExt> all;
                try {
                    all = Ctx.readAll(c, q);
                } catch (AssertionError e) {
                    count(n, "holes", examples, e.getMessage());
                    continue;
                }
                Map<String, Long> last = new HashMap<>();
                for (MessageExt m : all) {
                    n.merge("read", 1L, Long::sum);
                    String body = new String(m.getBody(), StandardCharsets.UTF_8).split(" ")[0];
                    String key = topic + "/" + body;
                    String where = body + " at " + q.getQueueId() + "/" + m.getQueueOffset();
                    if (!seen.add(key)) {
                        count(n, "duplicates", examples, where);
                    }
                    Acked a = acked.get(key);
                    if (a == null) {
                        n.merge("not_acked_present", 1L, Long::sum);
                    } else if (a.queue != q.getQueueId() || a.offset != m.getQueueOffset()) {
                        count(n, "moved", examples, where + ", acked as " + a.queue + "/" + a.offset);
                    }
                    int colon = body.lastIndexOf(':');
                    String id = body.substring(0, colon);
                    long seq = Long.parseLong(body.substring(colon + 1));
                    Long before = last.put(id, seq);
                    if (before != null && before >= seq) {
                        count(n, id.contains("-s") ? "order_sync" : "order_async", examples, where + " after " + before);
                    }
                }
            }
        }
        for (String key : acked.keySet()) {
            if (!seen.contains(key)) {
                count(n, "missing", examples, "acked but not there: " + key);
            }
        }
        boolean asyncOrder = !"false".equals(o.get("async-order"));
        boolean ok = ackedTwice == 0 && n.get("missing") == 0 && n.get("duplicates") == 0 && n.get("moved") == 0
                && n.get("order_sync") == 0 && n.get("holes") == 0 && (!asyncOrder || n.get("order_async") == 0)
                && !acked.isEmpty();
        StringBuilder b = new StringBuilder("{\"ok\":" + ok + ",\"acked\":" + acked.size() + ",\"acked_twice\":" + ackedTwice);
        n.forEach((k, v) -> b.append(",\"").append(k).append("\":").append(v));
        b.append(",\"examples\":[");
        for (int i = 0; i < examples.size(); i++) {
            b.append(i > 0 ? "," : "").append('"').append(examples.get(i).replace('\\', '/').replace('"', '\'')).append('"');
        }
        System.out.println(b.append("]}"));
        return ok ? 0 : 1;
    }

    private static void count(Map<String, Long> n, String what, List<String> examples, String text) {
        n.merge(what, 1L, Long::sum);
        if (examples.size() < 20) {
            examples.add(what + ": " + text);
        }
    }
}
