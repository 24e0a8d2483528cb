//! The condition of an event, as in `next_prio < 100 && next_comm ~ "kworker*"`: its grammar's tree, what is wrong with a text that is
//! none, and its truth for decoded fields.
//!
//! From the tightest to the loosest: `!`, `&`, comparisons, `&&`, `||`; parentheses as usual. Unlike in C, `flags & 0x40 == 0` compares
//! what the mask leaves: nobody means the other thing. A number, masked or not, is true alone when it is not zero.
//!
//! - Comparisons `== != < <= > >=` have a field on one side and a constant on the other. Texts have only `==`, `!=`, and `~` and
//!   `!~`: whether they match a pattern, where `*` is any run of bytes and `?` any byte.
//! - A field is a name, or a way from one: `file->f_inode->i_ino`, `args[2]`. What it means is for the caller to know.
//! - Numbers are decimal, `0x` or `0o`; `ns us ms s` after them make nanoseconds, `K M G` multiply by 1024. `'x'` is a character's
//!   number.
//! - Texts are in double quotes, with `\"`, `\\`, `\n`, `\t`, `\xNN`, and `\*` and `\?` for what is not a wildcard.
//!
//! Numbers compare as in mathematics: no field is cut to the constant's width, nor the constant to the field's.
//! [`Expression::compile`] makes the kernel's tests of the tree, [`Expression::evaluate`] needs no kernel.

mod compile;
mod parse;
#[cfg(test)]
mod tests;

use std::ops::Range;

use relay_common::recipe::{Glyph, MAX_TEXT};

pub use self::compile::{FieldSubject, Resolve, Source, TextSource};

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    root: Node,
}

/// A node of a condition's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One of them holds; there are at least two.
    Any(Vec<Self>),
    /// All of them hold; there are at least two.
    All(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// It is not zero.
    IsSet(Operand),
    /// It compares so with the constant.
    Compare {
        /// What stands on the left, or is brought there.
        operand: Operand,
        /// How they compare.
        relation: Relation,
        /// What stands on the right then.
        constant: Constant,
        /// Where the operator is in the text, in bytes.
        at: usize,
    },
}

/// A field, masked or as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The field's name.
    pub field: String,
    /// Where it is in the text, in bytes.
    pub span: Range<usize>,
    /// What the field is and-ed with.
    pub mask: Option<i128>,
}

/// A constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// What it is.
    pub literal: Literal,
    /// Where it is in the text, in bytes.
    pub span: Range<usize>,
}

/// What a constant is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// A number of 64 bits, signed or not.
    Integer(i128),
    /// A text or a pattern.
    Text(Vec<Glyph>),
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `~`
    Matches,
    /// `!~`
    MatchesNot,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparand {
    /// A number.
    Integer(i128),
    /// A text; it ends at its first NUL, if there is one.
    Text(Vec<u8>),
    /// A text that could not be read when the record was made.
    Unreadable,
}

/// What is wrong with a condition, and where.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("in the condition, column {column}: {message}")]
pub struct ExpressionError {
    text: String,
    offset: usize,
    column: usize,
    message: String,
}

impl ExpressionError {
    fn new(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let column = text.char_indices().take_while(|(at, _)| *at < offset).count() + 1;
        Self { text: text.to_owned(), offset, column, message: message.into() }
    }

    /// Where, in bytes from the text's start.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Where, in characters; the first is 1.
    #[must_use]
    pub const fn column(&self) -> usize {
        self.column
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error, the condition, and a caret below the place.
    #[must_use]
    pub fn render(&self) -> String {
        // A tab or a line's end would put the caret elsewhere.
        let text: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let before = " ".repeat(self.column - 1);
        format!("{self}\n  {text}\n  {before}^")
    }
}

impl Expression {
    /// Parses a condition.
    ///
    /// # Errors
    /// When it is none; texts are not compared with fields here, for what fields are is not known.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        Ok(Self { text: text.to_owned(), root: parse::parse(text)? })
    }

    /// The text as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tree.
    #[must_use]
    pub const fn root(&self) -> &Node {
        &self.root
    }

