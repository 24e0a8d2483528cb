//! The numbers as people read them.

use std::fmt::Write as _;

use anyhow::Result;
use relay_trace::show::{escape::escaped, statistics::Fields};

use super::{CountReport, GroupReport, Report, Spread, TraceReport};

/// Columns of what is drawn.
pub(super) const WIDTH: usize = 64;
/// Values of `--by` that are shown.
const SHOWN: usize = 30;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn text(report: &Report, verbose: bool, fields: &Fields) -> Result<String> {
    let mut text = String::new();
    for trace in &report.traces {
        one(&mut text, trace, verbose)?;
    }
    over_time(&mut text, report)?;
    match (&fields.by, &fields.values) {
        (None, None) => {}
        (None, Some(name)) => match report.groups.first() {
            Some(GroupReport { records, spread: Some(spread), .. }) => histogram(&mut text, name, *records, spread)?,
            _ => writeln!(text, "\n{name}: no record has it")?,
        },
        (Some(by), name) => groups(&mut text, by, name.as_deref(), &report.groups)?,
    }
    Ok(text)
}

fn one(text: &mut String, trace: &TraceReport, verbose: bool) -> Result<()> {
    writeln!(
        text,
        "{}: {} records, {}, {:.3} s, {} (Linux {}), {}",
        trace.path,
        trace.records,
        bytes(trace.bytes),
        trace.seconds,
        escaped(&trace.host),
        escaped(&trace.kernel),
        escaped(&trace.mode)
    )?;
    let width = trace.events.iter().map(|event| escaped(&event.name).len()).max().unwrap_or(0).max(12);
    writeln!(
        text,
        "\n{:<width$} {:>12} {:>12} {:>10} {:>20} {:>20}",
        "event", "records", "per second", "bytes", "first", "last"
    )?;
    for event in &trace.events {
        row(text, &escaped(&event.name), width, &event.all)?;
        for (cpu, count) in event.cpus.iter().filter(|_| verbose) {
            row(text, &format!("  cpu {cpu}"), width, count)?;
        }
    }
    writeln!(text)?;
    for cpu in &trace.cpus {
        row(text, &format!("cpu {}", cpu.cpu), width, &cpu.all)?;
        let account = trace.account.iter().flatten().find(|account| account.cpu == cpu.cpu);
        let lost = account.map_or(0, |account| account.lost().saturating_add(account.overrun));
        match account {
            Some(account) if lost > 0 => writeln!(
                text,
                "  lost {}: full {}, too big {}, nested {}, no buffer {}; overrun {}",
                account.lost(),
                account.lost_full,
                account.lost_too_big,
                account.lost_nested,
                account.lost_no_buffer,
                account.overrun
            )?,
            None if cpu.lost > 0 || cpu.overrun_subbufs > 0 => {
                writeln!(text, "  lost {}, sub-buffers overrun {}", cpu.lost, cpu.overrun_subbufs)?;
            }
            _ => {}
        }
    }
    let cut = trace.geometry;
    write!(text, "\nbuffers: -b {} -n {}, ", size(cut.subbuf_size), cut.n_subbufs)?;
    match trace.enough {
        _ if trace.account.is_none() => writeln!(text, "no account: the recording was not ended in order")?,
        Some(enough) => writeln!(
            text,
            "at most {} taken at once; -b {} -n {} would have lost nothing",
            trace.max_backlog,
            size(enough.subbuf_size),
            enough.n_subbufs
        )?,
        None => writeln!(text, "and none would have lost nothing: record fewer events, or with --limit")?,
    }
    Ok(())
}

fn row(text: &mut String, name: &str, width: usize, count: &CountReport) -> Result<()> {
    let time = |time: Option<u64>| {
        time.map_or("-".to_owned(), |time| format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000))
    };
    writeln!(
        text,
        "{name:<width$} {:>12} {:>12.1} {:>10} {:>20} {:>20}",
        count.records,
        count.per_second,
        bytes(count.bytes),
        time(count.first),
        time(count.last)
    )?;
    Ok(())
}

fn over_time(text: &mut String, report: &Report) -> Result<()> {
    let tallest = report.over_time.iter().copied().max().unwrap_or(0);
    if tallest == 0 {
        return Ok(());
    }
    let bar = |records: &u64| {
        // The least that there is shows.
        let eighths = usize::try_from((records * 8).div_ceil(tallest)).unwrap_or(8).min(8);
        BLOCKS[eighths]
    };
    let bars: String = report.over_time.iter().map(bar).collect();
    let span = report.bar_ns * WIDTH as f64;
    writeln!(
        text,
        "\nrecords over {}, at most {tallest} in {}:\n|{bars}|",
        nanoseconds(span),
        nanoseconds(report.bar_ns)
    )?;
    Ok(())
}

fn histogram(text: &mut String, name: &str, records: u64, spread: &Spread) -> Result<()> {
    let show = unit(name);
    writeln!(text, "\n{name}: {records} records, {}", summary(spread, show))?;
    let first = spread.powers.iter().position(|count| *count > 0).unwrap_or(0);
    let tallest = spread.powers.iter().copied().max().unwrap_or(1).max(1);
    for (power, count) in spread.powers.iter().enumerate().skip(first) {
        let from = if power == 0 { 0 } else { 1u64 << (power - 1) };
        let blocks = usize::try_from((count * 40).div_ceil(tallest)).unwrap_or(40);
        writeln!(text, "{:>10} {count:>12} |{:<40}|", show(from as f64), "█".repeat(blocks))?;
    }
    Ok(())
}

fn groups(text: &mut String, by: &str, name: Option<&str>, groups: &[GroupReport]) -> Result<()> {
    let all: u64 = groups.iter().map(|group| group.records).sum();
    let width =
        groups.iter().take(SHOWN).map(|group| escaped(&group.value).chars().count()).max().unwrap_or(0).max(by.len());
    writeln!(
        text,
        "\n{by:<width$} {:>12} {:>7}{}",
        "records",
        "share",
        name.map_or(String::new(), |name| format!("  {name}"))
    )?;
    for group in groups.iter().take(SHOWN) {
        let spread = group.spread.as_ref().zip(name);
        let spread = spread.map_or(String::new(), |(spread, name)| format!("  {}", summary(spread, unit(name))));
        let value = escaped(&group.value);
        let share = group.records as f64 * 100.0 / all.max(1) as f64;
        writeln!(text, "{value:<width$} {:>12} {share:>6.1}%{spread}", group.records)?;
    }
    if groups.len() > SHOWN {
        writeln!(text, "and {} more values; --json has them", groups.len() - SHOWN)?;
    }
    Ok(())
}

fn summary(spread: &Spread, show: fn(f64) -> String) -> String {
    let Spread { min, mean, p50, p90, p99, p999, max, .. } = spread;
    let [min, p50, p90, p99, p999, max] = [min, p50, p90, p99, p999, max].map(|value| show(*value as f64));
    format!("min {min}, mean {}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}", show(*mean))
}

/// How the numbers of a field are shown.
fn unit(name: &str) -> fn(f64) -> String {
    if name.ends_with("_ns") { nanoseconds } else { plain }
}

fn plain(number: f64) -> String {
    scaled(number, 1024.0, &["", "K", "M", "G", "T", "P", "E"])
}

fn nanoseconds(time: f64) -> String {
    scaled(time, 1000.0, &["ns", "us", "ms", "s"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if number < step {
            break;
        }
        number /= step;
        unit = next;
    }
    if number.fract() == 0.0 || number >= 100.0 { format!("{number:.0}{unit}") } else { format!("{number:.1}{unit}") }
}

fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

/// A size as -b takes it.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}
