//! Writes messages in the wire format of protocol buffers: only what is needed to write, and without knowing types.

/// Bytes of the length of a nested message: written when it ends, so that nothing is copied.
const LENGTH: usize = 4;
/// Set in every byte of a number but the last.
const MORE: u8 = 0x80;

/// A message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// What has been written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The fields of another message.
    pub(crate) fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// A number, or a boolean.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// A number that may be below zero, in the fields that are not `sint`.
    pub(crate) fn signed(&mut self, field: u32, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    /// A number of eight bytes.
    pub(crate) fn fixed(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A text, or bytes.
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A text that may not be UTF-8 yet.
    pub(crate) fn text(&mut self, field: u32, value: &[u8]) {
        self.bytes(field, String::from_utf8_lossy(value).as_bytes());
    }

    /// A message within this one; less than 256 MiB.
    pub(crate) fn nested(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field) << 3 | 2);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; LENGTH]);
        write(self);
        let len = self.bytes.len() - at - LENGTH;
        for (index, byte) in self.bytes[at..at + LENGTH].iter_mut().enumerate() {
            // All but the last say that more follows, even where it is zero.
            let more = if index + 1 < LENGTH { MORE } else { 0 };
            *byte = seven_bits((len as u64) >> (7 * index)) | more;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(seven_bits(value) | MORE);
            value >>= 7;
        }
        self.bytes.push(seven_bits(value));
    }
}

/// The low bits of a number.
const fn seven_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_messages_are_as_the_encoding_says() {
        let mut message = Message::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.signed(3, -1);
        message.nested(4, |inner| inner.number(1, 1));
        let expected = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g'],
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x22, 0x82, 0x80, 0x80, 0x00, 0x08, 0x01],
        ];
        assert_eq!(message.into_bytes(), expected.concat());
    }
}
