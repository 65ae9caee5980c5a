package troupe;

import java.util.HashMap;
import java.util.Map;
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

    /** The producer's own method forgets the attributes. */
    static void createTopicOfType(Ctx c, String topic, String type) throws Exception {
        c.producer().getDefaultMQProducerImpl().getmQClientFactory().getMQAdminImpl()
                .createTopic("TBW102", topic, 1, 0, Map.of("+message.type", type));
    }

    /** Turns on the short heartbeats of 5.x; true when the client has them. */
    static boolean heartbeatV2(ClientConfig c) {
        c.setUseHeartbeatV2(true);
        return true;
    }
}
