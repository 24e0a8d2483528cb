//! What the user writes after `-e`: `KIND:WHERE(ARGUMENTS) if CONDITION`, several separated by commas. Names are only taken apart here,
//! not looked up. What stands in double quotes is not taken apart: a path may have commas, parentheses and spaces.

use std::borrow::Cow;

use anyhow::{Result, bail};

/// Kinds of events, in the spelling of bpftrace: long names, short ones, and what is to be written after the colon.
const KINDS: [(ProbeKind, &[&str], &str); 11] = [
    (ProbeKind::Tracepoint, &["tracepoint", "t"], "CATEGORY:NAME"),
    (ProbeKind::RawTracepoint, &["rawtracepoint", "rt"], "NAME"),
    (ProbeKind::Syscall, &["syscall"], "NAME"),
    (ProbeKind::Kprobe, &["kprobe", "k"], "[MODULE:]FUNCTION[+OFFSET]"),
    (ProbeKind::Kretprobe, &["kretprobe", "kr"], "[MODULE:]FUNCTION"),
    (ProbeKind::Fentry, &["fentry", "kfunc", "f"], "[MODULE:]FUNCTION"),
    (ProbeKind::Fexit, &["fexit", "kretfunc", "fr"], "[MODULE:]FUNCTION"),
    (ProbeKind::Uprobe, &["uprobe", "u"], "PATH:SYMBOL[+OFFSET]"),
    (ProbeKind::Uretprobe, &["uretprobe", "ur"], "PATH:SYMBOL"),
    (ProbeKind::Usdt, &["usdt", "U"], "PATH:[PROVIDER:]NAME"),
    (ProbeKind::Profile, &["profile", "p"], "hz:RATE"),
];

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// A tracepoint's own fields.
    Tracepoint,
    /// A tracepoint's arguments.
    RawTracepoint,
    /// A system call, with what it returned.
    Syscall,
    /// A kernel function's entry, or an instruction in it.
    Kprobe,
    /// A kernel function's return.
    Kretprobe,
    /// A kernel function's entry, by a trampoline.
    Fentry,
    /// A kernel function's return, by a trampoline.
    Fexit,
    /// A function's entry in a process, or an instruction.
    Uprobe,
    /// A function's return in a process.
    Uretprobe,
    /// A static probe in a process.
    Usdt,
    /// Samples at a rate.
    Profile,
}

impl ProbeKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    /// Its long name.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .and_then(|(_, names, _)| names.first().copied())
            .unwrap_or_default()
    }

    /// What follows its name and a colon.
    #[must_use]
    pub fn target(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., target)| target)
    }

    fn of(word: &str) -> Option<Self> {
        KINDS.iter().find(|(_, names, _)| names.contains(&word)).map(|(kind, ..)| *kind)
    }
}

/// One event, or a pattern of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its kind.
    pub kind: ProbeKind,
    /// What comes after the kind.
    pub target: String,
    /// What is to be recorded of it. `None`: all that is known.
    pub arguments: Option<Vec<Argument>>,
    /// Which records are kept.
    pub condition: Option<String>,
    /// As it was written.
    pub text: String,
}

impl Spec {
    /// All of a kind that a target means.
    #[must_use]
    pub fn of(kind: ProbeKind, target: &str) -> Self {
        let text = format!("{}:{target}", kind.name());
        Self { kind, target: target.to_owned(), arguments: None, condition: None, text }
    }
}

/// One value to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Under which name, when not its own.
    pub name: Option<String>,
    /// A parameter, and perhaps a path from there: `file->f_inode->i_ino`.
    pub path: String,
    /// How it is read.
    pub read: Read,
}

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// As its type says.
    AsTyped,
    /// As a string in the process's memory.
    UserString,
    /// As a string in the kernel's memory.
    KernelString,
    /// As a string wherever its address points.
    String,
    /// As the strings that an array of addresses points to.
    Strings,
    /// As a number in base 16.
    Hexadecimal,
    /// So many bytes from where it points.
    Bytes(u16),
    /// As a number of so many bytes, its low ones.
    Number {
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
        /// It can be negative.
        signed: bool,
    },
}

/// How numbers are read, and what it is called.
const NUMBERS: [(&str, u8, bool); 8] = [
    ("s8", 1, true),
    ("s16", 2, true),
    ("s32", 4, true),
    ("s64", 8, true),
    ("u8", 1, false),
    ("u16", 2, false),
    ("u32", 4, false),
    ("u64", 8, false),
];

/// The name of a number's type.
#[must_use]
pub fn number_type(size: u8, signed: bool) -> &'static str {
    NUMBERS.iter().find(|number| (number.1, number.2) == (size, signed)).map_or("u64", |number| number.0)
}

/// Takes lists of events apart.
///
/// # Errors
/// What is not understood, and what would be.
pub fn parse(lists: &[String]) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for text in lists.iter().flat_map(|list| split(list)) {
        specs.push(one(text.trim())?);
    }
    Ok(specs)
}

