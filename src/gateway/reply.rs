//! An answer to a request, as handlers give it.

use super::outbuf::OutBuf;
use super::read_pool::PoolError;
use crate::model::outcome::Refusal;
use crate::model::quota::{QuotaExceeded, QuotaKind};
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::{encode_response_head, FrameLimits, HeaderError, ResponseHeader, Val};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// The value of an ext field of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Text(String),
    Int(i64),
    Bool(bool),
}

impl From<String> for Field {
    fn from(v: String) -> Self {
        Field::Text(v)
    }
}
impl From<&str> for Field {
    fn from(v: &str) -> Self {
        Field::Text(v.to_owned())
    }
}
impl From<i64> for Field {
    fn from(v: i64) -> Self {
        Field::Int(v)
    }
}
impl From<bool> for Field {
    fn from(v: bool) -> Self {
        Field::Bool(v)
    }
}

impl Field {
    /// Borrowed, for the encoder.
    pub fn val(&self) -> Val<'_> {
        match self {
            Field::Text(v) => Val::Str(v),
            Field::Int(v) => Val::Int(*v),
            Field::Bool(v) => Val::Bool(*v),
        }
    }
}

/// Whether another node may do what this one refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Again {
    #[default]
    No,
    /// Nothing of it was done here.
    NotBegun,
    /// It may have been done.
    Unsure,
}

/// Code, remark, ext fields and body of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Never leaves the gateway.
    pub again: Again,
    pub code: i32,
    pub remark: Option<Cow<'static, str>>,
    pub ext: Vec<(&'static str, Field)>,
    pub body: Bytes,
}

/// Text sent to producers when too much is in flight.
pub const OVERLOAD: &str = "[OVERLOAD]system busy, start flow control for a while";
/// Text sent when the store is too busy to take anything.
pub const REJECT: &str = "[REJECTREQUEST]system busy, start flow control for a while";

impl Reply {
    /// Success without a body.
    pub fn ok() -> Self {
        Self::default()
    }

