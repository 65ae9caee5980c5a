//! Text in and out of the command line.

use crate::client::Received;
use crate::telemetry::{escape_all, Escaped};
use crate::wire::message::properties;

/// `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A message property: neither part may hold the separators of properties.
pub(super) fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text)?;
    property_text(&name)?;
    property_text(&value)?;
    Ok((name, value))
}

/// The value of a property.
pub(super) fn property_text(text: &str) -> Result<String, String> {
    if text.is_empty() || !properties::is_clean(text) || text.contains('\0') {
        return Err("must not be empty or hold the characters 0, 1 and 2".to_owned());
    }
    Ok(text.to_owned())
}

/// One line for a message: where, when, tag and keys, body.
pub(super) fn message_line(m: &Received) -> String {
    let mut line = format!(
        "{}/{}/{}  {}",
        Escaped(&m.topic),
        m.queue_id,
        m.queue_offset,
        time(m.store_timestamp)
    );
    for name in [properties::names::TAGS, properties::names::KEYS] {
        if let Some(value) = m.property(name) {
            line.push_str(&format!(
                "  {}={}",
                name.to_ascii_lowercase(),
                Escaped(value)
            ));
        }
    }
    if m.reconsume_times > 0 {
        line.push_str(&format!("  retries={}", m.reconsume_times));
    }
    line.push_str("  ");
    match (m.still_compressed, std::str::from_utf8(&m.body)) {
        (Some(how), _) => line.push_str(&format!("({} bytes, {how})", m.body.len())),
        (None, Ok(text)) => line.push_str(&escape_all(text)),
        (None, Err(_)) => line.push_str(&format!("({} bytes, not text)", m.body.len())),
    }
    line
}

/// Milliseconds since 1970 as UTC.
fn time(millis: i64) -> String {
    let days = millis.div_euclid(86_400_000);
    let in_day = millis.rem_euclid(86_400_000);
    // Civil date of a day number; eras of 400 years start on 1 March.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1_000 % 60,
        in_day % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(time(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999Z");
        time(i64::MIN);
        time(i64::MAX);
    }

    #[test]
    fn a_message_is_one_harmless_line() {
        let mut m = Received {
            topic: "T".into(),
            queue_id: 1,
            queue_offset: 2,
            store_timestamp: 0,
            reconsume_times: 3,
            properties: vec![("TAGS".into(), "A".into()), ("KEYS".into(), "k\n".into())],
            body: "a\u{1b}[31m\nb \u{202e}".into(),
            still_compressed: None,
        };
        assert_eq!(
            message_line(&m),
            "T/1/2  1970-01-01T00:00:00.000Z  tags=A  keys=k\\n  retries=3  \
             a\\u{1b}[31m\\nb \\u{202e}"
        );
        m.body = "x".repeat(10_000).into();
        assert!(message_line(&m).ends_with(&"x".repeat(10_000)));
        m.body = vec![0xff; 5].into();
        assert!(message_line(&m).ends_with("(5 bytes, not text)"));
        m.still_compressed = Some("LZ4");
        assert!(message_line(&m).ends_with("(5 bytes, LZ4)"));
    }

    #[test]
    fn properties_cannot_be_forged() {
        assert_eq!(property("a=b=c"), Ok(("a".into(), "b=c".into())));
        for bad in ["a", "=b", "a=", "a=b\u{1}", "a\u{2}b=c", "a=\0"] {
            assert!(property(bad).is_err(), "{bad:?}");
        }
    }
}