/// Splits at the commas that stand in no parentheses, brackets and quotes.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0u32, None);
    let mut characters = list.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quoted, character) {
            (Some(_), '\\') => drop(characters.next()),
            (Some(quote), _) if quote == character => quoted = None,
            (Some(_), _) => {}
            (None, '"') => quoted = Some(character),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

/// The text with what stands in quotes made plain, byte by byte, so that it is not taken apart.
fn masked(text: &str) -> String {
    let (mut masked, mut quoted, mut escaped) = (String::with_capacity(text.len()), false, false);
    for character in text.chars() {
        let is_quote = character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
        quoted ^= is_quote;
        match character {
            _ if is_quote => masked.push('"'),
            _ if quoted => masked.extend(std::iter::repeat_n('x', character.len_utf8())),
            _ => masked.push(character),
        }
    }
    masked
}

/// The text without its quotes: in them `\"` is a quote, and `\\` a backslash.
fn unquoted(text: &str) -> String {
    let (mut plain, mut quoted) = (String::with_capacity(text.len()), false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}

/// A path as it can be written in an event: in quotes where it would be taken apart.
#[must_use]
pub fn quoted(path: &str) -> Cow<'_, str> {
    if !path.contains(|c: char| c.is_whitespace() || ",()[]\"".contains(c)) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn one(text: &str) -> Result<Spec> {
    let (event, condition) = match find_if(text) {
        Some((before, after)) => (before, Some(after.trim().to_owned())),
        None => (text, None),
    };
    if !masked(event).matches('"').count().is_multiple_of(2) {
        bail!("'{text}': a '\"' is missing");
    }
    if condition.as_deref() == Some("") {
        bail!("'{text}': a condition is to follow 'if', for example: if pid == 1");
    }
    let (event, arguments) = arguments(event.trim(), text)?;
    if event.is_empty() {
        bail!(
            "an empty event name; give CATEGORY:NAME, for example sched:sched_switch, or KIND:…, for example kprobe:vfs_read"
        );
    }
    let (kind, target) = match event.split_once(':').and_then(|(kind, rest)| Some((ProbeKind::of(kind)?, rest))) {
        Some((kind, "")) => bail!("'{text}': {} is to be followed by {}", kind.name(), kind.target()),
        Some(found) => found,
        None => (ProbeKind::Tracepoint, event),
    };
    Ok(Spec { kind, target: unquoted(target), arguments, condition, text: text.to_owned() })
}

/// What stands before and after the word `if`.
fn find_if(text: &str) -> Option<(&str, &str)> {
    let masked = masked(text);
    if let Some(before) = masked.strip_suffix(" if") {
        return Some((&text[..before.len()], ""));
    }
    let words = [" if ", " if(", "\tif ", ")if ", ")if("];
    let (at, found) = words.iter().filter_map(|word| Some((masked.find(word)?, word))).min()?;
    Some((&text[..at + usize::from(found.starts_with(')'))], &text[at + found.trim_end_matches('(').len()..]))
}

/// Takes `(…)` off the end.
fn arguments<'a>(event: &'a str, text: &str) -> Result<(&'a str, Option<Vec<Argument>>)> {
    let plain = masked(event);
    let Some(inner) = plain.strip_suffix(')') else {
        if let Some((_, rest)) = plain.rsplit_once(')') {
            bail!("'{text}': '{}' is not understood; a condition begins with if", rest.trim());
        }
        if plain.contains('(') {
            bail!("'{text}': a ')' is missing");
        }
        return Ok((event, None));
    };
    let Some((before, _)) = inner.split_once('(') else { bail!("'{text}': a '(' is missing") };
    let (event, list) = (&event[..before.len()], &event[before.len() + 1..inner.len()]);
    let list = split(list);
    let list = if list.len() == 1 && list[0].trim().is_empty() { Vec::new() } else { list };
    let arguments: Result<Vec<_>> = list.into_iter().map(|argument| self::argument(argument.trim(), text)).collect();
    Ok((event.trim_end(), Some(arguments?)))
}

/// `name=path:how`
fn argument(argument: &str, text: &str) -> Result<Argument> {
    let (name, rest) = match argument.split_once('=') {
        Some((name, rest)) => (Some(name.trim().to_owned()), rest.trim()),
        None => (None, argument),
    };
    if let Some(name) = &name
        && !is_identifier(name)
    {
        bail!("'{text}': '{name}' is not a name for a field: letters, digits and _ are");
    }
    let (path, read) = match rest.split_once(':') {
        Some((path, how)) => (path.trim(), read(how.trim(), text)?),
        None => (rest, Read::AsTyped),
    };
    if path.is_empty() {
        bail!("'{text}': an argument without a name");
    }
    Ok(Argument { name, path: path.to_owned(), read })
}

fn read(how: &str, text: &str) -> Result<Read> {
    const MOST: u16 = relay_common::recipe::MAX_STRING;
    if let Some(len) = how.strip_prefix("buf:") {
        return match len.trim().parse() {
            Ok(len @ 1..=MOST) => Ok(Read::Bytes(len)),
            _ => bail!("'{text}': buf: is to be followed by a number of bytes from 1 to {MOST}, not '{len}'"),
        };
    }
    Ok(match how {
        "ustr" => Read::UserString,
        "kstr" => Read::KernelString,
        "str" => Read::String,
        "strv" => Read::Strings,
        "hex" => Read::Hexadecimal,
        _ => match NUMBERS.iter().find(|(name, ..)| *name == how) {
            Some((_, size, signed)) => Read::Number { size: *size, signed: *signed },
            None => bail!(
                "'{text}': nothing is read as '{how}'; there are ustr, kstr, str, strv, hex, buf:BYTES, and s8 to s64 and u8 to u64"
            ),
        },
    })
}

/// Whether it can be a field's name.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(text: &str) -> Vec<Spec> {
        parse(&[text.to_owned()]).unwrap()
    }

    #[test]
    fn kinds_have_long_and_short_names_and_tracepoints_need_none() {
        for (text, kind, target) in [
            ("sched:sched_switch", ProbeKind::Tracepoint, "sched:sched_switch"),
            ("tracepoint:sched:*", ProbeKind::Tracepoint, "sched:*"),
            ("t:sched:*", ProbeKind::Tracepoint, "sched:*"),
            ("k:vfs_read", ProbeKind::Kprobe, "vfs_read"),
            ("kretprobe:vfs_*", ProbeKind::Kretprobe, "vfs_*"),
            ("usdt:/bin/x:provider:name", ProbeKind::Usdt, "/bin/x:provider:name"),
            ("profile:hz:99", ProbeKind::Profile, "hz:99"),
        ] {
            let spec = &specs(text)[0];
            assert_eq!((spec.kind, spec.target.as_str()), (kind, target), "{text}");
        }
    }

    #[test]
    fn commas_separate_events_except_in_parentheses_and_quotes() {
        let specs = specs("kprobe:vfs_open(path, file:hex) if a ~ \"x,y\", sched:*");
        assert_eq!(specs.len(), 2);
        assert_eq!(specs[0].target, "vfs_open");
        assert_eq!(specs[0].condition.as_deref(), Some("a ~ \"x,y\""));
        assert_eq!(specs[1].target, "sched:*");
    }

    #[test]
    fn what_stands_in_quotes_is_not_taken_apart() {
        let list = r#"uprobe:"/a, b (c) if d":main(arg0, arg1) if pid == 1, u:"/e\"f\\g":h, k:vfs_read"#;
        let specs = specs(list);
        let found: Vec<_> =
            specs.iter().map(|spec| (&*spec.target, spec.arguments.as_ref().map_or(0, Vec::len))).collect();
        assert_eq!(found, [("/a, b (c) if d:main", 2), (r#"/e"f\g:h"#, 0), ("vfs_read", 0)]);
        assert_eq!(specs[0].condition.as_deref(), Some("pid == 1"));
        for path in ["/plain", "/a, b", r#"/e"f\g"#, "/x (y)"] {
            let text = format!("uprobe:{}:f", quoted(path));
            assert_eq!(self::specs(&text)[0].target, format!("{path}:f"), "{text}");
        }
    }

    #[test]
    fn arguments_have_names_paths_and_ways_to_read() {
        let spec = &specs("k:f(dfd, name:ustr, ino=file->f_inode->i_ino, p:buf:16)")[0];
        let argument = |name: Option<&str>, path: &str, read| Argument {
            name: name.map(str::to_owned),
            path: path.to_owned(),
            read,
        };
        let expected = vec![
            argument(None, "dfd", Read::AsTyped),
            argument(None, "name", Read::UserString),
            argument(Some("ino"), "file->f_inode->i_ino", Read::AsTyped),
            argument(None, "p", Read::Bytes(16)),
        ];
        assert_eq!(spec.arguments.as_ref(), Some(&expected));
        assert_eq!(specs("k:f()")[0].arguments, Some(vec![]));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, message) in [
            ("sched:*,", "empty event name"),
            ("kprobe:", "followed by [MODULE:]FUNCTION"),
            ("k:f(a", "')' is missing"),
            ("k:f(a:text)", "nothing is read as 'text'"),
            ("k:f(a:buf:0)", "from 1 to 4096"),
            ("k:f(2a=b)", "not a name for a field"),
            ("k:f if ", "is to follow 'if'"),
            ("u:\"/a b:main", "a '\"' is missing"),
        ] {
            let error = format!("{:#}", parse(&[text.to_owned()]).unwrap_err());
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_taken_apart(text in ".*") {
            let _ = parse(&[text]);
        }
    }
}
