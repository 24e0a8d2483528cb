//! Takes a `print fmt` apart: the format string into literals and conversions, the arguments into expressions.

use std::borrow::Cow;

use super::{
    Expression, Otherwise, Table,
    conversion::{self, Conversion, Extent, FormatToken},
};
use crate::form::format::Field;

/// Expressions nest no deeper in any kernel; the parser goes no deeper.
const DEEPEST: u32 = 100;
/// Binary operators and how tightly they bind, as in C; those that begin like a shorter one come first.
const BINARY: [(&str, u32); 18] = [
    ("||", 0),
    ("&&", 1),
    ("==", 5),
    ("!=", 5),
    ("<<", 7),
    (">>", 7),
    ("<=", 6),
    (">=", 6),
    ("|", 2),
    ("^", 3),
    ("&", 4),
    ("<", 6),
    (">", 6),
    ("+", 8),
    ("-", 8),
    ("*", 9),
    ("/", 9),
    ("%", 9),
];

/// A part of what is printed.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a few, while one format is parsed")]
pub(super) enum Piece {
    Literal(String),
    Value(Shown),
}

/// A conversion and its arguments.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) conversion: Conversion,
    pub(super) width: Option<Expression>,
    pub(super) precision: Option<Expression>,
    /// What is converted; `None` when an argument is not understood.
    pub(super) value: Option<Expression>,
    /// The indices of the fields that are shown, each once; those that only say how or how much of them left out.
    pub(super) fields: Vec<usize>,
}

/// Takes the text after `print fmt:` apart.
pub(super) fn parse(text: &str, fields: &[Field]) -> Vec<Piece> {
    let mut parser = Parser { rest: text.trim(), fields };
    let Some(format) = parser.string() else { return Vec::new() };
    let tokens = conversion::split(&format).into_iter().map(|token| match token {
        FormatToken::Literal(literal) => Piece::Literal(literal),
        FormatToken::Conversion(conversion) => Piece::Value(parser.shown(conversion)),
    });
    tokens.collect()
}

/// What follows the argument that begins with a comma.
fn after_argument(text: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return &text[at..],
            _ => {}
        }
    }
    ""
}

/// Reads C expressions.
struct Parser<'a> {
    rest: &'a str,
    fields: &'a [Field],
}

