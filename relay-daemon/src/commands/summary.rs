//! What is shown of a recording: the status line while it runs, librelay's summary and the account at its end.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use relay_daemon::record::Progress;
use relay_trace::{
    form::session::{CpuAccount, Pairs, Program, SessionFile},
    show::escape::escaped,
};
use serde::Serialize;

/// The summary as a program reads it.
#[derive(Serialize)]
struct Summary<'a> {
    output: &'a Path,
    mode: &'a str,
    subbuf_size: u64,
    n_subbufs: u64,
    seconds: f64,
    events: usize,
    recorded: u64,
    filtered: u64,
    suppressed: u64,
    entries: u64,
    unpaired: u64,
    returned: u64,
    notes: u64,
    other_calls: u64,
    compat_calls: u64,
    faults: u64,
    lost: u64,
    overrun: u64,
    unwritten: u64,
    bytes: u64,
    /// Of a trace in pieces: how many there are before this one, and what they have.
    pieces: u64,
    pieces_removed: u64,
    records_removed: u64,
    recorded_before: u64,
    lost_before: u64,
    cpus: &'a [CpuAccount],
    /// What has become of the entries, by event.
    pairs: BTreeMap<&'a str, Pairs>,
    programs: &'a [Program],
    helpers: &'a [Program],
    samples_missed: Option<u64>,
    kprobes_missed: Option<u64>,
    error: Option<&'a str>,
}

/// The status line.
pub(crate) fn status(elapsed: Duration, progress: &Progress) -> String {
    let seconds = elapsed.as_secs_f64();
    let backlog: Vec<String> = progress.backlog.iter().map(ToString::to_string).collect();
    format!(
        "{seconds:.1} s  {} records  {:.1} MB  {:.0} records/s  {} lost  backlog {}",
        progress.records,
        progress.bytes as f64 / 1e6,
        progress.records as f64 / seconds.max(1e-3),
        progress.lost,
        backlog.join(" "),
    )
}

