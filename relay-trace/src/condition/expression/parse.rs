//! From a condition's text to its tree, by recursive descent.

use std::ops::Range;

use relay_common::recipe::Glyph;

use super::{Constant, ExpressionError, Literal, Node, Operand, Relation};
use lexer::{Lexer, Token};

mod lexer;

/// Most parentheses and `!` inside one another: each takes some of the stack.
const MAX_DEPTH: usize = 64;

/// What a part of the text turns out to be.
enum Term {
    Operand(Operand),
    Constant(Constant),
    /// A truth, and where it begins.
    Condition(Node, usize),
}

/// Parses a whole text.
pub(crate) fn parse(text: &str) -> Result<Node, ExpressionError> {
    let mut parser = Parser { lexer: Lexer::new(text), token: Token::End, span: 0..0, previous: 0..0, depth: 0 };
    parser.advance()?;
    if parser.token == Token::End {
        return Err(parser.error(0, "the condition is empty"));
    }
    let term = parser.any()?;
    match parser.token {
        Token::End => parser.condition(term),
        Token::Close => Err(parser.error(parser.span.start, "a ')' without its '('")),
        _ => Err(parser.error(parser.span.start, format!("expected an operator before '{}'", parser.source()))),
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The token that comes next, and where it is.
    token: Token,
    span: Range<usize>,
    /// Where the token before it is.
    previous: Range<usize>,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn error(&self, offset: usize, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.lexer.text, offset, message)
    }

    fn source(&self) -> &'t str {
        self.lexer.text.get(self.span.clone()).unwrap_or_default()
    }

    /// Goes to the next token; returns the one it leaves.
    fn advance(&mut self) -> Result<Token, ExpressionError> {
        let (token, span) = self.lexer.next()?;
        self.previous = std::mem::replace(&mut self.span, span);
        Ok(std::mem::replace(&mut self.token, token))
    }

    /// `all || all …`
    fn any(&mut self) -> Result<Term, ExpressionError> {
        self.list(&Token::Or, Self::all, Node::Any)
    }

    /// `comparison && comparison …`
    fn all(&mut self) -> Result<Term, ExpressionError> {
        self.list(&Token::And, Self::comparison, Node::All)
    }

    /// However long it is, its tree is flat: nothing that walks it needs a stack for it.
    fn list(
        &mut self,
        operator: &Token,
        element: fn(&mut Self) -> Result<Term, ExpressionError>,
        node: fn(Vec<Node>) -> Node,
    ) -> Result<Term, ExpressionError> {
        let at = self.span.start;
        let first = element(self)?;
        if self.token != *operator {
            return Ok(first);
        }
        let mut nodes = vec![self.condition(first)?];
        while self.token == *operator {
            self.advance()?;
            let next = element(self)?;
            nodes.push(self.condition(next)?);
        }
        Ok(Term::Condition(node(nodes), at))
    }

    /// `masked`, or `masked < masked`
    fn comparison(&mut self) -> Result<Term, ExpressionError> {
        let start = self.span.start;
        let left = self.masked()?;
        let Token::Relation(relation) = self.token else { return Ok(left) };
        let at = self.span.start;
        self.advance()?;
        let right = self.masked()?;
        let node = self.compare(left, relation, at, right)?;
        if let Token::Relation(_) = self.token {
            return Err(self.error(self.span.start, "comparisons do not follow one another: join them with '&&'"));
        }
        Ok(Term::Condition(node, start))
    }

    /// `unary & unary …`
    fn masked(&mut self) -> Result<Term, ExpressionError> {
        let mut left = self.unary()?;
        while self.token == Token::Mask {
            let at = self.span.start;
            self.advance()?;
            let right = self.unary()?;
            let (mut operand, constant) = self.sides(left, right, "&", at)?.0;
            let Literal::Integer(mask) = constant.literal else {
                return Err(self.error(constant.span.start, "'&' is for numbers, and this is a text"));
            };
            operand.mask = Some(operand.masked(mask));
            left = Term::Operand(operand);
        }
        Ok(left)
    }

    /// `!unary`, `(any)`, a field or a constant.
    fn unary(&mut self) -> Result<Term, ExpressionError> {
        let span = self.span.clone();
        match &self.token {
            Token::Not => {
                self.deeper()?;
                let inner = self.unary()?;
                self.depth -= 1;
                Ok(Term::Condition(Node::Not(Box::new(self.condition(inner)?)), span.start))
            }
            Token::Open => {
                self.deeper()?;
                let inner = self.any()?;
                self.depth -= 1;
                match self.token {
                    Token::Close => self.advance()?,
                    Token::End => return Err(self.error(span.start, "this '(' is not closed")),
                    _ => {
                        let message = format!("expected an operator or ')' before '{}'", self.source());
                        return Err(self.error(self.span.start, message));
                    }
                };
                Ok(inner)
            }
            Token::Field | Token::Literal(_) => {
                let source = self.source();
                Ok(match self.advance()? {
                    Token::Literal(literal) => Term::Constant(Constant { literal, span }),
                    _ => Term::Operand(Operand { field: source.to_owned(), span, mask: None }),
                })
            }
            _ => {
                let message = match self.lexer.text.get(self.previous.clone()).unwrap_or_default() {
                    "" => format!("expected a field or a constant before '{}'", self.source()),
                    operator => format!("expected a value after '{operator}'"),
                };
                Err(self.error(span.start, message))
            }
        }
    }

    fn deeper(&mut self) -> Result<(), ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} parentheses and '!' inside one another");
            return Err(self.error(self.span.start, message));
        }
        self.advance().map(drop)
    }

    fn condition(&self, term: Term) -> Result<Node, ExpressionError> {
        match term {
            Term::Condition(node, _) => Ok(node),
            Term::Operand(operand) => Ok(Node::IsSet(operand)),
            Term::Constant(constant) => {
                Err(self.error(constant.span.start, "a constant alone is not a condition: compare a field with it"))
            }
        }
    }

    /// The field's side and the constant's, and whether they had to change places.
    fn sides(
        &self,
        left: Term,
        right: Term,
        symbol: &str,
        at: usize,
    ) -> Result<((Operand, Constant), bool), ExpressionError> {
        match (left, right) {
            (Term::Operand(operand), Term::Constant(constant)) => Ok(((operand, constant), false)),
            (Term::Constant(constant), Term::Operand(operand)) => Ok(((operand, constant), true)),
            (Term::Operand(_), Term::Operand(operand)) => {
                let quoted = format!("two fields on the sides of '{symbol}': one must be a constant");
                let message = format!("{quoted}; a text goes in double quotes, as in \"{}\"", operand.field);
                Err(self.error(operand.span.start, message))
            }
            (Term::Constant(_), Term::Constant(_)) => {
                Err(self.error(at, format!("two constants on the sides of '{symbol}': one must be a field")))
            }
            (Term::Condition(_, at), _) | (_, Term::Condition(_, at)) => {
                let hint = match symbol {
                    "&" => "both must hold: '&&'",
                    _ => "to negate a comparison, put it in parentheses: !(a == 1)",
                };
                Err(self.error(at, format!("this is a condition, and '{symbol}' is for values; {hint}")))
            }
        }
    }

    fn compare(&self, left: Term, relation: Relation, at: usize, right: Term) -> Result<Node, ExpressionError> {
        let symbol = relation.symbol();
        let ((operand, mut constant), turned) = self.sides(left, right, symbol, at)?;
        let relation = if turned { relation.turned() } else { relation };
        let error = |at, message: String| Err(self.error(at, message));
        match (&mut constant.literal, relation) {
            (Literal::Integer(_), Relation::Matches | Relation::MatchesNot) => {
                error(constant.span.start, format!("'{symbol}' matches a text with a pattern: give a \"pattern\""))
            }
            (Literal::Text(_), _) if operand.mask.is_some() => {
                error(constant.span.start, "what '&' leaves is a number: compare it with a number".to_owned())
            }
            (Literal::Text(glyphs), Relation::Equal | Relation::NotEqual) => {
                glyphs.iter_mut().for_each(|glyph| *glyph = literal(*glyph));
                Ok(Node::Compare { operand, relation, constant, at })
            }
            (Literal::Integer(_), _) | (Literal::Text(_), Relation::Matches | Relation::MatchesNot) => {
                Ok(Node::Compare { operand, relation, constant, at })
            }
            (Literal::Text(_), _) => error(at, format!("'{symbol}' is for numbers: texts have ==, !=, ~ and !~")),
        }
    }
}

/// Where there are no wildcards, their characters are what they are.
const fn literal(glyph: Glyph) -> Glyph {
    match glyph {
        Glyph::Byte(byte) => Glyph::Byte(byte),
        Glyph::Any => Glyph::Byte(b'?'),
        Glyph::Run => Glyph::Byte(b'*'),
    }
}
