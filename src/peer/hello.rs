//! The handshake of a link: who is there, and does it know the cluster's secret.
//!
//! ```text
//! dialer   → hello(its nonce)
//! acceptor → hello(its nonce) + HMAC(secret, "acceptor" | both hellos)     or a refusal
//! dialer   → HMAC(secret, "dialer" | both hellos)
//! acceptor → welcome                                                        or a refusal
//! ```
//!
//! Both nonces are fresh, so that nothing recorded can be played again; the labels keep an end
//! from being answered with its own words. Comparisons take constant time. Without TLS nothing
//! after the handshake is protected against somebody who can change the stream on its way: see
//! the decision note on peer links.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The protocol versions spoken here. From 2 on pings and their answers carry the sender's clock;
/// from 3 on hellos end with what both ends must agree on, and nodes tell each other their settings.
pub const VERSIONS: (u16, u16) = (2, 3);
/// The first version whose hellos carry what must be agreed on.
pub const AGREES: u16 = 3;
/// Longest frame of a handshake.
pub const MAX_HELLO: usize = 1_024;
const MAGIC: &[u8; 8] = b"TROUPEER";
const NONCE: usize = 32;
/// Bytes of an HMAC.
pub const MAC: usize = 32;
const WELCOME: u8 = 0;

/// Why an end ends the handshake. The other end is told, except of what only it could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it does not speak this protocol")]
    NotAPeer,
    #[error("no common version of the peer protocol")]
    Version,
    #[error("another cluster id")]
    Cluster,
    #[error("a node id that is not in the list of peers")]
    UnknownNode,
    #[error("it was meant for another node id: the lists of peers differ")]
    OtherNode,
    #[error("a node id that another process uses already")]
    Duplicate,
    #[error("another cluster secret")]
    Secret,
    #[error("another list of shards: the keys shards (or the nodes that peers began with) differ")]
    Shards,
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Refusal::NotAPeer => 1,
            Refusal::Version => 2,
            Refusal::Cluster => 3,
            Refusal::UnknownNode => 4,
            Refusal::OtherNode => 5,
            Refusal::Duplicate => 6,
            Refusal::Secret => 7,
            Refusal::Shards => 8,
        }
    }

    fn of(code: u8) -> Option<Self> {
        use Refusal::*;
        let all = [
            NotAPeer,
            Version,
            Cluster,
            UnknownNode,
            OtherNode,
            Duplicate,
            Secret,
            Shards,
        ];
        all.into_iter().find(|r| r.code() == code)
    }

    /// The frame that tells the other end.
    pub fn encode(self) -> Vec<u8> {
        vec![self.code()]
    }
}

/// What an end says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub versions: (u16, u16),
    pub from: u64,
    pub to: u64,
    /// See [`super::Peers`].
    pub incarnation: u64,
    pub nonce: [u8; NONCE],
    pub cluster: String,
    /// See [`super::PeerOptions::agreed`]; `None` for a peer, or from one, of an earlier version.
    pub agreed: Option<u64>,
}

