//! The one table of configuration keys: name, RocketMQ's names, kind, scope, default, meaning.
//!
//! The struct [`Config`], its defaults, the list [`KEYS`] and `config/reference.toml` all come
//! from this table, so they cannot drift apart.

use super::types::{BrokerRole, FlushDiskType, LogFormat, Roles};
use serde::{Deserialize, Serialize};

/// What a value looks like in a file, an environment variable or `--set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A decimal integer, zero or more.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Text, including the named values of the enums.
    Text,
}

/// Whose a value is: what it decides, and so whether nodes of a cluster may differ in it. Nothing
/// here is read by the replicated state machine: what it needs stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This node alone goes by it.
    Node,
    /// The leader of a shard goes by its own: nodes that differ are told so, and show it.
    Shared,
    /// Nodes that differ do not talk to each other.
    Agreed,
    /// Read at the first start, and kept in the data directory from then on.
    First,
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct KeyInfo {
    /// Heading in the reference file.
    pub section: &'static str,
    /// Canonical name (snake_case); `TROUPE_` + upper case is the environment variable.
    pub name: &'static str,
    /// Names that RocketMQ's own configuration uses for the same thing.
    pub aliases: &'static [&'static str],
    /// The form of the value.
    pub kind: Kind,
    /// Whose the value is.
    pub scope: Scope,
    /// Meaning, unit and limits, one line each.
    pub doc: &'static [&'static str],
}

/// RocketMQ's names of keys that count in another unit: the name, the key, and how many of
/// RocketMQ's units make one of ours.
pub const OTHER_UNITS: &[(&str, &str, u64)] =
    &[("registerNameServerPeriod", "register_period_secs", 1_000)];

macro_rules! config_keys {
    (
        $(
            section $section:literal;
            $(
                $(#[doc = $doc:literal])+
                $name:ident : $ty:ty as $kind:ident, $scope:ident = $default:expr, [$($alias:literal),*];
            )+
        )+
    ) => {
        /// All settings of one node. The defaults are a complete single-node system.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $($(
                $(#[doc = $doc])+
                pub $name: $ty,
            )+)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($( $name: $default, )+)+ }
            }
        }

        /// Every key, in the order of the reference file.
        pub const KEYS: &[KeyInfo] = &[
            $($(
                KeyInfo {
                    section: $section,
                    name: stringify!($name),
                    aliases: &[$($alias),*],
                    kind: Kind::$kind,
                    scope: Scope::$scope,
                    doc: &[$($doc),+],
                },
            )+)+
        ];
    };
}

