//! The page around the data: facts and account as HTML, which is there without a script.

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use jiff::Timestamp;

use super::grid::Grid;
use crate::{
    form::session::{CpuAccount, SessionFile},
    read::trace::Trace,
    show::escape::entity,
};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What is said of a trace.
pub(super) struct Page<'p> {
    pub(super) trace: &'p Trace,
    pub(super) grid: &'p Grid,
    pub(super) records: u64,
    pub(super) kept: u64,
    /// Places of losses.
    pub(super) losses: usize,
    pub(super) is_whole: bool,
}

impl Page<'_> {
    /// What stands before the data and after it.
    pub(super) fn parts(&self) -> (String, String) {
        // No name that is in a trace can know it, so none can be a script.
        let nonce: String = (0..2).map(|_| format!("{:016x}", RandomState::new().build_hasher().finish())).collect();
        let session = &self.trace.session;
        let start = i128::from(session.clock.start.realtime) + i128::from(self.grid.start)
            - i128::from(session.clock.start.monotonic);
        let when =
            Timestamp::from_nanosecond(start).map_or_else(|_| "not known".to_owned(), |when| format!("{when:.9}"));
        let length = format!("{:.6} s", self.grid.span as f64 / 1e9);
        let path = self.trace.path.display().to_string();
        let fields = [
            ("NONCE", nonce),
            ("CSS", STYLE.to_owned()),
            ("TITLE", escaped(&format!("relayd report · {} · {path}", session.host))),
            ("HOST", escaped(&session.host)),
            ("WHEN", escaped(&when)),
            ("DUR", length.clone()),
            ("VERDICT", self.verdict()),
            ("DETAIL", self.detail()),
            ("LINE", line(session, self.grid.cpus)),
            ("FACTS", facts(session, &path, &when, &length)),
            ("ACCOUNT", self.account()),
            ("LOST", lost(session)),
        ];
        // One pass: what is put in is not looked at again.
        let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len());
        let mut rest = PAGE;
        while let Some((before, after)) = rest.split_once("@@") {
            page.push_str(before);
            let (name, after) = after.split_once("@@").unwrap_or((after, ""));
            rest = after;
            match name {
                "DATA" => break,
                name => page.push_str(fields.iter().find(|(of, _)| *of == name).map_or("", |(_, text)| text)),
            }
        }
        let nonce = &fields[0].1;
        (page, rest.replacen("@@NONCE@@", nonce, 1).replacen("@@JS@@", SCRIPT, 1))
    }

    fn verdict(&self) -> String {
        let cpus = &self.trace.session.cpus;
        let sum = |of: fn(&CpuAccount) -> u64| cpus.iter().map(of).fold(0, u64::saturating_add);
        let (lost, in_files) = (sum(|cpu| cpu.lost().saturating_add(cpu.overrun)), sum(CpuAccount::in_file));
        let fits = match self.trace.is_finished() {
            false => "<b class=bad>? It was not ended in order: there is no account</b>",
            true if !self.is_whole => "A part of the trace was chosen",
            true if in_files == self.records => "<b class=ok>✔ The account adds up</b>",
            true => "<b class=bad>✖ The account does not add up</b>",
        };
        let records = format!("<b id=infiles>{}</b> records", grouped(self.records));
        if lost == 0 && self.losses == 0 {
            // Without an account nobody knows what came after the last packet.
            let none = if self.trace.is_finished() { "none lost" } else { "none lost, as far as the files tell" };
            return format!("{fits} · {records} · {none}");
        }
        let share = 100.0 * lost as f64 / (lost.saturating_add(in_files)).max(1) as f64;
        // What is missing comes first.
        format!(
            "<b class=lost>▼ {} lost ({share:.3} %)</b> in {} place{} · {records} · {fits}",
            grouped(lost),
            self.losses,
            if self.losses == 1 { "" } else { "s" }
        )
    }

    fn detail(&self) -> String {
        if self.kept == self.records {
            return "every record is in this page".to_owned();
        }
        format!(
            "{} of them are in this page one by one: around losses, where the longest spans began and ended, and evenly; the others are summed up, {:.3} ms each",
            grouped(self.kept),
            self.grid.width as f64 / 1e6
        )
    }

    fn account(&self) -> String {
        let session = &self.trace.session;
        if !self.trace.is_finished() {
            return row("in the page", &format!("<span class=n>{}</span>", grouped(self.records)));
        }
        let sum = |of: fn(&CpuAccount) -> u64| session.cpus.iter().map(of).fold(0, u64::saturating_add);
        let mut rows = String::new();
        for (index, (name, count)) in [
            ("recorded", sum(|cpu| cpu.recorded)),
            ("− overrun", sum(|cpu| cpu.overrun)),
            ("− unwritten", sum(|cpu| cpu.unwritten)),
            ("= in the files", sum(CpuAccount::in_file)),
            ("in the page", self.records),
        ]
        .into_iter()
        .enumerate()
        {
            let _ = write!(rows, "<tr><th scope=row>{name}<td class=n id=acc{index}>{}", grouped(count));
        }
        rows
    }
}

