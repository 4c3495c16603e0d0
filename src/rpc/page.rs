//! Pages of a list (AIP-158): a bounded size, and an opaque token that belongs to one filter.

use std::hash::Hasher as _;

use super::{
    Violations,
    token::{self, InvalidToken},
};

/// Bytes of the rows of a page.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// What a page's token holds.
#[derive(Clone, PartialEq, prost::Message)]
struct TokenBody {
    /// Hash of the request's filter: a token of another filter is refused, because it would skip rows.
    #[prost(fixed64, tag = "1")]
    filter: u64,
    /// The last key of the page before.
    #[prost(bytes = "vec", tag = "2")]
    last_key: Vec<u8>,
}

/// A request's `page_size` and `page_token`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many rows, 1-1000.
    pub size: usize,
    /// The key after which the page begins. `None`: the first page.
    pub after: Option<Vec<u8>>,
}

impl Page {
    /// Used if `page_size` is 0.
    pub const DEFAULT_SIZE: usize = 50;
    /// A larger `page_size` is read as this.
    pub const MAX_SIZE: usize = 1000;

    /// Checks `page_size` and `page_token`; what is wrong is noted in `violations`. `filter` is all of the request that
    /// chooses rows, in any fixed form.
    pub fn parse(filter: &[u8], page_size: i32, page_token: &str, violations: &mut Violations) -> Option<Self> {
        let size = violations.check("page_size", usize::try_from(page_size).map_err(|_| "must not be negative"));
        let after = violations.check("page_token", decode(filter, page_token));
        let size = match size? {
            0 => Self::DEFAULT_SIZE,
            size => size.min(Self::MAX_SIZE),
        };
        Some(Self { size, after: after? })
    }

    /// Cuts the row that was asked for beyond a page of `size` rows, which tells that there is a next page. Returns the
    /// `next_page_token`, which is empty after the last page.
    pub fn cut<T>(filter: &[u8], size: usize, rows: &mut Vec<T>, key: impl Fn(&T) -> &[u8]) -> String {
        let more = rows.len() > size;
        rows.truncate(size);
        match rows.last() {
            Some(last) if more => Self::token_after(filter, key(last)),
            Some(_) | None => String::new(),
        }
    }

    /// How many of these rows make a page: up to `size`, and fewer if they are large, which AIP-158 allows. Together they have up to
    /// 1 MiB, unless the first alone has more: clients take messages of 4 MiB by default.
    pub fn fit<T>(size: usize, rows: &[T], bytes: impl Fn(&T) -> usize) -> usize {
        let mut total = 0;
        let fitting = rows.iter().take(size).take_while(|row| {
            total += bytes(row);
            total <= MAX_PAGE_BYTES
        });
        fitting.count().max(1)
    }

    /// The `next_page_token` that leads to the rows after `last_key`.
    pub fn token_after(filter: &[u8], last_key: &[u8]) -> String {
        token::encode_token(&TokenBody { filter: hash(filter), last_key: last_key.to_vec() })
    }
}

fn decode(filter: &[u8], page_token: &str) -> Result<Option<Vec<u8>>, InvalidToken> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let body: TokenBody = token::decode_token(page_token)?;
    if body.filter == hash(filter) { Ok(Some(body.last_key)) } else { Err(InvalidToken) }
}

fn hash(filter: &[u8]) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(filter);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_key_only_for_its_own_filter() {
        let token = Page::token_after(b"customer=1", b"key");
        assert_eq!(decode(b"customer=1", &token), Ok(Some(b"key".to_vec())));
        assert_eq!(decode(b"customer=2", &token), Err(InvalidToken));
        assert_eq!(decode(b"customer=1", ""), Ok(None));
        for bad in ["!", "AAAA", &"A".repeat(5000)] {
            assert_eq!(decode(b"customer=1", bad), Err(InvalidToken), "{bad:.20}");
        }
    }

    #[test]
    fn a_page_is_cut_to_its_size_and_its_token_leads_on_only_if_there_is_more() {
        let cut = |size| {
            let mut rows = vec!["a", "b", "c"];
            let token = Page::cut(b"all", size, &mut rows, |row| row.as_bytes());
            (rows, decode(b"all", &token))
        };
        assert_eq!(cut(2), (vec!["a", "b"], Ok(Some(b"b".to_vec()))));
        assert_eq!(cut(3), (vec!["a", "b", "c"], Ok(None)));
        assert_eq!(Page::cut(b"all", 1, &mut Vec::new(), |row: &String| row.as_bytes()), "");
    }

    #[test]
    fn a_page_of_large_rows_has_fewer_of_them_and_one_at_least() {
        let fit = |size, bytes: &[usize]| Page::fit(size, bytes, |bytes| *bytes);
        let half = MAX_PAGE_BYTES / 2;
        assert_eq!(fit(2, &[1, 1, 1]), 2);
        assert_eq!(fit(1000, &[half, half, 1]), 2);
        assert_eq!(fit(1000, &[half, half + 1]), 1);
        assert_eq!(fit(1000, &[MAX_PAGE_BYTES * 3, 1]), 1);
    }

    #[test]
    fn page_sizes_are_bounded() {
        let size = |page_size| Page::parse(b"", page_size, "", &mut Violations::default()).map(|page| page.size);
        assert_eq!(size(0), Some(50));
        assert_eq!(size(7), Some(7));
        assert_eq!(size(i32::MAX), Some(1000));
        assert_eq!(size(-1), None);
    }
}
