//! perf records the same tracepoint at the same time: it must have seen what relayd saw.

use std::{fs, path::Path, process::Command};

use relay_tests::{babeltrace, relayd, succeed, text};

/// Records `event` with perf and, inside that, with relayd while `workload` runs in a shell; returns what each saw of the
/// threads called `relaywork`.
fn record_both(event: &str, workload: &str) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy("/bin/dd", folder.path().join("relaywork")).unwrap();
    let (data, trace) = (folder.path().join("perf.data"), folder.path().join("trace"));
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-a", "-m", "4096", "-e", event, "-o"]).arg(&data).arg("--");
    perf.arg(relayd().get_program()).args(["trace", "-q", "-e", event, "-o"]).arg(&trace);
    succeed(perf.args(["--", "sh", "-c", workload]).current_dir(folder.path()));
    (perf_script(&data), babeltrace_named(&trace))
}

fn perf_script(data: &Path) -> Vec<String> {
    let output = succeed(Command::new("perf").args(["script", "-F", "comm,cpu,event,trace", "-i"]).arg(data));
    text(&output.stdout).lines().filter(|line| line.contains("relaywork")).map(str::to_owned).collect()
}

fn babeltrace_named(trace: &Path) -> Vec<String> {
    assert!(!babeltrace(trace).is_empty());
    let output = succeed(Command::new("babeltrace2").arg(trace));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// The value of a field in babeltrace2's text, strings without their quotes.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.rsplit_once(&format!(" {name} = ")).unwrap_or_else(|| panic!("no {name} in {line}"));
    match rest.strip_prefix('"') {
        Some(rest) => rest.split('"').next().unwrap(),
        None => rest.split([',', ' ']).next().unwrap(),
    }
}

/// Sorted by CPU, the order of each CPU kept.
fn by_cpu(mut events: Vec<(u32, String)>) -> Vec<(u32, String)> {
    events.sort_by_key(|(cpu, _)| *cpu);
    events
}

/// The CPU in perf's `[000]`.
fn perf_cpu(line: &str) -> u32 {
    line.split_once('[').and_then(|(_, rest)| rest.split(']').next()?.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

pub(crate) fn perf_saw_the_same_context_switches() {
    let pipe = "./relaywork if=/dev/zero bs=1 count=3000 status=none | ./relaywork of=/dev/null bs=1 status=none";
    let (perf, relayd) = record_both("sched:sched_switch", pipe);
    let perf = perf.iter().map(|line| (perf_cpu(line), line.split_once("sched_switch: ").unwrap().1.trim().to_owned()));
    let relayd = relayd.iter().filter(|line| line.contains("relaywork")).map(|line| {
        let field = |name| field(line, name);
        let state: u32 = field("prev_state").parse().unwrap();
        // As the tracepoint's own format prints it.
        let letter = match state & 0xff {
            0 => "R",
            bit => ["S", "D", "T", "t", "X", "Z", "P", "I"][bit.trailing_zeros() as usize],
        };
        let plus = if state & 0x100 != 0 { "+" } else { "" };
        let event = format!(
            "prev_comm={} prev_pid={} prev_prio={} prev_state={letter}{plus} ==> next_comm={} next_pid={} next_prio={}",
            field("prev_comm"),
            field("prev_pid"),
            field("prev_prio"),
            field("next_comm"),
            field("next_pid"),
            field("next_prio"),
        );
        (field("cpu_id").parse().unwrap(), event)
    });
    compare(by_cpu(perf.collect()), by_cpu(relayd.collect()), 100);
}

pub(crate) fn perf_saw_the_same_system_calls() {
    let workload = "./relaywork if=/dev/zero of=/dev/null bs=16 count=5000 status=none";
    let (perf, relayd) = record_both("raw_syscalls:sys_enter", workload);
    // «relaywork [001] raw_syscalls:sys_enter: NR 0 (0, 5581e0, 10, 0, 0, 0)»
    let perf = perf.iter().filter(|line| line.trim_start().starts_with("relaywork"));
    let perf: Vec<_> =
        perf.map(|line| (perf_cpu(line), line.split_once("sys_enter: ").unwrap().1.trim().to_owned())).collect();
    assert!(!perf.is_empty());
    // The workload's thread is the one that writes 16 bytes most of all: the only one that exists for it.
    let mut counts = std::collections::HashMap::new();
    for line in relayd.iter().filter(|line| line.contains("id = 1,")) {
        *counts.entry(field(line, "tid").to_owned()).or_insert(0) += 1;
    }
    let tid = counts.into_iter().max_by_key(|(_, count)| *count).unwrap().0;
    let relayd = relayd.iter().filter(|line| line.contains(&format!(" tid = {tid},")));
    let relayd: Vec<_> = relayd
        .map(|line| {
            let arguments = line.split_once("args = [ ").unwrap().1.split(']').collect::<Vec<_>>();
            let hexadecimal = |text: &str| {
                let number = text.split_once("= ").unwrap().1.split([',', ' ']).next().unwrap();
                format!("{:x}", number.parse::<u64>().unwrap())
            };
            // «[0] = 1, [1] = 2, …»: after each «]».
            let arguments: Vec<String> = arguments.iter().skip(1).take(6).map(|text| hexadecimal(text)).collect();
            let event = format!("NR {} ({})", field(line, "id"), arguments.join(", "));
            (field(line, "cpu_id").parse().unwrap(), event)
        })
        .collect();
    // perf names the thread by its comm, which is `sh` until exec: those calls only relayd's selection has.
    let first = relayd.iter().position(|event| *event == perf[0]).expect("perf's first call is not in relayd's trace");
    let relayd = relayd[first..].to_vec();
    compare(by_cpu(perf), by_cpu(relayd), 10_000);
}

fn compare(perf: Vec<(u32, String)>, relayd: Vec<(u32, String)>, least: usize) {
    assert!(perf.len() >= least, "perf saw only {}", perf.len());
    if let Some(at) = perf.iter().zip(&relayd).position(|(perf, relayd)| perf != relayd) {
        panic!("event {at}: perf saw {:?}, relayd saw {:?}", perf[at], relayd[at]);
    }
    assert_eq!(perf.len(), relayd.len(), "one saw more than the other");
}
