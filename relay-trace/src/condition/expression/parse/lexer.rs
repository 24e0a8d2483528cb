//! From a condition's text to its tokens.

use std::ops::Range;

use relay_common::recipe::Glyph;

use crate::condition::expression::{ExpressionError, Literal, Relation};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Field,
    Literal(Literal),
    Open,
    Close,
    And,
    Or,
    Not,
    Mask,
    Relation(Relation),
    End,
}

/// Longer ones before those they begin with.
const OPERATORS: [(&str, Token); 14] = [
    ("&&", Token::And),
    ("||", Token::Or),
    ("==", Token::Relation(Relation::Equal)),
    ("!=", Token::Relation(Relation::NotEqual)),
    ("!~", Token::Relation(Relation::MatchesNot)),
    ("<=", Token::Relation(Relation::LessOrEqual)),
    (">=", Token::Relation(Relation::GreaterOrEqual)),
    ("<", Token::Relation(Relation::Less)),
    (">", Token::Relation(Relation::Greater)),
    ("~", Token::Relation(Relation::Matches)),
    ("!", Token::Not),
    ("&", Token::Mask),
    ("(", Token::Open),
    (")", Token::Close),
];

const SUFFIXES: [(&str, i128); 8] = [
    ("", 1),
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
];

pub(crate) struct Lexer<'t> {
    pub text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(crate) const fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn error<T>(&self, offset: usize, message: impl Into<String>) -> Result<T, ExpressionError> {
        Err(ExpressionError::new(self.text, offset, message))
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// The next token, and where it is.
    pub(crate) fn next(&mut self) -> Result<(Token, Range<usize>), ExpressionError> {
        self.take_while(char::is_whitespace);
        let start = self.at;
        let token = self.token(start)?;
        Ok((token, start..self.at))
    }

    fn token(&mut self, start: usize) -> Result<Token, ExpressionError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        if let Some((symbol, token)) = OPERATORS.into_iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            self.at += symbol.len();
            return Ok(token);
        }
        let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        match first {
            '"' => self.string(start).map(|glyphs| Token::Literal(Literal::Text(glyphs))),
            '\'' => self.character(start).map(|number| Token::Literal(Literal::Integer(number))),
            _ if digit(rest.strip_prefix('-').unwrap_or(rest)) => {
                self.integer(start).map(|number| Token::Literal(Literal::Integer(number)))
            }
            'a'..='z' | 'A'..='Z' | '_' => self.field().map(|()| Token::Field),
            '=' => self.error(start, "'=' is not an operator: equal is '=='"),
            '|' => self.error(start, "'|' is not an operator: one or the other is '||'"),
            '-' => self.error(start, "'-' is only the sign of a number"),
            other => self.error(start, format!("'{}' means nothing here", other.escape_debug())),
        }
    }

    /// `file->f_inode.i_data[3]`: a name, and ways on from there.
    fn field(&mut self) -> Result<(), ExpressionError> {
        let identifier = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.take_while(identifier);
        loop {
            let rest = self.rest();
            if let Some(link) = [".", "->"].into_iter().find(|link| rest.starts_with(link)) {
                self.at += link.len();
                let at = self.at;
                let name = self.take_while(identifier);
                if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                    return self.error(at, format!("expected a name after '{link}'"));
                }
            } else if rest.starts_with('[') {
                self.at += 1;
                let at = self.at;
                if self.take_while(|c| c.is_ascii_digit()).is_empty() {
                    return self.error(at, "expected an index after '['");
                }
                if self.take() != Some(']') {
                    return self.error(at, "expected an index and ']' after '['");
                }
            } else {
                return Ok(());
            }
        }
    }

    fn integer(&mut self, start: usize) -> Result<i128, ExpressionError> {
        let negative = self.peek() == Some('-');
        if negative {
            self.take();
        }
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if self.peek() == Some('.') {
            return self.error(start, "numbers are whole: 1500us, not 1.5ms");
        }
        let (radix, body) = match word.get(..2) {
            Some("0x" | "0X") => (16, &word[2..]),
            Some("0o" | "0O") => (8, &word[2..]),
            _ => (10, word),
        };
        let (digits, suffix) = body.split_at(body.find(|c: char| !c.is_digit(radix)).unwrap_or(body.len()));
        if radix == 10 && digits.len() > 1 && digits.starts_with('0') {
            let octal = digits.trim_start_matches('0');
            return self.error(start, format!("a number that begins with 0: octal is 0o{octal}, decimal {octal}"));
        }
        let unit = SUFFIXES.iter().find(|(name, _)| *name == suffix);
        let (Some((_, unit)), false) = (unit, digits.is_empty()) else {
            let message = format!("'{word}' is not a number; units are ns, us, ms and s, and K, M and G");
            return self.error(start, message);
        };
        // What fails to be parsed has only too many digits.
        let number = i128::from_str_radix(digits, radix).ok().and_then(|number| number.checked_mul(*unit));
        let number = number.map(|number| if negative { -number } else { number });
        match number.filter(|number| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number)) {
            Some(number) => Ok(number),
            None => self.error(start, "the number does not fit into 64 bits"),
        }
    }

    fn character(&mut self, start: usize) -> Result<i128, ExpressionError> {
        self.take();
        let byte = match self.take() {
            Some('\\') => self.escape()?,
            Some(c) if c != '\'' => u8::try_from(c).ok().filter(u8::is_ascii),
            _ => None,
        };
        match (byte, self.take()) {
            (Some(byte), Some('\'')) => Ok(byte.into()),
            _ => self.error(start, "one character of ASCII goes between single quotes, a text between double quotes"),
        }
    }

    fn string(&mut self, start: usize) -> Result<Vec<Glyph>, ExpressionError> {
        self.take();
        let mut glyphs = Vec::new();
        loop {
            let at = self.at;
            match self.take() {
                Some('"') => return Ok(glyphs),
                Some('*') => glyphs.push(Glyph::Run),
                Some('?') => glyphs.push(Glyph::Any),
                Some('\\') => match self.escape()? {
                    Some(0) => return self.error(at, "no text has a NUL in it"),
                    Some(byte) => glyphs.push(Glyph::Byte(byte)),
                    None => {
                        let message = "unknown escape: there are \\\" \\\\ \\n \\t \\xNN, and \\* \\? for no wildcard";
                        return self.error(at, message);
                    }
                },
                Some('\0') => return self.error(at, "no text has a NUL in it"),
                Some(c) => glyphs.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Glyph::Byte)),
                None => return self.error(start, "this '\"' is not closed"),
            }
        }
    }

    /// The byte that is meant by what comes after a backslash. `None` when nothing is meant.
    fn escape(&mut self) -> Result<Option<u8>, ExpressionError> {
        let at = self.at;
        Ok(match self.take() {
            Some('n') => Some(b'\n'),
            Some('t') => Some(b'\t'),
            Some('x') => {
                let digits = self.rest().get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return self.error(at, "expected two hexadecimal digits after '\\x'");
                };
                self.at += 2;
                Some(byte)
            }
            Some(c @ ('"' | '\'' | '\\' | '*' | '?')) => u8::try_from(c).ok(),
            _ => None,
        })
    }
}
