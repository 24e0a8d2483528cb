use std::collections::HashMap;

use proptest::prelude::*;
use relay_common::recipe::{FAIL, MAX_PATTERN, MAX_TESTS, Operator, PASS, Pattern, Recipe, Subject as Place, Test};

use super::*;

/// A payload with a field of each kind.
const FIELDS: [(&str, usize, u8, bool); 8] = [
    ("a", 0, 1, false),
    ("b", 1, 1, true),
    ("c", 2, 2, false),
    ("d", 4, 2, true),
    ("e->e.e[1]", 8, 4, false),
    ("_f", 12, 4, true),
    ("g", 16, 8, false),
    ("h", 24, 8, true),
];
const SIZE: usize = 32;

fn resolve(name: &str) -> Result<FieldSubject, String> {
    let place = |at: usize| u16::try_from(at).unwrap();
    Ok(match name {
        "in" => FieldSubject::Integer { source: Source::Input(3), size: 4, signed: true },
        "comm" => FieldSubject::Text { source: TextSource::Comm },
        "fixed" => FieldSubject::Text { source: TextSource::Fixed { at: 32, len: 300 } },
        "located" => FieldSubject::Text { source: TextSource::Located { at: 40, relative: false } },
        "relative" => FieldSubject::Text { source: TextSource::Located { at: 44, relative: true } },
        "array" => FieldSubject::Other("an array".to_owned()),
        "odd" => FieldSubject::Integer { source: Source::Payload(0), size: 3, signed: false },
        _ => {
            let field = FIELDS.iter().find(|field| field.0 == name).ok_or(format!("no field '{name}'"))?;
            FieldSubject::Integer { source: Source::Payload(place(field.1)), size: field.2, signed: field.3 }
        }
    })
}

fn compile(text: &str) -> Result<(Recipe, Vec<Pattern>), ExpressionError> {
    let mut recipe = Recipe::EMPTY;
    let patterns = Expression::parse(text)?.compile(&mut resolve, &mut recipe)?;
    Ok((recipe, patterns))
}

/// What an event has.
#[derive(Clone, Debug)]
struct Record {
    payload: [u8; SIZE],
    input: u64,
    comm: Vec<u8>,
}

/// The number in the low bytes of a word.
fn extend(word: u64, size: usize, signed: bool) -> u64 {
    let unused = 64 - 8 * u32::try_from(size).unwrap();
    if signed { ((word << unused).cast_signed() >> unused).cast_unsigned() } else { word << unused >> unused }
}

impl Record {
    fn word(&self, at: usize, size: usize) -> u64 {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&self.payload[at..at + size]);
        u64::from_le_bytes(word)
    }

    fn value(&self, name: &str) -> Option<Comparand> {
        let (word, size, signed) = match name {
            "in" => (self.input, 4, true),
            "comm" => return Some(Comparand::Text(self.comm.clone())),
            _ => {
                let (_, at, size, signed) = *FIELDS.iter().find(|field| field.0 == name)?;
                (self.word(at, size.into()), size, signed)
            }
        };
        let word = extend(word, size.into(), signed);
        Some(Comparand::Integer(if signed { word.cast_signed().into() } else { word.into() }))
    }

    /// As the kernel side does it.
    fn passes(&self, recipe: &Recipe, patterns: &[Pattern]) -> bool {
        let (mut index, count) = (0, recipe.n_tests);
        assert!((1..=MAX_TESTS).contains(&count.into()));
        loop {
            let test = recipe.tests[usize::from(index)];
            let next = if self.holds(&test, patterns) { test.yes } else { test.no };
            match next {
                PASS => return true,
                FAIL => return false,
                _ => assert!(index < next && next < count, "{index} {next} {count}"),
            }
            index = next;
        }
    }

    fn holds(&self, test: &Test, patterns: &[Pattern]) -> bool {
        let (at, size) = (usize::from(test.at), usize::from(test.size));
        if test.operator == Operator::Matches as u8 {
            assert_eq!((test.subject, size), (Place::Comm as u8, 16));
            let text = self.comm.split(|byte| *byte == 0).next().unwrap();
            return patterns[usize::from(test.pattern)].matches(text);
        }
        assert!(matches!(size, 1 | 2 | 4 | 8));
        let word = match test.subject {
            0 => self.word(at, size),
            1 => self.input,
            other => panic!("{other}"),
        };
        let number = extend(word, size, test.signed != 0) & test.mask;
        let order = match test.signed {
            0 => number.cmp(&test.value),
            _ => number.cast_signed().cmp(&test.value.cast_signed()),
        };
        match test.operator {
            0 => order.is_eq(),
            1 => order.is_lt(),
            2 => order.is_le(),
            other => panic!("{other}"),
        }
    }
}

