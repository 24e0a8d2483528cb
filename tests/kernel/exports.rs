//! Exports, as the programs that they are for read them.

use std::{collections::BTreeMap, fs, process::Command, sync::OnceLock};

use relay_tests::{Trace, fail, python, record, succeed, text};
use serde_json::Value;

const EVENTS: &str = "sched:*,raw_syscalls:*,syscall:openat,syscalls:sys_enter_openat";

fn trace(more: &[&str]) -> Trace {
    record(&[&["-e", EVENTS], more, &["--", "sh", "-c", "ls / > /dev/null; sleep 0.05; ls /usr > /dev/null"]].concat())
}

/// One that tests share.
fn shared() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    TRACE.get_or_init(|| trace(&[]))
}

fn export(trace: &Trace, to: &str) -> std::path::PathBuf {
    let output = trace.path.with_file_name(to);
    succeed(trace.relayd("export").args(["--to", to, "-o"]).arg(&output));
    output
}

fn of_event<'l>(lines: &'l [Value], name: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["event"] == name).collect()
}

fn counts(lines: &[Value]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in lines.iter().filter_map(|line| line["event"].as_str()) {
        *counts.entry(event.to_owned()).or_default() += 1;
    }
    counts
}

pub(crate) fn perfetto_decodes_every_event() {
    let trace = shared();
    let lines = trace.print(&[]);
    let decoded = succeed(python("perfetto_events.py").arg(export(trace, "perfetto")));
    let decoded: Value = serde_json::from_slice(&decoded.stdout).unwrap();
    // What Perfetto knows has no category there.
    let known = |name: &str| {
        let generic = name.starts_with("syscall") || decoded["generic"].get(name).is_some();
        if generic { name.to_owned() } else { name.split_once(':').unwrap().1.to_owned() }
    };
    let counts: BTreeMap<String, u64> = counts(&lines).into_iter().map(|(name, count)| (known(&name), count)).collect();
    let mut decoded_counts: BTreeMap<String, u64> = serde_json::from_value(decoded["events"].clone()).unwrap();
    // Some end what relayd's own threads ran; below.
    assert!(decoded_counts["sched_switch"] >= counts["sched_switch"]);
    decoded_counts.insert("sched_switch".to_owned(), counts["sched_switch"]);
    assert_eq!(decoded_counts, counts);
    assert!(counts.contains_key("sched_switch") && counts.contains_key("syscall:openat"));
    let shift = shift(trace);
    let mut switches: Vec<Value> = of_event(&lines, "sched:sched_switch")
        .into_iter()
        .map(|line| {
            let fields = &line["fields"];
            serde_json::json!([
                line["time"].as_u64().unwrap() + shift,
                line["cpu"],
                fields["prev_comm"],
                fields["prev_pid"],
                fields["prev_state"],
                fields["next_comm"],
                fields["next_pid"]
            ])
        })
        .collect();
    let mut theirs = decoded["switches"].as_array().unwrap().clone();
    switches.sort_by_key(|switch| (switch[0].as_u64(), switch[1].as_u64()));
    theirs.sort_by_key(|switch| (switch[0].as_u64(), switch[1].as_u64()));
    // Between them are only those that end what relayd's own threads ran, whose switches are not recorded.
    for cpu in trace.session["cpus"].as_array().unwrap() {
        let of_cpu: Vec<&Value> = theirs.iter().filter(|switch| switch[1] == cpu["cpu"]).collect();
        for pair in of_cpu.windows(2) {
            assert!(pair[0][6] == pair[1][3] || pair[0][6] == 0, "{pair:?}");
        }
    }
    theirs.retain(|switch| switches.contains(switch));
    assert_eq!(theirs, switches);
    let opens = of_event(&lines, "syscall:openat");
    let mut begins: Vec<u64> = opens
        .iter()
        .map(|open| open["time"].as_u64().unwrap() + shift - open["fields"]["duration_ns"].as_u64().unwrap())
        .collect();
    begins.sort_unstable();
    let mut slices: Vec<u64> =
        decoded["slices"].as_array().unwrap().iter().map(|slice| slice[0].as_u64().unwrap()).collect();
    slices.sort_unstable();
    assert_eq!(slices, begins);
    let tid = opens[0]["tid"].to_string();
    assert_eq!(decoded["threads"][&tid][0], opens[0]["pid"]);
    assert!(decoded["generic"]["syscall:openat"].as_array().unwrap().contains(&"filename".into()));
}