    /// The names of the fields, each once, in the order of the text.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        self.root.fields(&mut fields);
        fields
    }

    /// Whether the condition holds for these values. `None` when that depends on a field that has no value, or none that
    /// compares with its constant. As soon as a text is needed that could not be read, the condition holds: so it is when recording.
    pub fn evaluate(&self, value: &mut dyn FnMut(&str) -> Option<Comparand>) -> Option<bool> {
        self.root.evaluate(value).unwrap_or(Some(true))
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(&self.text, offset, message)
    }
}

impl Node {
    fn fields<'n>(&'n self, fields: &mut Vec<&'n str>) {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().for_each(|node| node.fields(fields)),
            Self::Not(node) => node.fields(fields),
            Self::IsSet(operand) | Self::Compare { operand, .. } => {
                if !fields.contains(&operand.field.as_str()) {
                    fields.push(&operand.field);
                }
            }
        }
    }

    fn evaluate(&self, value: &mut dyn FnMut(&str) -> Option<Comparand>) -> Result<Option<bool>, Unreadable> {
        Ok(match self {
            Self::Any(nodes) => first(nodes, true, value)?,
            Self::All(nodes) => first(nodes, false, value)?,
            Self::Not(node) => node.evaluate(value)?.map(|holds| !holds),
            Self::IsSet(operand) => match value(&operand.field) {
                Some(Comparand::Integer(number)) => Some(operand.masked(number) != 0),
                _ => None,
            },
            Self::Compare { operand, relation, constant, .. } => match (value(&operand.field), &constant.literal) {
                (Some(Comparand::Integer(number)), Literal::Integer(other)) => {
                    relation.compare(operand.masked(number), *other)
                }
                (Some(Comparand::Text(text)), Literal::Text(glyphs)) => {
                    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                    // The kernel's tests look no further either: they have a NUL at the end.
                    let matches = matches(glyphs, text.get(..MAX_TEXT - 1).unwrap_or(text));
                    Some(matches != matches!(relation, Relation::NotEqual | Relation::MatchesNot))
                }
                (Some(Comparand::Unreadable), Literal::Text(_)) => return Err(Unreadable),
                _ => None,
            },
        })
    }
}

/// `decisive` if one of the nodes is it, whatever cannot be known of the others.
fn first(
    nodes: &[Node],
    decisive: bool,
    value: &mut dyn FnMut(&str) -> Option<Comparand>,
) -> Result<Option<bool>, Unreadable> {
    let mut result = Some(!decisive);
    for node in nodes {
        match node.evaluate(value)? {
            Some(holds) if holds == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => result = None,
        }
    }
    Ok(result)
}

/// A text is needed that could not be read.
struct Unreadable;

impl Operand {
    fn masked(&self, number: i128) -> i128 {
        self.mask.map_or(number, |mask| number & mask)
    }
}

impl Relation {
    /// As it is written.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Matches => "~",
            Self::MatchesNot => "!~",
        }
    }

    /// What it is when the sides are changed.
    const fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::Equal | Self::NotEqual | Self::Matches | Self::MatchesNot => self,
        }
    }

    const fn compare(self, left: i128, right: i128) -> Option<bool> {
        Some(match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Matches | Self::MatchesNot => return None,
        })
    }
}

/// Whether the whole text matches. A run takes nothing at first and a byte more at each mismatch; only the last one ever needs to.
fn matches(glyphs: &[Glyph], text: &[u8]) -> bool {
    let (mut glyph, mut at) = (0, 0);
    let mut retry = None;
    loop {
        match (glyphs.get(glyph), text.get(at)) {
            (None, None) => return true,
            (Some(Glyph::Run), _) => {
                glyph += 1;
                retry = Some((glyph, at));
                continue;
            }
            (Some(Glyph::Byte(wanted)), Some(byte)) if wanted == byte => {}
            (Some(Glyph::Any), Some(_)) => {}
            _ => match &mut retry {
                Some((after, from)) if *from < text.len() => {
                    *from += 1;
                    (glyph, at) = (*after, *from);
                    continue;
                }
                _ => return false,
            },
        }
        glyph += 1;
        at += 1;
    }
}