config_keys! {
    section "What this node is";
    /// What this node does: `registry` (name server), `broker`, or both, separated by commas.
    roles: Roles as Text, Node = Roles::ALL, [];
    /// Name of the cluster. Letters, digits, `_ - % |`; at most 127 characters.
    cluster_name: String as Text, Shared = "DefaultCluster".into(), ["brokerClusterName"];
    /// Name of the broker. Letters, digits, `_ - % |`; at most 127 characters.
    broker_name: String as Text, Node = "broker-a".into(), ["brokerName"];
    /// The IP address that name servers and clients are told. Empty: to each client the address
    /// by which that client reached this node.
    broker_ip: String as Text, Node = String::new(), ["brokerIP1"];
    /// Name servers to register with, as `host:port;host:port`. Empty: the registry of this node.
    namesrv_addr: String as Text, Node = String::new(), ["namesrvAddr"];
    /// Directory of all data. One process at a time may use it.
    data_dir: String as Text, Node = "./data".into(), ["storePathRootDir"];

    section "Cluster";
    /// Name that the nodes of one cluster share; a node of another cluster is not let in.
    /// Letters, digits, `_ - % |`; at most 127 characters.
    cluster_id: String as Text, Agreed = String::new(), [];
    /// Number of this node in `peers`, 1 or more. Never give it to another node or data directory.
    node_id: u64 as Integer, Node = 1, [];
    /// All nodes of the cluster, this one too, as `id=host:port;id=host:port` with the address of
    /// their peer ports. Empty: a single node. The first start makes them the members; from then on
    /// these are addresses, every member's, and members are changed by `troupe cluster add`, `remove`
    /// and `replace`.
    peers: String as Text, First = String::new(), [];
    /// This node joins a cluster that is there: it has no part in any shard before
    /// `troupe cluster add` gives it one. The other keys are as on the nodes of that cluster, with
    /// this node at the end of `peers`.
    join: bool as Boolean, First = false, [];
    /// Broker names of the cluster's shards, separated by `;`. A node that has others than the nodes it
    /// meets is refused. Empty: as many as there are nodes at the first start, named broker-a, broker-b
    /// and so on.
    shards: String as Text, First = String::new(), [];
    /// Ports of this node's shards for RocketMQ clients, separated by `;`, one for each of
    /// `shards`. Empty: `listen_port`, `listen_port` + 10, `listen_port` + 20 and so on.
    shard_ports: String as Text, Node = String::new(), [];
    /// Replicas of each shard of a new cluster. 1 to 7, at most as many as there are nodes.
    replicas: u32 as Integer, First = 3, [];
    /// Secret that all nodes know, 16 characters or more. It may be empty only when all peers are
    /// on this machine or `peer_tls_*` files are given.
    cluster_secret: String as Text, Agreed = String::new(), [];
    /// File with the secret, instead of `cluster_secret`.
    cluster_secret_file: String as Text, Agreed = String::new(), [];
    /// Certificate chain of this node (PEM) for mutual TLS between nodes. It must name the host by
    /// which `peers` lists this node.
    peer_tls_cert_file: String as Text, Node = String::new(), [];
    /// Private key (PEM) that belongs to `peer_tls_cert_file`.
    peer_tls_key_file: String as Text, Node = String::new(), [];
    /// Certificate (PEM) of the authority that signed the certificates of all nodes.
    peer_tls_ca_file: String as Text, Node = String::new(), [];
    /// A leader sends its followers a sign of life so often. Milliseconds, 10 to 10000.
    heartbeat_interval_ms: u64 as Integer, Shared = 50, [];
    /// A follower that hears nothing from its leader for once to twice this time stands for
    /// election; later where the leader was late before. A killed process is noticed at once, by its
    /// connections: this is for machines and networks that fall silent. Milliseconds, at least three
    /// times `heartbeat_interval_ms`, at most 60000.
    election_timeout_ms: u64 as Integer, Shared = 1_000, [];
    /// Send consumers that read what is not in the memory of the leader any more to a follower, and
    /// let followers answer pulls with what is committed.
    slave_read_enable: bool as Boolean, Shared = false, ["slaveReadEnable"];
    /// Followers that are far behind are sent old entries of this node at this pace, and in
    /// addition twice what it writes meanwhile, so that producers and consumers do not wait behind
    /// them. Bytes a second; 0: no limit.
    catch_up_bytes_per_second: u64 as Integer, Node = 33_554_432, [];
    /// What this node's leaders send at most, all together, of snapshots for followers whose next
    /// entries are not there any more. Bytes a second; 0: no limit.
    snapshot_bytes_per_second: u64 as Integer, Node = 33_554_432, [];

    section "Where it listens";
    /// The address that every listener binds to.
    bind_host: String as Text, Node = "127.0.0.1".into(), ["bindAddress"];
    /// Allow a `bind_host` that is not a loopback address. Nothing authenticates clients yet:
    /// whoever reaches the ports may read, write and administer everything.
    allow_insecure_non_loopback: bool as Boolean, Node = false, [];
    /// Port of the broker for RocketMQ clients. 0: any free port.
    listen_port: u16 as Integer, Node = 10911, ["listenPort"];
    /// Also listen on `listen_port` - 2, the "VIP channel" of some clients. Not with port 0.
    vip_enable: bool as Boolean, Node = true, [];
    /// Port of the name server. 0: any free port.
    namesrv_listen_port: u16 as Integer, Node = 9876, ["namesrvListenPort"];
    /// Port for the other nodes of the cluster. Not opened on a single node.
    peer_listen_port: u16 as Integer, Node = 10912, ["haListenPort"];
    /// Serve the metrics page (HTTP).
    http_enable: bool as Boolean, Node = true, [];
    /// Port of the metrics page. 0: any free port.
    http_listen_port: u16 as Integer, Node = 8080, ["metricsPromExporterPort"];

    section "Durability";
    /// When an entry counts as stored: `SYNC_FLUSH` = after it was synced to disk (many messages
    /// share one sync), `ASYNC_FLUSH` = once the operating system has it.
    flush_disk_type: FlushDiskType as Text, Shared = FlushDiskType::SyncFlush, ["flushDiskType"];
    /// Whose copies an acknowledgement waits for: `SYNC_MASTER` = a majority of the replicas,
    /// `ASYNC_MASTER` = this node alone.
    broker_role: BrokerRole as Text, Shared = BrokerRole::SyncMaster, ["brokerRole"];
    /// With `ASYNC_FLUSH`: the longest time between two syncs. Milliseconds, 10 to 60000.
    flush_interval_ms: u64 as Integer, Shared = 500, ["flushIntervalCommitLog"];
    /// What tells one run of the machine from the next, and so a power cut from a killed process:
    /// after one, unsynced entries may be missing. Empty: the kernel's boot id. For tests of power
    /// cuts; never set it otherwise.
    boot_id: String as Text, Node = String::new(), [];
    /// A send whose entry this node has not written (`SYNC_FLUSH`: synced) after this time is
    /// answered FLUSH_DISK_TIMEOUT, code 10. Milliseconds, 100 to 600000.
    sync_flush_timeout_ms: u64 as Integer, Shared = 5_000, ["syncFlushTimeout"];
    /// A `SYNC_MASTER` send that too few replicas have after this time is answered
    /// FLUSH_SLAVE_TIMEOUT, code 12, or SLAVE_NOT_AVAILABLE, code 11, when none of them can be
    /// heard. Milliseconds, 100 to 600000.
    slave_timeout_ms: u64 as Integer, Shared = 3_000, ["slaveTimeout"];

    section "Topics and groups";
    /// Create a topic when somebody sends to it (from the template topic `TBW102`).
    auto_create_topic_enable: bool as Boolean, Shared = true, ["autoCreateTopicEnable"];
    /// Create a consumer group when somebody consumes with it.
    auto_create_subscription_group: bool as Boolean, Shared = true, ["autoCreateSubscriptionGroup"];
    /// Queues of the template topic, the upper bound for created topics. 1 to 1024.
    default_topic_queue_nums: u32 as Integer, Shared = 8, ["defaultTopicQueueNums"];
    /// Let topics be created for any type of message (`message.type=MIXED`).
    enable_mixed_message_type: bool as Boolean, Shared = false, ["enableMixedMessageType"];
    /// What clients may do on this broker: 2 = write, 4 = read, 6 = both.
    broker_permission: u32 as Integer, Shared = 6, ["brokerPermission"];
    /// Create `RMQ_SYS_TRACE_TOPIC` for the clients' message traces.
    trace_topic_enable: bool as Boolean, Shared = false, ["traceTopicEnable"];
    /// Name of that topic.
    trace_topic_name: String as Text, Shared = "RMQ_SYS_TRACE_TOPIC".into(), ["msgTraceTopicName"];
    /// Let consumers filter by SQL92 expressions over message properties. Not built yet: `true` is
    /// noted at the start, and such consumers are refused.
    enable_property_filter: bool as Boolean, Shared = false, ["enablePropertyFilter"];
    /// Delays of the delay levels 1, 2, 3 …: numbers with the unit s, m, h or d. 1 to 64 of them.
    message_delay_level: String as Text, Shared = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into(), ["messageDelayLevel"];
    /// Longest time for which a message may be delayed. Its log file, and all later ones, stay on the
    /// disk that long. Seconds, 1 to 31536000.
    timer_max_delay_secs: u64 as Integer, Shared = 259_200, ["timerMaxDelaySec"];
    /// Hold a pull that finds nothing as long as its client asks, at most 60 seconds. `false`: for
    /// `short_polling_ms`.
    long_polling_enable: bool as Boolean, Shared = true, ["longPollingEnable"];
    /// How long a pull is held without long polling. Milliseconds, 1 to 60000.
    short_polling_ms: u64 as Integer, Shared = 1_000, ["shortPollingTimeMills"];
    /// Longest message body, and longest batch body. Bytes, 1024 to 8388608.
    max_message_size: u32 as Integer, Shared = 4_194_304, ["maxMessageSize"];
    /// Most messages in one answer to a pull. 1 to 4096.
    max_transfer_count: u32 as Integer, Node = 32, ["maxTransferCountOnMessageInMemory"];
    /// Most bytes in one answer to a pull (the first message always fits). 1024 to 8388608.
    max_transfer_bytes: u32 as Integer, Node = 1_048_576, ["maxTransferBytesOnMessageInMemory"];

    section "Quotas";
    /// Most topics of a shard. Retry and dead-letter topics of its groups do not count. Beyond it
    /// requests that create topics are answered with code 1. 1 to 10000000.
    max_topics: u64 as Integer, Shared = 200_000, [];
    /// Sends create topics while the shard has fewer than this; beyond it they are answered with code
    /// 17. What is left up to `max_topics` is for operators. 0 to `max_topics`.
    auto_create_max_topics: u64 as Integer, Shared = 100_000, [];
    /// Most consumer groups of a shard; those that were deleted without their offsets count too.
    /// Beyond it requests that create groups are answered with code 1. 1 to 10000000.
    max_groups: u64 as Integer, Shared = 150_000, [];
    /// Consumers create groups while the shard has fewer than this; beyond it they are answered with
    /// code 26. What is left up to `max_groups` is for operators. 0 to `max_groups`.
    auto_create_max_groups: u64 as Integer, Shared = 100_000, [];
    /// Most delayed messages of a shard that wait; beyond it producers are answered with code 1. Messages
    /// that wait to be tried again may be as many besides. 1 to 1000000000.
    max_delayed_messages: u64 as Integer, Shared = 5_000_000, [];
    /// Most offsets and locks of a shard's groups, one for each group and queue. Beyond it groups keep
    /// those that they have and get no others: commits are answered with code 2. 1 to 1000000000.
    max_group_offsets: u64 as Integer, Shared = 5_000_000, [];
    /// Most memory for topics, groups, offsets, locks and delayed messages of a shard, as estimated.
    /// Beyond it nothing is created. Bytes, 16777216 or more.
    max_state_bytes: u64 as Integer, Shared = 1_073_741_824, [];
    /// Most topics that operators' requests create over one connection in a minute; beyond it they are
    /// answered with code 2. 1 to 10000000.
    connection_topics_per_minute: u32 as Integer, Node = 150_000, [];
    /// Most topics that sends over one connection create in a minute; beyond it they are answered with
    /// code 2. 1 to 10000000.
    connection_auto_topics_per_minute: u32 as Integer, Node = 5_000, [];
    /// Most groups that operators' requests create over one connection in a minute; beyond it they are
    /// answered with code 2. 1 to 10000000.
    connection_groups_per_minute: u32 as Integer, Node = 150_000, [];
    /// Most groups that consumers create over one connection in a minute; beyond it pulls are answered
    /// with code 2, and heartbeats leave out groups. 1 to 10000000.
    connection_auto_groups_per_minute: u32 as Integer, Node = 5_000, [];
    /// Most delayed messages that are sent over one connection in a minute; beyond it producers are
    /// answered with code 1. Messages that wait to be tried again do not count. 1 to 10000000.
    connection_delayed_messages_per_minute: u32 as Integer, Node = 1_000_000, [];

    section "Retention and disk";
    /// Messages older than this may be deleted. Hours, 1 to 876000.
    file_reserved_hours: u32 as Integer, Shared = 72, ["fileReservedTime"];
    /// Messages beyond this total size may be deleted, the oldest first. Bytes; 0: no limit.
    retention_bytes: u64 as Integer, Shared = 0, [];
    /// Refuse producers when the disk is fuller than this. Percent, 10 to 99. (RocketMQ's
    /// `diskMaxUsedSpaceRatio`, from which a stock broker deletes what is expired at any hour, has
    /// no effect: that is always so here.)
    disk_space_warning_level_ratio: u32 as Integer, Node = 90, ["diskSpaceWarningLevelRatio", "disk_max_used_space_ratio"];
    /// Refuse producers when less than this is free on the disk. Bytes; 0: off.
    disk_min_free_bytes: u64 as Integer, Node = 1_073_741_824, [];
    /// Size of one log file, the unit that retention deletes where this node leads. Bytes, 1048576 to 1073741824.
    log_segment_bytes: u64 as Integer, Shared = 67_108_864, ["mappedFileSizeCommitLog", "mapedFileSizeCommitLog"];

    /// Log files are written past the page cache, where the file system can do that. A third less
    /// CPU per message stored; a consumer that reads further behind than about 100 MB reads from
    /// the disk the first time. `false` leaves recent files in the page cache.
    direct_io: bool as Boolean, Node = true, [];

    section "Memory";
    /// Cache of blocks read from disk. Bytes, 1048576 or more.
    block_cache_bytes: u64 as Integer, Node = 67_108_864, [];
    /// Entries not yet written to sorted files, per column family; the logs of a node's shards share
    /// it. Bytes, 1048576 or more.
    memtable_bytes: u64 as Integer, Node = 33_554_432, [];
    /// Newest entries kept for consumers that are up to date. Bytes, 1048576 or more.
    tail_cache_bytes: u64 as Integer, Node = 33_554_432, [];
    /// Messages accepted from clients and not yet answered; beyond it producers get the answer
    /// "system busy". Bytes, at least twice `max_message_size`.
    max_inflight_bytes: u64 as Integer, Node = 67_108_864, [];
    /// Memory comes in pages of 2 MiB where the kernel offers them. About 4 % less CPU per message,
    /// and up to twice the memory: a page is taken whole however little of it is used.
    huge_pages: bool as Boolean, Node = false, [];

    section "Connections";
    /// Longest frame of the remoting protocol, its length field included. Bytes; at least
    /// `max_message_size` + 65536, at most 16777216 (what Java clients accept).
    max_frame_bytes: u32 as Integer, Node = 16_777_216, [];
    /// Most open connections of clients. 1 to 1000000. Fewer are let in when the limit of open files
    /// leaves no room for them; the log says so at the start.
    max_connections: u32 as Integer, Node = 20_000, [];
    /// Most open connections from one address. 0: as `max_connections` when listening on
    /// loopback, else 1000.
    max_connections_per_address: u32 as Integer, Node = 0, [];
    /// Most unanswered requests of one connection. 1 to 1000000.
    max_pending_requests: u32 as Integer, Node = 4_096, [];
    /// Close a connection on which nothing was read or written for so long. Seconds, 1 to 86400.
    idle_timeout_secs: u64 as Integer, Node = 120, ["serverChannelMaxIdleTimeSeconds"];
    /// Close a connection whose frame, once begun, is not complete after this time.
    /// Seconds, 1 to 86400.
    frame_deadline_secs: u64 as Integer, Node = 30, [];
    /// Close a connection that takes none of its answers for 5 s while more than this many bytes wait,
    /// or at eight times as many. At half of it, and at 1 MiB, nothing more is read from the
    /// connection. Bytes, at least 65536.
    write_buffer_limit_bytes: u64 as Integer, Node = 8_388_608, [];
    /// Threads that serve connections. 0: chosen from the number of processors (with less than
    /// four, one that also runs the shard); at most 256.
    gateway_threads: u32 as Integer, Node = 0, [];
    /// Threads that read old messages from disk. 0: chosen from the number of processors;
    /// at most 256.
    read_threads: u32 as Integer, Node = 0, [];

    section "Name service";
    /// Time between two registrations of the broker with every name server. Seconds, 1 to 60.
    register_period_secs: u64 as Integer, Shared = 30, [];
    /// The registry forgets a broker that was silent for so long. Seconds, more than
    /// `register_period_secs`, at most 3600.
    broker_expiry_secs: u64 as Integer, Shared = 120, [];

    section "Logs and metrics";
    /// Level `error`, `warn`, `info`, `debug` or `trace`, or directives such as
    /// `info,troupemq::raft=debug`.
    log_level: String as Text, Node = "info".into(), [];
    /// `text` or `json`, one line an event on standard error.
    log_format: LogFormat as Text, Node = LogFormat::Text, [];
    /// Topics with metrics of their own; all others share the label `_other`. 1 to 100000.
    metrics_max_topics: u32 as Integer, Node = 1_000, [];
}
