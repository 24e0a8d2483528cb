//! A value of a record, before it is shown.

use crate::form::format::{Display, Element};

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Number(Number),
    /// A text, up to its NUL.
    Text(&'a [u8]),
    /// Texts, each ended by a NUL. What has none at the end says that they were cut.
    Texts(&'a [u8]),
    /// Elements, one after the other.
    List(Element, &'a [u8]),
}

/// A number, with what is needed to print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// At least zero.
    Unsigned(u64),
    /// Perhaps below zero.
    Signed(i64),
    /// An address.
    Address(u64),
}

impl<'a> Value<'a> {
    pub(in crate::read) fn array(element: Element, bytes: &'a [u8]) -> Self {
        match element.display {
            Display::Text => Self::Text(until_nul(bytes)),
            Display::Texts => Self::Texts(bytes),
            Display::Decimal | Display::Hexadecimal => Self::List(element, bytes),
        }
    }

    /// The elements of a list; nothing of anything else.
    pub fn elements(self) -> impl Iterator<Item = Number> {
        let (element, bytes) = match self {
            Self::List(element, bytes) => (element, bytes),
            Self::Number(_) | Self::Text(_) | Self::Texts(_) => {
                (Element { size: 1, signed: false, display: Display::Decimal }, &[][..])
            }
        };
        bytes.chunks_exact(element.size).map(move |bytes| Number::new(element, bytes))
    }
}

/// The texts of [`Value::Texts`], and whether there were more.
pub fn texts(bytes: &[u8]) -> (impl Iterator<Item = &[u8]>, bool) {
    let end = bytes.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
    let whole = bytes.get(..end).unwrap_or_default();
    (whole.split_inclusive(|byte| *byte == 0).map(until_nul), end < bytes.len())
}

impl Number {
    #[inline]
    pub(in crate::read) fn new(element: Element, bytes: &[u8]) -> Self {
        let number = unsigned(bytes);
        match element.display {
            Display::Hexadecimal => Self::Address(number),
            _ if element.signed => {
                let unused = 64 - 8 * u32::try_from(bytes.len().clamp(1, 8)).unwrap_or(8);
                Self::Signed(number.cast_signed() << unused >> unused)
            }
            _ => Self::Unsigned(number),
        }
    }

    /// As a number without an end.
    #[must_use]
    pub fn wide(self) -> i128 {
        match self {
            Self::Unsigned(number) | Self::Address(number) => number.into(),
            Self::Signed(number) => number.into(),
        }
    }
}

/// The little-endian number of at most 8 bytes.
#[inline]
pub(in crate::read) fn unsigned(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        _ => bytes.try_into().map_or(0, u64::from_le_bytes),
    }
}

pub(in crate::read) fn until_nul(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}
