//! Brokers inside somebody else's actix System: the example's application, and two at once.

#[path = "../examples/embed_in_actix.rs"]
#[allow(dead_code)] // its `main`
mod example;

use example::{application, config};
use std::path::Path;
use std::time::Duration;
use troupemq::client::{Client, Outgoing};
use troupemq::config::Config;
use troupemq::node::Broker;

/// The example's, on a disk that may be full for other reasons.
fn small(dir: &Path) -> Config {
    Config {
        disk_space_warning_level_ratio: 99,
        disk_min_free_bytes: 0,
        ..config(dir)
    }
}

#[test]
fn an_application_writes_and_reads_through_the_handles() {
    let dir = tempfile::tempdir().expect("tempdir");
    actix_rt::System::new().block_on(async {
        let first = application(small(dir.path()), &["a", "b"])
            .await
            .expect("works");
        assert_eq!(
            (first.offsets, first.lines),
            (vec![0, 1], vec!["a".into(), "b".into()])
        );
        assert_eq!(first.brokers, ["broker-a"]);
        assert!(first.groups_online.is_empty());
        assert!(first.listening.broker.is_some_and(|a| a.port() > 0));

        // In the same System, on the same directory: the first one let go of everything.
        let second = application(small(dir.path()), &["c"])
            .await
            .expect("works again");
        assert_eq!(second.offsets, [2]);
        assert_eq!(second.lines, ["a", "b", "c"]);
    });
}

#[test]
fn two_brokers_live_in_one_process() {
    let dirs = [
        tempfile::tempdir().expect("tempdir"),
        tempfile::tempdir().expect("tempdir"),
    ];
    actix_rt::System::new().block_on(async {
        let mut brokers = Vec::new();
        for (n, dir) in dirs.iter().enumerate() {
            let mut config = small(dir.path());
            config.broker_name = format!("broker-{n}");
            brokers.push(
                Broker::builder()
                    .config(config)
                    .start()
                    .await
                    .expect("starts"),
            );
        }
        let mut clients = Vec::new();
        for (n, broker) in brokers.iter().enumerate() {
            let registry = broker
                .listening()
                .registry
                .expect("a name server")
                .to_string();
            let client = Client::new(vec![registry], Duration::from_secs(60));
            let cluster = client.cluster_info().await.expect("answers");
            let names: Vec<_> = cluster.broker_addr_table.keys().cloned().collect();
            assert_eq!(names, [format!("broker-{n}")], "each knows itself alone");
            let addr = broker.listening().broker.expect("a broker").to_string();
            client
                .create_topic(&addr, &format!("only-{n}"), 1, 6)
                .await
                .expect("is created");
            clients.push((client, addr));
        }
        for (n, (client, addr)) in clients.iter().enumerate() {
            for i in 0..10 + n as i64 {
                let topic = format!("only-{n}");
                let message = Outgoing {
                    topic: &topic,
                    body: b"x",
                    properties: &[],
                };
                let sent = client.send(addr, 0, message).await.expect("is stored");
                assert_eq!(sent.queue_offset, i);
            }
            let meta = brokers[n].shard().expect("a shard").meta();
            assert!(meta.topic(&format!("only-{n}")).is_some());
            assert!(
                meta.topic(&format!("only-{}", 1 - n)).is_none(),
                "nothing is shared"
            );
        }
        // One stops; the other one goes on.
        brokers.remove(0).stop().await;
        let (client, addr) = &clients[1];
        let message = Outgoing {
            topic: "only-1",
            body: b"x",
            properties: &[],
        };
        assert_eq!(
            client
                .send(addr, 0, message)
                .await
                .expect("goes on")
                .queue_offset,
            11
        );
        let (client, addr) = &clients[0];
        assert!(
            client.max_offset(addr, "only-0", 0).await.is_err(),
            "the first one is gone"
        );
        brokers.remove(0).stop().await;
    });
}
