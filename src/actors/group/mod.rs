//! The group actor.
