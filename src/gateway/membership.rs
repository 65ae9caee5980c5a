//! Who may register as a broker of this cluster. Pure: the time comes in.
//!
//! A name server believes what brokers say of themselves; a stranger who says "I am broker-a, and
//! lead it in a later term" would get all its clients. So where nodes share a secret, the brokers
//! of their own shards are registered, and taken away, only with a proof that was made with it.
//! Brokers of other names, stock ones too, register as they always did.

use super::reply::Reply;
use crate::config::operator::{self, Denied};
use crate::config::Config;
use crate::wire::remoting::code::response as rc;
use crate::wire::remoting::Command;
use std::collections::BTreeSet;

/// The ext field with the proof.
pub const PROOF: &str = "troupeProof";
/// In the answer to a proof that is too old, or from the future: the name server's clock, ms. A
/// node whose clock is wrong makes its next one by this.
pub const CLOCK: &str = "troupeClock";
/// The ext field with the Raft term of a leader.
pub const TERM: &str = "troupeTerm";

/// See the module text.
pub struct Membership {
    secret: String,
    names: BTreeSet<String>,
}

/// What a proof is about.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub code: i32,
    pub cluster: &'a str,
    pub broker_name: &'a str,
    pub broker_id: i64,
    pub addr: &'a str,
    /// As it is written in the header.
    pub term: Option<&'a str>,
    pub body: &'a [u8],
}

impl Claim<'_> {
    /// What is signed besides the body. Lengths go before texts, so that no two claims read alike.
    fn text(&self) -> String {
        let term = self.term.unwrap_or("-");
        let texts = [self.cluster, self.broker_name, self.addr, term];
        let texts = texts.map(|t| format!("{}:{t}", t.len())).join(" ");
        format!("register {} {} {texts}", self.code, self.broker_id)
    }
}

impl Membership {
    /// That of this node; `None` outside of a cluster, and in one without a secret.
    pub fn of(config: &Config) -> Option<Self> {
        let cluster = config.cluster()?;
        let secret = config.read_cluster_secret().ok()?;
        (!secret.is_empty()).then(|| Self {
            secret,
            names: cluster.shards.into_iter().map(|s| s.name).collect(),
        })
    }

    /// A proof of this node.
    pub fn prove(&self, claim: Claim<'_>, at_ms: i64) -> String {
        operator::sign(&self.secret, at_ms, &claim.text(), claim.body)
    }

    /// Whether a registration, or the end of one, comes from a member. `Ok(false)`: from a broker
    /// that is none of this cluster's and may come, but not speak of terms.
    ///
    /// # Errors
    /// The answer, when it says that it is one of this cluster's and does not prove it.
    pub fn admits(&self, claim: Claim<'_>, command: &Command, now_ms: i64) -> Result<bool, Reply> {
        let own = self.names.contains(claim.broker_name);
        let proof = command.ext(PROOF);
        if !own && proof.is_none() {
            return Ok(false);
        }
        let proof = proof.unwrap_or("");
        let denied = match operator::check(&self.secret, proof, &claim.text(), claim.body, now_ms) {
            Ok(()) => return Ok(true),
            Err(_) if !own => return Ok(false),
            Err(denied) => denied,
        };
        let text = format!(
            "broker {} belongs to a cluster with a secret: {}",
            claim.broker_name,
            match denied {
                Denied::Missing => "the registration carries no proof that it was made with it",
                Denied::Stale => "the clocks of the two nodes differ too much",
                Denied::Secret => "the proof was made with another one",
            }
        );
        let reply = Reply::err(rc::NO_PERMISSION, text);
        Err(match denied {
            Denied::Stale => reply.with(CLOCK, now_ms),
            _ => reply,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::remoting::code::request as code;
    use crate::wire::remoting::frame::HeaderFormat;
    use crate::wire::remoting::{encode_request, split_frame, FrameLimits, RequestHeader, Val};
    use bytes::BytesMut;

    const NOW: i64 = 1_000_000_000;

    fn members(secret: &str) -> Membership {
        Membership {
            secret: secret.to_owned(),
            names: ["broker-a".to_owned()].into(),
        }
    }

    fn claim<'a>(name: &'a str, term: &'a str) -> Claim<'a> {
        Claim {
            code: code::REGISTER_BROKER,
            cluster: "C",
            broker_name: name,
            broker_id: 0,
            addr: "10.0.0.1:10911",
            term: Some(term),
            body: b"topics",
        }
    }

    fn with(proof: Option<&str>) -> Command {
        let ext: Vec<_> = proof.map(|p| (PROOF, Val::Str(p))).into_iter().collect();
        let header = RequestHeader {
            code: code::REGISTER_BROKER,
            opaque: 1,
            oneway: false,
            remark: None,
            ext: &ext,
        };
        let mut out = BytesMut::new();
        encode_request(&mut out, HeaderFormat::Json, &header, &[]);
        let frame = split_frame(&mut out, &FrameLimits::default());
        Command::decode(frame.unwrap().unwrap()).unwrap()
    }

    #[test]
    fn strangers_do_not_speak_for_a_broker_of_the_cluster() {
        let (own, other) = (members("0123456789abcdef"), members("fedcba9876543210"));
        let code = |result: Result<bool, Reply>| result.map_err(|reply| reply.code);
        let real = claim("broker-a", "7");
        let proof = own.prove(real, NOW);
        let admits = |claim, proof, now| code(own.admits(claim, &with(proof), now));
        assert_eq!(admits(real, Some(&proof), NOW + 20_000), Ok(true));
        assert_eq!(admits(real, None, NOW), Err(16));
        assert_eq!(admits(real, Some("nonsense"), NOW), Err(16));
        let forged = other.prove(real, NOW);
        assert_eq!(admits(real, Some(&forged), NOW), Err(16));
        for changed in [
            claim("broker-a", "8"),
            Claim { term: None, ..real },
            Claim {
                broker_id: 2,
                ..real
            },
            Claim {
                addr: "10.0.0.2:10911",
                ..real
            },
            Claim {
                cluster: "D",
                ..real
            },
            Claim {
                body: b"others",
                ..real
            },
            Claim {
                code: code::UNREGISTER_BROKER,
                ..real
            },
        ] {
            assert_eq!(admits(changed, Some(&proof), NOW), Err(16), "{changed:?}");
        }
        // A stock broker, and one of another cluster.
        let stock = claim("broker-x", "9");
        assert_eq!(admits(stock, None, NOW), Ok(false));
        let theirs = other.prove(stock, NOW);
        assert_eq!(admits(stock, Some(&theirs), NOW), Ok(false));
    }

    #[test]
    fn a_node_whose_clock_is_wrong_is_told_the_time() {
        let own = members("0123456789abcdef");
        let real = claim("broker-a", "7");
        let old = own.prove(real, NOW - 3_600_000);
        let told = own.admits(real, &with(Some(&old)), NOW).unwrap_err();
        assert_eq!(told.ext, [(CLOCK, NOW.into())]);
    }

    #[test]
    fn texts_cannot_be_moved_from_one_field_to_the_next() {
        let one = Claim {
            cluster: "C 1:b",
            broker_name: "x",
            ..claim("", "7")
        };
        let two = Claim {
            cluster: "C",
            broker_name: "b 1:x",
            ..one
        };
        assert_ne!(one.text(), two.text());
    }
}
