//! The RocketMQ remoting protocol: frames, headers, codes, bodies.
