//! The golden vectors: bytes of real clients and servers, decoded and, where the encoding is
//! determined, encoded again to the same bytes. The files also seed the mutation test.

#[path = "vectors/bodies.rs"]
mod bodies;
#[path = "vectors/corpus.rs"]
mod corpus;
#[path = "vectors/frames.rs"]
mod frames;
#[path = "vectors/load.rs"]
mod load;
#[path = "vectors/messages.rs"]
mod messages;
