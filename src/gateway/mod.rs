//! The only room that speaks to clients.