impl Hello {
    /// A hello with a fresh nonce.
    pub fn new(cluster: &str, from: u64, to: u64, incarnation: u64) -> std::io::Result<Self> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|e| std::io::Error::other(e.to_string()))?;
        Ok(Self {
            versions: VERSIONS,
            from,
            to,
            incarnation,
            nonce,
            cluster: cluster.to_owned(),
            agreed: None,
        })
    }

    /// The hello says what both ends must agree on, unless the other end would not understand.
    pub fn agreeing(mut self, agreed: u64, with: Option<&Hello>) -> Self {
        let understood = with.is_none_or(|with| with.versions.1 >= AGREES);
        self.agreed = understood.then_some(agreed);
        self
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(128);
        out.put_slice(MAGIC);
        out.put_u16(self.versions.0);
        out.put_u16(self.versions.1);
        out.put_u64(self.from);
        out.put_u64(self.to);
        out.put_u64(self.incarnation);
        out.put_slice(&self.nonce);
        out.put_u16(self.cluster.len() as u16);
        out.put_slice(self.cluster.as_bytes());
        if let Some(agreed) = self.agreed {
            out.put_u64(agreed);
        }
        out.to_vec()
    }

    /// Reads a hello and how many bytes it took.
    pub fn decode(mut body: Bytes) -> Result<(Self, usize), Refusal> {
        let before = body.len();
        let fixed = MAGIC.len() + 4 + 24 + NONCE + 2;
        if body.len() < fixed || !body.starts_with(MAGIC) {
            return Err(Refusal::NotAPeer);
        }
        body.advance(MAGIC.len());
        let versions = (body.get_u16(), body.get_u16());
        let (from, to, incarnation) = (body.get_u64(), body.get_u64(), body.get_u64());
        let mut nonce = [0; NONCE];
        body.copy_to_slice(&mut nonce);
        let len = usize::from(body.get_u16());
        if body.len() < len {
            return Err(Refusal::NotAPeer);
        }
        let cluster = String::from_utf8(body.split_to(len).to_vec());
        let agreed = match versions.1 >= AGREES {
            true if body.len() < 8 => return Err(Refusal::NotAPeer),
            true => Some(body.get_u64()),
            false => None,
        };
        let hello = Self {
            versions,
            from,
            to,
            incarnation,
            nonce,
            cluster: cluster.map_err(|_| Refusal::NotAPeer)?,
            agreed,
        };
        Ok((hello, before - body.len()))
    }

    /// Checks what the other end says against who should be there.
    pub fn check(
        &self,
        cluster: &str,
        me: u64,
        agreed: u64,
        known: impl Fn(u64) -> bool,
    ) -> Result<(), Refusal> {
        if self.versions.0 > VERSIONS.1 || self.versions.1 < VERSIONS.0 {
            return Err(Refusal::Version);
        }
        if self.cluster != cluster {
            return Err(Refusal::Cluster);
        }
        if self.from == me {
            return Err(Refusal::Duplicate);
        }
        if self.to != me {
            return Err(Refusal::OtherNode);
        }
        if !known(self.from) {
            return Err(Refusal::UnknownNode);
        }
        if self.agreed.is_some_and(|theirs| theirs != agreed) {
            return Err(Refusal::Shards);
        }
        Ok(())
    }
}

/// Which end proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Dialer,
    Acceptor,
}

fn keyed(secret: &[u8], end: End, dialer: &[u8], acceptor: &[u8]) -> Hmac<Sha256> {
    // Keys of any length are taken.
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("any key"));
    mac.update(match end {
        End::Dialer => b"troupe peer 1 dialer\0",
        End::Acceptor => b"troupe peer 1 acceptor\0",
    });
    for hello in [dialer, acceptor] {
        mac.update(&(hello.len() as u64).to_be_bytes());
        mac.update(hello);
    }
    mac
}

/// What `end` sends to prove that it knows the secret.
pub fn prove(secret: &[u8], end: End, dialer: &[u8], acceptor: &[u8]) -> [u8; MAC] {
    keyed(secret, end, dialer, acceptor)
        .finalize()
        .into_bytes()
        .into()
}

/// Whether `proof` is what `end` must send. Takes constant time.
pub fn proven(secret: &[u8], end: End, dialer: &[u8], acceptor: &[u8], proof: &[u8]) -> bool {
    keyed(secret, end, dialer, acceptor)
        .verify_slice(proof)
        .is_ok()
}

/// The acceptor's last word.
pub fn welcome() -> Vec<u8> {
    vec![WELCOME]
}

/// Reads the acceptor's last word.
pub fn read_welcome(body: &[u8]) -> Result<(), Refusal> {
    match body {
        [WELCOME] => Ok(()),
        _ => Err(read_refusal(body).unwrap_or(Refusal::NotAPeer)),
    }
}

