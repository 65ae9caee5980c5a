//! A small remoting client for the command line, benches and tests.
