//! From a condition's tree to the tests that the kernel side does.

use std::collections::{HashMap, hash_map};

use relay_common::recipe::{
    FAIL, Glyph, MAX_PATTERN, MAX_TESTS, MAX_TEXT, Operator, PASS, Pattern, Recipe, Subject as Place, Test,
};

use super::{Constant, Expression, ExpressionError, Literal, Node, Operand, Relation};

/// Bytes of a thread's name.
const COMM_SIZE: u16 = 16;
/// Most bytes of a text that a test looks at.
#[expect(clippy::cast_possible_truncation, reason = "a few hundred bytes")]
const TEXT_SIZE: u16 = MAX_TEXT as u16;

/// What a field is to the kernel's tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldSubject {
    /// A number.
    Integer {
        /// Where it is.
        source: Source,
        /// Its bytes: 1, 2, 4 or 8.
        size: u8,
        /// Whether it is a signed one.
        signed: bool,
    },
    /// A text.
    Text {
        /// Where it is.
        source: TextSource,
    },
    /// Nothing that compares. What it is instead, as in "an array".
    Other(String),
}

/// Where a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the payload, so many bytes from its start.
    Payload(u16),
    /// The input of this index: its low bytes.
    Input(u16),
}

/// Where a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextSource {
    /// In the payload.
    Fixed {
        /// Bytes from its start.
        at: u16,
        /// Most bytes of the text.
        len: u16,
    },
    /// Where a location word says.
    Located {
        /// Where the word is in the payload.
        at: u16,
        /// Its offset counts from its own end.
        relative: bool,
    },
    /// The current thread's name.
    Comm,
}

/// What a name means; an error is what to say about the name.
pub type Resolve<'a> = dyn FnMut(&str) -> Result<FieldSubject, String> + 'a;

impl Expression {
    /// Makes the condition the recipe's. Returns the patterns that its tests mean by their index: the caller has the patterns of
    /// a session, and numbers the tests' anew. Every name is resolved once.
    ///
    /// # Errors
    /// When a name means nothing, a field does not compare with its constant, or there is more than a recipe holds. The recipe is
    /// as it was then.
    pub fn compile(&self, resolve: &mut Resolve<'_>, recipe: &mut Recipe) -> Result<Vec<Pattern>, ExpressionError> {
        let mut lowering = Lowering { expression: self, resolve, subjects: HashMap::new() };
        let logic = lowering.lower(self.root(), true)?;
        let mut places = Vec::new();
        logic.places(&mut places);
        if let Some(place) = places.get(MAX_TESTS) {
            return Err(self.error(*place, format!("the condition takes more than {MAX_TESTS} comparisons")));
        }
        let mut emitter = Emitter {
            expression: self,
            tests: [Test::default(); MAX_TESTS],
            first: places.len(),
            patterns: Vec::new(),
        };
        emitter.emit(&logic, PASS, FAIL)?;
        recipe.tests = emitter.tests;
        recipe.n_tests = u8::try_from(places.len()).unwrap_or(u8::MAX);
        Ok(emitter.patterns)
    }
}

/// A condition without negations.
enum Logic<'e> {
    Test(Leaf<'e>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// A test that has no place yet.
struct Leaf<'e> {
    test: Test,
    /// Of a text.
    glyphs: Option<&'e [Glyph]>,
    /// The test is true where the condition is not.
    inverted: bool,
    /// Which place of the text it comes from.
    at: usize,
}

impl Logic<'_> {
    /// The places in the text that its tests come from, one for each.
    fn places(&self, places: &mut Vec<usize>) {
        match self {
            Self::Test(leaf) => places.push(leaf.at),
            Self::All(list) | Self::Any(list) => list.iter().for_each(|logic| logic.places(places)),
        }
    }
}

/// Finds what the names mean, and brings the tree to [`Logic`].
struct Lowering<'e, 'r, 'a> {
    expression: &'e Expression,
    resolve: &'r mut Resolve<'a>,
    subjects: HashMap<&'e str, FieldSubject>,
}

