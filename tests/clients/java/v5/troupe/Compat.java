package troupe;

import java.util.HashMap;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/** What differs between the client versions; this half is for 5.5.0. */
final class Compat {
    private Compat() {}

    static void broadcasting(DefaultMQPushConsumer c) {
        c.setMessageModel(MessageModel.BROADCASTING);
    }

    static void createTopic(DefaultMQProducer p, String topic, int queues) throws Exception {
        p.createTopic("TBW102", topic, queues, new HashMap<>());
    }

    /** Turns on the short heartbeats of 5.x; true when the client has them. */
    static boolean heartbeatV2(ClientConfig c) {
        c.setUseHeartbeatV2(true);
        return true;
    }
}
