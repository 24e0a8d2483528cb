//! How a span is written: `NAME = START -> END by KEYS MATCH`.

use anyhow::{Result, bail};

use super::known;

/// What becomes of a second START while a span with its key is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Match {
    /// It takes the place of the first: the only one that a missed END cannot make wrong for long.
    #[default]
    Last,
    /// It is left out.
    First,
    /// It is inside the first; END ends the newest.
    Nest,
    /// It waits behind the first; END ends the oldest.
    Queue,
    /// It is open too; one END ends all.
    All,
    /// It takes the place of the first, and END leaves it open: one START and many ENDs.
    Each,
}

/// The words for them.
const MATCHES: [(&str, Match); 6] = [
    ("last", Match::Last),
    ("first", Match::First),
    ("nest", Match::Nest),
    ("queue", Match::Queue),
    ("all", Match::All),
    ("each", Match::Each),
];

/// A key: the fields of START and of END that have it, each the first that the event has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFields {
    /// Of START.
    pub start: Vec<String>,
    /// Of END.
    pub end: Vec<String>,
}

/// Two events that are the ends of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Lists of events, as after `-e`.
    pub start: String,
    /// Likewise.
    pub end: String,
    /// What both have in common.
    pub keys: Vec<KeyFields>,
    /// What becomes of a second START.
    pub matching: Match,
}

/// What a span is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Two events.
    Ends(Ends),
    /// What the scheduler says of a thread.
    Sched(Sched),
}

/// What a thread does between two records of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sched {
    /// It could run, and waits for a CPU.
    Runq,
    /// It runs.
    Oncpu,
    /// It does not run.
    Offcpu,
}

/// A span as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is called.
    pub name: String,
    /// What it is made of.
    pub kind: SpanKind,
    /// Its fields that tell spans apart best.
    pub by: Vec<String>,
}

/// Takes a span apart.
///
/// # Errors
/// What is not understood, and what would be.
pub fn parse(text: &str) -> Result<Definition> {
    let (head, by) = match find(text, " by ") {
        Some(at) => (&text[..at], Some(text[at + 4..].trim())),
        None => (text, None),
    };
    let Some(arrow) = find(head, " -> ") else { return known::with_keys(head.trim(), by) };
    let (mut name, mut start) = ("span", head[..arrow].trim());
    if let Some((before, after)) = start.split_once('=')
        && is_name(before.trim())
    {
        (name, start) = (before.trim(), after.trim());
    }
    let end = head[arrow + 4..].trim();
    if start.is_empty() || end.is_empty() {
        bail!("the span '{text}': an event is to stand on both sides of '->', as in {}", known::EXAMPLE);
    }
    let (keys, matching) = keys(by.unwrap_or("tid"))?;
    let by = keys.iter().filter_map(|key| key.start.first().cloned()).collect();
    let ends = Ends { start: start.to_owned(), end: end.to_owned(), keys, matching };
    Ok(Definition { name: name.to_owned(), kind: SpanKind::Ends(ends), by })
}

/// `F,S=E,a|b=c MATCH`
pub(super) fn keys(text: &str) -> Result<(Vec<KeyFields>, Match)> {
    let (fields, matching) = match text.rsplit_once(' ') {
        Some((fields, word)) => match MATCHES.iter().find(|(name, _)| *name == word.trim()) {
            Some((_, matching)) => (fields, *matching),
            None => (text, Match::default()),
        },
        None => (text, Match::default()),
    };
    let names = |side: &str| side.split('|').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    let mut keys = Vec::new();
    for key in fields.split(',') {
        let (start, end) = key.split_once('=').unwrap_or((key, key));
        let key = KeyFields { start: names(start), end: names(end) };
        if let Some(wrong) = key.start.iter().chain(&key.end).find(|name| !is_name(name)) {
            let words: Vec<_> = MATCHES.iter().map(|(word, _)| *word).collect();
            bail!(
                "the keys '{text}': '{wrong}' is not the name of a field; fields are separated by commas, S=E where the ends have different names, and one of {} may follow",
                words.join(", ")
            );
        }
        keys.push(key);
    }
    Ok((keys, matching))
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit() || c == '-')
}

/// Where a word stands outside of quotes and brackets.
fn find(text: &str, word: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 && text[at..].starts_with(word) => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> (String, Ends) {
        match parse(text).unwrap() {
            Definition { name, kind: SpanKind::Ends(ends), .. } => (name, ends),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spans_are_taken_apart() {
        let (name, two) =
            ends("wake = a:b,a:c if comm == \"x -> y by z\" -> d:e(f by g) by pid|prev_pid=next_pid,dev nest");
        assert_eq!(name, "wake");
        assert_eq!(two.start, "a:b,a:c if comm == \"x -> y by z\"");
        assert_eq!(two.end, "d:e(f by g)");
        assert_eq!(two.matching, Match::Nest);
        let pid = KeyFields { start: vec!["pid".into(), "prev_pid".into()], end: vec!["next_pid".into()] };
        assert_eq!(two.keys, [pid, KeyFields { start: vec!["dev".into()], end: vec!["dev".into()] }]);
        let (name, two) = ends("a:b if x == 1 -> a:b");
        assert_eq!((&*name, &*two.start, two.matching), ("span", "a:b if x == 1", Match::Last));
        assert_eq!(two.keys, [KeyFields { start: vec!["tid".into()], end: vec!["tid".into()] }]);
    }

    #[test]
    fn known_spans_are_known_by_name() {
        assert_eq!(parse("runq").unwrap().kind, SpanKind::Sched(Sched::Runq));
        let SpanKind::Ends(block) = parse("block by dev,sector,rwbs").unwrap().kind else { panic!("not two events") };
        assert_eq!(block.keys.len(), 3);
        for (text, words) in [
            ("rung", "did you mean runq"),
            ("a:b ->  by x", "both sides"),
            ("a:b -> c:d by x y", "'x y' is not the name"),
            ("a:b -> c:d by x,", "'' is not the name"),
            ("runq by tid", "has no keys"),
        ] {
            let said = format!("{:#}", parse(text).unwrap_err());
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
