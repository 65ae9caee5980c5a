package troupe;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Load for faults in a cluster: producers with default settings, a push consumer and an orderly one. Prints what it
 * did, a line each with tabs and System.nanoTime; "stop" on standard input ends the producers, its end everything.
 */
final class Follow {
    private Follow() {}

    private static final int BODY = 1024;
    private static volatile boolean sending = true;

    static int follow(Map<String, String> o) throws Exception {
        String topic = o.get("topic");
        int first = Integer.parseInt(o.get("producer"));
        int threads = Integer.parseInt(o.getOrDefault("threads", "2"));
        long pause = 1_000_000_000L * threads / Long.parseLong(o.getOrDefault("rate", "100"));
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (boolean orderly : new boolean[] {false, true}) {
            String kind = orderly ? "orderly" : "push";
            DefaultMQPushConsumer c = new DefaultMQPushConsumer("FOLLOW-" + kind);
            c.setNamesrvAddr(o.get("namesrv"));
            c.setInstanceName(kind + System.nanoTime());
            c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            c.subscribe(topic, "*");
            if (orderly) {
                c.registerMessageListener((MessageListenerOrderly) (msgs, context) -> {
                    got(kind, msgs);
                    return ConsumeOrderlyStatus.SUCCESS;
                });
            } else {
                c.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
                    got(kind, msgs);
                    return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
                });
            }
            c.start();
            consumers.add(c);
        }
        List<DefaultMQProducer> producers = new ArrayList<>();
        List<Thread> running = new ArrayList<>();
        for (int n = 0; n < threads; n++) {
            DefaultMQProducer p = new DefaultMQProducer("FOLLOW-" + n);
            p.setNamesrvAddr(o.get("namesrv"));
            p.setInstanceName("producer" + n + System.nanoTime());
            p.start();
            producers.add(p);
            int own = first + n;
            Thread t = Main.daemon(() -> produce(p, topic, own, pause), "producer " + own);
            t.start();
            running.add(t);
        }
        say("ready");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (line.equals("stop")) {
                sending = false;
                for (Thread t : running) {
                    t.join(15_000);
                }
                say("stopped");
            }
        }
        sending = false;
        producers.forEach(DefaultMQProducer::shutdown);
        consumers.forEach(DefaultMQPushConsumer::shutdown);
        return 0;
    }

    private static void produce(DefaultMQProducer p, String topic, int own, long pause) {
        for (long seq = 0; sending; seq++) {
            long begin = System.nanoTime();
            String id = own + "\t" + seq;
            try {
                SendResult r = p.send(new Message(topic, body(own, seq)));
                long end = System.nanoTime();
                if (r.getSendStatus() == SendStatus.SEND_OK) {
                    say("acked\t" + id + "\t" + begin + "\t" + end + "\t" + r.getMessageQueue().getBrokerName() + "\t"
                        + r.getMessageQueue().getQueueId() + "\t" + r.getQueueOffset());
                } else {
                    say("open\t" + id + "\t" + begin + "\t" + end + "\t" + r.getSendStatus());
                }
            } catch (Exception e) {
                String why = String.valueOf(e.getMessage()).replaceAll("\\s+", " ");
                say("failed\t" + id + "\t" + begin + "\t" + System.nanoTime() + "\t" + why);
            }
            long rest = begin + pause - System.nanoTime();
            if (rest > 0) {
                java.util.concurrent.locks.LockSupport.parkNanos(rest);
            }
        }
    }

    private static void got(String kind, List<MessageExt> msgs) {
        long now = System.nanoTime();
        for (MessageExt m : msgs) {
            String[] id = new String(m.getBody(), 0, Math.min(40, m.getBody().length), StandardCharsets.UTF_8).split(":");
            // Messages that another program sent before have no such ids.
            say("got\t" + (id.length > 2 && number(id[0]) && number(id[1]) ? id[0] + "\t" + id[1] : "0\t0") + "\t" + now + "\t" + kind + "\t"
                + m.getBrokerName() + "\t" + m.getQueueId() + "\t" + m.getQueueOffset());
        }
    }

    private static boolean number(String text) {
        return !text.isEmpty() && text.chars().allMatch(c -> c >= '0' && c <= '9');
    }

    /** The body that the checkers of cluster-tests know: id, check sum, and a filler that follows from it. */
    private static byte[] body(int own, long seq) {
        long sum = mix((long) own << 32 | seq);
        StringBuilder out = new StringBuilder(BODY + 16);
        out.append(own).append(':').append(seq).append(':').append(hex(sum)).append(':');
        for (long word = sum; out.length() < BODY; ) {
            word = mix(word + 1);
            out.append(hex(word));
        }
        return out.substring(0, BODY).getBytes(StandardCharsets.UTF_8);
    }

    private static String hex(long n) {
        String text = Long.toHexString(n);
        return "0".repeat(16 - text.length()) + text;
    }

    private static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }

    private static void say(String line) {
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }
}