impl Parser<'_> {
    /// A conversion with the arguments that come next.
    fn shown(&mut self, conversion: Conversion) -> Shown {
        let start = self.rest;
        let mut is_understood = true;
        let mut argument = |parser: &mut Self| {
            let parsed = parser.argument();
            is_understood &= parsed.is_some();
            parsed
        };
        let width = (conversion.width == Extent::Argument).then(|| argument(self)).flatten();
        let precision = (conversion.precision == Some(Extent::Argument)).then(|| argument(self)).flatten();
        let value = argument(self).filter(|_| is_understood);
        let fields = match &value {
            Some(value) => value.shows(),
            None => self.mentioned(&start[..start.len() - self.rest.len()]),
        };
        Shown { conversion, width, precision, value, fields }
    }

    /// The next argument, if it is understood; it is passed over if not.
    fn argument(&mut self) -> Option<Expression> {
        let start = self.rest;
        let parsed = self.take(",").and_then(|()| self.expression(0)).filter(|_| self.at_argument_end());
        if parsed.is_none() {
            self.rest = after_argument(start);
        }
        parsed
    }

    /// The fields that have their name in a text, in the order of memory.
    fn mentioned(&self, text: &str) -> Vec<usize> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words: Vec<&str> = text.split(|c| !is_name(c)).collect();
        (0..self.fields.len()).filter(|index| words.contains(&self.fields[*index].name.as_str())).collect()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn at_argument_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty() || self.rest.starts_with(',')
    }

    fn identifier(&mut self) -> Option<String> {
        self.skip_space();
        let len = self.rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let (word, rest) = self.rest.split_at(len);
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.rest = rest;
        Some(word.to_owned())
    }

    /// String literals, one after the other, as one.
    fn string(&mut self) -> Option<String> {
        let mut text = String::new();
        self.take("\"")?;
        loop {
            let mut characters = self.rest.chars();
            match characters.next()? {
                '"' => {
                    self.rest = characters.as_str();
                    self.skip_space();
                    match self.rest.strip_prefix('"') {
                        Some(rest) => self.rest = rest,
                        None => return Some(text),
                    }
                    continue;
                }
                '\\' => match characters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                },
                other => text.push(other),
            }
            self.rest = characters.as_str();
        }
    }

    fn expression(&mut self, depth: u32) -> Option<Expression> {
        if depth > DEEPEST {
            return None;
        }
        let condition = self.binary(0, depth + 1)?;
        if self.take("?").is_none() {
            return Some(condition);
        }
        // `a ?: b` is `a ? a : b`.
        self.skip_space();
        let yes = if self.rest.starts_with(':') { condition.clone() } else { self.expression(depth + 1)? };
        self.take(":")?;
        let no = self.expression(depth + 1)?;
        Some(Expression::Choose(Box::new(condition), Box::new(yes), Box::new(no)))
    }

    /// Operators that bind at least as tightly as `least`.
    fn binary(&mut self, least: u32, depth: u32) -> Option<Expression> {
        let mut left = self.unary(depth)?;
        loop {
            self.skip_space();
            let known = BINARY.iter().find(|(operator, _)| self.rest.starts_with(operator));
            let Some((operator, tightness)) = known.filter(|(_, tightness)| *tightness >= least) else {
                return Some(left);
            };
            self.rest = &self.rest[operator.len()..];
            let right = self.binary(tightness + 1, depth + 1)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
    }

    fn unary(&mut self, depth: u32) -> Option<Expression> {
        if depth > DEEPEST {
            return None;
        }
        self.skip_space();
        for operator in ['!', '~', '-', '+'] {
            if self.take(operator.encode_utf8(&mut [0; 4])).is_some() {
                let of = self.unary(depth + 1)?;
                let bits = of.unsigned_bits().filter(|_| operator != '!');
                let of = Expression::Unary(operator, Box::new(of));
                return Some(match bits {
                    Some(bits) => Expression::Cast { bits, signed: false, of: Box::new(of) },
                    None => of,
                });
            }
        }
        // An array is its own address.
        if !self.rest.starts_with("&&") && self.take("&").is_some() {
            return self.unary(depth + 1);
        }
        if self.rest.starts_with('(') {
            let before = self.rest;
            match self.cast() {
                Some(Type::Pointer | Type::Unknown) => return self.unary(depth + 1),
                Some(Type::Integer { bits, signed }) => {
                    let of = Box::new(self.unary(depth + 1)?);
                    return Some(Expression::Cast { bits, signed, of });
                }
                None => self.rest = before,
            }
            self.take("(")?;
            let inner = self.expression(depth + 1)?;
            self.take(")")?;
            return Some(inner);
        }
        self.primary(depth)
    }

    /// `(unsigned long)`
    fn cast(&mut self) -> Option<Type> {
        self.take("(")?;
        let (inside, rest) = self.rest.split_once(')')?;
        let is_type = |c: char| c.is_ascii_alphanumeric() || "_ *".contains(c);
        if !inside.chars().all(is_type) || inside.trim_start().starts_with("REC") {
            return None;
        }
        let found = Type::named(inside)?;
        self.rest = rest;
        Some(found)
    }

    fn primary(&mut self, depth: u32) -> Option<Expression> {
        self.skip_space();
        if self.rest.starts_with('"') {
            return self.string().map(Expression::Text);
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        if let Some(rest) = self.rest.strip_prefix('\'') {
            let mut characters = rest.chars();
            let c = characters.next().filter(|c| *c != '\\')?;
            self.rest = characters.as_str().strip_prefix('\'')?;
            return Some(Expression::Constant(i128::from(u32::from(c))));
        }
        match self.identifier()?.as_str() {
            "REC" => {
                self.take("->")?;
                let field = self.field()?;
                if self.take("[").is_none() {
                    return Some(Expression::Field(field));
                }
                let at = self.expression(depth + 1)?;
                self.take("]")?;
                Some(Expression::Element(field, Box::new(at)))
            }
            "__get_str"
            | "__get_rel_str"
            | "__get_dynamic_array"
            | "__get_rel_dynamic_array"
            | "__get_sockaddr"
            | "__get_rel_sockaddr" => self.of_field(Expression::Field),
            "__get_dynamic_array_len" | "__get_rel_dynamic_array_len" => self.of_field(Expression::Length),
            "__get_bitmask" | "__get_rel_bitmask" | "__get_cpumask" | "__get_rel_cpumask" => {
                self.of_field(Expression::Bitmap)
            }
            "sizeof" => {
                let before = self.rest;
                if let Some(of) = self.cast() {
                    return Some(Expression::Constant(i128::from(of.bits()? / 8)));
                }
                self.rest = before;
                self.take("(")?;
                self.take("REC")?;
                self.take("->")?;
                let field = self.field()?;
                self.take(")")?;
                Some(Expression::Constant(i128::try_from(self.fields[field].bytes.len()).ok()?))
            }
            "__builtin_expect" => {
                self.take("(")?;
                let value = self.expression(depth + 1)?;
                self.take(",")?;
                self.expression(depth + 1)?;
                self.take(")")?;
                Some(value)
            }
            function @ ("__print_hex" | "__print_hex_str") => {
                let [of, len] = self.arguments(depth)?;
                Some(Expression::Hex { of, len, between: function == "__print_hex" })
            }
            "__print_array" => {
                let [of, count, size] = self.arguments(depth)?;
                Some(Expression::Array { of, count, size })
            }
            "__print_symbolic" | "__print_symbolic_u64" => {
                self.take("(")?;
                let value = self.expression(depth + 1)?;
                Some(Expression::Symbolic(Box::new(value), self.table(depth + 1)?, Otherwise::Number))
            }
            "__print_flags" | "__print_flags_u64" => {
                self.take("(")?;
                let value = self.expression(depth + 1)?;
                self.take(",")?;
                let delimiter = self.string()?;
                Some(Expression::Flags(Box::new(value), delimiter, self.table(depth + 1)?))
            }
            _ => None,
        }
    }

    /// The index of the field that is named next.
    fn field(&mut self) -> Option<usize> {
        let name = self.identifier()?;
        self.fields.iter().position(|field| field.name == name)
    }

    /// `(field)`
    fn of_field(&mut self, make: impl FnOnce(usize) -> Expression) -> Option<Expression> {
        self.take("(")?;
        let field = self.field()?;
        self.take(")")?;
        Some(make(field))
    }

    /// `(a, b)`
    fn arguments<const N: usize>(&mut self, depth: u32) -> Option<[Box<Expression>; N]> {
        let mut arguments = Vec::with_capacity(N);
        for index in 0..N {
            self.take(if index == 0 { "(" } else { "," })?;
            arguments.push(Box::new(self.expression(depth + 1)?));
        }
        self.take(")")?;
        arguments.try_into().ok()
    }

    /// `, { 1, "A" }, { 2, "B" }, { 0, ((void *)0) })`
    fn table(&mut self, depth: u32) -> Option<Table> {
        let mut table = Vec::new();
        while self.take(",").is_some() {
            self.take("{")?;
            let value = self.constant(depth)?;
            self.take(",")?;
            self.skip_space();
            if self.rest.starts_with('"') {
                table.push((value, Cow::Owned(self.string()?)));
            } else {
                // No name: the end of the table, written out.
                self.constant(depth).filter(|name| *name == 0)?;
            }
            self.take("}")?;
        }
        self.take(")")?;
        Some(Cow::Owned(table))
    }

    /// The value of an expression without a field.
    fn constant(&mut self, depth: u32) -> Option<u64> {
        self.expression(depth)?.constant()
    }

    fn number(&mut self) -> Option<Expression> {
        let len = self.rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (word, rest) = self.rest.split_at(len);
        let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
        let number = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(digits) => i128::from_str_radix(digits, 16),
            None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        self.rest = rest;
        let number = number.ok().filter(|number| *number <= u64::MAX.into()).map(Expression::Constant)?;
        let suffix = word[digits.len()..].to_ascii_lowercase();
        let bits = if suffix.contains('l') { 64 } else { 32 };
        let is_unsigned = suffix.contains('u');
        Some(if is_unsigned { Expression::Cast { bits, signed: false, of: Box::new(number) } } else { number })
    }
}

/// A type of a cast.
#[derive(Clone, Copy)]
enum Type {
    Pointer,
    /// A typedef of an integer, whose width is not known.
    Unknown,
    Integer {
        bits: u32,
        signed: bool,
    },
}

impl Type {
    fn named(text: &str) -> Option<Self> {
        if text.contains('*') {
            return Some(Self::Pointer);
        }
        let words: Vec<&str> = text.split_ascii_whitespace().filter(|word| *word != "const").collect();
        let (bits, signed) = match &words[..] {
            ["bool" | "u8" | "__u8" | "uint8_t"] | ["unsigned", "char"] => (8, false),
            ["char" | "s8" | "__s8" | "int8_t"] | ["signed", "char"] => (8, true),
            ["u16" | "__u16" | "uint16_t" | "__le16"] | ["unsigned", "short"] => (16, false),
            ["short" | "s16" | "__s16" | "int16_t"] => (16, true),
            ["u32" | "__u32" | "uint32_t" | "unsigned" | "dev_t" | "gfp_t" | "__le32"] | ["unsigned", "int"] => {
                (32, false)
            }
            ["int" | "s32" | "__s32" | "int32_t"] => (32, true),
            ["u64" | "__u64" | "uint64_t" | "size_t" | "sector_t"] => (64, false),
            ["unsigned", "long"] | ["unsigned", "long", "long"] => (64, false),
            ["long" | "s64" | "__s64" | "int64_t" | "ssize_t" | "loff_t"] | ["long", "long"] => (64, true),
            [name] if name.ends_with("_t") => return Some(Self::Unknown),
            _ => return None,
        };
        Some(Self::Integer { bits, signed })
    }

    fn bits(self) -> Option<u32> {
        match self {
            Self::Pointer => Some(64),
            Self::Unknown => None,
            Self::Integer { bits, .. } => Some(bits),
        }
    }
}
