//! Arithmetic of the write-ahead log: segments, pages, ends of records.
//!
//! Decides where a record of a known length ends, which PostgreSQL's tools do not print (P23). Must never under-count:
//! an end reported too low would lose an acknowledged commit. Proved by `tests` and, against a real server, by
//! `tests/servers/seal.rs`.

use ha::{Lsn, Timeline};

/// Bytes of a WAL page; every packaged PostgreSQL has 8 KiB and the control file is checked for it.
pub const PAGE: u64 = 8192;
/// Header of an ordinary page (`SizeOfXLogShortPHD`).
const SHORT_HEADER: u64 = 24;
/// Header of a segment's first page (`SizeOfXLogLongPHD`).
const LONG_HEADER: u64 = 40;

/// Bytes of one WAL segment file: a power of two from 1 MiB to 1 GiB, chosen at initdb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// None unless it is a size that initdb accepts.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Number of the segment that holds this position.
    pub fn segment(self, lsn: Lsn) -> u64 {
        lsn.0 / self.0
    }

    /// First position of the segment that holds this position.
    pub fn start(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.0)
    }

    /// File name of the segment that holds this position on this timeline.
    pub fn file_name(self, timeline: Timeline, lsn: Lsn) -> String {
        let segment = self.segment(lsn);
        let per_id = (1 << 32) / self.0;
        format!("{:08X}{:08X}{:08X}", timeline.0, segment / per_id, segment % per_id)
    }

    /// Timeline and segment number of a WAL file's name; none for other files.
    pub fn parse_file_name(self, name: &str) -> Option<(Timeline, u64)> {
        if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)) {
            return None;
        }
        let part = |range| name.get(range).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let per_id = (1 << 32) / self.0;
        Some((Timeline(part(0..8)?), u64::from(part(8..16)?) * per_id + u64::from(part(16..24)?)))
    }

    /// Where the first record at or after `lsn` can start: behind the page header when `lsn` is a page's first byte.
    pub fn record_start(self, lsn: Lsn) -> Lsn {
        if lsn.0.is_multiple_of(PAGE) { Lsn(lsn.0 + self.header(lsn.0)) } else { lsn }
    }

    /// The end of a record of `length` bytes that starts at `start`, page headers and alignment included: what
    /// PostgreSQL calls the record's end pointer and replay reports.
    pub fn record_end(self, start: Lsn, length: u64) -> Lsn {
        let mut position = start.0;
        let mut left = length;
        loop {
            let room = PAGE - position % PAGE;
            if left <= room {
                return Lsn((position + left).next_multiple_of(8));
            }
            left -= room;
            position += room;
            position += self.header(position);
        }
    }

    fn header(self, page: u64) -> u64 {
        if page.is_multiple_of(self.0) { LONG_HEADER } else { SHORT_HEADER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::new(16 << 20).unwrap()
    }

    #[test]
    fn names_go_both_ways() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        let name = size().file_name(Timeline(10), lsn);
        assert_eq!(name, "0000000A00000016000000B3");
        assert_eq!(size().parse_file_name(&name), Some((Timeline(10), size().segment(lsn))));
        assert_eq!(size().parse_file_name("0000000A.history"), None);
        assert_eq!(size().parse_file_name("0000000A00000016000000B3.partial"), None);
        assert_eq!(SegmentSize::new(3 << 20), None);
    }

    #[test]
    fn p23_a_record_ends_behind_page_headers_and_padding() {
        // Fits: only padding.
        assert_eq!(size().record_end(Lsn(0x0100_0028), 114), Lsn(0x0100_00A0));
        // Ends exactly with its page: the end is the next page's first byte, header not included.
        assert_eq!(size().record_end(Lsn(PAGE - 64), 64), Lsn(PAGE));
        // Crosses an ordinary page.
        assert_eq!(size().record_end(Lsn(PAGE * 3 - 8), 30), Lsn(PAGE * 3 + 24 + 24));
        // Crosses into a segment: the long header.
        assert_eq!(size().record_end(Lsn((16 << 20) - 8), 30), Lsn((16 << 20) + 40 + 24));
        assert_eq!(size().record_start(Lsn(16 << 20)), Lsn((16 << 20) + 40));
        assert_eq!(size().record_start(Lsn(PAGE)), Lsn(PAGE + 24));
        assert_eq!(size().record_start(Lsn(PAGE + 8)), Lsn(PAGE + 8));
    }
}
