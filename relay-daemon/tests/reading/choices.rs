//! Which records are shown, in which order, and how they are counted.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use relay_common::trace::PACKET_SIZE_AT;
use serde_json::Value;

use crate::{
    MIXED, assert_sorted, copied, fail, in_files, number, print, records, relayd_on, said, session, succeed, total,
    values,
};

#[test]
fn print_is_in_the_order_of_time_and_complete() {
    let lines = print(MIXED, &[]);
    let records = records(&lines);
    assert_eq!(records.len() as u64, in_files(MIXED));
    assert_sorted(&lines);
    let shown = succeed(&mut relayd_on("print", MIXED));
    assert_eq!(shown.lines().count(), lines.len());
    for (line, record) in shown.lines().zip(&records) {
        let seconds =
            format!("{}.{:09}", number(record, "time") / 1_000_000_000, number(record, "time") % 1_000_000_000);
        let place = format!("[{:03}] {seconds:>15}: {}:", number(record, "cpu"), record["event"].as_str().unwrap());
        let task = format!("{}-{}", record["comm"].as_str().unwrap(), number(record, "tid"));
        assert!(line.contains(&place) && line.trim_start().starts_with(&task), "{line}\n{record}");
    }
    let switch = shown.lines().find(|line| line.contains("sched:sched_switch: prev_comm=")).unwrap();
    let state = switch.split("prev_state=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(state.starts_with(['R', 'S', 'D', 'I', 'Z', 'X', 'T', 't', 'P']), "{switch}");
}

/// What date(1) makes of nanoseconds since 1970 in a zone.
fn date(zone: &str, wall: u64) -> String {
    let (second, fraction) = (wall / 1_000_000_000, wall % 1_000_000_000);
    let mut date = Command::new("date");
    date.env("TZ", zone).args(["-d", &format!("@{second}"), &format!("+%Y-%m-%dT%H:%M:%S.{fraction:09}%:z")]);
    succeed(&mut date).trim().to_owned()
}

#[test]
fn times_of_the_wall_are_those_of_the_zone() {
    let records = print(MIXED, &[]);
    let record = &records[records.len() / 2];
    let of = |zone: &str, arguments: &[&str]| succeed(relayd_on("print", MIXED).env("TZ", zone).args(arguments));
    let start = &session(MIXED)["clock"]["start"];
    let wall = number(record, "time") + number(start, "realtime") - number(start, "monotonic");
    for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"] {
        let lines = values(&of(zone, &["--json"]));
        let shown = lines[records.len() / 2]["wall"].as_str().unwrap();
        assert_eq!(shown, date(zone, wall));
        let printed = of(zone, &["--time", "wall"]);
        assert!(printed.lines().nth(records.len() / 2).unwrap().contains(&format!("] {shown}: ")), "{shown}");
        let csv = of(zone, &["--time", "wall", "--csv"]);
        assert!(csv.lines().nth(records.len() / 2 + 1).unwrap().starts_with(&format!("{shown},")), "{shown}");
        // What is shown can be asked for, with and without its zone.
        for since in [shown, &shown[..29], &shown[..29].replace('T', " ")] {
            let since = values(&of(zone, &["--json", "--since", since]));
            assert_eq!(since.first().unwrap()["time"], record["time"], "{since:?}");
        }
    }
    let error = fail(relayd_on("print", MIXED).env("TZ", "Europe/Nowhere").arg("--json"));
    assert!(error.contains("the time zone TZ=Europe/Nowhere"), "{error}");
}

