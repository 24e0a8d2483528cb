//! Takes a `print fmt` apart: the format string into literals and conversions, the arguments into expressions.

use super::Expression;
use crate::form::format::{Display, Field, FieldKind};

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

/// A part of the format string.
#[derive(Debug)]
pub(crate) enum Piece {
    Literal(String),
    /// A conversion and its argument, when that is of one field and understood.
    Value(Conversion, Option<Argument>),
}

/// An argument that depends on one field.
#[derive(Clone, Debug)]
pub(crate) struct Argument {
    /// The field's index.
    pub(crate) field: usize,
    pub(crate) expression: Expression,
}

/// `%[flags][width][.precision][length]conversion`
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Conversion {
    pub(crate) zero: bool,
    pub(crate) left: bool,
    pub(crate) alternate: bool,
    pub(crate) plus: bool,
    pub(crate) width: usize,
    pub(crate) precision: Option<usize>,
    /// Bits of the argument.
    pub(crate) bits: u32,
    /// `d u x X o c s p`
    pub(crate) letter: char,
    /// What follows a `p`.
    pub(crate) pointer: String,
}

impl Conversion {
    /// It says no more than the field's type.
    pub(crate) fn is_plain(&self, field: &Field) -> bool {
        let formatted = self.zero || self.left || self.alternate || self.width > 0 || self.precision.is_some();
        match (&field.kind, self.letter) {
            // A sign makes no difference where the number cannot have the highest bit of what is printed.
            (FieldKind::Integer(element), 'd' | 'u') if !formatted => {
                element.signed == (self.letter == 'd')
                    || (!element.signed && element.size * 8 < self.bits.try_into().unwrap_or(0))
            }
            // What a plain %p prints is not even the address.
            (_, 'p') => !self.is_symbol() && self.pointer.is_empty(),
            (FieldKind::Array(element) | FieldKind::Dynamic { element, .. }, 's') => element.display == Display::Text,
            _ => false,
        }
    }

    /// The name of an address.
    pub(crate) fn is_symbol(&self) -> bool {
        self.letter == 'p' && self.pointer.starts_with(['S', 's', 'B', 'F', 'f'])
    }
}

/// Takes the text after `print fmt:` apart.
pub(crate) fn parse(text: &str, fields: &[Field]) -> Vec<Piece> {
    let mut parser = Parser { rest: text.trim(), fields, field: None };
    let Some(format) = parser.string() else { return Vec::new() };
    let mut pieces = split(&format);
    for piece in &mut pieces {
        let Piece::Value(_, argument) = piece else { continue };
        parser.field = None;
        let start = parser.rest;
        let parsed = parser.take(",").and_then(|()| parser.expression(0)).filter(|_| parser.at_argument_end());
        match (parsed, parser.field) {
            (Some(expression), Some(field)) => *argument = Some(Argument { field, expression }),
            (Some(_), None) => {}
            (None, _) => parser.rest = after_argument(start),
        }
    }
    pieces
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

/// The pieces of a format string, without arguments.
fn split(format: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
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
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        let (conversion, stars, after) = conversion(after);
        // A width that is an argument takes that one first; the conversion is then not understood.
        for _ in 0..stars {
            pieces.push(Piece::Value(Conversion::default(), None));
        }
        pieces.push(Piece::Value(conversion, None));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

/// A conversion after its `%`, how many arguments its width and precision take, and what follows.
fn conversion(text: &str) -> (Conversion, usize, &str) {
    let mut conversion = Conversion { bits: 32, ..Conversion::default() };
    let mut rest = text;
    let mut stars = 0;
    while let Some(c) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
        match c {
            '-' => conversion.left = true,
            '+' => conversion.plus = true,
            '#' => conversion.alternate = true,
            '0' => conversion.zero = true,
            _ => {}
        }
        rest = &rest[1..];
    }
    let mut number = |rest: &mut &str| {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            stars += 1;
            return None;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest[..digits].parse().ok();
        *rest = &rest[digits..];
        // Nothing is printed wider.
        number.map(|number: usize| number.min(128))
    };
    conversion.width = number(&mut rest).unwrap_or(0);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        conversion.precision = Some(number(&mut rest).unwrap_or(0));
    }
    for (length, bits) in [("hh", 8), ("h", 16), ("ll", 64), ("l", 64), ("z", 64), ("t", 64), ("j", 64), ("L", 64)] {
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
    if stars > 0 {
        conversion.letter = ' ';
    }
    (conversion, stars, rest)
}

/// Reads C expressions.
struct Parser<'a> {
    rest: &'a str,
    fields: &'a [Field],
    /// The one field that the expression is about.
    field: Option<usize>,
}

