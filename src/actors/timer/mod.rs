//! The timer actor.
