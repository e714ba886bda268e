//! One record as it lies in a segment: length, checksum, when it was recorded, the record. All that can be told of bytes
//! alone: a frame that is whole, or none.

use crc::{CRC_32_ISCSI, Crc, Table};

/// Length and checksum, four bytes each, and the time, eight; least significant byte first.
pub const HEADER: usize = 16;

/// The largest record there may be.
pub const MAX_RECORD: usize = 256 * 1024;

static CHECKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Microseconds since 1970.
    pub at: i64,
    pub record: &'a [u8],
}

impl Frame<'_> {
    pub fn size(&self) -> usize {
        HEADER + self.record.len()
    }
}

/// `record` is at most [`MAX_RECORD`] long.
pub fn append(to: &mut Vec<u8>, at: i64, record: &[u8]) {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes();
    let at = at.to_le_bytes();
    to.reserve(HEADER + record.len());
    to.extend(length);
    to.extend(checksum(length, at, record).to_le_bytes());
    to.extend(at);
    to.extend(record);
}

/// The frame that `bytes` begin with; none where they are no whole one.
pub fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if size > MAX_RECORD {
        return None;
    }
    let record = rest.get(..size)?;
    (u32::from_le_bytes(*sum) == checksum(*length, *at, record)).then(|| Frame {
        at: i64::from_le_bytes(*at),
        record,
    })
}

fn checksum(length: [u8; 4], at: [u8; 8], record: &[u8]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(&length);
    digest.update(&at);
    digest.update(record);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_laid_out_as_documented() {
        let mut bytes = Vec::new();
        append(&mut bytes, 1, b"123456789");
        assert_eq!(bytes[..4], [9, 0, 0, 0]);
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[16..], b"123456789");
        // The check value of the catalogue for this checksum.
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read_and_what_is_cut_or_changed_is_none(
            at: i64,
            record in prop::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..216,
            bit in 0usize..8,
        ) {
            let mut bytes = Vec::new();
            append(&mut bytes, at, &record);
            prop_assert_eq!(read(&bytes), Some(Frame { at, record: &record }));
            let cut = cut % bytes.len();
            prop_assert_eq!(read(&bytes[..cut]), None);
            let mut changed = bytes.clone();
            changed[cut] ^= 1 << bit;
            prop_assert_eq!(read(&changed), None);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }
    }
}
