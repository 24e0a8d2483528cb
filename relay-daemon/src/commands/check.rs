//! `relayd check`: what this machine has and lacks for each kind of probe.

use std::{
    error::Error,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use aya::{programs::ProgramType, sys::is_program_supported};
use clap::Args;
use relay_channel::machine;
use relay_daemon::{
    environment::{self, Requirement},
    host,
};
use serde::Serialize;

/// Say what this machine has, and lacks, for each kind of probe.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit status: 0; 1 when relayd trace cannot record here.

Examples:
  relayd check
  relayd check --json | jq -r '.[] | select(.ok | not) | .detail'")]
pub(crate) struct Arguments {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    /// What it is, or what is wrong and what to do.
    detail: String,
    /// `relayd trace` needs it.
    needed: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let base = base();
    let has_rights = base.iter().any(|finding| finding.name == environment::CAPABILITIES && finding.ok);
    let findings: Vec<Finding> = base.into_iter().chain(probes(has_rights)).collect();
    let ready = findings.iter().all(|finding| finding.ok || !finding.needed);
    let text = if arguments.json {
        serde_json::to_string_pretty(&findings)? + "\n"
    } else {
        let line = |finding: &Finding| {
            let mark = if finding.ok { "yes" } else { "NO " };
            format!("{mark}  {:<22} {}\n", finding.name, finding.detail)
        };
        let verdict = if ready { "relayd trace can record here" } else { "relayd trace cannot record here" };
        findings.iter().map(line).collect::<String>() + verdict + "\n"
    };
    io::stdout().write_all(text.as_bytes()).context("writing the findings")?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What every recording needs.
fn base() -> Vec<Finding> {
    let needed = environment::conditions().into_iter().map(|Requirement { name, ok, detail }| Finding {
        name,
        ok,
        detail,
        needed: true,
    });
    needed.chain([exists("BTF of the kernel", "/sys/kernel/btf/vmlinux", false)]).collect()
}

/// What each kind of probe needs. `has_rights`: for want of capabilities nothing is refused.
fn probes(has_rights: bool) -> Vec<Finding> {
    let program = |name, kind, needed| match is_program_supported(kind) {
        Ok(true) => Finding { name, ok: true, detail: "the kernel loads its programs".to_owned(), needed },
        Ok(false) => Finding { name, ok: false, detail: "the kernel has no such programs".to_owned(), needed },
        Err(error) => Finding { name, ok: false, detail: refusal(kind, &error, has_rights), needed },
    };
    let mut tracepoint = program("tracepoint", ProgramType::TracePoint, true);
    if tracepoint.ok
        && let Ok(catalogue) =
            machine::tracefs().and_then(|path| relay_daemon::probe::tracepoint::Catalogue::read(&path))
    {
        tracepoint.detail = format!("{} of them", catalogue.names().len());
    }
    vec![
        tracepoint,
        program("raw tracepoint", ProgramType::RawTracePoint, true),
        exists("kprobe, kretprobe", "/sys/bus/event_source/devices/kprobe/type", false),
        uprobes(),
        program("fentry, fexit", ProgramType::Tracing, false),
        program("perf event", ProgramType::PerfEvent, false),
    ]
}

/// Why the kernel does not load programs of a kind.
fn refusal(kind: ProgramType, error: &(dyn Error + 'static), has_rights: bool) -> String {
    let cause = error.source().unwrap_or(error);
    let is_denied =
        cause.downcast_ref().is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied);
    if !(is_denied && has_rights && matches!(kind, ProgramType::Tracing)) {
        return format!("the kernel refuses its programs: {cause}");
    }
    // Linux itself refuses them for want of capabilities, or where a security module says so (kernel/bpf/syscall.c, `bpf_prog_load`).
    let instead = if host::has_kprobes() { "kprobe: and kretprobe:" } else { "tracepoints" };
    format!(
        "the kernel refuses its programs ({cause}), and not for want of capabilities: a security module, or a patch of this kernel, forbids \
         trampolines at its functions; record {instead} instead"
    )
}

fn uprobes() -> Finding {
    let found = exists("uprobe, uretprobe", "/sys/bus/event_source/devices/uprobe/type", false);
    if found.ok && !host::may_probe_programs() {
        let detail = "this kernel lets only CAP_SYS_ADMIN put probes into programs (it has the fix of CVE-2025-38466)"
            .to_owned();
        return Finding { ok: false, detail, ..found };
    }
    found
}

fn exists(name: &'static str, path: &str, needed: bool) -> Finding {
    let ok = Path::new(path).exists();
    let detail = if ok { path.to_owned() } else { format!("{path} is not there: the kernel was built without") };
    Finding { name, ok, detail, needed }
}
