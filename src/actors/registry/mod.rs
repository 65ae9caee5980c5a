//! The registry actor.
