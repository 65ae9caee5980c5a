//! Names, ids, positions, policies and errors every other room speaks of. No I/O, no clock.