pub(crate) fn perfetto_is_told_of_losses_and_machines() {
    let trace = record(&[
        "-b",
        "4K",
        "-n",
        "2",
        "-e",
        "raw_syscalls:*",
        "--",
        "chrt",
        "-f",
        "10",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=1",
        "count=100000",
    ]);
    let gaps = trace.print(&[]).iter().filter(|line| line.get("lost").is_some()).count();
    assert!(gaps > 0);
    let output = trace.path.with_file_name("perfetto");
    let same = trace.path.clone();
    succeed(trace.relayd("export").arg(same).args(["--to", "perfetto", "-o"]).arg(&output));
    let decoded: Value = serde_json::from_slice(&succeed(python("perfetto_events.py").arg(output)).stdout).unwrap();
    assert_eq!(decoded["losses"].as_array().unwrap().len(), 2 * gaps);
    assert!(decoded["lost_bundles"].as_u64() > Some(0));
    assert_eq!(decoded["machines"], serde_json::json!([0, 1]));
    let dropped: u64 = decoded["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(dropped, trace.total("lost"));
}

pub(crate) fn duckdb_reads_every_record() {
    let trace = trace(&["--context", "cgroup,uid,kstack"]);
    let lines = trace.print(&[]);
    let folder = export(&trace, "parquet");
    let query = |sql: &str| sql.replace("DIR", folder.to_str().unwrap());
    let output = succeed(python("sql.py").args([
        query(
            "select events.event, count(*) from read_parquet('DIR/*.parquet', union_by_name=true, filename='file') records \
             join 'DIR/events.parquet' events on parse_filename(records.file) = events.event_file || '.parquet' group by 1",
        ),
        query("select time, cpu, tid, cgroup, cgroup_path, uid, prev_comm, prev_state, next_pid from 'DIR/sched.sched_switch.parquet'"),
        query("select args, len(kstack) from 'DIR/raw_syscalls.sys_enter.parquet'"),
        query("select count(*) from 'DIR/syscall.openat.parquet' where ret < 0"),
        query("select epoch_us(wall) from 'DIR/sched.sched_switch.parquet'"),
    ]));
    let rows: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let exported: BTreeMap<String, u64> = rows[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap()))
        .collect();
    assert_eq!(exported, counts(&lines));
    let switches: Vec<Value> = of_event(&lines, "sched:sched_switch")
        .iter()
        .map(|line| {
            let fields = &line["fields"];
            serde_json::json!([
                line["time"],
                line["cpu"],
                line["tid"],
                line["cgroup"],
                line["cgroup_path"],
                line["uid"],
                fields["prev_comm"],
                fields["prev_state"],
                fields["next_pid"]
            ])
        })
        .collect();
    assert_eq!(rows[1].as_array().unwrap(), &switches);
    let enters: Vec<Value> = of_event(&lines, "raw_syscalls:sys_enter")
        .iter()
        .map(|line| {
            serde_json::json!([
                line["fields"]["args"],
                line.get("kstack").map_or(0, |stack| stack.as_array().unwrap().len())
            ])
        })
        .collect();
    assert_eq!(rows[2].as_array().unwrap(), &enters);
    let failed =
        of_event(&lines, "syscall:openat").iter().filter(|line| line["fields"]["ret"].as_i64() < Some(0)).count();
    assert_eq!(rows[3][0][0].as_u64().unwrap(), failed as u64);
    let start = &trace.session["clock"]["start"];
    let epoch = start["realtime"].as_u64().unwrap() - start["monotonic"].as_u64().unwrap();
    let first = of_event(&lines, "sched:sched_switch")[0]["time"].as_u64().unwrap();
    assert_eq!(rows[4][0][0].as_u64().unwrap(), (first + epoch) / 1000);
}

