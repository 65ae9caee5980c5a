package troupe;

import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/** Takes in a backlog with a push consumer of default settings, and prints how long that took as JSON. */
final class Drain {
    private Drain() {}

    static int drain(Map<String, String> o) throws Exception {
        String topic = o.get("topic");
        int wanted = Integer.parseInt(o.get("messages"));
        int seconds = Integer.parseInt(o.getOrDefault("seconds", "300"));
        Set<Long> seen = ConcurrentHashMap.newKeySet();
        AtomicLong copies = new AtomicLong();
        AtomicLong bytes = new AtomicLong();
        AtomicLong first = new AtomicLong();
        AtomicLong last = new AtomicLong();
        CountDownLatch all = new CountDownLatch(1);
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(o.getOrDefault("group", "DRAIN-" + System.nanoTime()));
        c.setNamesrvAddr(o.get("namesrv"));
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe(topic, "*");
        c.registerMessageListener((MessageListenerConcurrently) (msgs, context) -> {
            long now = System.nanoTime();
            first.compareAndSet(0, now);
            for (MessageExt m : msgs) {
                bytes.addAndGet(m.getBody().length);
                if (!seen.add((long) m.getQueueId() << 48 | m.getQueueOffset())) {
                    copies.incrementAndGet();
                }
            }
            if (seen.size() >= wanted && last.compareAndSet(0, now)) {
                all.countDown();
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        long begin = System.nanoTime();
        c.start();
        boolean done = all.await(seconds, TimeUnit.SECONDS);
        long end = done ? last.get() : System.nanoTime();
        c.shutdown();
        System.out.printf("{\"ok\": %b, \"messages\": %d, \"copies\": %d, \"bytes\": %d, \"seconds\": %.4f, \"first_s\": %.4f}%n",
            done, seen.size(), copies.get(), bytes.get(), (end - begin) / 1e9, (first.get() - begin) / 1e9);
        return done ? 0 : 1;
    }
}