#[test]
fn print_shows_what_is_chosen() {
    let all = print(MIXED, &[]);
    let of = |wanted: &dyn Fn(&Value) -> bool| {
        let of: Vec<Value> = records(&all).into_iter().filter(|record| wanted(record)).cloned().collect();
        assert!(!of.is_empty() && of.len() < all.len());
        of
    };
    let is = |name: &'static str| move |record: &Value| record["event"] == name;
    assert_eq!(print(MIXED, &["-e", "sched:sched_switch"]), of(&is("sched:sched_switch")));
    assert_eq!(
        print(MIXED, &["-e", "sched:sched_switch if prev_prio < 120 || next_comm ~ \"*s*\""]),
        of(&|record| {
            is("sched:sched_switch")(record)
                && (record["fields"]["prev_prio"].as_i64().unwrap() < 120
                    || record["fields"]["next_comm"].as_str().unwrap().contains('s'))
        })
    );
    let pid = number(records(&all)[all.len() / 2], "pid");
    // What is not read tells no names.
    let nameless = |mut records: Vec<Value>| {
        records.iter_mut().for_each(|record| record["comm"] = Value::Null);
        records
    };
    let cpu = number(records(&all)[all.len() / 2], "cpu");
    let chosen = print(MIXED, &["--pid", &pid.to_string(), "--cpu", &cpu.to_string()]);
    assert_eq!(nameless(chosen), nameless(of(&|record| number(record, "pid") == pid && number(record, "cpu") == cpu)));
    let (from, to) = (number(&all[all.len() / 3], "time"), number(&all[all.len() / 2], "time"));
    let moment = |time: u64| format!("@{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
    let chosen = print(MIXED, &["--since", &moment(from), "--until", &moment(to)]);
    assert_eq!(nameless(chosen), nameless(of(&|record| (from..=to).contains(&number(record, "time")))));
    let start = number(&session(MIXED)["clock"]["start"], "monotonic");
    let (from, to) = (from - start, to - start);
    let chosen = print(MIXED, &["--since", &format!("{from}ns"), "--until", &format!("{to}ns")]);
    assert_eq!(nameless(chosen), nameless(of(&|record| (start + from..=start + to).contains(&number(record, "time")))));
    let fields = print(MIXED, &["-e", "sched:sched_switch", "--fields", "next_pid"]);
    assert!(fields.iter().all(|record| record["fields"].as_object().unwrap().keys().eq(["next_pid"])));
    let csv = ["--csv", "-e", "sched:sched_switch", "--fields", "next_pid"];
    let csv = succeed(relayd_on("print", MIXED).args(csv));
    let columns = csv.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<u64>().unwrap());
    assert!(columns.eq(fields.iter().map(|record| number(&record["fields"], "next_pid"))));
}

#[test]
fn losses_stand_where_they_happened() {
    let lines = print("lossy", &[]);
    let told: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(told > 0);
    assert_eq!(told, total("lossy", &["lost_full", "lost_too_big", "lost_nested"]));
    assert_sorted(&lines);
    let shown = succeed(&mut relayd_on("print", "lossy"));
    assert!(shown.lines().any(|line| line.contains("LOST ") && line.contains(" records in the last ")));
    let stat: Value = serde_json::from_str(&succeed(relayd_on("stat", "lossy").arg("--json"))).unwrap();
    let of_cpus = stat["traces"][0]["cpus"].as_array().unwrap().iter().map(|cpu| number(cpu, "lost")).sum::<u64>();
    assert_eq!(of_cpus, told);
    let enough = &stat["traces"][0]["enough"];
    assert!(number(enough, "subbuf_size") * number(enough, "n_subbufs") > 8192, "{enough}");

    let lines = print("overwrite", &[]);
    assert!(lines.iter().any(|line| line["overrun_subbufs"].as_u64() > Some(0)));
    assert_eq!(records(&lines).len() as u64, in_files("overwrite"));
}

