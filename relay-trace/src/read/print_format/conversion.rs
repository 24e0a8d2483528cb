//! A format string taken apart into literals and conversions, and how a conversion prints a value.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{
    Lookup,
    evaluate::{Outcome, cut, word},
};
use crate::{
    form::format::{Display, Field, FieldKind},
    read::value::until_nul,
};

/// Nothing is printed wider, whatever a format or a record asks for.
const WIDEST: usize = 128;

/// A part of a format string.
#[derive(Debug)]
pub(super) enum FormatToken {
    Literal(String),
    Conversion(Conversion),
}

/// `%[flags][width][.precision][length]conversion`
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Conversion {
    zero: bool,
    left: bool,
    alternate: bool,
    plus: bool,
    space: bool,
    pub(super) width: Extent,
    pub(super) precision: Option<Extent>,
    /// Bits of the argument.
    bits: u32,
    /// `d u x X o c s p`
    letter: char,
    /// What follows a `p`.
    pointer: String,
}

/// A width or a precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Extent {
    Fixed(usize),
    /// `*`: an argument of its own.
    Argument,
}

impl Default for Extent {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl Extent {
    /// `given` is the value of its argument.
    fn of(self, given: Option<i128>) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(size),
            Self::Argument => usize::try_from(given?).ok(),
        }
    }
}

/// Takes a format string apart.
pub(super) fn split(format: &str) -> Vec<FormatToken> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        if !literal.is_empty() {
            tokens.push(FormatToken::Literal(std::mem::take(&mut literal)));
        }
        let (conversion, after) = Conversion::parse(after);
        tokens.push(FormatToken::Conversion(conversion));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        tokens.push(FormatToken::Literal(literal));
    }
    tokens
}

