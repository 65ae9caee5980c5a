//! How an operator's request to a node proves that it comes from somebody who knows the cluster's
//! secret. Pure: the time comes in.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The header with the proof.
pub const HEADER: &str = "x-troupe-operator";
/// A proof is good for so long before and after its time, ms.
const WINDOW_MS: i64 = 30_000;

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the header x-troupe-operator is missing or makes no sense")]
    Missing,
    #[error("the proof was made too long ago, or the clocks of the two machines differ too much")]
    Stale,
    #[error("the proof was made with another secret")]
    Secret,
}

fn keyed(secret: &str, at_ms: i64, path: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    // Keys of any length are taken.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(b"troupe operator 1\n");
    mac.update(format!("{at_ms}\n{path}\n").as_bytes());
    mac.update(body);
    Some(mac)
}

/// The header's value for a request to `path` with this body.
pub fn sign(secret: &str, at_ms: i64, path: &str, body: &[u8]) -> String {
    let mac = keyed(secret, at_ms, path, body).map(|mac| mac.finalize().into_bytes());
    let hex: String = mac
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{at_ms}:{hex}")
}

/// Checks it, in constant time.
pub fn check(
    secret: &str,
    header: &str,
    path: &str,
    body: &[u8],
    now_ms: i64,
) -> Result<(), Denied> {
    let (at, hex) = header.split_once(':').ok_or(Denied::Missing)?;
    let at: i64 = at.parse().map_err(|_| Denied::Missing)?;
    let proof = bytes(hex).ok_or(Denied::Missing)?;
    if now_ms.abs_diff(at) > WINDOW_MS.unsigned_abs() {
        return Err(Denied::Stale);
    }
    let mac = keyed(secret, at, path, body).ok_or(Denied::Secret)?;
    mac.verify_slice(&proof).map_err(|_| Denied::Secret)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    (0..32)
        .map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_request_soon_and_with_the_secret_is_taken() {
        let header = sign("a secret", 1_000_000, "/operate", b"body");
        let ok = |secret, path, body: &[u8], now| check(secret, &header, path, body, now);
        assert_eq!(ok("a secret", "/operate", b"body", 1_020_000), Ok(()));
        assert_eq!(ok("a secret", "/operate", b"body", 990_000), Ok(()));
        assert_eq!(
            ok("another", "/operate", b"body", 1_000_000),
            Err(Denied::Secret)
        );
        assert_eq!(
            ok("a secret", "/other", b"body", 1_000_000),
            Err(Denied::Secret)
        );
        assert_eq!(
            ok("a secret", "/operate", b"bodY", 1_000_000),
            Err(Denied::Secret)
        );
        assert_eq!(
            ok("a secret", "/operate", b"body", 1_040_000),
            Err(Denied::Stale)
        );
        for bad in [
            "",
            "1",
            "x:y",
            "1000000:",
            "1000000:zz",
            &"é".repeat(64),
            &format!("1:{}", "é".repeat(32)),
        ] {
            assert_eq!(
                check("a secret", bad, "/operate", b"body", 1_000_000),
                Err(Denied::Missing),
                "{bad}"
            );
        }
    }
}