pub(crate) fn spans_are_the_same_to_perfetto_and_duckdb() {
    let trace = shared();
    let spans = ["--span", "offcpu", "--span", "calls = raw_syscalls:sys_enter -> raw_syscalls:sys_exit by tid"];
    let printed = trace.print(&spans);
    let shift = shift(trace);
    let output = trace.path.with_file_name("spans.pftrace");
    succeed(trace.relayd("export").args(spans).args(["--to", "perfetto", "-o"]).arg(&output));
    let decoded: Value = serde_json::from_slice(&succeed(python("perfetto_events.py").arg(output)).stdout).unwrap();
    let named = |line: &Value| line["event"].as_str().and_then(|name| name.strip_prefix("span:")).map(str::to_owned);
    let of_line = |line: &Value| {
        let (end, length) = (line["time"].as_u64().unwrap() + shift, line["fields"]["duration_ns"].as_u64().unwrap());
        Some((format!("span {}", named(line)?), end - length, end))
    };
    let of_slice =
        |slice: &Value| (slice[0].as_str().unwrap().to_owned(), slice[1].as_u64().unwrap(), slice[2].as_u64().unwrap());
    let mut expected: Vec<_> = printed.iter().filter_map(of_line).collect();
    let mut slices: Vec<_> = decoded["spans"].as_array().unwrap().iter().map(of_slice).collect();
    assert!(expected.len() > 100, "{} spans", expected.len());
    expected.sort();
    slices.sort();
    assert_eq!(slices, expected);
    // From the thread that left a CPU, or entered a call, to itself: at another time, on another CPU.
    for (flow, ends) in decoded["flows"].as_object().unwrap() {
        assert!(ends[0][0].as_u64() <= ends[1][0].as_u64() && ends[0][1] == ends[1][1], "{flow}: {ends}");
    }
    let folder = trace.path.with_file_name("spans");
    succeed(trace.relayd("export").args(spans).args(["--to", "parquet", "-o"]).arg(&folder));
    let query = "select time, cpu, tid, comm, duration_ns, start_cpu, crossed, prev_state, end_next_pid from 'DIR/span.offcpu.parquet'";
    let output = succeed(python("sql.py").arg(query.replace("DIR", folder.to_str().unwrap())));
    let rows: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    let row = |line: &&Value| {
        let fields = &line["fields"];
        serde_json::json!([
            line["time"],
            line["cpu"],
            line["tid"],
            line["comm"],
            fields["duration_ns"],
            fields["start_cpu"],
            fields["crossed"],
            fields["prev_state"],
            fields["end_next_pid"]
        ])
    };
    let expected: Vec<Value> = of_event(&printed, "span:offcpu").iter().map(row).collect();
    assert_eq!(rows.as_array().unwrap(), &expected);
}

/// From the monotonic clock to that of Perfetto's traces.
fn shift(trace: &Trace) -> u64 {
    let start = &trace.session["clock"]["start"];
    start["boottime"].as_u64().unwrap().saturating_sub(start["monotonic"].as_u64().unwrap())
}

pub(crate) fn a_full_disk_leaves_nothing_behind() {
    let trace = shared();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "none"]).arg(&disk));
    for to in ["perfetto", "json", "parquet"] {
        let said = fail(trace.relayd("export").args(["--to", to, "-o"]).arg(disk.join("out")), 1);
        assert!(said.contains("No space left on device"), "{to}: {said}");
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 0, "{to}");
    }
    succeed(Command::new("umount").arg(&disk));
}
