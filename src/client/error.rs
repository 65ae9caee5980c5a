//! What can go wrong between a client and a server.

use crate::wire::remoting::code;

/// Why a request did not succeed. Texts from the server are shown as they came: escape them
/// before they reach a terminal or a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("cannot connect to {addr}: {why}")]
    Connect {
        /// The address tried.
        addr: String,
        /// The operating system's reason.
        why: String,
    },
    /// The connection ended before the answer came; the request may or may not have been done.
    #[error("connection to {addr} closed: {why}")]
    Closed {
        /// The peer.
        addr: String,
        /// Who closed it and why, as far as known.
        why: String,
    },
    /// No answer in time; the request may or may not have been done.
    #[error("{addr} did not answer {} in {ms} ms", code::request::name(*.request))]
    Timeout {
        /// The peer.
        addr: String,
        /// Request code.
        request: i32,
        /// The time waited, in milliseconds.
        ms: u64,
    },
    /// The server answered with a code other than success.
    #[error("{addr} refused {}: code {code} {}{}", code::request::name(*.request), code::response::name(*.code), note(.remark))]
    Refused {
        /// The peer.
        addr: String,
        /// Request code.
        request: i32,
        /// Response code.
        code: i32,
        /// The server's text.
        remark: String,
    },
    /// The server answered something that is not an answer to this request.
    #[error("{addr} gave a strange answer to {}: {what}", code::request::name(*.request))]
    Strange {
        /// The peer.
        addr: String,
        /// Request code.
        request: i32,
        /// What is wrong with it.
        what: String,
    },
    /// Too many requests of this connection wait for their answers.
    #[error("too many requests to {addr} wait for an answer")]
    TooManyPending {
        /// The peer.
        addr: String,
    },
    /// The route has no broker that could serve the request.
    #[error("no broker of topic {topic} {can}")]
    NoBroker {
        /// The topic.
        topic: String,
        /// What none of them can do.
        can: &'static str,
    },
    /// None of the name servers answered, or what answered is no name server.
    #[error("no name server answers: {0}")]
    NameServer(Box<ClientError>),
    /// There is no name server to ask.
    #[error("no name server address was given")]
    NoNameServer,
}

fn note(remark: &str) -> String {
    match remark {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

impl ClientError {
    /// The response code, when the server refused.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NameServer(why) => why.code(),
            _ => None,
        }
    }
}
