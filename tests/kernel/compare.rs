//! perf records the same tracepoint at the same time: it must have seen what relayd saw.

use std::{fs, path::Path, process::Command};

use relay_tests::{babeltrace, relayd, succeed, text};

/// Records `event` with perf and, inside that, with relayd while `workload` runs in a shell, where `./relaywork` is a copy of
/// `program`. Returns what perf saw of the threads of that name, and all that relayd saw.
fn record_both(event: &str, program: &str, workload: &str) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(program, folder.path().join("relaywork")).unwrap();
    let (data, trace) = (folder.path().join("perf.data"), folder.path().join("trace"));
    let mut perf = Command::new("perf");
    // The clock of relayd: perf's own is not the same on all CPUs of a virtual machine, and perf orders its events by it.
    perf.args(["record", "-q", "-a", "-k", "CLOCK_MONOTONIC", "-m", "4096", "-e", event, "-o"]).arg(&data).arg("--");
    perf.arg(relayd().get_program()).args(["trace", "-q", "--self", "-e", event, "-o"]).arg(&trace);
    succeed(perf.args(["--", "sh", "-c", workload]).current_dir(folder.path()));
    (perf_script(&data), babeltrace_named(&trace))
}

fn perf_script(data: &Path) -> Vec<String> {
    let output =
        succeed(Command::new("perf").args(["script", "--ns", "-F", "comm,tid,cpu,time,event,trace", "-i"]).arg(data));
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    // Now and then perf writes one event twice, to the nanosecond: when its events are rotated in the middle of its list of them.
    lines.dedup();
    lines.retain(|line| line.contains("relaywork"));
    lines
}

fn babeltrace_named(trace: &Path) -> Vec<String> {
    assert!(!babeltrace(trace).is_empty());
    let output = succeed(Command::new("babeltrace2").arg(trace));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

/// The value of a field in babeltrace2's text, strings without their quotes.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> &'a str {
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
    let naps = "for i in $(seq 100); do ./relaywork 0.001; done";
    let (perf, relayd) = record_both("sched:sched_switch", "/bin/sleep", naps);
    // Where the workload is left: perf of 6.1 on 6.18 sees nothing that happens in the idle task of a second CPU, with or without
    // relayd, so that a switch from there to the workload is not to be compared.
    let perf = perf.iter().map(|line| (perf_cpu(line), line.split_once("sched_switch: ").unwrap().1.trim().to_owned()));
    let perf = perf.filter(|(_, event)| event.starts_with("prev_comm=relaywork"));
    let relayd = relayd.iter().filter(|line| line.contains("prev_comm = \"relaywork\"")).map(|line| {
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
    let (perf, relayd) = record_both("raw_syscalls:sys_enter", "/bin/dd", workload);
    // «relaywork 4711 [001] raw_syscalls:sys_enter: NR 0 (0, 5581e0, 10, 0, 0, 0)»
    let perf: Vec<_> = perf.iter().filter(|line| line.trim_start().starts_with("relaywork")).collect();
    let tid = perf.first().expect("perf saw the workload").split_whitespace().nth(1).unwrap();
    let perf = perf.iter().map(|line| (perf_cpu(line), line.split_once("sys_enter: ").unwrap().1.trim().to_owned()));
    let perf: Vec<_> = perf.collect();
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
    let first = relayd.iter().position(|event| *event == perf[0]).unwrap_or_else(|| {
        panic!(
            "perf's first call, {:?}, is not in relayd's trace, which begins {:?}",
            perf[0],
            &relayd[..relayd.len().min(5)]
        )
    });
    let relayd = relayd[first..].to_vec();
    compare(by_cpu(perf), by_cpu(relayd), 10_000);
}

/// Each side has programs of relayd's own, whose fields are registers: perf has the kernel's.
pub(crate) fn perf_saw_the_same_sides_of_a_call() {
    let workload = "./relaywork if=/dev/zero of=/dev/null bs=16 count=5000 status=none";
    for (side, names) in [("enter", &["fd", "buf", "count"][..]), ("exit", &["ret"])] {
        let event = format!("syscalls:sys_{side}_write");
        let (perf, relayd) = record_both(&event, "/bin/dd", workload);
        // «relaywork 4711 [001] 12.345: syscalls:sys_enter_write: fd: 0x00000001, buf: 0x5581e0, count: 0x00000010», and «0x10»
        let begin = format!("sys_{side}_write: ");
        let of_work = |line: &&String| line.trim_start().starts_with("relaywork");
        // perf's are all hexadecimal; of relayd's those that are addresses.
        let number = |text: &str| {
            let text = text.trim();
            let (digits, base) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
            u64::from_str_radix(digits, base).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        let of_work: Vec<_> = perf.iter().filter(of_work).collect();
        let tid = of_work.first().expect("perf saw the workload").split_whitespace().nth(1).unwrap();
        let perf = of_work.iter().map(|line| {
            let values = line.split_once(&begin).unwrap().1.split(',');
            // Newer kernels show what lies at an address too.
            let values = values.filter(|value| side == "exit" || value.contains(": "));
            let first = |value: &str| number(value.rsplit(": ").next().unwrap().split_whitespace().next().unwrap());
            let values: Vec<u64> = values.map(first).collect();
            (perf_cpu(line), format!("{values:?}"))
        });
        let perf: Vec<_> = perf.collect();
        let relayd = relayd.iter().filter(|line| line.contains(&format!(" tid = {tid},"))).map(|line| {
            let values: Vec<u64> = names.iter().map(|name| number(field(line, name))).collect();
            (field(line, "cpu_id").parse().unwrap(), format!("{values:?}"))
        });
        let relayd: Vec<(u32, String)> = relayd.collect();
        let first = relayd.iter().position(|event| *event == perf[0]).expect("relayd has the first call that perf has");
        compare(by_cpu(perf), by_cpu(relayd[first..].to_vec()), 5_000);
    }
}

fn compare(perf: Vec<(u32, String)>, relayd: Vec<(u32, String)>, least: usize) {
    assert!(perf.len() >= least, "perf saw only {}", perf.len());
    if let Some(at) = perf.iter().zip(&relayd).position(|(perf, relayd)| perf != relayd) {
        panic!("event {at}: perf saw {:?}, relayd saw {:?}", perf[at], relayd[at]);
    }
    assert_eq!(perf.len(), relayd.len(), "one saw more than the other");
}
