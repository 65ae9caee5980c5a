#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| troupemq::wire::fuzzing::json_bodies(data));
