//! The queue actor.
