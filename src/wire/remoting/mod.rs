//! The RocketMQ remoting protocol: frames, headers, codes, bodies.

pub mod binary_header;
pub mod body;
pub mod code;
pub mod encode;
pub mod frame;
pub mod header;
pub mod json_header;
pub mod requests;

pub use encode::{
    encode_pull_head, encode_pull_response, encode_request, encode_request_head, encode_response,
    encode_response_head, encode_send_response, PullReply, RequestHeader, ResponseHeader,
    SendReply, Val,
};
pub use frame::{split_frame, FrameError, FrameLimits, HeaderFormat, RawFrame};
pub use header::{Command, DecodeError, ExtFields, HeaderError, Language};