fn line(session: &SessionFile, cpus: usize) -> String {
    let command: String = session.command.join(" ").chars().take(600).collect();
    format!(
        "Linux {} · {cpus} CPUs · {} · <code>{}</code>",
        escaped(&session.kernel),
        escaped(&session.mode),
        escaped(&command)
    )
}

fn facts(session: &SessionFile, path: &str, when: &str, length: &str) -> String {
    let command = format!("<code>{}</code>", escaped(&session.command.join(" ")));
    [
        row("Trace", &escaped(path)),
        row("Host", &escaped(&session.host)),
        row("Kernel", &escaped(&format!("{} {}", session.kernel, session.machine))),
        row("Command", &command),
        row("Begins", &escaped(when)),
        row("Length", length),
        row("Mode", &escaped(&session.mode)),
        row(
            "Buffers",
            &format!("{} sub-buffers of {} bytes for each CPU", session.n_subbufs, grouped(session.subbuf_size)),
        ),
        row("Events", &grouped(session.events.len() as u64)),
    ]
    .concat()
}

fn lost(session: &SessionFile) -> String {
    let sum = |of: fn(&CpuAccount) -> u64| session.cpus.iter().map(of).fold(0, u64::saturating_add);
    let causes = [
        ("full", sum(|cpu| cpu.lost_full)),
        ("too big", sum(|cpu| cpu.lost_too_big)),
        ("nested", sum(|cpu| cpu.lost_nested)),
        ("no buffer", sum(|cpu| cpu.lost_no_buffer)),
        ("filtered on purpose", sum(|cpu| cpu.filtered)),
        ("over a limit", sum(|cpu| cpu.suppressed)),
    ];
    causes.iter().map(|(name, count)| row(name, &format!("<span class=n>{}</span>", grouped(*count)))).collect()
}

/// A row of a table; what is in it is HTML.
fn row(name: &str, value: &str) -> String {
    format!("<tr><th scope=row>{name}<td>{value}")
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A text that nothing in it can end or begin an element; what would be obeyed is shown: as the page's script shows names.
fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        if let Some(entity) = entity(c) {
            all.push_str(entity);
            continue;
        }
        match c {
            '\'' => all.push_str("&#39;"),
            '\0'..='\u{1f}' => all.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\u{7f}' => all.push('\u{2421}'),
            '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' => {
                // Writing to a String cannot fail.
                let _ = write!(all, "⟨{:X}⟩", u32::from(c));
            }
            c => all.push(c),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_more_than_text() {
        assert_eq!(escaped("</script><img onerror='x'>"), "&lt;/script&gt;&lt;img onerror=&#39;x&#39;&gt;");
        assert_eq!(escaped("a\x1b[31m\u{202e}b\0"), "a␛[31m⟨202E⟩b␀");
    }

    #[test]
    fn the_page_is_small() {
        assert!(PAGE.len() + STYLE.len() + SCRIPT.len() < 300_000);
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
