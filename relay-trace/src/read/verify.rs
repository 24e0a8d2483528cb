//! Walks every byte of a trace and holds it against itself and against the account.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    packet::Header,
    pipeline,
    slices::{Item, PacketSeen, Slice, Slicer, SourceId, Window},
    trace::Trace,
};
use crate::form::{directory, session::CpuAccount};

/// What was walked, and what does not add up.
#[derive(Debug, Default)]
pub struct Findings {
    /// By CPU.
    pub cpus: BTreeMap<u32, Walked>,
    /// What does not add up, each with the file and the place in it where there is one.
    pub findings: Vec<String>,
}

/// What a CPU's file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Packets, those without records included.
    pub packets: u64,
    /// Sound records.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Losses that the last packet tells.
    pub discarded: u64,
    last: Option<Header>,
}

/// What a slice has for each CPU.
struct Part {
    /// Whose, where in the file, and the header.
    packets: Vec<(u32, u64, Header)>,
    records: BTreeMap<SourceId, u64>,
    findings: Vec<String>,
    done: u64,
}

/// Verifies a trace. `progress` is told how many bytes are done.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(trace: &Trace, mut progress: impl FnMut(u64)) -> Result<Findings> {
    let mut report = Findings { findings: trace.flaws.clone(), ..Findings::default() };
    let traces = std::slice::from_ref(trace);
    for cpu in trace.cpus()? {
        let bytes = trace.stream(cpu)?.len();
        report.cpus.insert(cpu, Walked { bytes, ..Walked::default() });
    }
    let mut slicer = Slicer::new(traces, |_| true, Window::default())?;
    let worker = || move |slice: Slice| Part::of(&slice, trace);
    pipeline::run(
        move || slicer.next(u64::MAX),
        worker,
        |part: Part| {
            progress(part.done);
            report.add(part, trace);
            Ok(())
        },
    )?;
    report.compare(trace);
    Ok(report)
}

impl Part {
    fn of(slice: &Slice, trace: &Trace) -> Self {
        let mut records: BTreeMap<SourceId, u64> = BTreeMap::new();
        let mut findings: Vec<String> = slice.damages.iter().map(ToString::to_string).collect();
        slice.merged(std::slice::from_ref(trace), |item| {
            let Item::Record(seen) = item else { return };
            *records.entry(seen.source).or_default() += 1;
            let misfit = seen.event.misfit(seen.payload);
            if misfit > 0 {
                findings.push(format!(
                    "{}: a record of {} at {} ns: its strings and arrays are {misfit} bytes away from its length",
                    trace.path.join(directory::cpu_file(seen.source.cpu)).display(),
                    seen.event.name,
                    seen.time
                ));
            }
        });
        let packet = |seen: &PacketSeen| (seen.source.cpu, seen.packet.offset, seen.packet.header);
        let packets = slice.packets.iter().map(packet).collect();
        Self { packets, records, findings, done: slice.done }
    }
}

impl Findings {
    /// Whether everything adds up.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, part: Part, trace: &Trace) {
        self.findings.extend(part.findings);
        for (source, records) in part.records {
            self.cpus.entry(source.cpu).or_default().records += records;
        }
        for (cpu, offset, header) in part.packets {
            self.follow(cpu, offset, header, trace);
        }
    }

    /// Holds a packet against the one before it in its file.
    fn follow(&mut self, cpu: u32, offset: u64, header: Header, trace: &Trace) {
        let walked = self.cpus.entry(cpu).or_default();
        walked.packets += 1;
        walked.discarded = header.discarded;
        let may_skip = trace.session.mode == "overwrite" || trace.session.repaired.is_some();
        let is_first_piece = trace.session.pieces == 0;
        let wrong = match walked.last.replace(header) {
            None if header.sequence != 0 && !may_skip && is_first_piece => {
                Some(format!("the first packet has the number {}, not 0", header.sequence))
            }
            Some(last) if header.sequence <= last.sequence => {
                Some(format!("the packet has the number {}, after {}", header.sequence, last.sequence))
            }
            Some(last) if header.sequence != last.sequence + 1 && !may_skip => Some(format!(
                "{} packets are missing before number {}",
                header.sequence - last.sequence - 1,
                header.sequence
            )),
            Some(last) if header.begin < last.end => {
                Some(format!("the packet begins {} ns before the one before it ends", last.end - header.begin))
            }
            Some(last) if header.discarded < last.discarded => {
                Some(format!("the count of lost records falls from {} to {}", last.discarded, header.discarded))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let file = trace.path.join(directory::cpu_file(cpu));
            self.findings.push(format!("{}, byte {}: {wrong}", file.display(), offset));
        }
    }

    /// Holds what was walked against the account.
    fn compare(&mut self, trace: &Trace) {
        let path = trace.path.display();
        if !trace.has_metadata() {
            self.findings.push(format!("{path}: there is no metadata; relayd repair writes it anew"));
        }
        if !trace.is_finished() {
            self.findings.push(format!(
                "{path}: there is no account: the recording goes on, or was not ended in order; relayd repair saves what is there"
            ));
            return;
        }
        let accounts: BTreeMap<u32, &CpuAccount> = trace.session.cpus.iter().map(|cpu| (cpu.cpu, cpu)).collect();
        for (number, walked) in &self.cpus {
            let file = trace.path.join(directory::cpu_file(*number));
            let Some(account) = accounts.get(number) else {
                self.findings.push(format!("{}: the account does not have this CPU", file.display()));
                continue;
            };
            // A file without a packet tells nothing.
            let before = trace.session.before.iter().find(|before| before.cpu == *number).map_or(0, CpuAccount::told);
            let told = if walked.packets == 0 { account.told() } else { before.saturating_add(account.told()) };
            let checks = [
                ("records", walked.records, account.in_file()),
                ("bytes", walked.bytes, account.bytes),
                ("packets", walked.packets, account.subbufs_processed),
                ("lost records, as its last packet says,", walked.discarded, told),
            ];
            for (what, there, said) in checks.into_iter().filter(|(_, there, said)| there != said) {
                self.findings.push(format!("{}: it has {there} {what} and the account says {said}", file.display()));
            }
        }
        for (number, account) in accounts.iter().filter(|(number, _)| !self.cpus.contains_key(number)) {
            if account.in_file() > 0 || account.bytes > 0 {
                let file = trace.path.join(directory::cpu_file(*number));
                self.findings.push(format!("{}: it is missing, with {} records", file.display(), account.in_file()));
            }
        }
        self.compare_runs(trace);
    }

    /// The kernel's own count, where the session has it.
    fn compare_runs(&mut self, trace: &Trace) {
        let runs: Option<Vec<u64>> = trace.session.programs.iter().map(|program| program.runs).collect();
        let Some(runs) = runs.filter(|runs| !runs.is_empty()) else { return };
        let runs: u64 = runs.into_iter().fold(0, u64::saturating_add);
        let of = |cpu: &CpuAccount| {
            [cpu.filtered, cpu.suppressed, cpu.entries, cpu.unpaired, cpu.other_calls, cpu.lost()]
                .into_iter()
                .fold(cpu.recorded, u64::saturating_add)
                .saturating_sub(cpu.notes)
        };
        let accounted = trace.session.cpus.iter().chain(&trace.session.before).map(of).fold(0, u64::saturating_add);
        if runs != accounted {
            let path = trace.path.display();
            self.findings.push(format!("{path}: the programs ran {runs} times and the account has {accounted} events"));
        }
    }
}