/// Prints the summary of a session: as JSON, or as text unless `quiet`.
pub(crate) fn print(path: &Path, session: &SessionFile, json: bool, quiet: bool) -> Result<()> {
    let total = |count: fn(&CpuAccount) -> u64| session.cpus.iter().map(count).sum::<u64>();
    let seconds = session.clock.end.map_or(0, |end| end.monotonic - session.clock.start.monotonic) as f64 / 1e9;
    let summary = Summary {
        output: path,
        mode: &session.mode,
        subbuf_size: session.subbuf_size,
        n_subbufs: session.n_subbufs,
        seconds,
        events: session.events.len(),
        recorded: total(|cpu| cpu.recorded),
        filtered: total(|cpu| cpu.filtered),
        suppressed: total(|cpu| cpu.suppressed),
        entries: total(|cpu| cpu.entries),
        unpaired: total(|cpu| cpu.unpaired),
        returned: total(|cpu| cpu.returned),
        notes: total(|cpu| cpu.notes),
        other_calls: total(|cpu| cpu.other_calls),
        compat_calls: total(|cpu| cpu.compat_calls),
        faults: total(|cpu| cpu.faults),
        lost: total(CpuAccount::lost),
        overrun: total(|cpu| cpu.overrun),
        unwritten: total(|cpu| cpu.unwritten),
        bytes: total(|cpu| cpu.bytes),
        pieces: session.pieces,
        pieces_removed: session.pieces_removed,
        records_removed: session.records_removed,
        recorded_before: session.before.iter().map(|cpu| cpu.recorded).sum(),
        lost_before: session.before.iter().map(CpuAccount::lost).sum(),
        cpus: &session.cpus,
        pairs: session.events.iter().filter_map(|event| Some((&*event.name, event.pairs?))).collect(),
        programs: &session.programs,
        helpers: &session.helpers,
        samples_missed: session.events.iter().filter_map(|event| event.missed).reduce(u64::saturating_add),
        kprobes_missed: session.kprobes_missed,
        error: session.error.as_deref(),
    };
    let text = match (json, quiet) {
        (true, _) => serde_json::to_string_pretty(&summary)? + "\n",
        (false, true) => return Ok(()),
        (false, false) => text(&summary)?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing the summary")
}

/// librelay's summary, and after it the account.
fn text(summary: &Summary<'_>) -> Result<String> {
    let mut text = String::from("summary:\n");
    for cpu in summary.cpus.iter().filter(|cpu| cpu.subbufs_processed > 0 || cpu.recorded > 0 || cpu.lost() > 0) {
        writeln!(text, "  cpu {}:", cpu.cpu)?;
        writeln!(text, "    {} sub-buffers processed", cpu.subbufs_processed)?;
        writeln!(text, "    {} max backlog", cpu.max_backlog)?;
        writeln!(text, "    {} records, {} bytes", cpu.in_file(), cpu.bytes)?;
        writeln!(text, "    data stored in file {}", summary.output.join(format!("cpu{}", cpu.cpu)).display())?;
    }
    let total = |count: fn(&CpuAccount) -> u64| summary.cpus.iter().map(count).sum::<u64>();
    writeln!(text, "account ({:.3} s, {} events):", summary.seconds, summary.events)?;
    if summary.pieces > 0 {
        let Summary { pieces, pieces_removed, records_removed, recorded_before, lost_before, .. } = summary;
        writeln!(text, "  before, in {pieces} pieces: recorded {recorded_before}, lost {lost_before}")?;
        if *pieces_removed > 0 {
            writeln!(
                text,
                "  {pieces_removed} of these pieces, with {records_removed} records, were removed to keep within their room"
            )?;
        }
    }
    writeln!(text, "  recorded {}", summary.recorded)?;
    let outside = total(|cpu| cpu.filtered_outside);
    let unwanted = total(|cpu| cpu.filtered_unwanted);
    let own = summary.filtered - outside - unwanted;
    writeln!(
        text,
        "  filtered {} (relayd's own {own}, before the start or after the end {outside}, not chosen {unwanted})",
        summary.filtered
    )?;
    if summary.suppressed > 0 {
        writeln!(text, "  suppressed {}: over the limit of their event", summary.suppressed)?;
    }
    if summary.other_calls > 0 {
        let Summary { other_calls, compat_calls, .. } = summary;
        let how = if *compat_calls > 0 { ", which -e 'compat:*' records" } else { "" };
        writeln!(
            text,
            "  other    {other_calls} system calls that are not events, {compat_calls} of 32-bit programs{how}"
        )?;
    }
    if summary.entries > 0 || summary.unpaired > 0 {
        let unreturned = summary.entries.saturating_sub(summary.returned);
        let Summary { entries, returned, .. } = summary;
        writeln!(text, "  entries  {entries}, kept for their returns: {returned} returned, {unreturned} unreturned")?;
        for (event, pairs) in summary.pairs.iter().filter(|(_, pairs)| pairs.unreturned() > 0) {
            writeln!(text, "    {}: {pairs}", escaped(event))?;
        }
        writeln!(text, "  unpaired {} returns without a known entry", summary.unpaired)?;
    }
    writeln!(
        text,
        "  lost     {} (full {}, too big {}, nested {}, no buffer {})",
        summary.lost,
        total(|cpu| cpu.lost_full),
        total(|cpu| cpu.lost_too_big),
        total(|cpu| cpu.lost_nested),
        total(|cpu| cpu.lost_no_buffer),
    )?;
    if summary.mode == "overwrite" {
        writeln!(text, "  overrun  {} of the recorded", summary.overrun)?;
    }
    if summary.unwritten > 0 {
        writeln!(text, "  unwritten {} of the recorded: the file could not be written", summary.unwritten)?;
    }
    if summary.notes > 0 {
        writeln!(
            text,
            "  notes    {}, that events were added or removed: recorded, or lost, without a run",
            summary.notes
        )?;
    }
    if summary.faults > 0 {
        writeln!(text, "  faults   {} values could not be read where their address points to", summary.faults)?;
    }
    for program in grouped(summary.programs) {
        let runs = program.runs.map_or(String::new(), |runs| format!("{runs} runs, "));
        let skipped = match program.recursion_misses {
            Some(misses) => format!("{misses} skipped by the kernel, another program was running (recursion misses)"),
            None => {
                "what the kernel skipped because another program was running is not counted before Linux 6.7".to_owned()
            }
        };
        writeln!(text, "  {}: {runs}{skipped}", program.name)?;
    }
    let unfollowed: u64 = summary.helpers.iter().filter_map(|helper| helper.recursion_misses).sum();
    if unfollowed > 0 {
        writeln!(
            text,
            "  following: {unfollowed} forks and ends of tasks skipped by the kernel; some processes may not be followed"
        )?;
    }
    if let Some(missed) = summary.samples_missed {
        writeln!(text, "  samples: {missed} missed, while another program was running or the CPU's clock slept")?;
    }
    if let Some(missed) = summary.kprobes_missed {
        writeln!(
            text,
            "  kprobes: {missed} missed by the kernel, inside another probe or without room to watch for the return"
        )?;
    }
    if let Some(warning) = skipped_in_plenty(summary) {
        writeln!(text, "{warning}")?;
    }
    for cpu in summary.cpus {
        if cpu.lost_full > 0 {
            writeln!(text, "cpu {} buffer full. Consider larger (-b) or more (-n) sub-buffers.", cpu.cpu)?;
        }
    }
    Ok(text)
}

/// What to do where the kernel has skipped more than one event in a hundred.
fn skipped_in_plenty(summary: &Summary<'_>) -> Option<String> {
    /// By the beginning of a program's name and of its event's.
    const WAYS_OUT: [(&str, &str, &str); 5] = [
        ("on_raw_tracepoint", "", "record the tracepoint itself (sched:sched_switch for rawtracepoint:sched_switch)"),
        ("on_entry", "", "record kprobe:FUNCTION for fentry:FUNCTION"),
        ("on_exit", "", "record kretprobe:FUNCTION for fexit:FUNCTION"),
        (
            "on_tracepoint",
            "(syscalls:",
            "record raw_syscalls:sys_enter or raw_syscalls:sys_exit with the condition id == NUMBER",
        ),
        (
            "on_tp_recipe",
            "(syscall",
            "record raw_syscalls:sys_enter or raw_syscalls:sys_exit with the condition id == NUMBER",
        ),
    ];
    let skipped = |program: &Program| program.recursion_misses.unwrap_or(0);
    let all: u64 = summary.programs.iter().map(skipped).sum();
    let Summary { recorded, filtered, suppressed, entries, unpaired, other_calls, lost, .. } = summary;
    let events = all + recorded + filtered + suppressed + entries + unpaired + other_calls + lost;
    if all * 100 <= events {
        return None;
    }
    let most = summary.programs.iter().max_by_key(|program| skipped(program))?;
    let way_out =
        WAYS_OUT.iter().find(|(program, event, _)| most.name.starts_with(program) && most.name.contains(event));
    Some(match way_out {
        Some((.., way_out)) => format!(
            "{:.1} % of the events were skipped by the kernel, most at {}: while a task is preempted inside such a program, no other on its CPU \
             runs it. To miss none, {way_out}.",
            all as f64 * 100.0 / events as f64,
            most.name
        ),
        None => format!(
            "{:.1} % of the events were skipped by the kernel, most at {}: another program was running on the CPU. Consider fewer events.",
            all as f64 * 100.0 / events as f64,
            most.name
        ),
    })
}

/// Of many programs, those that differ in their event alone become one line.
fn grouped(programs: &[Program]) -> Vec<Program> {
    const FEW: usize = 4;
    if programs.len() <= FEW {
        return programs.to_vec();
    }
    let mut groups: Vec<(Program, usize)> = Vec::new();
    for program in programs {
        let name = program.name.split(" (").next().unwrap_or_default();
        match groups.iter_mut().find(|(group, _)| group.name == name) {
            Some((group, count)) => {
                *count += 1;
                group.runs = group.runs.zip(program.runs).map(|(a, b)| a + b);
                group.recursion_misses = group.recursion_misses.zip(program.recursion_misses).map(|(a, b)| a + b);
            }
            None => groups.push((Program { name: name.to_owned(), ..program.clone() }, 1)),
        }
    }
    let named = |(group, count): (Program, usize)| match count {
        1 => group,
        _ => Program { name: format!("{} ({count} programs)", group.name), ..group },
    };
    groups.into_iter().map(named).collect()
}
