//! Fail points: places in the write path at which a test ends the process, as `kill -9` would
//! (docs/decisions/0025). They are in every build, and a test decides what happens at them; in a
//! server nobody does, and a point costs one load of a pointer that is null.

use std::sync::OnceLock;

/// What is done at a fail point, on the thread that passes it.
pub type Hook = fn(FailPoint);

static HOOK: OnceLock<Hook> = OnceLock::new();

/// From now on `hook` is called at each fail point, for the rest of this process. False when there
/// is one already. For tests.
pub fn on_fail_points(hook: Hook) -> bool {
    HOOK.set(hook).is_ok()
}

/// The thread passes a fail point.
#[inline]
pub(crate) fn pass(point: FailPoint) {
    if let Some(hook) = HOOK.get() {
        hook(point);
    }
}

macro_rules! points {
    ($($(#[$meaning:meta])* $point:ident = $name:literal,)*) => {
        /// A place in the write path. See the module text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FailPoint {
            $($(#[$meaning])* $point,)*
        }

        impl FailPoint {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$point,)*];

            /// What it is called: the work, and what of it was just done.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// Entries and hard state are in a batch; nothing is written.
    Append = "append",
    /// The batch is in RocksDB's log, and synced where that was asked for. Readers do not see it.
    AppendWritten = "append-written",
    /// Readers see the entries; the synced marks do not name them.
    AppendVisible = "append-visible",
    /// Marks are written; nobody was told.
    AppendMarked = "append-marked",
    /// The same of a batch that replaced entries of another term.
    OverwriteWritten = "overwrite-written",
    /// Raft is told next that its entries are stored.
    AppendTold = "append-told",

    /// RocksDB's log is synced next.
    Sync = "sync",
    /// It is synced; the marks do not say so.
    Synced = "synced",
    /// The same of the thread that syncs beside the appends.
    SyncApart = "sync-apart",
    SyncedApart = "synced-apart",
    /// Marks are written after such a sync.
    MarkedApart = "marked-apart",
    /// The file of marks was written, and not synced.
    MarksWritten = "marks-written",
    MarksSynced = "marks-synced",
    /// Zeros are behind the end of RocksDB's log, and not synced.
    ZerosWritten = "zeros-written",
    ZerosSynced = "zeros-synced",

    /// Rows of the state, with the applied index, are written next.
    State = "state",
    /// They are in memory.
    StateWritten = "state-written",
    /// The shard is told next that it may answer.
    StateTold = "state-told",
    /// Log and marks are synced; the rows go into tables next.
    StateFlush = "state-flush",
    StateFlushed = "state-flushed",
    /// Applied messages are shown to readers next, and their senders answered.
    Publish = "publish",
    /// A request is answered next.
    Answer = "answer",

    /// The state is in tables; the log's new begin is not written.
    Trim = "trim",
    /// The begin is written and synced; no file was deleted.
    TrimWritten = "trim-written",
    /// Files are deleted.
    TrimDeleted = "trim-deleted",

    /// A snapshot takes the place of log and state next.
    Install = "install",
    /// It did, in one synced batch.
    InstallWritten = "install-written",
    /// Marks are written; files of the old log are deleted next.
    InstallMarked = "install-marked",
    InstallDeleted = "install-deleted",

    /// A good copy of a bad entry is written next.
    Mend = "mend",
    MendWritten = "mend-written",
    /// That the replica has regained what it had lost is written next.
    Regain = "regain",
    RegainWritten = "regain-written",
    /// The database is condemned: the file that says so is written, and not synced.
    CondemnWritten = "condemn-written",
    CondemnSynced = "condemn-synced",

    /// `FORMAT` is written beside its place.
    FormatWritten = "format-written",
    FormatRenamed = "format-renamed",
    /// Links to the files of the database are made beside their place.
    KeepLinked = "keep-linked",
    KeepRenamed = "keep-renamed",
    /// RocksDB is open; nothing was checked.
    Opened = "opened",
    /// What was checked, and whose start this is, is written next.
    Begin = "begin",
    BeginWritten = "begin-written",
    BeginMarked = "begin-marked",
    /// `CREATED` is written.
    Created = "created",
    /// The links have another name, under which they go.
    ReleaseRenamed = "release-renamed",
    Released = "released",
    /// An opening that was cut off is taken back: the database has made room for the links.
    UndoMoved = "undo-moved",
    UndoRenamed = "undo-renamed",
    /// Log and state of a damaged shard are emptied; files of the log are deleted next.
    RepairEmptied = "repair-emptied",
    /// The table with a bad entry is deleted; what is kept of it is not written yet.
    RepairDeleted = "repair-deleted",
    RepairWritten = "repair-written",
    /// The damaged database has its name aside; what is left of it is removed next.
    AsideMoved = "aside-moved",
    AsideDone = "aside-done",

    /// Log, state and marks are synced; the store is not marked clean.
    Close = "close",
    Closed = "closed",

    /// The identity of a cluster's node is written beside its place.
    IdentityWritten = "identity-written",
    IdentityRenamed = "identity-renamed",
    /// The list of nodes that were let in is written beside its place.
    NodesWritten = "nodes-written",
    NodesRenamed = "nodes-renamed",
    /// How far the scrub is.
    ScrubWritten = "scrub-written",
    ScrubRenamed = "scrub-renamed",
    /// The name server's KV configuration.
    KvWritten = "kv-written",
    KvRenamed = "kv-renamed",
}