impl<'e> Lowering<'e, '_, '_> {
    /// The logic of "the node is `truth`".
    fn lower(&mut self, node: &'e Node, truth: bool) -> Result<Logic<'e>, ExpressionError> {
        match node {
            Node::Any(nodes) => self.list(nodes, truth, !truth),
            Node::All(nodes) => self.list(nodes, truth, truth),
            Node::Not(node) => self.lower(node, !truth),
            Node::IsSet(operand) => match self.subject(operand)? {
                FieldSubject::Integer { source, size, signed } => {
                    let number = self.number(operand, source, size, signed)?;
                    number
                        .compare(Relation::NotEqual, 0, truth)
                        .or_else(|always| self.error(operand, &number.limits(always == truth, false)))
                }
                FieldSubject::Text { .. } if operand.mask.is_some() => self.error(operand, "text: '&' is for numbers"),
                FieldSubject::Text { .. } => self.error(operand, "text: compare it with a \"string\""),
                FieldSubject::Other(what) => self.error(operand, &format!("{what}: it does not compare")),
            },
            Node::Compare { operand, relation, constant, .. } => self.compare(operand, *relation, constant, truth),
        }
    }

    /// All of the nodes, or any of them, are `truth`.
    fn list(&mut self, nodes: &'e [Node], truth: bool, all: bool) -> Result<Logic<'e>, ExpressionError> {
        let lowered = nodes.iter().map(|node| self.lower(node, truth)).collect::<Result<Vec<_>, _>>()?;
        Ok(if all { Logic::All(lowered) } else { Logic::Any(lowered) })
    }

    fn compare(
        &mut self,
        operand: &'e Operand,
        relation: Relation,
        constant: &'e Constant,
        truth: bool,
    ) -> Result<Logic<'e>, ExpressionError> {
        let (field, at) = (&operand.field, constant.span.start);
        let mismatch = |message: &str| Err(self.expression.error(at, format!("{field} is {message}")));
        match (self.subject(operand)?, &constant.literal) {
            (FieldSubject::Integer { source, size, signed }, Literal::Integer(value)) => {
                let number = self.number(operand, source, size, signed)?;
                number
                    .compare(relation, *value, truth)
                    .or_else(|always| mismatch(&number.limits(always == truth, *value <= 0 && !signed)))
            }
            (FieldSubject::Text { .. }, _) if operand.mask.is_some() => self.error(operand, "text: '&' is for numbers"),
            (FieldSubject::Text { source }, Literal::Text(glyphs)) => {
                let differs = matches!(relation, Relation::NotEqual | Relation::MatchesNot);
                let (test, glyphs) = (source.test(), Some(glyphs.as_slice()));
                Ok(Logic::Test(Leaf { test, glyphs, inverted: differs == truth, at }))
            }
            (FieldSubject::Text { .. }, Literal::Integer(_)) => mismatch("text: compare it with a \"string\""),
            (FieldSubject::Integer { .. }, Literal::Text(_)) => mismatch("a number: compare it with a number"),
            (FieldSubject::Other(what), _) => self.error(operand, &format!("{what}: it does not compare")),
        }
    }

    /// The operand is something that it must not be.
    fn error<T>(&self, operand: &Operand, is: &str) -> Result<T, ExpressionError> {
        Err(self.expression.error(operand.span.start, format!("{} is {is}", operand.field)))
    }

    fn subject(&mut self, operand: &'e Operand) -> Result<FieldSubject, ExpressionError> {
        match self.subjects.entry(&operand.field) {
            hash_map::Entry::Occupied(known) => Ok(known.get().clone()),
            hash_map::Entry::Vacant(new) => match (self.resolve)(&operand.field) {
                Ok(subject) => Ok(new.insert(subject).clone()),
                Err(message) => Err(self.expression.error(operand.span.start, message)),
            },
        }
    }

    fn number(&self, operand: &Operand, source: Source, size: u8, signed: bool) -> Result<Number, ExpressionError> {
        if !matches!(size, 1 | 2 | 4 | 8) {
            return self.error(operand, &format!("a number of {size} bytes: it does not compare"));
        }
        let values = 1_i128 << (size * 8);
        let (lowest, highest) = if signed { (-values / 2, values / 2 - 1) } else { (0, values - 1) };
        let mask = operand.mask.unwrap_or(-1);
        let (lowest, highest) = match mask {
            ..0 => (lowest & mask, highest & mask),
            // A negative number has all the bits to the left of its own.
            _ if signed => (0, mask),
            _ => (0, highest & mask),
        };
        // The highest of 64 bits can be set, and is not a sign.
        let wraps = signed && highest > i64::MAX.into();
        let (subject, at) = match source {
            Source::Payload(at) => (Place::Payload, at),
            Source::Input(index) => (Place::Input, index),
        };
        let test = Test {
            mask: low_bits(mask),
            at,
            size: size.into(),
            subject: subject as u8,
            // A number of 8 bytes is not extended: it can be compared as an unsigned one.
            signed: (signed && !(wraps && size == 8)).into(),
            ..Test::default()
        };
        Ok(Number { test, lowest, highest, wraps: wraps && size < 8, at: operand.span.start })
    }
}

/// A number as tests see it.
struct Number {
    test: Test,
    /// The least and the greatest value there can be.
    lowest: i128,
    highest: i128,
    /// The value has no sign, but can only be compared as if it had.
    wraps: bool,
    at: usize,
}

impl Number {
    /// Why a comparison is the same for every value.
    fn limits(&self, always: bool, wants_sign: bool) -> String {
        let outcome = if always { "always" } else { "never" };
        let advice = match wants_sign {
            true => "; (name:s64) after the event reads it as a signed number",
            false => "",
        };
        format!("from {} to {} here: this {outcome} holds{advice}", self.lowest, self.highest)
    }

