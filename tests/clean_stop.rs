//! A clean stop keeps what clients were told or could count on.

use actix_rt::System;
use troupemq::actors::shard::handle::QueueBounds;
use troupemq::config::Config;
use troupemq::model::command::MetaOp;
use troupemq::model::group::GroupConfig;
use troupemq::model::topic::TopicConfig;
use troupemq::model::{QueueKey, TopicId};
use troupemq::node::Broker;

fn config(dir: &std::path::Path) -> Config {
    let mut config = Config {
        data_dir: dir.display().to_string(),
        listen_port: 0,
        vip_enable: false,
        http_enable: false,
        // The file system of a test machine may be full of other things.
        disk_space_warning_level_ratio: 99,
        ..Config::default()
    };
    config.roles.registry = false;
    config
}

#[test]
fn a_one_way_commit_just_before_the_stop_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    System::new().block_on(async {
        let start = || Broker::builder().config(config(dir.path())).start();
        let broker = start().await.expect("starts");
        let shard = broker.shard().expect("a broker").clone();
        let put = MetaOp::PutTopic(TopicConfig::new("t", 1, 6));
        shard.command(put).await.expect("topic");
        let put = MetaOp::PutGroup(GroupConfig::with_defaults("g"));
        shard.command(put).await.expect("group");
        let id = TopicId(shard.meta().topic("t").expect("there").id);
        drop(shard);
        let key = QueueKey::new(id, 0);
        let groups = broker.groups().expect("a broker").clone();
        groups.commit_offset("g", key, 0, QueueBounds::default());
        drop(groups);
        broker.stop().await;

        let broker = start().await.expect("starts again");
        let groups = broker.groups().expect("a broker").clone();
        assert_eq!(groups.query_offset("g", key).await, Ok(Some(0)));
        drop(groups);
        broker.stop().await;
    });
}