    /// An error with its text.
    pub fn err(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            remark: Some(remark.into()),
            ..Self::default()
        }
    }

    /// The store, or something else inside, failed.
    pub fn failed(e: impl std::fmt::Display) -> Self {
        Self::err(rc::SYSTEM_ERROR, e.to_string())
    }

    /// Success with one ext field.
    pub fn field(key: &'static str, value: impl Into<Field>) -> Self {
        Self::ok().with(key, value)
    }

    /// Success with a body.
    pub fn body(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// Adds an ext field.
    pub fn with(mut self, key: &'static str, value: impl Into<Field>) -> Self {
        self.ext.push((key, value.into()));
        self
    }

    /// Itself, or an error in its place if its frame were longer than clients take: they close the
    /// connection then, and everything on it fails.
    pub fn fitting(self) -> Self {
        let limit = FrameLimits::default().max_frame;
        let texts = self.ext.iter().map(|(k, v)| match v {
            Field::Text(text) => k.len() + text.len(),
            _ => k.len() + 20,
        });
        let texts = texts.sum::<usize>() + self.remark.as_ref().map_or(0, |r| r.len());
        // Six bytes for an escaped one, and what surrounds them.
        let head = 512 + self.ext.len() * 8 + texts * 6;
        if head + self.body.len() <= limit {
            return self;
        }
        let mut frame = BytesMut::new();
        self.encode_head(i32::MIN, &mut frame);
        let len = frame.len() + self.body.len();
        if len <= limit {
            return self;
        }
        let text = format!(
            "the answer has {len} bytes, more than the {limit} that clients take; ask for less"
        );
        Self::err(rc::SYSTEM_ERROR, text)
    }

    fn encode_head(&self, opaque: i32, out: &mut BytesMut) {
        let ext: Vec<(&str, Val<'_>)> = self.ext.iter().map(|(k, v)| (*k, v.val())).collect();
        let header = ResponseHeader {
            code: self.code,
            opaque,
            remark: self.remark.as_deref(),
            ext: &ext,
        };
        encode_response_head(out, &header, self.body.len());
    }

    /// Appends the frame.
    pub fn encode(&self, opaque: i32, out: &mut OutBuf) {
        out.append(|buf| self.encode_head(opaque, buf));
        if !self.body.is_empty() {
            out.push(self.body.clone());
        }
    }
}

/// What a request code answers for an unknown code.
pub fn not_supported(code: i32) -> Reply {
    Reply::err(
        rc::REQUEST_CODE_NOT_SUPPORTED,
        format!(" request type {code} not supported"),
    )
}

impl From<HeaderError> for Reply {
    fn from(e: HeaderError) -> Self {
        Reply::err(rc::SYSTEM_ERROR, e.to_string())
    }
}

impl From<PoolError> for Reply {
    fn from(e: PoolError) -> Self {
        match e {
            PoolError::Full => Reply::err(rc::SYSTEM_BUSY, OVERLOAD),
            PoolError::Gone => Reply::err(rc::SYSTEM_ERROR, e.to_string()),
        }
    }
}

/// What clients know of it: where nothing is created by itself they are answered as where that is off;
/// what passes is "busy"; a wheel full of timers is an error of the system at stock brokers too. Those
/// three, like all that a send is answered with here, are tried again at another broker.
fn quota_code(kind: QuotaKind) -> i32 {
    match kind {
        QuotaKind::AutoTopics => rc::TOPIC_NOT_EXIST,
        QuotaKind::AutoGroups => rc::SUBSCRIPTION_GROUP_NOT_EXIST,
        QuotaKind::Topics
        | QuotaKind::Groups
        | QuotaKind::Delayed
        | QuotaKind::ConnectionDelayed => rc::SYSTEM_ERROR,
        QuotaKind::Offsets
        | QuotaKind::StateBytes
        | QuotaKind::ConnectionTopics
        | QuotaKind::ConnectionAutoTopics
        | QuotaKind::ConnectionGroups
        | QuotaKind::ConnectionAutoGroups => rc::SYSTEM_BUSY,
    }
}

fn quota_text(why: QuotaExceeded) -> String {
    match why.kind {
        QuotaKind::AutoTopics => format!("topic not exist, and not created: {why}"),
        QuotaKind::AutoGroups => {
            format!("subscription group does not exist, and not created: {why}")
        }
        QuotaKind::Delayed | QuotaKind::ConnectionDelayed => {
            format!("timer message is under flow control: {why}")
        }
        _ => why.to_string(),
    }
}

impl From<QuotaExceeded> for Reply {
    fn from(why: QuotaExceeded) -> Self {
        Refusal::Quota(why).into()
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let again = match refusal {
            Refusal::NotLeader => Again::NotBegun,
            Refusal::Indeterminate => Again::Unsure,
            _ => Again::No,
        };
        let (code, remark): (i32, Cow<'static, str>) = match refusal {
            Refusal::NotLeader => {
                (rc::SERVICE_NOT_AVAILABLE, "service not available now: not the leader".into())
            }
            Refusal::Busy => (rc::SYSTEM_BUSY, REJECT.into()),
            Refusal::Indeterminate => (
                rc::SERVICE_NOT_AVAILABLE,
                "service not available now: leadership or storage was lost, the request may or may not have been done".into(),
            ),
            Refusal::Unavailable(why) => {
                (rc::SERVICE_NOT_AVAILABLE, format!("service not available now: {why}").into())
            }
            Refusal::NotFound("topic") => (rc::TOPIC_NOT_EXIST, "the topic does not exist".into()),
            Refusal::NotFound("group") => {
                (rc::SUBSCRIPTION_GROUP_NOT_EXIST, "the group does not exist".into())
            }
            Refusal::NotFound(what) => (rc::INVALID_PARAMETER, format!("no such {what}").into()),
            Refusal::Quota(why) => (quota_code(why.kind), quota_text(why).into()),
            Refusal::Invalid(why) => (rc::INVALID_PARAMETER, why.into()),
        };
        Reply {
            again,
            ..Reply::err(code, remark)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(reply: &Reply) -> usize {
        let mut out = OutBuf::default();
        reply.encode(i32::MIN, &mut out);
        out.len()
    }

    #[test]
    fn an_answer_that_no_client_takes_is_an_error_to_the_byte() {
        let limit = FrameLimits::default().max_frame;
        let with = |len: usize| Reply {
            remark: Some("\u{1}\"".into()),
            ..Reply::body(vec![b'x'; len]).with("key", "value")
        };
        let head = frame(&with(1)) - 1;
        let longest = with(limit - head);
        assert_eq!(frame(&longest), limit);
        assert!(longest.clone().fitting() == longest);
        let refused = with(limit - head + 1).fitting();
        assert_eq!(refused.code, rc::SYSTEM_ERROR);
        assert!(refused.body.is_empty() && frame(&refused) < 1_000);
        let text = refused.remark.unwrap();
        assert!(text.contains(&(limit + 1).to_string()), "{text}");
        // Fields count as well.
        let field = Reply::field("value", "\u{1}".repeat(limit / 6));
        assert_eq!(field.fitting().code, rc::SYSTEM_ERROR);
    }
}