    /// The logic of "the comparison is `truth`"; an error says whether it always is, or never.
    fn compare<'e>(&self, relation: Relation, value: i128, truth: bool) -> Result<Logic<'e>, bool> {
        let (operator, inverted) = match relation {
            Relation::Equal | Relation::Matches => (Operator::Equal, false),
            Relation::NotEqual | Relation::MatchesNot => (Operator::Equal, true),
            Relation::Less => (Operator::Less, false),
            Relation::LessOrEqual => (Operator::LessOrEqual, false),
            Relation::Greater => (Operator::LessOrEqual, true),
            Relation::GreaterOrEqual => (Operator::Less, true),
        };
        let truth = truth != inverted;
        let (always, never) = match operator {
            Operator::Less => (self.highest < value, self.lowest >= value),
            Operator::LessOrEqual => (self.highest <= value, self.lowest > value),
            Operator::Equal | Operator::Matches => {
                (self.lowest == value && self.highest == value, self.lowest > value || self.highest < value)
            }
        };
        if always || never {
            return Err(always == truth);
        }
        let leaf = |operator: Operator, value, truth: bool| {
            let test = Test { value: low_bits(value), operator: operator as u8, ..self.test };
            Logic::Test(Leaf { test, glyphs: None, inverted: !truth, at: self.at })
        };
        let compared = leaf(operator, value, truth);
        if !self.wraps || operator == Operator::Equal {
            return Ok(compared);
        }
        // Those that look negative are the greatest. Among themselves they are in order, and so are the others.
        let small = leaf(Operator::Less, 0, !truth);
        let list = vec![small, compared];
        Ok(if (value <= i64::MAX.into()) == truth { Logic::All(list) } else { Logic::Any(list) })
    }
}

/// The number in two's complement.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low bits are what is asked for")]
pub(crate) const fn low_bits(number: i128) -> u64 {
    number as u64
}

impl TextSource {
    fn test(self) -> Test {
        let (subject, at, size) = match self {
            Self::Fixed { at, len } => (Place::Text, at, len.min(TEXT_SIZE)),
            Self::Located { at, relative: false } => (Place::Located, at, TEXT_SIZE),
            Self::Located { at, relative: true } => (Place::LocatedRelative, at, TEXT_SIZE),
            Self::Comm => (Place::Comm, 0, COMM_SIZE),
        };
        Test { at, size, subject: subject as u8, operator: Operator::Matches as u8, ..Test::default() }
    }
}

/// Gives the tests their places, from the last to the first: where a test leads to is known when its turn comes.
struct Emitter<'e> {
    expression: &'e Expression,
    tests: [Test; MAX_TESTS],
    /// The first place that is taken.
    first: usize,
    patterns: Vec<Pattern>,
}

impl Emitter<'_> {
    /// Where the logic begins that leads to `yes` or `no`.
    fn emit(&mut self, logic: &Logic<'_>, yes: u8, no: u8) -> Result<u8, ExpressionError> {
        match logic {
            Logic::All(list) => list.iter().rev().try_fold(yes, |yes, logic| self.emit(logic, yes, no)),
            Logic::Any(list) => list.iter().rev().try_fold(no, |no, logic| self.emit(logic, yes, no)),
            Logic::Test(leaf) => {
                let pattern = leaf.glyphs.map_or(Ok(0), |glyphs| self.pattern(glyphs, leaf.at))?;
                let (yes, no) = if leaf.inverted { (no, yes) } else { (yes, no) };
                Ok(self.put(Test { pattern, yes, no, ..leaf.test }))
            }
        }
    }

    fn put(&mut self, test: Test) -> u8 {
        self.first = self.first.saturating_sub(1);
        if let Some(place) = self.tests.get_mut(self.first) {
            *place = test;
        }
        u8::try_from(self.first).unwrap_or(FAIL)
    }

    fn pattern(&mut self, glyphs: &[Glyph], at: usize) -> Result<u16, ExpressionError> {
        let Some(pattern) = Pattern::new(glyphs.iter().copied()) else {
            let message = format!("the kernel compares at most {MAX_PATTERN} characters and wildcards of a text");
            return Err(self.expression.error(at, message));
        };
        let known = self.patterns.iter().position(|known| *known == pattern);
        let index = known.unwrap_or_else(|| {
            self.patterns.push(pattern);
            self.patterns.len() - 1
        });
        Ok(u16::try_from(index).unwrap_or(u16::MAX))
    }
}
