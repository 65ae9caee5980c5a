//! The last full heartbeat of a connection, and frames as bytes. Pure.

use super::super::convert;
use crate::actors::group::types::Subscription;
use crate::wire::remoting::body::heartbeat::MAX_HEARTBEAT;
use crate::wire::remoting::body::{self, Heartbeat};
use crate::wire::remoting::frame::HeaderFormat;
use crate::wire::remoting::requests::UnregisterClient;
use crate::wire::remoting::{split_frame, Command, FrameLimits, RawFrame};
use bytes::{BufMut, Bytes, BytesMut};

/// Longest frame of a heartbeat that is taken.
const LONGEST: usize = MAX_HEARTBEAT + 64 * 1024;

/// See the module text.
#[derive(Default)]
pub(super) struct LastBeat {
    frame: Option<Bytes>,
    /// What it says, once somebody asked.
    told: Option<Box<Heartbeat>>,
}

impl LastBeat {
    /// Its frame.
    pub fn frame(&self) -> Option<Bytes> {
        self.frame.clone()
    }

    /// Another full heartbeat. None is kept of one that is longer than any that is taken.
    pub fn set(&mut self, frame: Bytes) {
        let kept = Some(frame).filter(|frame| frame.len() <= LONGEST);
        (self.frame, self.told) = (kept, None);
    }

    /// What the client subscribed to in this group and topic.
    pub fn subscription(&mut self, group: &str, topic: &str) -> Option<Subscription> {
        if self.told.is_none() {
            let command = decode(self.frame.as_ref()?)?;
            self.told = Heartbeat::parse(&command.body).ok().map(Box::new);
        }
        let groups = &self.told.as_ref()?.consumer_data_set;
        let group = groups.iter().find(|g| g.group_name == group)?;
        let mut all = group.subscription_data_set.iter();
        let found = all.find(|s| s.topic == topic)?;
        Some(convert::subscription(found.clone()))
    }

    /// The client leaves groups; it stays in the others.
    pub fn leave(&mut self, request: &UnregisterClient<'_>) {
        let left = self.frame.as_ref().and_then(|beat| without(beat, request));
        (self.frame, self.told) = (left, None);
    }
}

/// A heartbeat without the groups that its client leaves; `None` when no other is left.
fn without(beat: &Bytes, left: &UnregisterClient<'_>) -> Option<Bytes> {
    let raw = split(beat)?;
    let mut told = Heartbeat::parse(&raw.body).ok()?;
    let consumers = &mut told.consumer_data_set;
    consumers.retain(|g| Some(g.group_name.as_str()) != left.consumer_group);
    let producers = &mut told.producer_data_set;
    producers.retain(|g| Some(g.group_name.as_str()) != left.producer_group);
    if told.consumer_data_set.is_empty() && told.producer_data_set.is_empty() {
        return None;
    }
    let body = body::encode(&told).into();
    Some(whole(&RawFrame { body, ..raw }))
}

/// The frame as it came.
pub(super) fn whole(raw: &RawFrame) -> Bytes {
    let header = raw.header.len();
    let mut out = BytesMut::with_capacity(8 + header + raw.body.len());
    out.put_u32((4 + header + raw.body.len()) as u32);
    let kind: u32 = match raw.serialize {
        HeaderFormat::Json => 0,
        HeaderFormat::Binary => 1,
    };
    out.put_u32(kind << 24 | header as u32);
    out.put_slice(&raw.header);
    out.put_slice(&raw.body);
    out.freeze()
}

pub(super) fn split(frame: &Bytes) -> Option<RawFrame> {
    let mut buf = BytesMut::from(&frame[..]);
    split_frame(&mut buf, &FrameLimits::default()).ok()?
}

pub(super) fn decode(frame: &Bytes) -> Option<Command> {
    Command::decode(split(frame)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::remoting::code::request as code;
    use crate::wire::remoting::{encode_request, RequestHeader};

    #[test]
    fn who_leaves_one_group_stays_in_the_others() {
        let body = br#"{"clientID":"c","consumerDataSet":[{"groupName":"A"},{"groupName":"B"}],
            "producerDataSet":[{"groupName":"P"}]}"#;
        let header = RequestHeader {
            code: code::HEART_BEAT,
            opaque: 7,
            oneway: false,
            remark: None,
            ext: &[],
        };
        let mut frame = BytesMut::new();
        encode_request(&mut frame, HeaderFormat::Json, &header, &[body]);
        let mut beat = LastBeat::default();
        beat.set(frame.freeze());
        let leave = |consumer_group, producer_group| UnregisterClient {
            client_id: "c",
            producer_group,
            consumer_group,
        };
        beat.leave(&leave(Some("A"), None));
        beat.leave(&leave(None, Some("P")));
        let left = decode(&beat.frame().unwrap()).unwrap();
        assert_eq!(left.opaque, 7);
        let left = Heartbeat::parse(&left.body).unwrap();
        assert_eq!(left.client_id, "c");
        assert_eq!(left.consumer_data_set.len(), 1);
        assert_eq!(left.consumer_data_set[0].group_name, "B");
        assert!(left.producer_data_set.is_empty());
        beat.leave(&leave(Some("B"), None));
        assert_eq!(beat.frame(), None);
    }
}
