//! What the commands that take `--span` have in common.

use std::fmt::Write as _;

use anyhow::Result;
use relay_trace::{
    answers::span::{Definition, SpanAccount, Spans, parse},
    read::trace::Trace,
    show::escape::escaped,
};

use super::{misuse, units::nanoseconds};

/// The spans that were asked for.
pub(crate) fn definitions(texts: &[String]) -> Result<Vec<Definition>> {
    texts.iter().map(|text| parse(text)).collect::<Result<_>>().map_err(misuse)
}

/// The spans that were asked for, in traces, to be shown as records; none when none was.
pub(crate) fn wanted<'t>(traces: &'t [Trace], texts: &[String]) -> Result<Option<Spans<'t>>> {
    let find = || Spans::as_records(traces, definitions(texts)?);
    if texts.is_empty() { Ok(None) } else { find().map(Some) }
}

/// What became of the ends of a span of which all are shown, also those that crossed a loss.
pub(crate) fn said_of_all(name: &str, account: &SpanAccount) -> String {
    let crossed = match account.crossed {
        0 => String::new(),
        some => format!(", {some} crossed a loss of records (crossed=1): they may be two"),
    };
    said(name, account) + &crossed
}

/// What became of the ends of a span.
pub(crate) fn said(name: &str, account: &SpanAccount) -> String {
    let mut text = format!("{}: {} spans", escaped(name), account.ended);
    let notes = [
        (account.replaced, "begun again before an end (nest, if it is recursion)"),
        (account.ignored, "begun again and left out"),
        (account.given_up, "given up, the oldest of too many open ones"),
        (account.inferred, "whose end was not recorded"),
        (account.never_began, "ends without a beginning"),
    ];
    for (count, what) in notes.iter().filter(|(count, _)| *count > 0) {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {count} {what}");
    }
    if account.open > 0 {
        let oldest = nanoseconds(account.oldest_open.unwrap_or(0) as f64);
        let _ = write!(text, ", {} open at the end, the oldest for {oldest} at least", account.open);
    }
    text
}
