//! What the page reads: columns of integers as byte planes (byte 0 of all, then byte 1 of all), so that nothing has to be parsed and zeros cost nothing once they are
//! deflated; gzip, whose checksum finds damage; base64, which no name can end.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

/// Columns under names, with a header.
#[derive(Debug, Default)]
pub(super) struct Block {
    head: Map<String, Value>,
    /// Name: offset, count, width.
    columns: Map<String, Value>,
    planes: Vec<u8>,
}

impl Block {
    pub(super) fn new(head: Value) -> Self {
        let head = if let Value::Object(head) = head { head } else { Map::new() };
        Self { head, ..Self::default() }
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.head.insert(name.to_owned(), value);
    }

    /// Adds a column, as wide as its largest number needs, or eight bytes.
    pub(super) fn column(&mut self, name: &str, numbers: &[u64], wide: bool) {
        let width = match numbers.iter().copied().max().unwrap_or(0) {
            _ if wide => 8,
            0..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        self.columns.insert(name.to_owned(), json!([self.planes.len(), numbers.len(), width]));
        for byte in 0..width {
            self.planes.extend(numbers.iter().map(|number| number.to_le_bytes()[byte]));
        }
    }

    /// The length of the header, the header, and the columns, deflated.
    pub(super) fn pack(mut self) -> Result<Vec<u8>> {
        self.head.insert("cols".to_owned(), Value::Object(self.columns));
        let head = serde_json::to_vec(&self.head)?;
        let len = u32::try_from(head.len()).context("a block's header is too long")?;
        gzip(&[&len.to_le_bytes(), &head, &self.planes])
    }
}

pub(super) fn gzip(parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    parts.iter().try_for_each(|part| encoder.write_all(part)).context("deflating")?;
    encoder.finish().context("deflating")
}

/// How long bytes are in base64.
pub(super) fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(base64_len(bytes.len()));
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap_or(0);
            text.push(if digit > three.len() { '=' } else { char::from(DIGITS[value]) });
        }
    }
    text
}

/// A number that may be below zero, so that small ones stay small.
pub(super) fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn columns_are_planes() {
        let mut block = Block::new(json!({"a": 1}));
        block.column("x", &[1, 0x203], false);
        block.column("y", &[5], true);
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&block.pack().unwrap()[..]).read_to_end(&mut bytes).unwrap();
        let len = usize::try_from(u32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
        let head: Value = serde_json::from_slice(&bytes[4..4 + len]).unwrap();
        assert_eq!(head, json!({"a": 1, "cols": {"x": [0, 2, 2], "y": [4, 1, 8]}}));
        assert_eq!(&bytes[4 + len..], [1, 3, 0, 2, 5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!((base64(text.as_bytes()), base64_len(text.len())), (expected.to_owned(), expected.len()));
        }
        assert_eq!([0, -1, 1, i64::MIN].map(zigzag), [0, 1, 2, u64::MAX]);
    }
}