impl Conversion {
    /// A conversion after its `%`, and what follows it.
    pub(super) fn parse(text: &str) -> (Self, &str) {
        let mut conversion = Self { bits: 32, ..Self::default() };
        let mut rest = text;
        while let Some(c) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
            match c {
                '-' => conversion.left = true,
                '+' => conversion.plus = true,
                '#' => conversion.alternate = true,
                '0' => conversion.zero = true,
                _ => conversion.space = true,
            }
            rest = &rest[1..];
        }
        conversion.width = size(&mut rest);
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            conversion.precision = Some(size(&mut rest));
        }
        for (length, bits) in [("hh", 8), ("h", 16), ("ll", 64), ("l", 64), ("z", 64), ("t", 64), ("j", 64), ("L", 64)]
        {
            if let Some(after) = rest.strip_prefix(length) {
                (rest, conversion.bits) = (after, bits);
                break;
            }
        }
        let letter = rest.chars().next().unwrap_or(' ');
        rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        conversion.letter = if letter == 'i' { 'd' } else { letter };
        if letter == 'p' {
            let suffix = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            conversion.pointer = rest[..suffix].to_owned();
            rest = &rest[suffix..];
        }
        (conversion, rest)
    }

    /// It says no more than the field's type.
    pub(super) fn is_plain(&self, field: &Field) -> bool {
        let formatted = self.zero
            || self.left
            || self.alternate
            || self.plus
            || self.space
            || self.width != Extent::Fixed(0)
            || self.precision.is_some();
        match (&field.kind, self.letter) {
            // A sign makes no difference where the number cannot have the highest bit of what is printed.
            (FieldKind::Integer(element), 'd' | 'u') if !formatted => {
                element.signed == (self.letter == 'd')
                    || (!element.signed && element.size * 8 < self.bits.try_into().unwrap_or(0))
            }
            // What a plain %p prints is not even the address.
            (_, 'p') => self.pointer.is_empty() || self.pointer == "x" || self.pointer == "K",
            (FieldKind::Array(element) | FieldKind::Dynamic { element, .. }, 's') => {
                element.display == Display::Text && self.precision.is_none()
            }
            _ => false,
        }
    }

    /// The name of an address.
    fn is_symbol(&self) -> bool {
        self.letter == 'p' && self.pointer.starts_with(['S', 's', 'B', 'F', 'f'])
    }

    /// It gives a word for the field's value, not another spelling of a number.
    pub(super) fn is_word_for(&self, field: &Field) -> bool {
        match field.kind {
            // A pointer to a text that the kernel never changes.
            FieldKind::Integer(element) => {
                self.is_symbol() || (self.letter == 's' && element.display == Display::Hexadecimal)
            }
            FieldKind::Array(_) | FieldKind::Dynamic { .. } => self.letter == 'p' && !self.pointer.is_empty(),
        }
    }

    /// Prints a value. `width` and `precision` are the values of the arguments that these may have. `None` when this conversion does
    /// not take it.
    pub(super) fn print(
        &self,
        value: &Outcome<'_>,
        width: Option<i128>,
        precision: Option<i128>,
        lookup: &dyn Lookup,
        text: &mut Vec<u8>,
    ) -> Option<()> {
        let width = self.width.of(width)?;
        let precision = match self.precision {
            Some(size) => Some(size.of(precision)?),
            None => None,
        };
        let printed: Cow<'_, [u8]> = match (self.letter, value) {
            ('d' | 'u' | 'x' | 'X' | 'o', Outcome::Number(number)) => {
                let precision = precision.unwrap_or(0).min(WIDEST);
                text.extend_from_slice(self.number(*number, width.min(WIDEST), precision).as_bytes());
                return Some(());
            }
            ('c', Outcome::Number(number)) => Cow::Owned(vec![u8::try_from(*number).ok()?]),
            ('s', Outcome::Text(of)) => Cow::Borrowed(&of[..precision.map_or(of.len(), |most| most.min(of.len()))]),
            ('s', Outcome::Bytes(of)) => {
                let of = &of[..precision.map_or(of.len(), |most| most.min(of.len()))];
                Cow::Borrowed(until_nul(of))
            }
            ('s', Outcome::Number(0)) => Cow::Borrowed(b"(null)"),
            ('s', Outcome::Number(address)) => Cow::Owned(lookup.string(word(*address))?.into_bytes()),
            ('p', Outcome::Number(number)) if self.is_symbol() => {
                let address = word(*number);
                let name = lookup.symbol(address).unwrap_or_else(|| format!("{address:#x}"));
                let name = if self.pointer.starts_with(['s', 'f']) { without_offset(&name) } else { name };
                Cow::Owned(name.into_bytes())
            }
            ('p', Outcome::Number(number)) if matches!(self.pointer.as_str(), "" | "x" | "K") => {
                Cow::Owned(format!("{:#x}", word(*number)).into_bytes())
            }
            ('p', Outcome::Bytes(of)) => {
                // A width says how much there is of it.
                text.extend_from_slice(self.bytes(of, width)?.as_bytes());
                return Some(());
            }
            _ => return None,
        };
        let fill = std::iter::repeat_n(b' ', width.min(WIDEST).saturating_sub(printed.len()));
        if self.left {
            text.extend_from_slice(&printed);
            text.extend(fill);
        } else {
            text.extend(fill);
            text.extend_from_slice(&printed);
        }
        Some(())
    }

    /// A number as the kernel prints it (lib/vsprintf.c, `number`).
    fn number(&self, number: i128, width: usize, precision: usize) -> String {
        let number = cut(number, self.bits, self.letter == 'd');
        let (sign, of) = match self.letter {
            'd' if number < 0 => ("-", number.unsigned_abs()),
            'd' if self.plus => ("+", number.unsigned_abs()),
            'd' if self.space => (" ", number.unsigned_abs()),
            _ => ("", number.unsigned_abs()),
        };
        let (prefix, digits) = match self.letter {
            'x' => ("0x", format!("{of:x}")),
            'X' => ("0X", format!("{of:X}")),
            // Zero has no second zero before it.
            'o' => (if of == 0 { "" } else { "0" }, format!("{of:o}")),
            _ => ("", of.to_string()),
        };
        let prefix = if self.alternate { prefix } else { "" };
        let digits = format!("{digits:0>precision$}");
        let inside = width.saturating_sub(sign.len() + prefix.len());
        if self.left {
            return format!("{:<width$}", format!("{sign}{prefix}{digits}"));
        }
        if self.zero {
            format!("{sign}{prefix}{digits:0>inside$}")
        } else {
            format!("{:>width$}", sign.to_owned() + prefix + &digits)
        }
    }

    /// What `%p` and letters print of the bytes that a pointer is to (Documentation/core-api/printk-formats.rst). `len`: how many there are,
    /// where the format says so.
    fn bytes(&self, of: &[u8], len: usize) -> Option<String> {
        let letters = self.pointer.as_str();
        Some(match letters {
            "I4" => Ipv4Addr::from(*of.first_chunk::<4>()?).to_string(),
            "I6c" => Ipv6Addr::from(*of.first_chunk::<16>()?).to_string(),
            "I6" => of.first_chunk::<16>()?.chunks(2).map(hex).collect::<Vec<_>>().join(":"),
            "i6" => hex(of.get(..16)?),
            _ if letters.starts_with("IS") => socket_address(of, &letters[2..])?,
            "M" => joined(of.get(..6)?, ":"),
            "MF" => joined(of.get(..6)?, "-"),
            "m" => hex(of.get(..6)?),
            "MR" => joined(&of.get(..6)?.iter().rev().copied().collect::<Vec<_>>(), ":"),
            "U" | "Ub" => uuid(of.first_chunk()?, false),
            "UB" => uuid(of.first_chunk()?, false).to_uppercase(),
            "Ul" => uuid(of.first_chunk()?, true),
            "UL" => uuid(of.first_chunk()?, true).to_uppercase(),
            "h" => joined(of.get(..len)?, " "),
            "hC" => joined(of.get(..len)?, ":"),
            "hD" => joined(of.get(..len)?, "-"),
            "hN" => hex(of.get(..len)?),
            "b" => bitmap(of, len)?,
            "bl" => bitmap_list(of, len)?,
            _ => return None,
        })
    }
}