/// A refusal, if that is what the body is.
pub fn read_refusal(body: &[u8]) -> Option<Refusal> {
    match body {
        [code] => Refusal::of(*code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let hello = Hello::new("c", 2, 1, 99).unwrap();
        hello.agreeing(5, None)
    }

    #[test]
    fn a_hello_comes_back_and_is_fresh() {
        let one = hello();
        let bytes = one.encode();
        assert!(bytes.len() < MAX_HELLO);
        let with_proof = Bytes::from([&bytes[..], &[0; MAC]].concat());
        assert_eq!(
            Hello::decode(with_proof).unwrap(),
            (one.clone(), bytes.len())
        );
        assert_ne!(one.nonce, hello().nonce);
        for cut in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..cut]);
            assert_eq!(Hello::decode(cut), Err(Refusal::NotAPeer));
        }
    }

    #[test]
    fn strangers_are_told_apart() {
        let check = |change: &dyn Fn(&mut Hello)| {
            let mut hello = hello();
            change(&mut hello);
            hello.check("c", 1, 5, |id| id == 2 || id == 3)
        };
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|h| h.cluster = "d".into()), Err(Refusal::Cluster));
        assert_eq!(check(&|h| h.from = 4), Err(Refusal::UnknownNode));
        assert_eq!(check(&|h| h.from = 1), Err(Refusal::Duplicate));
        assert_eq!(check(&|h| h.to = 3), Err(Refusal::OtherNode));
        assert_eq!(check(&|h| h.agreed = Some(6)), Err(Refusal::Shards));
        assert_eq!(check(&|h| h.agreed = None), Ok(()), "an older one");
        assert_eq!(check(&|h| h.versions = (4, 5)), Err(Refusal::Version));
        assert_eq!(check(&|h| h.versions = (0, 9)), Ok(()));
    }

    #[test]
    fn an_older_version_understands_and_is_understood() {
        let mut older = hello();
        (older.versions, older.agreed) = ((2, 2), None);
        let bytes = older.encode();
        let with_proof = Bytes::from([&bytes[..], &[0; MAC]].concat());
        assert_eq!(
            Hello::decode(with_proof).unwrap(),
            (older.clone(), bytes.len())
        );
        // What it is answered ends where it looks for the proof.
        let answer = Hello::new("c", 1, 2, 98).unwrap().agreeing(5, Some(&older));
        assert_eq!((answer.agreed, answer.encode().len()), (None, bytes.len()));
        let newer = Hello::new("c", 1, 2, 98)
            .unwrap()
            .agreeing(5, Some(&hello()));
        assert_eq!(newer.agreed, Some(5));
    }

    #[test]
    fn only_the_secret_the_end_and_these_hellos_prove() {
        let (d, a) = (hello().encode(), hello().encode());
        let proof = prove(b"secret", End::Dialer, &d, &a);
        let good = |s: &[u8], e, d: &[u8], a: &[u8], p: &[u8]| proven(s, e, d, a, p);
        assert!(good(b"secret", End::Dialer, &d, &a, &proof));
        assert!(!good(b"other", End::Dialer, &d, &a, &proof));
        assert!(!good(b"secret", End::Acceptor, &d, &a, &proof));
        assert!(!good(b"secret", End::Dialer, &a, &d, &proof), "reflected");
        assert!(
            !good(b"secret", End::Dialer, &hello().encode(), &a, &proof),
            "replayed"
        );
        assert!(!good(b"secret", End::Dialer, &d, &a, &proof[..31]));
        assert!(!good(b"secret", End::Dialer, &d, &a, &[]));
    }

    #[test]
    fn refusals_have_words_of_their_own() {
        for code in 1..=8 {
            let refusal = Refusal::of(code).unwrap();
            assert_eq!(read_refusal(&refusal.encode()), Some(refusal));
            assert_eq!(read_welcome(&refusal.encode()), Err(refusal));
        }
        assert_eq!(read_welcome(&welcome()), Ok(()));
        assert_eq!(read_welcome(b""), Err(Refusal::NotAPeer));
        assert_eq!(read_refusal(&[200]), None);
    }
}
