//! Wiring of one node.