fn size(rest: &mut &str) -> Extent {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return Extent::Argument;
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number: usize = rest[..digits].parse().unwrap_or(0);
    *rest = &rest[digits..];
    Extent::Fixed(number.min(WIDEST))
}

/// `name [module]` of `name+0xoffset [module]`.
fn without_offset(symbol: &str) -> String {
    let (name, module) = symbol.split_once(' ').map_or((symbol, None), |(name, module)| (name, Some(module)));
    let name = name.split_once("+0x").map_or(name, |(name, _)| name);
    module.map_or(name.to_owned(), |module| format!("{name} {module}"))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    joined(bytes, "")
}

pub(super) fn joined(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}

/// A UUID; of a little-endian one the first three groups are numbers.
fn uuid(bytes: &[u8; 16], little: bool) -> String {
    let mut bytes = *bytes;
    if little {
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
    }
    let groups = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
    groups.map(hex).join("-")
}

/// A `struct sockaddr` of IPv4 or IPv6. `options`: `p` its port, `f` its flow, `s` its scope, `c` the short form.
fn socket_address(of: &[u8], options: &str) -> Option<String> {
    let big = |at: usize| Some(u16::from_be_bytes(*of.get(at..)?.first_chunk()?));
    let has = |option| options.contains(option);
    match u16::from_le_bytes(*of.first_chunk()?) {
        2 => {
            let address = Ipv4Addr::from(*of.get(4..)?.first_chunk::<4>()?);
            Some(if has('p') { format!("{address}:{}", big(2)?) } else { address.to_string() })
        }
        10 => {
            let address = of.get(8..)?.first_chunk::<16>()?;
            let mut text = if has('c') {
                Ipv6Addr::from(*address).to_string()
            } else {
                address.chunks(2).map(hex).collect::<Vec<_>>().join(":")
            };
            if has('p') || has('f') || has('s') {
                text = format!("[{text}]");
            }
            if has('p') {
                text += &format!(":{}", big(2)?);
            }
            if has('f') {
                text += &format!("/{}", u32::from_be_bytes(*of.get(4..)?.first_chunk()?) & 0x0fff_ffff);
            }
            if has('s') {
                text += &format!("%{}", u32::from_le_bytes(*of.get(24..)?.first_chunk()?));
            }
            Some(text)
        }
        _ => None,
    }
}

/// A bitmap in words of 32 bits, the highest first, with as many digits as its bits take.
pub(super) fn bitmap(of: &[u8], bits: usize) -> Option<String> {
    let of = of.get(..bits.div_ceil(8))?;
    let words = of.chunks(4).map(|word| word.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte)));
    let highest = bits.div_ceil(32).checked_sub(1)?;
    let digits = |index| if index == highest { (bits - 32 * highest).div_ceil(4) } else { 8 };
    let words: Vec<String> =
        words.enumerate().map(|(index, word)| format!("{word:0width$x}", width = digits(index))).collect();
    Some(words.into_iter().rev().collect::<Vec<_>>().join(","))
}

/// The bits of a bitmap that are set, in ranges.
fn bitmap_list(of: &[u8], bits: usize) -> Option<String> {
    let of = of.get(..bits.div_ceil(8))?;
    let set: Vec<usize> = (0..bits).filter(|bit| of[bit / 8] >> (bit % 8) & 1 != 0).collect();
    let ranges = set.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    Some(ranges.collect::<Vec<_>>().join(","))
}
