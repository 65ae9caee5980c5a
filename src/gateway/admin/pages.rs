//! Tables that may not fit into one answer, page by page (21 and 201). Tools of 5.x ask for
//! `…Seq` and `max…Num`, in the order of names, and are told how many there are; they begin again when
//! the table's version changes. Tools of 4.9 ask without that and get everything, or an error.

use super::super::ctx::Ctx;
use super::super::reply::Reply;
use super::Answer;
use crate::wire::remoting::body::{self, DataVersion};
use crate::wire::remoting::Command;
use std::ops::Range;

/// Longest body of a page, bytes: less than what clients take.
const MAX_BODY: usize = 12 * 1024 * 1024;

/// Names of the header fields of one table.
pub struct Fields {
    pub first: &'static str,
    pub most: &'static str,
    pub total: &'static str,
}

/// Topics: 21.
pub const TOPICS: Fields = Fields {
    first: "topicSeq",
    most: "maxTopicNum",
    total: "totalTopicNum",
};

/// Subscription groups: 201.
pub const GROUPS: Fields = Fields {
    first: "groupSeq",
    most: "maxGroupNum",
    total: "totalGroupNum",
};

/// Answers with the page that is asked for, of a table in the order of names. It is encoded by the
/// read pool: that takes long.
pub async fn answer<T: Send + 'static>(
    ctx: &Ctx,
    command: &Command,
    fields: &'static Fields,
    version: DataVersion,
    all: Vec<T>,
    encode: impl Fn(&[T]) -> Vec<u8> + Send + 'static,
) -> Answer {
    let names = [fields.first, fields.most, "dataVersion"];
    if names.iter().all(|name| command.ext(name).is_none()) {
        return Ok(Reply::body(ctx.read(move || encode(&all)).await?));
    }
    let known = command.opt_str("dataVersion");
    let known: Option<DataVersion> = known.and_then(|text| body::decode(text.as_bytes()).ok());
    let first = match known == Some(version) {
        true => command.opt_i32(fields.first)?.unwrap_or(0),
        false => 0,
    };
    let most = command.opt_i32(fields.most)?.unwrap_or(i32::MAX);
    let first = usize::try_from(first).unwrap_or(0);
    let mut most = usize::try_from(most).unwrap_or(0).max(1);
    let work = move || loop {
        let range = page(first, most, all.len());
        let (len, body) = (range.len(), encode(&all[range]));
        if body.len() <= MAX_BODY || most == 1 {
            return (body, all.len());
        }
        most = (len / 2).max(1);
    };
    let (body, total) = ctx.read(work).await?;
    Ok(Reply::body(body).with(fields.total, total as i64))
}

/// The page that begins at `first`. Clients take one that ends one short of the total for the last,
/// so such a one has one more.
fn page(first: usize, most: usize, total: usize) -> Range<usize> {
    let first = first.min(total);
    let end = first.saturating_add(most).min(total);
    match total - end {
        1 => first..total,
        _ => first..end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client of 5.5 holds in the end.
    fn collected(most: usize, total: usize) -> usize {
        let mut have = 0;
        loop {
            let page = page(have, most, total);
            assert!(page.start == have && page.len() <= most + 1);
            have = page.end;
            if have + 1 >= total {
                return have;
            }
        }
    }

    #[test]
    fn no_page_leaves_one_behind() {
        for most in 1..8 {
            for total in 0..30 {
                assert_eq!(collected(most, total), total, "{most} of {total}");
            }
        }
        assert_eq!(page(usize::MAX, usize::MAX, 3), 3..3);
    }
}
