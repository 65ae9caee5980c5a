//! Reads of stored messages, on the read pool.

use crate::actors::shard::handle::ReadError;
use crate::actors::shard::ShardHandle;
use crate::gateway::connection::Conn;
use crate::gateway::read_pool::PoolError;
use crate::model::append::{ReadBatch, ReadSpec};
use crate::model::QueueKey;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a pull waits for the good copy of a bad entry, and looks whether it came.
const MENDED_WITHIN: Duration = Duration::from_secs(5);
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// Reads on the read pool. What begins with a bad entry is read again while another replica may give a good
/// copy.
pub(super) async fn read_stored(
    conn: &Rc<Conn>,
    shard: ShardHandle,
    key: QueueKey,
    offset: u64,
    spec: ReadSpec,
) -> Result<Result<ReadBatch, ReadError>, PoolError> {
    let reads = conn.shared().reads.clone();
    let began = Instant::now();
    loop {
        let (shard, spec) = (shard.clone(), spec.clone());
        let read = move || shard.read_stored(key, offset, &spec);
        match reads.run(read).await? {
            Err(ReadError::BadEntry { .. }) if began.elapsed() < MENDED_WITHIN => {
                tokio::time::sleep(LOOKS_EVERY).await;
            }
            done => return Ok(done),
        }
    }
}
