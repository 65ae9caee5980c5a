use super::*;
use std::time::Duration;

fn metrics(max_topics: usize) -> Metrics {
    Metrics::new(MetricsOptions {
        max_topics,
        request_codes: &[(310, "SEND_MESSAGE_V2"), (11, "PULL_MESSAGE")],
    })
}

#[test]
fn the_page_has_every_family() {
    let m = metrics(10);
    let t = m.topic("T");
    t.messages_in.inc_by(3);
    t.bytes_in.inc_by(300);
    t.messages_out.inc();
    t.bytes_out.inc_by(150);
    m.request(310).requests.inc_by(2);
    m.request(310).errors.inc();
    m.error_response(17);
    m.error_response(17);
    m.connections("broker").set(5);
    m.connections_opened("broker").inc();
    m.connections_closed("idle").inc();
    m.queue_length("parked_pulls").set(7);
    m.bad_input("frame_length").inc();
    m.send_latency.observe(Duration::from_millis(1));
    m.store.entries_appended.inc();
    m.store.bytes_appended.inc_by(1000);
    m.store.syncs.inc();
    m.store.sync_micros.inc_by(3000);
    m.store.tail_cache_bytes.set(99);
    let shard = m.shard("broker-a");
    shard.term.set(4);
    shard.leader.set(1);
    let page = m.encode();
    for line in [
        "troupe_messages_in_total{topic=\"T\"} 3",
        "troupe_message_in_bytes_total{topic=\"T\"} 300",
        "troupe_messages_out_total{topic=\"T\"} 1",
        "troupe_message_out_bytes_total{topic=\"T\"} 150",
        "troupe_requests_total{code=\"310\",name=\"SEND_MESSAGE_V2\"} 2",
        "troupe_request_errors_total{code=\"310\",name=\"SEND_MESSAGE_V2\"} 1",
        "troupe_error_responses_total{code=\"17\"} 2",
        "troupe_connections{name=\"broker\"} 5",
        "troupe_connections_opened_total{name=\"broker\"} 1",
        "troupe_connections_closed_total{name=\"idle\"} 1",
        "troupe_queue_length{name=\"parked_pulls\"} 7",
        "troupe_bad_input_total{name=\"frame_length\"} 1",
        "troupe_send_latency_seconds_count 1",
        "troupe_pull_latency_seconds_count 0",
        "troupe_store_entries_appended_total 1",
        "troupe_store_appended_bytes_total 1000",
        "troupe_store_syncs_total 1",
        "troupe_store_sync_microseconds_total 3000",
        "troupe_store_tail_cache_bytes 99",
        "troupe_raft_term{shard=\"broker-a\"} 4",
        "troupe_raft_leader{shard=\"broker-a\"} 1",
        "troupe_raft_applied_index{shard=\"broker-a\"} 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} missing in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn topics_beyond_the_limit_share_a_label() {
    let m = metrics(2);
    for i in 0..100 {
        m.topic(&format!("T{i}")).messages_in.inc();
    }
    let page = m.encode();
    assert!(
        page.contains("troupe_messages_in_total{topic=\"_other\"} 98"),
        "{page}"
    );
    assert_eq!(page.matches("troupe_messages_in_total{").count(), 3);
    m.topic("T0").messages_in.inc();
    assert!(m
        .encode()
        .contains("troupe_messages_in_total{topic=\"T0\"} 2"));
    m.forget_topic("T0");
    m.forget_topic("T99");
    m.topic("New").messages_in.inc();
    let page = m.encode();
    assert!(
        page.contains("topic=\"New\"") && !page.contains("topic=\"T0\""),
        "{page}"
    );
}

#[test]
fn labels_from_clients_are_bounded_and_stay_in_their_quotes() {
    let m = metrics(10);
    for code in 0..10_000 {
        m.request(code).requests.inc();
        m.error_response(code);
    }
    m.topic("a\"} 1\ntroupe_forged 1\\").messages_in.inc();
    let page = m.encode();
    assert!(
        page.contains("troupe_requests_total{code=\"other\",name=\"OTHER\"} 9998"),
        "{page}"
    );
    assert_eq!(page.matches("troupe_requests_total{").count(), 3);
    assert_eq!(page.matches("troupe_error_responses_total{").count(), 129);
    assert!(!page.contains("\ntroupe_forged"), "{page}");
}

#[test]
fn two_nodes_in_one_process_do_not_share() {
    let (a, b) = (metrics(1), metrics(1));
    a.topic("T").messages_in.inc();
    assert_eq!(b.topic("T").messages_in.get(), 0);
}

/// Lines of samples by family, in the order of the page.
fn families(page: &str) -> Vec<Vec<&str>> {
    let mut all: Vec<Vec<&str>> = Vec::new();
    for line in page.lines() {
        match line.starts_with('#') {
            true => all.push(Vec::new()),
            false => all.last_mut().unwrap().push(line),
        }
    }
    all
}

#[test]
fn the_order_is_the_same_in_every_process_and_at_every_look() {
    let filled = |numbers: &[i32]| {
        let m = metrics(1_000);
        for n in numbers {
            m.topic(&format!("T{n}")).messages_in.inc();
            m.error_response(*n);
            m.shard(&format!("broker-{n}")).term.set(1);
            m.replica_lag("broker-1", *n as u64).set(1);
            m.peer_link(*n as u64).set(1);
        }
        m.request(11).requests.inc();
        m.request(310).requests.inc();
        m.encode()
    };
    let up: Vec<i32> = (1..60).collect();
    let down: Vec<i32> = (1..60).rev().collect();
    let page = filled(&up);
    assert_eq!(page, filled(&down));
    for family in families(&page) {
        if !family.iter().any(|line| line.contains("_bucket{")) {
            assert!(family.is_sorted(), "{family:?}");
        }
    }
    // The buckets of a histogram are in the order of their bounds.
    assert!(
        page.contains("le=\"0.000032\"} 0\ntroupe_send_latency_seconds_bucket{le=\"0.000064\"} 0")
    );
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn what_carried_nothing_has_no_row_and_takes_no_place() {
    let m = metrics(2);
    for n in 0..5_000 {
        m.topic(&format!("%RETRY%g{n}"));
    }
    let page = m.encode();
    assert!(
        !page.contains("%RETRY%") && !page.contains("topic="),
        "{page}"
    );
    assert!(!page.contains("code=\"310\""), "{page}");
    assert!(page.lines().count() < 300, "{}", page.lines().count());
    // Every family is named all the same.
    assert!(page.contains("# TYPE troupe_messages_in counter"), "{page}");
    m.topic("T").messages_out.inc();
    m.topic("%RETRY%g7").messages_in.inc();
    let page = m.encode();
    for line in [
        "troupe_messages_in_total{topic=\"T\"} 0",
        "troupe_messages_out_total{topic=\"T\"} 1",
        "troupe_messages_in_total{topic=\"%RETRY%g7\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} missing in\n{page}");
    }
    assert_eq!(page.matches("troupe_messages_in_total{").count(), 2);
}

#[test]
fn the_sum_of_the_others_never_falls() {
    let m = metrics(1);
    for topic in ["a", "b", "c"] {
        m.topic(topic).messages_in.inc_by(5);
    }
    let other = "troupe_messages_in_total{topic=\"_other\"} 10";
    assert!(m.encode().contains(other));
    m.forget_topic("b");
    m.forget_topic("a");
    assert!(m.encode().contains(other));
    // One that counts with the others stays there, also when a place is free.
    assert!(!m.encode().contains("topic=\"c\""));
}