impl Parser<'_> {
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
        let yes = self.expression(depth + 1)?;
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
                return Some(Expression::Unary(operator, Box::new(self.unary(depth + 1)?)));
            }
        }
        if self.rest.starts_with('(') {
            let before = self.rest;
            if let Some((bits, signed)) = self.cast() {
                let of = Box::new(self.unary(depth + 1)?);
                return Some(Expression::Cast { bits, signed, of });
            }
            self.rest = before;
            self.take("(")?;
            let inner = self.expression(depth + 1)?;
            self.take(")")?;
            return Some(inner);
        }
        self.primary(depth)
    }

    /// `(unsigned long)`: its bits, and whether it is signed.
    fn cast(&mut self) -> Option<(u32, bool)> {
        self.take("(")?;
        let (inside, rest) = self.rest.split_once(')')?;
        let is_type = |c: char| c.is_ascii_alphanumeric() || "_ *".contains(c);
        if !inside.chars().all(is_type) || inside.trim_start().starts_with("REC") {
            return None;
        }
        let words: Vec<&str> = inside.split_ascii_whitespace().filter(|word| *word != "const").collect();
        let found = match &words[..] {
            _ if inside.contains('*') => (64, false),
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
            _ => return None,
        };
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
                let name = self.identifier()?;
                self.use_field(&name)?;
                // One element is not the field.
                self.skip_space();
                (!self.rest.starts_with('[')).then_some(Expression::Field)
            }
            "__get_str" | "__get_rel_str" => {
                self.take("(")?;
                let name = self.identifier()?;
                self.use_field(&name)?;
                self.take(")")?;
                Some(Expression::Field)
            }
            "__print_symbolic" | "__print_symbolic_u64" => {
                self.take("(")?;
                let value = self.expression(depth + 1)?;
                Some(Expression::Symbolic(Box::new(value), self.table(depth + 1)?))
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

    fn use_field(&mut self, name: &str) -> Option<()> {
        let index = self.fields.iter().position(|field| field.name == name)?;
        (*self.field.get_or_insert(index) == index).then_some(())
    }

    /// `, { 1, "A" }, { 2, "B" }, { 0, ((void *)0) })`
    fn table(&mut self, depth: u32) -> Option<Vec<(u64, String)>> {
        let mut table = Vec::new();
        while self.take(",").is_some() {
            self.take("{")?;
            let value = self.constant(depth)?;
            self.take(",")?;
            self.skip_space();
            if self.rest.starts_with('"') {
                table.push((value, self.string()?));
            } else {
                // No name: the end of the table, written out.
                self.constant(depth).filter(|name| *name == 0)?;
            }
            self.take("}")?;
        }
        self.take(")")?;
        Some(table)
    }

    /// An expression without a field.
    fn constant(&mut self, depth: u32) -> Option<u64> {
        let field = self.field.take();
        let expression = self.expression(depth);
        let found = std::mem::replace(&mut self.field, field);
        if found.is_some() {
            return None;
        }
        expression?.constant()
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
        number.ok().filter(|number| *number <= u64::MAX.into()).map(Expression::Constant)
    }
}