/// A condition that a test makes up, and what it means, without the parser's tree.
#[derive(Clone, Debug)]
enum Model {
    Number { field: &'static str, mask: Option<i128>, compared: Option<(&'static str, i128)>, turned: bool },
    Comm { operator: &'static str, pattern: String },
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Model {
    fn write(&self) -> String {
        let join = |list: &[Self], operator: &str| {
            let parts: Vec<_> = list.iter().map(|model| format!("({})", model.write())).collect();
            parts.join(operator)
        };
        match self {
            Self::Number { field, mask, compared, turned } => {
                let operand = match mask {
                    Some(mask) if *turned => format!("{mask} & {field}"),
                    Some(mask) => format!("{field} & {mask}"),
                    None => (*field).to_owned(),
                };
                match compared {
                    Some((operator, value)) if *turned => format!("{value} {} {operand}", turn(operator)),
                    Some((operator, value)) => format!("{operand} {operator} {value}"),
                    None => operand,
                }
            }
            Self::Comm { operator, pattern } => format!("comm {operator} \"{pattern}\""),
            Self::Not(model) => format!("!({})", model.write()),
            // With parentheses only where they are needed: a list in a list of the other kind, or of the same.
            Self::All(list) => join(list, "&&"),
            Self::Any(list) => {
                let parts: Vec<_> = list
                    .iter()
                    .map(
                        |model| {
                            if matches!(model, Self::Any(_)) { format!("({})", model.write()) } else { model.write() }
                        },
                    )
                    .collect();
                parts.join(" || ")
            }
        }
    }

    fn holds(&self, record: &Record) -> bool {
        match self {
            Self::Number { field, mask, compared, .. } => {
                let Some(Comparand::Integer(number)) = record.value(field) else { panic!("{field}") };
                let number = number & mask.unwrap_or(-1);
                match *compared {
                    None => number != 0,
                    Some(("==", value)) => number == value,
                    Some(("!=", value)) => number != value,
                    Some(("<", value)) => number < value,
                    Some(("<=", value)) => number <= value,
                    Some((">", value)) => number > value,
                    Some((_, value)) => number >= value,
                }
            }
            Self::Comm { operator, pattern } => {
                let text = record.comm.split(|byte| *byte == 0).next().unwrap();
                match *operator {
                    "==" => text == pattern.as_bytes(),
                    "!=" => text != pattern.as_bytes(),
                    "~" => naive(pattern.as_bytes(), text),
                    _ => !naive(pattern.as_bytes(), text),
                }
            }
            Self::Not(model) => !model.holds(record),
            Self::All(list) => list.iter().all(|model| model.holds(record)),
            Self::Any(list) => list.iter().any(|model| model.holds(record)),
        }
    }
}

fn turn(operator: &str) -> &str {
    match operator {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        same => same,
    }
}

/// The definition of a match.
fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..])),
        [b'?', rest @ ..] => !text.is_empty() && naive(rest, &text[1..]),
        [byte, rest @ ..] => text.first() == Some(byte) && naive(rest, &text[1..]),
    }
}

