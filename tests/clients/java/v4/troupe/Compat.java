package troupe;

import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.protocol.heartbeat.MessageModel;

/** What differs between the client versions; this half is for 4.9.8. */
final class Compat {
    private Compat() {}

    static void broadcasting(DefaultMQPushConsumer c) {
        c.setMessageModel(MessageModel.BROADCASTING);
    }

    static void createTopic(DefaultMQProducer p, String topic, int queues) throws Exception {
        p.createTopic("TBW102", topic, queues);
    }

    /** This client knows no attributes. */
    static void createTopicOfType(Ctx c, String topic, String type) throws Exception {
        var r = c.raw(17, null, "topic", topic, "defaultTopic", "TBW102", "readQueueNums", "1", "writeQueueNums", "1", "perm", "6",
                "topicFilterType", "SINGLE_TAG", "topicSysFlag", "0", "order", "false", "attributes", "+message.type=" + type);
        Ctx.equal(r.getCode(), 0, "code for message.type=" + type + " (" + r.getRemark() + ")");
    }

    /** False: this client has no second form of the heartbeat. */
    static boolean heartbeatV2(ClientConfig c) {
        return false;
    }
}
