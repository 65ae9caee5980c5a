//! Consumers: one a queue; each lives for a while, commits now and then, and the next one goes on
//! where the broker says.

use super::super::history::{id_of, Got, Place, Session, TOPICS};
use super::super::rng::Rng;
use super::route::Routes;
use super::{queue_ext, Shared};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};
use troupemq::wire::remoting::code::{request, response};
use troupemq::wire::remoting::Val;

const GROUP: &str = "cluster-tests";
/// A pull may be held for so long.
const SUSPEND: Duration = Duration::from_secs(1);
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Consumes one queue, session after session, until everything ends.
pub async fn consume(place: Place, routes: Rc<Routes>, shared: Arc<Shared>, mut rng: Rng) {
    while !shared.end.load(Ordering::Relaxed) {
        let Some(from) = committed(place, &routes).await else {
            routes.hurry();
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let life = Duration::from_millis(rng.between(4_000, 15_000));
        // One in two ends without a word, as after a crash.
        let says_goodbye = rng.below(2) == 0;
        let session = live(place, from, &routes, &shared, life, says_goodbye).await;
        shared.history().sessions.push(session);
    }
}

async fn committed(place: Place, routes: &Routes) -> Option<i64> {
    let addr = routes.master(place.shard.into())?;
    let [topic, queue] = queue_ext(place);
    let ext = [("consumerGroup", Val::Str(GROUP)), topic, queue];
    let code = request::QUERY_CONSUMER_OFFSET;
    match routes.client.call(&addr, code, &ext, &[]).await {
        Ok(answer) => answer.req_i64("offset").ok(),
        Err(e) if e.code() == Some(response::QUERY_NOT_FOUND) => Some(0),
        Err(_) => None,
    }
}

async fn commit(place: Place, offset: i64, routes: &Routes, shared: &Shared) -> bool {
    if shared.uncommitted.load(Ordering::Relaxed) {
        return false;
    }
    let Some(addr) = routes.master(place.shard.into()) else {
        return false;
    };
    let [topic, queue] = queue_ext(place);
    let ext = [
        ("consumerGroup", Val::Str(GROUP)),
        topic,
        queue,
        ("commitOffset", Val::Int(offset)),
    ];
    let code = request::UPDATE_CONSUMER_OFFSET;
    routes.client.call(&addr, code, &ext, &[]).await.is_ok()
}

async fn live(
    place: Place,
    from: i64,
    routes: &Routes,
    shared: &Shared,
    life: Duration,
    says_goodbye: bool,
) -> Session {
    let mut session = Session {
        place,
        from,
        got: Vec::new(),
        committed: Vec::new(),
        moved: 0,
    };
    let born = Instant::now();
    let mut next = from;
    let mut last_commit = (from, Instant::now());
    while born.elapsed() < life && !shared.end.load(Ordering::Relaxed) {
        let Some(addr) = routes.master(place.shard.into()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let at = (
            TOPICS[usize::from(place.topic)],
            i32::from(place.queue),
            next,
        );
        match routes.client.pull(&addr, GROUP, at, "*", SUSPEND).await {
            Ok(pulled) if pulled.offset_moved => {
                session.moved += 1;
                next = pulled.next;
            }
            Ok(pulled) => {
                for message in &pulled.messages {
                    session.got.push(Got {
                        place,
                        offset: message.queue_offset,
                        id: id_of(&message.body),
                        at: shared.now(),
                    });
                }
                next = pulled.next;
                shared.positions().insert(place, next);
            }
            Err(_) => {
                routes.hurry();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        if next > last_commit.0 && last_commit.1.elapsed() >= COMMIT_EVERY {
            last_commit.1 = Instant::now();
            if commit(place, next, routes, shared).await {
                last_commit.0 = next;
                session.committed.push(next);
            }
        }
    }
    if says_goodbye && next > last_commit.0 && commit(place, next, routes, shared).await {
        session.committed.push(next);
    }
    session
}
