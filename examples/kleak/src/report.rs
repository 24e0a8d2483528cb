//! `kleak report`: pairs allocations with their ends, and says by call site what is left.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::record::Record;

/// What was allocated and not freed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    sites: BTreeMap<u64, Site>,
    allocations: u64,
    /// Freed, but allocated before the recording began.
    older: u64,
}

/// What one caller has not freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Site {
    allocations: u64,
    bytes: u64,
    /// Nanoseconds from the first of them, and from the last, to the end of the recording.
    oldest: u64,
    newest: u64,
}

/// Reads the `cpuN` files of a directory.
pub(crate) fn read(directory: &Path) -> Result<Report> {
    let mut records = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let is_cpu = path.file_name().and_then(|name| name.to_str()?.strip_prefix("cpu")?.parse::<u32>().ok());
        if is_cpu.is_some() {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            records.extend(bytes.chunks_exact(size_of::<Record>()).filter_map(parse));
        }
    }
    // Each file is in the order of time; an allocation may be freed on another CPU.
    records.sort_by_key(|record| record.time);
    Ok(Report::of(&records))
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map(u64::from_ne_bytes));
    let mut next = || words.next()?.ok();
    Some(Record { time: next()?, call_site: next()?, pointer: next()?, bytes: next()? })
}

impl Report {
    fn of(records: &[Record]) -> Self {
        let mut report = Self::default();
        let mut held: HashMap<u64, &Record> = HashMap::new();
        for record in records.iter().filter(|record| record.pointer != 0) {
            if record.bytes != 0 {
                report.allocations += 1;
                held.insert(record.pointer, record);
            } else if held.remove(&record.pointer).is_none() {
                report.older += 1;
            }
        }
        let end = records.last().map_or(0, |record| record.time);
        for record in held.values() {
            let (site, age) = (report.sites.entry(record.call_site).or_default(), end - record.time);
            site.newest = if site.allocations == 0 { age } else { site.newest.min(age) };
            site.oldest = site.oldest.max(age);
            site.allocations += 1;
            site.bytes += record.bytes;
        }
        report
    }

    /// The report as text, most bytes first.
    pub(crate) fn text(&self, symbols: &Symbols) -> String {
        let mut text = format!("{:>12} {:>12} {:>9} {:>9}  call site\n", "bytes", "allocations", "oldest", "newest");
        let mut sites: Vec<_> = self.sites.iter().collect();
        sites.sort_by_key(|(_, site)| std::cmp::Reverse(site.bytes));
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        for (call_site, site) in &sites {
            let (oldest, newest) = (seconds(site.oldest), seconds(site.newest));
            let name = symbols.name(**call_site);
            // Writing to a String does not fail.
            let _ =
                writeln!(text, "{:>12} {:>12} {oldest:>7.3} s {newest:>7.3} s  {name}", site.bytes, site.allocations);
        }
        let total = |count: fn(&Site) -> u64| self.sites.values().map(count).sum::<u64>();
        let _ = writeln!(
            text,
            "{} of {} allocations were not freed, {} bytes in all; {} older ones were",
            total(|site| site.allocations),
            self.allocations,
            total(|site| site.bytes),
            self.older
        );
        text
    }
}

/// The names of the kernel's addresses.
#[derive(Debug, Default)]
pub(crate) struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Those of the running kernel.
    pub(crate) fn of_this_kernel() -> Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("reading /proc/kallsyms")?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let symbols = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
            let address = u64::from_str_radix(address, 16).ok().filter(|address| *address != 0)?;
            matches!(kind, "t" | "T" | "w" | "W").then(|| (address, name.to_owned()))
        });
        Self(symbols.collect())
    }

    fn name(&self, address: u64) -> String {
        match self.0.range(..=address).next_back() {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u64, call_site: u64, pointer: u64, bytes: u64) -> Record {
        Record { time, call_site, pointer, bytes }
    }

    #[test]
    fn what_was_freed_is_not_listed_and_ages_count_to_the_end() {
        let report = Report::of(&[
            record(0, 0x10, 0x1000, 64),
            record(1_000_000_000, 0x10, 0x2000, 64),
            record(2_000_000_000, 0x20, 0x3000, 8),
            record(2_500_000_000, 0, 0x3000, 0),
            record(3_000_000_000, 0, 0x9000, 0),
            record(4_000_000_000, 0x30, 0, 8),
        ]);
        let site = Site { allocations: 2, bytes: 128, oldest: 4_000_000_000, newest: 3_000_000_000 };
        assert_eq!(report, Report { sites: [(0x10, site)].into(), allocations: 3, older: 1 });
        let text = report.text(&Symbols::parse("0000000000000008 T start\n0000000000000009 D data\n"));
        assert!(text.contains("         128            2   4.000 s   3.000 s  start+0x8\n"), "{text}");
        assert!(text.ends_with("2 of 3 allocations were not freed, 128 bytes in all; 1 older ones were\n"), "{text}");
    }

    #[test]
    fn a_place_that_is_used_again_after_it_was_freed_counts_once() {
        let report = Report::of(&[record(0, 1, 0x1000, 8), record(1, 0, 0x1000, 0), record(2, 2, 0x1000, 8)]);
        assert_eq!(report.sites.keys().collect::<Vec<_>>(), [&2]);
    }
}
