//! The numbers as people read them.

use std::fmt::Write as _;

use anyhow::Result;
use relay_trace::{answers::totals::TotalFields, show::escape::escaped};

use super::{
    super::units::{bytes, nanoseconds, size, unit},
    CountReport, GroupReport, Groups, KeyReport, Report, SpreadReport, TraceReport,
};

/// Columns of what is drawn.
pub(super) const WIDTH: usize = 64;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn text(report: &Report, verbose: bool, fields: &TotalFields) -> Result<String> {
    let mut text = String::new();
    for trace in &report.traces {
        one(&mut text, trace, verbose)?;
    }
    over_time(&mut text, report)?;
    if !fields.by.is_empty() {
        groups(&mut text, fields, &report.groups)?;
        return Ok(text);
    }
    let all = report.groups.groups.first();
    if let Some(name) = &fields.sum {
        let show = unit(name);
        match all {
            Some(GroupReport { records, sum: Some(sum), .. }) => {
                writeln!(text, "\n{name}: {records} records, sum {}", show(*sum as f64))?;
            }
            _ => writeln!(text, "\n{name}: no record has it")?,
        }
    }
    if let Some(name) = &fields.spread {
        match all {
            Some(GroupReport { records, spread: Some(spread), .. }) => histogram(&mut text, name, *records, spread)?,
            _ => writeln!(text, "\n{name}: no record has it")?,
        }
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
    for (event, pairs) in trace.pairs.iter().filter(|(_, pairs)| pairs.unreturned() > 0) {
        writeln!(text, "  {}: {pairs}", escaped(event))?;
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

fn histogram(text: &mut String, name: &str, records: u64, spread: &SpreadReport) -> Result<()> {
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

/// A table: a row for each key, and under it what is not shown.
pub(super) fn groups(text: &mut String, fields: &TotalFields, report: &Groups) -> Result<()> {
    let all = report.groups.iter().map(|group| group.records).sum::<u64>() + report.more_records;
    let mut head = fields.by.clone();
    head.extend(["records".to_owned(), "share".to_owned()]);
    head.extend(fields.sum.iter().map(|name| format!("sum {name}")));
    if fields.spread.is_some() {
        head.extend(["mean", "p50", "p90", "p99", "max"].map(str::to_owned));
    }
    let row = |group: &GroupReport| {
        let mut row: Vec<String> =
            fields.by.iter().map(|name| group.key.get(name).map_or(String::new(), shown)).collect();
        if let (true, Some(first)) = (group.is_rest, row.first_mut()) {
            first.clone_from(&group.value);
        }
        row.push(group.records.to_string());
        row.push(format!("{:.1}%", group.records as f64 * 100.0 / all.max(1) as f64));
        row.extend(fields.sum.iter().zip(group.sum).map(|(name, sum)| unit(name)(sum as f64)));
        if let (Some(name), Some(spread)) = (&fields.spread, &group.spread) {
            let SpreadReport { mean, p50, p90, p99, max, .. } = spread;
            row.push(unit(name)(*mean));
            row.extend([p50, p90, p99, max].map(|value| unit(name)(*value as f64)));
        }
        row
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(report.groups.iter().map(row)).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    if let Some(name) = &fields.spread {
        writeln!(text, "\nmean, percentiles and max are of {name}")?;
    } else {
        writeln!(text)?;
    }
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            // Keys to the left, numbers to the right.
            match column < fields.by.len() {
                true => write!(line, "{gap}{cell:<width$}")?,
                false => write!(line, "{gap}{cell:>width$}")?,
            }
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    if report.more_groups > 0 {
        writeln!(text, "and {} more, with {} records; --top shows more", report.more_groups, report.more_records)?;
    }
    Ok(())
}

fn shown(key: &KeyReport) -> String {
    match key {
        KeyReport::Number(number) => number.to_string(),
        KeyReport::Text(text) => escaped(text),
    }
}

fn summary(spread: &SpreadReport, show: fn(f64) -> String) -> String {
    let SpreadReport { min, mean, p50, p90, p99, p999, max, .. } = spread;
    let [min, p50, p90, p99, p999, max] = [min, p50, p90, p99, p999, max].map(|value| show(*value as f64));
    format!("min {min}, mean {}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}", show(*mean))
}
