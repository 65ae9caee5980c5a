//! The registry behind its handle.

use super::core::{RegistryCore, RegistryLimits};
use super::handle::Registry;
use super::kv::KvTable;
use crate::actors::link::ConnId;
use crate::model::outcome::Refusal;
use crate::routing::{BrokerRegistration, DataVersion, RouteTopic};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

fn broker() -> BrokerRegistration {
    let topic = |name: &str| RouteTopic {
        name: name.into(),
        read_queues: 4,
        write_queues: 4,
        perm: 6,
        sys_flag: 0,
        order: false,
    };
    BrokerRegistration {
        cluster: "C".into(),
        broker_name: "a".into(),
        broker_id: 0,
        addr: crate::routing::AdvertisedAddr::Listening(10911),
        ha_addr: String::new(),
        zone: None,
        enable_acting_master: false,
        heartbeat_timeout_ms: None,
        data_version: DataVersion::default(),
        topics: Some(vec![topic("T"), topic("U")]),
        filter_servers: vec![],
        term: Some(1),
        troupe: true,
    }
}

#[test]
fn changes_are_visible_when_answered_and_kv_is_stored_first() {
    let stored: Arc<Mutex<Vec<String>>> = Arc::default();
    let broken = Arc::new(AtomicBool::new(false));
    let (disk, fails) = (stored.clone(), broken.clone());
    actix_rt::System::new().block_on(async move {
        let core = RegistryCore::new(KvTable::default(), RegistryLimits::default(), false);
        let store = Box::new(move |text: &str| {
            if fails.load(Ordering::Relaxed) {
                return Err("disk full".to_owned());
            }
            disk.lock().push(text.to_owned());
            Ok(())
        });
        let registry = Registry::start(core, &actix_rt::Arbiter::current(), store);
        registry
            .register(broker(), Some(ConnId(1)))
            .await
            .expect("registered");
        assert_eq!(
            registry.route("T").expect("known").queues[0].write_queues,
            4
        );
        assert!(registry.route("%RETRY%g").is_some());
        assert_eq!(registry.wipe_write_perm("a".into()).await, Ok(2));
        assert_eq!(registry.route("T").expect("known").queues[0].perm, 4);

        registry
            .put_kv("N".into(), "k".into(), "v".into())
            .await
            .expect("stored");
        assert_eq!(registry.kv("N", "k").as_deref(), Some("v"));
        assert_eq!(
            stored.lock().last().expect("stored"),
            r#"{"configTable":{"N":{"k":"v"}}}"#
        );
        broken.store(true, Ordering::Relaxed);
        let refused = registry.put_kv("N".into(), "k".into(), "w".into()).await;
        assert!(matches!(refused, Err(Refusal::Unavailable(_))));
        assert_eq!(
            registry.kv("N", "k").as_deref(),
            Some("v"),
            "what is not stored is not shown"
        );
        registry
            .delete_kv("N".into(), "absent".into())
            .await
            .expect("nothing to do");
        broken.store(false, Ordering::Relaxed);
        registry
            .delete_kv("N".into(), "k".into())
            .await
            .expect("stored");
        assert_eq!(registry.kv("N", "k"), None);
        assert_eq!(registry.kv_list("N").map(|l| l.len()), Some(0));

        registry.conn_closed(ConnId(1));
        registry
            .heartbeat("C".into(), "a".into(), "x".to_owned())
            .await
            .expect("after the close");
        assert_eq!(registry.route("T"), None);
    });
}
