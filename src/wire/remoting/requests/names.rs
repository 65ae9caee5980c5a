//! Headers of requests to the name server.

request! {
    /// REGISTER_BROKER 103.
    RegisterBroker {
        broker_name: text "brokerName",
        broker_addr: text "brokerAddr",
        cluster_name: text "clusterName",
        ha_server_addr: text "haServerAddr",
        broker_id: long "brokerId",
        /// Own expiry time, ms; 120 s when absent.
        heartbeat_timeout_millis: opt_long "heartbeatTimeoutMillis",
        enable_acting_master: flag "enableActingMaster",
        /// What the broker says; 5.x says `false` with a compressed body, so sniff the body.
        compressed: flag "compressed",
        /// CRC-32 of the body as sent, top bit cleared; 0 is not checked.
        body_crc32: opt_int "bodyCrc32",
        zone_name: opt_text "__ZONE_NAME",
    }
}

request! {
    /// UNREGISTER_BROKER 104 and QUERY_DATA_VERSION 322.
    BrokerIdentity {
        broker_name: text "brokerName",
        broker_addr: text "brokerAddr",
        cluster_name: text "clusterName",
        broker_id: long "brokerId",
    }
}

request! {
    /// BROKER_HEARTBEAT 904.
    BrokerHeartbeat {
        cluster_name: text "clusterName",
        broker_addr: text "brokerAddr",
        broker_name: text "brokerName",
    }
}

request! {
    /// GET_BROKER_MEMBER_GROUP 901.
    MemberGroup {
        cluster_name: text "clusterName",
        broker_name: text "brokerName",
    }
}

request! {
    /// WIPE_WRITE_PERM_OF_BROKER 205 and ADD_WRITE_PERM_OF_BROKER 327.
    WritePerm {
        broker_name: text "brokerName",
    }
}

request! {
    /// PUT_KV_CONFIG 100.
    PutKv {
        namespace: text "namespace",
        key: text "key",
        value: text "value",
    }
}

request! {
    /// GET_KV_CONFIG 101 and DELETE_KV_CONFIG 102.
    KvKey {
        namespace: text "namespace",
        key: text "key",
    }
}

request! {
    /// GET_KVLIST_BY_NAMESPACE 219.
    KvNamespace {
        namespace: text "namespace",
    }
}

request! {
    /// GET_TOPICS_BY_CLUSTER 224.
    ClusterTopics {
        cluster: text "cluster",
    }
}
