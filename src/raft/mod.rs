//! tikv raft as a core, the ack table and the log window. The only room that names raft.
