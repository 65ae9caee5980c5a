//! The body checksum of stored records.

/// CRC-32 (zlib's polynomial) of the stored body with the top bit cleared; 0 for an empty body.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}