#[test]
fn stat_counts_what_print_shows() {
    let lines = print(MIXED, &[]);
    let stat = |more: &[&str]| -> Value {
        serde_json::from_str(&succeed(relayd_on("stat", MIXED).arg("--json").args(more))).unwrap()
    };
    let all = stat(&[]);
    let mut counts: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for record in records(&lines) {
        *counts.entry((record["event"].as_str().unwrap().to_owned(), number(record, "cpu"))).or_default() += 1;
    }
    let mut counted = BTreeMap::new();
    for event in all["traces"][0]["events"].as_array().unwrap() {
        for (cpu, count) in event["cpus"].as_object().unwrap() {
            counted
                .insert((event["name"].as_str().unwrap().to_owned(), cpu.parse().unwrap()), number(count, "records"));
        }
    }
    assert_eq!(counted, counts);
    let bars = all["over_time"].as_array().unwrap().iter().map(|bar| bar.as_u64().unwrap());
    assert_eq!(bars.sum::<u64>(), in_files(MIXED));

    let by = stat(&["-e", "syscall:openat", "--hist", "duration_ns", "--by", "comm"]);
    let opens: Vec<_> = records(&lines).into_iter().filter(|record| record["event"] == "syscall:openat").collect();
    assert!(opens.len() > 3);
    let longest = opens.iter().map(|record| number(&record["fields"], "duration_ns")).max().unwrap();
    let groups = by["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| number(group, "records")).sum::<u64>(), opens.len() as u64);
    let max = groups.iter().map(|group| number(&group["spread"], "max")).max().unwrap();
    assert_eq!(max, longest);
    let said = fail(relayd_on("stat", MIXED).args(["--hist", "filename"]));
    assert!(said.contains("--by filename"), "{said}");
    let said = fail(relayd_on("stat", MIXED).args(["--by", "filenam"]));
    assert!(said.contains("did you mean filename"), "{said}");
}

#[test]
fn stat_adds_up_by_several_keys() {
    let lines = print(MIXED, &["-e", "syscall:*"]);
    let mut sums: BTreeMap<(String, u64), (u64, u64)> = BTreeMap::new();
    for record in records(&lines) {
        let sum = sums.entry((record["comm"].as_str().unwrap().to_owned(), number(record, "cpu"))).or_default();
        *sum = (sum.0 + 1, sum.1 + number(&record["fields"], "duration_ns"));
    }
    assert!(sums.len() > 3, "{sums:?}");
    let by = ["-e", "syscall:*", "--by", "comm,cpu", "--sum", "duration_ns"];
    let stat = |more: &[&str]| -> Value {
        serde_json::from_str(&succeed(relayd_on("stat", MIXED).arg("--json").args(by).args(more))).unwrap()
    };
    let all = stat(&[]);
    let groups = all["groups"].as_array().unwrap();
    let row = |group: &Value| {
        let key = &group["key"];
        (
            (key["comm"].as_str().unwrap().to_owned(), number(key, "cpu")),
            (number(group, "records"), number(group, "sum")),
        )
    };
    assert_eq!(groups.iter().map(row).collect::<BTreeMap<_, _>>(), sums);
    assert!(
        groups.windows(2).all(|two| number(&two[0], "sum") >= number(&two[1], "sum")),
        "the largest sum comes first"
    );

    let top = stat(&["--top", "2", "--sort", "records"]);
    let shown = top["groups"].as_array().unwrap();
    assert_eq!((shown.len() as u64, number(&top, "more_groups")), (2, sums.len() as u64 - 2));
    let most = sums.values().map(|(records, _)| *records).max().unwrap();
    assert_eq!(number(&shown[0], "records"), most);
    let records_of_shown: u64 = shown.iter().map(|group| number(group, "records")).sum();
    assert_eq!(records_of_shown + number(&top, "more_records"), sums.values().map(|(records, _)| records).sum::<u64>());

    let text = succeed(relayd_on("stat", MIXED).args(by).args(["--top", "2"]));
    assert!(text.contains("sum duration_ns") && text.contains("--top shows more"), "{text}");
    let said = said(relayd_on("stat", MIXED).args(["--by", "comm", "--sort", "p99"]));
    assert!(said.contains("--hist") && said.ends_with("status 2"), "{said}");
}

#[test]
fn traces_of_two_machines_are_merged_by_wall_time() {
    let (_folder, other) = copied(MIXED);
    // The same, as if it were of a machine that had booted an hour before, and 5 ms later.
    let mut session = session(MIXED);
    let host = session["host"].clone();
    session["boot_id"] = "another".into();
    session["host"] = "other".into();
    for end in ["start", "end"] {
        let realtime = number(&session["clock"][end], "realtime");
        session["clock"][end]["realtime"] = (realtime + 5_000_000).into();
    }
    fs::write(other.join(".relayd/session.json"), session.to_string()).unwrap();
    let lines = values(&succeed(relayd_on("print", MIXED).arg("--json").arg(&other)));
    assert_sorted(&lines);
    let times = |host: &Value| {
        lines.iter().filter(|line| line["host"] == *host).map(|line| number(line, "time")).collect::<Vec<_>>()
    };
    let (first, second) = (times(&host), times(&"other".into()));
    assert!(!first.is_empty());
    assert_eq!(first.len(), second.len());
    // The anchors of a short trace are as good as two readings of the clock.
    let apart = |(first, second): (&u64, &u64)| (first + 5_000_000).abs_diff(*second);
    assert!(first.iter().zip(&second).map(apart).all(|apart| apart < 20_000));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    // More than a pipe holds.
    let mut print = relayd_on("print", MIXED);
    let mut print = print.args([MIXED; 20]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(100, print.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut said = String::new();
    print.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(print.wait().unwrap().success() && said.is_empty(), "{said}");
    // And one that never wanted any.
    let folder = tempfile::tempdir().unwrap();
    let unread_by = |command: &str, path: &Path, more: &[&Path]| unread(relayd_on(command, path).args(more));
    let repaired = folder.path().join("repaired");
    for (command, more) in [("verify", &[][..]), ("stat", &[]), ("repair", &[repaired.as_path()])] {
        let output = unread_by(command, Path::new(MIXED), more);
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    }
    // The status is for those who read nothing.
    let (_folder, damaged) = copied(MIXED);
    fs::OpenOptions::new().append(true).open(damaged.join("cpu0")).unwrap().write_all(b"more").unwrap();
    let output = unread_by("verify", &damaged, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// Runs a command whose standard output nobody reads.
fn unread(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

#[test]
fn chromes_json_has_every_record() {
    let lines = print(MIXED, &[]);
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("json");
    let export = || {
        let mut export = relayd_on("export", MIXED);
        export.args(["--to", "json", "-o"]).arg(&output);
        export
    };
    succeed(&mut export());
    let json: Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    let of_event =
        |names: &[&str]| lines.iter().filter(|line| names.contains(&line["event"].as_str().unwrap())).count();
    // What ran on CPUs, by two switches that agree.
    let mut last: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut ran = Vec::new();
    for switch in records(&lines).into_iter().filter(|record| record["event"] == "sched:sched_switch") {
        let Some(before) = last.insert(number(switch, "cpu"), switch) else { continue };
        let tid = &before["fields"]["next_pid"];
        if *tid == switch["fields"]["prev_pid"] && *tid != 0 {
            let name = format!("{}-{tid}", before["fields"]["next_comm"].as_str().unwrap());
            let (begin, end) = (number(before, "time") as f64 / 1e3, number(switch, "time") as f64 / 1e3);
            ran.push((number(switch, "cpu"), name, begin, end - begin));
        }
    }
    let is_bar = |event: &&Value| event["ph"] == "X" && event.get("args").is_none();
    let mut bars: Vec<_> = events
        .iter()
        .filter(is_bar)
        .map(|bar| {
            let float = |key: &str| bar[key].as_f64().unwrap();
            (number(bar, "tid"), bar["name"].as_str().unwrap().to_owned(), float("ts"), float("dur"))
        })
        .collect();
    bars.sort_by(|a, b| (a.2 + a.3).total_cmp(&(b.2 + b.3)));
    assert!(!bars.is_empty() && bars.len() == ran.len(), "{} bars, and {} turns", bars.len(), ran.len());
    for (bar, ran) in bars.iter().zip(&ran) {
        assert_eq!((bar.0, &bar.1), (ran.0, &ran.1));
        assert!((bar.2 - ran.2).abs() < 0.01 && (bar.3 - ran.3).abs() < 0.01, "{bar:?}, and {ran:?}");
    }
    assert_eq!(of("i") + of("X"), lines.len() + bars.len());
    assert_eq!(of("X") - bars.len(), of_event(&["syscall:openat", "syscall:nanosleep", "syscall:clock_nanosleep"]));
    assert_eq!(of("E") + of("B"), 0);
    let said = fail(&mut export());
    assert!(said.contains("--force replaces it"), "{said}");
}

#[test]
fn folded_stacks_add_up() {
    let lines = print("stacks", &[]);
    let with_stack = lines.iter().filter(|line| line.get("kstack").or(line.get("ustack")).is_some()).count();
    assert!(with_stack > 5);
    let folded = succeed(relayd_on("export", "stacks").args(["--to", "folded", "-o", "-"]));
    let total: usize = folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum();
    assert_eq!(total, with_stack);
    assert!(folded.lines().any(|line| line.starts_with("sh;")), "{folded}");
    let said = fail(relayd_on("export", MIXED).args(["--to", "folded", "-o", "-"]));
    assert!(said.contains("--context kstack,ustack"), "{said}");
}

/// A thread's times off the CPU, and the times of system calls, reckoned once more from what print shows.
#[test]
fn spans_are_those_of_a_second_reckoning() {
    let (mut off, mut times, mut dead): (BTreeMap<u64, u64>, Vec<u64>, u64) = Default::default();
    for record in records(&print(MIXED, &["-e", "sched:sched_switch"])) {
        let (time, fields) = (number(record, "time"), &record["fields"]);
        let (prev, next) = (number(fields, "prev_pid"), number(fields, "next_pid"));
        let state = record["words"]["prev_state"].as_str().unwrap();
        if state.starts_with(['X', 'Z']) {
            dead += 1;
            off.remove(&prev);
        } else if prev != 0 {
            off.insert(prev, time);
        }
        times.extend(off.remove(&next).map(|since| time - since));
    }
    assert!(times.len() > 1 && dead > 0, "{times:?}, {dead} dead");
    let span = &stat_spans(MIXED, &["--span", "offcpu", "--by", "event"])[0];
    assert_eq!((number(&span["account"], "crossed"), number(&span["account"], "ended")), (0, times.len() as u64));
    let group = &span["groups"][0];
    assert_eq!((number(group, "records"), number(group, "sum")), (times.len() as u64, times.iter().sum::<u64>()));
    assert_eq!(number(&group["spread"], "max"), *times.iter().max().unwrap());
    assert_eq!(number(&span["account"], "open"), off.len() as u64);

    let (mut entered, mut times): (BTreeMap<u64, u64>, Vec<u64>) = Default::default();
    for record in records(&print("overwrite", &[])) {
        let (tid, time) = (number(record, "tid"), number(record, "time"));
        match record["event"].as_str().unwrap() {
            "raw_syscalls:sys_enter" => drop(entered.insert(tid, time)),
            _ => times.extend(entered.remove(&tid).map(|since| time - since)),
        }
    }
    let written = "calls = raw_syscalls:sys_enter -> raw_syscalls:sys_exit by tid";
    for span in stat_spans("overwrite", &["--span", "syscall", "--span", written, "--by", "event"]) {
        let account = &span["account"];
        assert!(times.len() > 10);
        assert_eq!(number(account, "ended"), times.len() as u64, "{account}");
        let group = &span["groups"][0];
        assert_eq!((number(group, "records"), number(group, "sum")), (times.len() as u64, times.iter().sum::<u64>()));
    }
}

#[test]
fn a_span_across_a_loss_is_not_counted() {
    let (_folder, path) = copied("lossy");
    let span = || -> Value {
        let written = ["--span", "raw_syscalls:sys_enter -> raw_syscalls:sys_enter by tid"];
        let json =
            succeed(Command::new(env!("CARGO_BIN_EXE_relayd")).arg("stat").arg(&path).arg("--json").args(written));
        serde_json::from_str::<Value>(&json).unwrap()["spans"][0].clone()
    };
    assert_eq!(number(&span()["account"], "crossed"), 0, "its loss is behind its last record");
    // Of the CPU that recorded most, its second packet is lost.
    let file = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.is_file()).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let bytes = fs::read(&file).unwrap();
    let size = |at: usize| number_at(&bytes, at + usize::try_from(PACKET_SIZE_AT).unwrap()) / 8;
    let (second, third) = (size(0), size(0) + size(size(0)));
    fs::write(&file, [&bytes[..second], &bytes[third..]].concat()).unwrap();
    let span = span();
    let account = &span["account"];
    let crossed = number(account, "crossed");
    assert!(crossed > 0 && crossed < number(account, "ended"), "{account}");
    let counted: u64 = span["groups"].as_array().unwrap().iter().map(|group| number(group, "records")).sum();
    assert_eq!(counted + crossed, number(account, "ended"));
}

#[test]
fn what_is_wrong_with_a_span_is_said() {
    for (arguments, words) in [
        (["--span", "block", "--by", "dev"], "record with -e block:block_rq_issue"),
        (["--span", "sched:sched_switch -> sched:sched_switch by next_pit", "--by", "tid"], "did you mean next_pid"),
        (["--span", "offcpu", "--by", "prev_stat"], "did you mean prev_state"),
    ] {
        let said = fail(relayd_on("stat", MIXED).args(arguments));
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let said = said(relayd_on("stat", MIXED).args(["--span", "rung"]));
    assert!(said.contains("did you mean runq") && said.ends_with("status 2"), "{said}");
}

fn stat_spans(trace: &str, arguments: &[&str]) -> Vec<Value> {
    let json: Value = serde_json::from_str(&succeed(relayd_on("stat", trace).arg("--json").args(arguments))).unwrap();
    json["spans"].as_array().unwrap().clone()
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}