/// Numbers near those where something changes.
fn numbers() -> impl Strategy<Value = i128> {
    let edges = prop::sample::select(vec![0, 7, 8, 15, 16, 31, 32, 63, 64]);
    let near = (edges, any::<bool>(), -2_i128..=2).prop_map(|(bit, negative, by)| {
        let edge = 1_i128 << bit;
        let number = by + if negative { -edge } else { edge };
        number.clamp(i64::MIN.into(), u64::MAX.into())
    });
    prop_oneof![near, -3_i128..4, any::<i64>().prop_map(Into::into), any::<u64>().prop_map(Into::into)]
}

fn models() -> impl Strategy<Value = Model> {
    let field = prop::sample::select(FIELDS.iter().map(|field| field.0).chain(["in"]).collect::<Vec<_>>());
    let relation = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let compared = prop::option::weighted(0.8, (relation, numbers()));
    let number = (field, prop::option::weighted(0.4, numbers()), compared, any::<bool>())
        .prop_map(|(field, mask, compared, turned)| Model::Number { field, mask, compared, turned });
    let operator = prop::sample::select(vec!["==", "!=", "~", "!~"]);
    let comm = (operator, "[ab*?]{0,6}").prop_map(|(operator, pattern)| Model::Comm { operator, pattern });
    prop_oneof![3 => number, 1 => comm].prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|model| Model::Not(Box::new(model))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Model::All),
            prop::collection::vec(inner, 2..4).prop_map(Model::Any),
        ]
    })
}

fn records() -> impl Strategy<Value = Record> {
    let word = prop_oneof![numbers().prop_map(compile::low_bits), any::<u64>()];
    (prop::collection::vec(word, SIZE / 8 + 1), prop::collection::vec(prop::sample::select(b"aab\0*".to_vec()), 0..8))
        .prop_map(|(words, comm)| {
            let mut payload = [0; SIZE];
            for (bytes, word) in payload.chunks_mut(8).zip(&words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            Record { payload, input: words[SIZE / 8], comm }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// The kernel's tests, and user space, mean what the condition means.
    #[test]
    fn a_condition_means_the_same_everywhere(model in models(), records in prop::collection::vec(records(), 1..8)) {
        let text = model.write();
        let expression = Expression::parse(&text).unwrap();
        let compiled = compile(&text);
        for record in &records {
            let holds = model.holds(record);
            prop_assert_eq!(expression.evaluate(&mut |name| record.value(name)), Some(holds), "evaluated {}", text);
            match &compiled {
                Ok((recipe, patterns)) => prop_assert_eq!(record.passes(recipe, patterns), holds, "compiled {}", text),
                Err(error) => prop_assert!(
                    ["more than 24", "always holds", "never holds"].iter().any(|known| error.message().contains(known)),
                    "{}",
                    error.render()
                ),
            }
        }
    }

    /// One field, so that all its edges come up.
    #[test]
    fn numbers_compare_as_in_mathematics(
        field in prop::sample::select(FIELDS.to_vec()),
        value in numbers(),
        mask in prop::option::of(numbers()),
        relation in prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]),
        records in prop::collection::vec(records(), 8),
    ) {
        let model = Model::Number { field: field.0, mask, compared: Some((relation, value)), turned: false };
        let compiled = compile(&model.write());
        for record in &records {
            let passes = match &compiled {
                Ok((recipe, patterns)) => record.passes(recipe, patterns),
                Err(error) => error.message().contains("always holds"),
            };
            prop_assert_eq!(passes, model.holds(record), "{}", model.write());
        }
    }

    /// Whatever the text, it is a condition or an error in one place of it.
    #[test]
    fn any_text_is_parsed_or_refused(
        text in "(.|[a-d](->|\\.)?|comm|[()!&|<>=~ ]|&&|\\|\\||==|!=|!~|[0-9]|0x|0o|-|ms|K|\"[ab*\\\\x0]*\"|'\\\\?.'|\\[1\\]){0,16}"
    ) {
        let error = match Expression::parse(&text) {
            Ok(expression) => {
                prop_assert!(expression.fields().iter().all(|field| text.contains(field)));
                expression.evaluate(&mut |_| None);
                compile(&text).err()
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            prop_assert!(text.is_char_boundary(error.offset()));
            prop_assert_eq!(error.column(), text[..error.offset()].chars().count() + 1);
            prop_assert_eq!(error.render().lines().count(), 3 + error.message().matches('\n').count());
        }
    }
}

/// The tree, with all its parentheses.
fn shape(node: &Node) -> String {
    let join = |nodes: &[Node], with: &str| format!("({})", nodes.iter().map(shape).collect::<Vec<_>>().join(with));
    let masked = |operand: &Operand| match operand.mask {
        Some(mask) => format!("({}&{mask})", operand.field),
        None => operand.field.clone(),
    };
    match node {
        Node::Any(nodes) => join(nodes, "||"),
        Node::All(nodes) => join(nodes, "&&"),
        Node::Not(node) => format!("!{}", shape(node)),
        Node::IsSet(operand) => masked(operand),
        Node::Compare { operand, relation, constant, .. } => {
            let literal = match &constant.literal {
                Literal::Integer(number) => number.to_string(),
                Literal::Text(glyphs) => glyphs.iter().fold(String::new(), |text, glyph| match glyph {
                    Glyph::Byte(byte) => text + &byte.escape_ascii().to_string(),
                    Glyph::Any => text + "<?>",
                    Glyph::Run => text + "<*>",
                }),
            };
            format!("({}{}{literal})", masked(operand), relation.symbol())
        }
    }
}

#[test]
fn operators_bind_as_they_should() {
    for (text, expected) in [
        ("a || b && c || d", "(a||(b&&c)||d)"),
        ("a && (b && c) && d", "(a&&(b&&c)&&d)"),
        ("!a && !b == 0 || c", "at 7"),
        ("!a & 4", "at 1"),
        ("!(a & 4)", "!(a&4)"),
        ("!!a", "!!a"),
        ("a & 0x40 == 0 && b", "(((a&64)==0)&&b)"),
        ("(a & 0x40) == 0", "((a&64)==0)"),
        ("0x41 & a & 0o100 > 1", "((a&64)>1)"),
        ("((a)) != ((5))", "(a!=5)"),
        ("3 < a || 3 >= a || 3 == a", "((a>3)||(a<=3)||(a==3))"),
        ("a<-1&&a>-9", "((a<-1)&&(a>-9))"),
        ("file->f_inode->i_ino == 7 && a.b[3]->c", "((file->f_inode->i_ino==7)&&a.b[3]->c)"),
        ("a > 100ms && a < 2s && a >= 3us && a != 4ns", "((a>100000000)&&(a<2000000000)&&(a>=3000)&&(a!=4))"),
        ("a == 64K || a == 0x2M || a == -1G", "((a==65536)||(a==2097152)||(a==-1073741824))"),
        ("a == 'x' || a == '\\n' || a == '\\xff' || a == '\\''", "((a==120)||(a==10)||(a==255)||(a==39))"),
        (
            "a == 18446744073709551615 || a == -0x8000000000000000",
            "((a==18446744073709551615)||(a==-9223372036854775808))",
        ),
        (r#"a ~ "k*r?\*\?" && a !~ "*""#, "((a~k<*>r<?>*?)&&(a!~<*>))"),
        (r#""k*r?\*\?" == a"#, "(a==k*r?*?)"),
        (r#"a == "\"\\\n\t\x01é""#, r#"(a==\"\\\n\t\x01\xc3\xa9)"#),
    ] {
        let found = Expression::parse(text).map_or_else(|e| format!("at {}", e.column()), |e| shape(e.root()));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, column, message) in [
        ("", 1, "the condition is empty"),
        ("  ", 1, "the condition is empty"),
        ("a < && b", 5, "expected a value after '<'"),
        ("é < 1", 1, "'é' means nothing here"),
        ("comm == \"é\" && é", 16, "'é' means nothing here"),
        ("a &&", 5, "expected a value after '&&'"),
        ("a && (", 7, "expected a value after '('"),
        ("&& a", 1, "expected a field or a constant before '&&'"),
        ("a && (b || c", 6, "this '(' is not closed"),
        ("a && (b c)", 9, "expected an operator or ')' before 'c'"),
        ("a)", 2, "a ')' without its '('"),
        ("a b", 3, "expected an operator before 'b'"),
        ("a = 1", 3, "'=' is not an operator: equal is '=='"),
        ("a | 1", 3, "'|' is not an operator: one or the other is '||'"),
        ("a - 1", 3, "'-' is only the sign of a number"),
        ("a == 1 == 1", 8, "comparisons do not follow one another: join them with '&&'"),
        ("a && 5", 6, "a constant alone is not a condition: compare a field with it"),
        ("1 < 2", 3, "two constants on the sides of '<': one must be a field"),
        (
            "comm == kworker",
            9,
            "two fields on the sides of '==': one must be a constant; a text goes in double quotes, as in \"kworker\"",
        ),
        ("a & b", 5, "two fields on the sides of '&'"),
        ("!a == 3", 1, "this is a condition, and '==' is for values; to negate a comparison, put it in parentheses"),
        ("a & (b < 3)", 6, "this is a condition, and '&' is for values; both must hold: '&&'"),
        ("a & \"x\"", 5, "'&' is for numbers, and this is a text"),
        ("a & 1 == \"x\"", 10, "what '&' leaves is a number"),
        ("comm < \"x\"", 6, "'<' is for numbers: texts have ==, !=, ~ and !~"),
        ("a ~ 5", 5, "'~' matches a text with a pattern: give a \"pattern\""),
        ("a == 12x", 6, "'12x' is not a number; units are"),
        ("a == 0x", 6, "'0x' is not a number; units are"),
        ("a == 0644", 6, "a number that begins with 0: octal is 0o644, decimal 644"),
        ("a == 1.5ms", 6, "numbers are whole"),
        ("a == 18446744073709551616", 6, "the number does not fit into 64 bits"),
        ("a == 99999999999999999999999999999999999999999999", 6, "the number does not fit into 64 bits"),
        ("a == -9223372036854775809", 6, "the number does not fit into 64 bits"),
        ("a == 99999999999G", 6, "the number does not fit into 64 bits"),
        ("a == 'xy'", 6, "one character of ASCII goes between single quotes"),
        ("a == ''", 6, "one character of ASCII goes between single quotes"),
        ("a == \"x", 6, "this '\"' is not closed"),
        ("a == \"x\\", 8, "unknown escape"),
        ("a == \"x\\q\"", 8, "unknown escape"),
        ("a == \"x\\x4\"", 9, "expected two hexadecimal digits after '\\x'"),
        ("a == \"x\\x00\"", 8, "no text has a NUL in it"),
        ("a-> == 1", 4, "expected a name after '->'"),
        ("a[x]", 3, "expected an index after '['"),
        ("a[1", 3, "expected an index and ']' after '['"),
        // Only the fields' types tell these.
        ("comm == 5", 9, "comm is text: compare it with a \"string\""),
        ("comm < 5", 8, "comm is text: compare it with a \"string\""),
        ("a && comm", 6, "comm is text: compare it with a \"string\""),
        ("comm & 1", 1, "comm is text: '&' is for numbers"),
        ("comm & 1 == 1", 1, "comm is text: '&' is for numbers"),
        ("a ~ \"x\"", 5, "a is a number: compare it with a number"),
        ("array == 1", 1, "array is an array: it does not compare"),
        ("array", 1, "array is an array: it does not compare"),
        ("odd", 1, "odd is a number of 3 bytes"),
        ("a > 300 && b == 1", 5, "a is from 0 to 255"),
    ] {
        let error = compile(text).expect_err(text);
        assert_eq!(error.column(), column, "{text}: {error}");
        assert!(error.message().starts_with(message), "{text}: {error}");
    }
}

#[test]
fn an_error_is_shown_below_its_place() {
    let error = Expression::parse("next_prio < && x").unwrap_err();
    let expected = "in the condition, column 13: expected a value after '<'\n  next_prio < && x\n              ^";
    assert_eq!(error.render(), expected);
    assert_eq!(error.to_string(), expected.lines().next().unwrap());
    let error = Expression::parse("é\t\n<").unwrap_err();
    assert_eq!(error.render().lines().nth(1), Some("  é  <"));
}

#[test]
fn what_is_the_same_for_every_event_is_refused() {
    for (text, outcome) in [
        ("a > 300", "never"),
        ("a <= 255", "always"),
        ("a > -1", "always"),
        ("!(a > -1)", "always"),
        ("a == -1", "never"),
        ("_f == 4294967295", "never"),
        ("_f != 4294967295", "always"),
        ("g >= 0", "always"),
        ("h < -0x8000000000000000", "never"),
        ("h <= 18446744073709551615", "always"),
        ("b & 0x0f > 15", "never"),
        ("a & 0", "never"),
        ("a & 0x100", "never"),
        ("b == 1 || a > 300", "never"),
    ] {
        let error = compile(text).unwrap_err();
        assert!(error.message().contains(&format!("this {outcome} holds")), "{text}: {error}");
    }
    let error = compile("b == 1 && a == -1").unwrap_err();
    assert_eq!(
        error.message(),
        "a is from 0 to 255 here: this never holds; (name:s64) after the event reads it as a signed number"
    );
}

#[test]
fn texts_become_tests_and_patterns_are_shared() {
    let text = r#"fixed == "a*" && located ~ "a*" && relative !~ "a*" && comm ~ "a**" && in < 5"#;
    let (recipe, patterns) = compile(text).unwrap();
    assert_eq!((recipe.n_tests, patterns.len()), (5, 2));
    let tests = &recipe.tests;
    let found: Vec<_> = tests[..5].iter().map(|test| (test.subject, test.at, test.size)).collect();
    let place = |place: Place, at, size| (place as u8, at, size);
    let expected = [
        place(Place::Text, 32, 256),
        place(Place::Located, 40, 256),
        place(Place::LocatedRelative, 44, 256),
        place(Place::Comm, 0, 16),
        place(Place::Input, 3, 4),
    ];
    assert_eq!(found, expected);
    assert_eq!([tests[1].pattern, tests[2].pattern], [tests[3].pattern; 2]);
    let literal = &patterns[usize::from(tests[0].pattern)];
    assert!(literal.matches(b"a*") && !literal.matches(b"ab"));
    let wild = &patterns[usize::from(tests[1].pattern)];
    assert!(wild.matches(b"a*") && wild.matches(b"ab"));
    assert_eq!((tests[2].yes, tests[2].no), (FAIL, 3));
}

#[test]
fn limits_are_named_and_hold() {
    let list = |n| vec!["a == 1"; n].join(" || ");
    assert_eq!(usize::from(compile(&list(MAX_TESTS)).unwrap().0.n_tests), MAX_TESTS);
    let error = compile(&list(MAX_TESTS + 1)).unwrap_err();
    assert_eq!((error.column(), error.message()), (10 * MAX_TESTS + 1, "the condition takes more than 24 comparisons"));

    let text = |n| format!("comm == \"{}\"", "x".repeat(n));
    assert!(compile(&text(MAX_PATTERN)).is_ok());
    let error = compile(&text(MAX_PATTERN + 1)).unwrap_err();
    assert_eq!(error.column(), 9);
    assert!(error.message().contains("63"), "{error}");

    let nested = |n| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert!(compile(&nested(64)).is_ok());
    assert!(compile(&nested(65)).unwrap_err().message().starts_with("more than 64"));
    for text in [nested(1 << 20), "!".repeat(1 << 20), "(!".repeat(1 << 20), "!(a||a&&".repeat(1 << 18)] {
        assert!(Expression::parse(&text).is_err());
    }
    // One after another is not inside one another.
    let flat = vec!["!(a)"; 1000].join("&&");
    assert_eq!(Expression::parse(&flat).unwrap().evaluate(&mut |_| Some(Comparand::Integer(0))), Some(true));
    let error = compile("a == 1 && b == ").unwrap_err();
    assert_eq!(error.column(), 16);
}

#[test]
fn a_recipe_stays_as_it_was_when_there_is_an_error() {
    let mut recipe = compile("a == 1 && b == 2").unwrap().0;
    let before = recipe;
    for text in
        ["a == 2 && nosuch", r#"a == 2 && comm == "0123456789012345678901234567890123456789012345678901234567890123""#]
    {
        assert!(Expression::parse(text).unwrap().compile(&mut resolve, &mut recipe).is_err());
        assert_eq!(recipe, before);
    }
}

#[test]
fn names_are_listed_and_resolved_once() {
    let expression = Expression::parse("b == 1 || a && !b || comm ~ \"x\" && a > 3").unwrap();
    assert_eq!(expression.fields(), ["b", "a", "comm"]);
    let mut resolved = Vec::new();
    let mut names = |name: &str| {
        resolved.push(name.to_owned());
        resolve(name)
    };
    expression.compile(&mut names, &mut Recipe::EMPTY.clone()).unwrap();
    assert_eq!(resolved, ["b", "a", "comm"]);
}

#[test]
fn what_is_not_known_matters_only_where_it_decides() {
    let values = HashMap::from([("one", Comparand::Integer(1)), ("text", Comparand::Text(b"x\0y".to_vec()))]);
    for (text, expected) in [
        ("one || nosuch", Some(true)),
        ("nosuch || one", Some(true)),
        ("!one && nosuch", Some(false)),
        ("nosuch && !one", Some(false)),
        ("nosuch && one", None),
        ("!nosuch", None),
        ("text", None),
        ("text == 1", None),
        ("one == \"x\"", None),
        ("text == \"x\"", Some(true)),
        ("text !~ \"x?*\"", Some(true)),
    ] {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(expression.evaluate(&mut |name| values.get(name).cloned()), expected, "{text}");
    }
}

#[test]
fn both_sides_look_at_as_much_of_a_text() {
    let value = |n: usize| Comparand::Text([vec![b'a'; n], b"z".to_vec()].concat());
    let expression = Expression::parse("x ~ \"*z\"").unwrap();
    // The kernel's has a NUL at its end.
    assert_eq!(expression.evaluate(&mut |_| Some(value(MAX_TEXT - 2))), Some(true));
    assert_eq!(expression.evaluate(&mut |_| Some(value(MAX_TEXT - 1))), Some(false));
}

#[test]
fn a_text_that_could_not_be_read_decides_as_it_does_in_the_kernel() {
    let values = HashMap::from([("one", Comparand::Integer(1)), ("text", Comparand::Unreadable)]);
    for (text, expected) in [
        ("text == \"x\"", true),
        ("text != \"x\"", true),
        ("text ~ \"x*\"", true),
        ("text !~ \"x*\"", true),
        ("!(text == \"x\" || text != \"x\")", true),
        ("one == 2 && text == \"x\"", false),
        ("!one || text == \"x\"", true),
        // What comes after it is not looked at.
        ("text == \"x\" && one == 2", true),
    ] {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(expression.evaluate(&mut |name| values.get(name).cloned()), Some(expected), "{text}");
    }
}
