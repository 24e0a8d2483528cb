//! Spans as lines, bars, files and stacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
    process::Command,
};

use insta::assert_snapshot;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use relay_common::trace::PACKET_SIZE_AT;
use serde_json::Value;

use crate::{MIXED, copied, fail, relayd_on, said, succeed};

const OFFCPU: [&str; 2] = ["--span", "offcpu"];
/// From each sample of a thread to the next.
const BETWEEN: [&str; 2] = ["--span", "between = profile:hz:49 -> profile:hz:49 by tid"];

fn lines(command: &mut Command) -> Vec<Value> {
    succeed(command).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn a_span_is_a_line_where_it_ends() {
    let spans = lines(relayd_on("print", MIXED).args(OFFCPU).arg("--json"));
    assert!(spans.iter().all(|line| line["event"] == "span:offcpu"), "records only with -e");
    let both = lines(relayd_on("print", MIXED).args(OFFCPU).args(["-e", "sched:sched_switch", "--json"]));
    let found: Vec<usize> = (0..both.len()).filter(|at| both[*at]["event"] == "span:offcpu").collect();
    assert_eq!(found.iter().map(|at| &both[*at]).collect::<Vec<_>>(), spans.iter().collect::<Vec<_>>());
    let mut off = BTreeMap::new();
    for (at, line) in both.iter().enumerate() {
        let fields = &line["fields"];
        if line["event"] != "span:offcpu" {
            off.insert(number(fields, "prev_pid"), line);
            continue;
        }
        // Both ends with all their fields, and the thread that it is about.
        let (end, start) = (&both[at - 1], off[&number(line, "tid")]);
        assert_eq!((&line["time"], &line["cpu"]), (&end["time"], &end["cpu"]));
        assert_eq!(number(fields, "duration_ns"), number(end, "time") - number(start, "time"));
        assert_eq!((fields["start_cpu"].clone(), number(fields, "crossed")), (start["cpu"].clone(), 0));
        assert_eq!(line["comm"], end["fields"]["next_comm"]);
        for (name, value) in start["fields"].as_object().unwrap() {
            assert_eq!((&fields[name], &fields[format!("end_{name}")]), (value, &end["fields"][name]), "{name}");
        }
        assert_eq!(line["words"]["prev_state"], start["words"]["prev_state"]);
        assert_eq!(line["words"]["end_prev_state"], end["words"]["prev_state"]);
    }
    assert!(spans.len() > 1, "{spans:?}");
    let pid = spans[0]["pid"].to_string();
    assert_eq!(lines(relayd_on("print", MIXED).args(OFFCPU).args(["--json", "-p", &pid])).len(), spans.len());
    assert_eq!(succeed(relayd_on("print", MIXED).args(OFFCPU).args(["-p", "1"])), "");
    let fields = ["--fields", "duration_ns,crossed,end_prev_comm"];
    assert_snapshot!("mixed.spans.text", said(relayd_on("print", MIXED).args(OFFCPU).args(fields)));
    assert_snapshot!("mixed.spans.csv", said(relayd_on("print", MIXED).args(OFFCPU).args(["--csv", "--time", "wall"])));
    let said = fail(relayd_on("print", MIXED).args(OFFCPU).args(["--fields", "durations"]));
    assert!(said.contains("no event that is shown has a field 'durations'"), "{said}");
}

#[test]
fn a_span_that_crosses_a_loss_is_marked() {
    let (_folder, path) = copied("lossy");
    let cpu = |cpu: u32| path.join(format!("cpu{cpu}"));
    let file = [cpu(0), cpu(1)].into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let bytes = fs::read(&file).unwrap();
    // Of the CPU that recorded most, its second packet is lost.
    let size = |at: usize| {
        let at = at + usize::try_from(PACKET_SIZE_AT).unwrap();
        usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap() / 8
    };
    let (second, third) = (size(0), size(0) + size(size(0)));
    fs::write(&file, [&bytes[..second], &bytes[third..]].concat()).unwrap();
    let span = ["--span", "calls = raw_syscalls:sys_enter -> raw_syscalls:sys_enter by tid"];
    let stat: Value = serde_json::from_str(&succeed(relayd_on("stat", &path).args(span).arg("--json"))).unwrap();
    let account = &stat["spans"][0]["account"];
    // The status is 1: the account misses bytes.
    let printed = relayd_on("print", &path).args(span).arg("--json").output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    let printed: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let spans: Vec<&Value> = printed.iter().filter(|line| line["event"] == "span:calls").collect();
    let crossed = spans.iter().filter(|span| span["fields"]["crossed"] == 1).count() as u64;
    assert!(crossed > 0);
    assert_eq!((spans.len() as u64, crossed), (number(account, "ended"), number(account, "crossed")));
    let said = said(relayd_on("export", &path).args(span).args(["--to", "json", "-o", "-"]));
    assert!(said.contains(&format!("{crossed} crossed a loss of records (crossed=1)")), "{said}");
    let marked = said.matches("(crossed a loss)\"").count() as u64;
    assert_eq!(marked, crossed);
}

#[test]
fn bars_of_a_lane_do_not_overlap() {
    let everything = [
        "--span",
        "syscall",
        "--span",
        "each = raw_syscalls:sys_enter -> raw_syscalls:sys_exit if id == 1 by cpu queue",
    ];
    let json = succeed(relayd_on("export", "overwrite").args(everything).args(["--to", "json", "-o", "-"]));
    let events: Value = serde_json::from_str(&json).unwrap();
    let events = events["traceEvents"].as_array().unwrap();
    let is_of_spans = |event: &&Value| event["args"].get("crossed").is_some();
    let micros = |event: &Value, key: &str| event[key].as_f64().unwrap();
    let mut lanes: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for bar in events.iter().filter(is_of_spans) {
        lanes.entry(number(bar, "tid")).or_default().push((micros(bar, "ts"), micros(bar, "dur")));
    }
    let spans = lines(relayd_on("print", "overwrite").args(everything).arg("--json"));
    let spans: Vec<&Value> = spans.iter().filter(|line| line.get("event").is_some()).collect();
    assert_eq!(lanes.values().map(Vec::len).sum::<usize>(), spans.len());
    for lane in lanes.values_mut() {
        lane.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(lane.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0 + 0.001), "{lane:?}");
    }
    let names: BTreeSet<&str> =
        events.iter().filter(|event| event["ph"] == "M").filter_map(|event| event["args"]["name"].as_str()).collect();
    assert!(names.contains("syscall") && names.contains("each"), "{names:?}");
}

#[test]
fn arrows_go_from_one_thread_to_the_other() {
    // From the one that forks to its child, when that ends.
    let span = ["--span", "life = sched:sched_process_fork -> sched:sched_process_exit by child_pid=tid"];
    let lives = lines(relayd_on("print", MIXED).args(span).arg("--json"));
    let expected: Vec<(u64, u64)> =
        lives.iter().map(|life| (number(life, "tid"), number(&life["fields"], "child_pid"))).collect();
    assert!(!expected.is_empty() && expected.iter().all(|(parent, child)| parent != child), "{expected:?}");
    let json = succeed(relayd_on("export", MIXED).args(span).args(["-e", "sched:*", "--to", "json", "-o", "-"]));
    let events: Value = serde_json::from_str(&json).unwrap();
    let of = |phase: &str| -> Vec<(u64, u64)> {
        let events = events["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == phase);
        events.map(|event| (number(event, "id"), number(event, "tid"))).collect()
    };
    let arrow = |((begin, from), (end, to)): ((u64, u64), (u64, u64))| {
        assert_eq!(begin, end);
        (from, to)
    };
    assert_eq!(of("s").into_iter().zip(of("f")).map(arrow).collect::<Vec<_>>(), expected);
    let events = ["-e", "sched:sched_process_fork", "--to", "perfetto", "-o", "-"];
    let output = relayd_on("export", MIXED).args(span).args(events).output().unwrap();
    assert!(output.status.success());
    let mut shown = String::new();
    crate::golden::show_message(&output.stdout, 0, &mut shown).unwrap();
    assert_snapshot!("mixed.spans.perfetto", shown);
}

#[test]
fn a_span_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("tables");
    // Its ends are of two kinds.
    let two = [
        "--span",
        "off = sched:sched_switch,sched:sched_process_fork -> sched:sched_switch by prev_pid|child_pid=next_pid",
    ];
    succeed(relayd_on("export", MIXED).args(two).args(["-e", "signal:*", "--to", "parquet", "-o"]).arg(&output));
    let rows = |name: &str| rows(&output.join(format!("{name}.parquet")));
    let spans = lines(relayd_on("print", MIXED).args(two).arg("--json"));
    let (first, second) = (rows("span.off"), rows("span.off.2"));
    assert!(!first.is_empty() && !second.is_empty());
    assert_eq!(first.len() + second.len(), spans.len());
    assert!(rows("events").iter().filter(|row| row.contains("\"span:off\"")).count() == 2);
    let of_first = &spans.iter().find(|span| span["fields"].get("parent_pid").is_none()).unwrap();
    let row = first.iter().find(|row| row.contains(&format!("duration_ns: {},", of_first["fields"]["duration_ns"])));
    let row = row.unwrap_or_else(|| panic!("{first:?}: {of_first}"));
    for (name, value) in of_first["fields"].as_object().unwrap() {
        assert!(row.contains(&format!("{name}: {value}")), "{name}: {row}");
    }
    assert!(row.contains(&format!("time: {}, ", of_first["time"])), "{row}");
}

fn rows(path: &Path) -> Vec<String> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect()
}

#[test]
fn stacks_weigh_what_is_asked_for() {
    let folded = |more: &[&str]| -> BTreeMap<String, u64> {
        let text = succeed(relayd_on("export", "stacks").args(["--to", "folded", "-o", "-"]).args(more));
        let line =
            |line: &str| line.rsplit_once(' ').map(|(stack, weight)| (stack.to_owned(), weight.parse().unwrap()));
        text.lines().map(|text| line(text).unwrap()).collect()
    };
    let counted = folded(&[]);
    let records = lines(relayd_on("print", "stacks").arg("--json"));
    assert_eq!(counted.values().sum::<u64>(), records.len() as u64);
    // Of spans: where they began, and how long they were.
    let spans = lines(relayd_on("print", "stacks").args(BETWEEN).arg("--json"));
    let long: u64 = spans.iter().map(|span| number(&span["fields"], "duration_ns")).sum();
    assert_eq!(folded(&BETWEEN).values().sum::<u64>(), long);
    let cpus: u64 = spans.iter().map(|span| number(&span["fields"], "start_cpu")).sum();
    assert_eq!(folded(&[&BETWEEN[..], &["--weight", "start_cpu"]].concat()).values().sum::<u64>(), cpus);
    let speedscope = succeed(relayd_on("export", "stacks").args(BETWEEN).args(["--to", "speedscope", "-o", "-"]));
    assert_is_speedscope(&serde_json::from_str(&speedscope).unwrap(), long);
    let said = fail(relayd_on("export", "stacks").args(["--to", "folded", "-o", "-", "--weight", "perio"]));
    assert!(said.contains("no event that is exported has a field 'perio'"), "{said}");
    let said = crate::said(relayd_on("export", "stacks").args(["--to", "json", "-o", "-", "--weight", "period"]));
    assert!(said.contains("--weight is of stacks") && said.ends_with("status 2"), "{said}");
    let svg = crate::said(relayd_on("export", "stacks").args(["--to", "flamegraph", "-o", "-"]));
    let frames = svg.lines().filter(|line| line.starts_with("<g class")).collect::<Vec<_>>().join("\n");
    assert_snapshot!("stacks.flamegraph", frames);
}

/// What speedscope's schema of its files wants of one (src/lib/file-format-spec.ts there).
fn assert_is_speedscope(file: &Value, total: u64) {
    assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");
    let frames = file["shared"]["frames"].as_array().unwrap();
    assert!(frames.iter().all(|frame| frame["name"].is_string()));
    let profile = &file["profiles"][0];
    assert_eq!(
        (&profile["type"], &profile["unit"], &profile["startValue"]),
        (&"sampled".into(), &"nanoseconds".into(), &0.into())
    );
    let (samples, weights) = (profile["samples"].as_array().unwrap(), profile["weights"].as_array().unwrap());
    assert_eq!(samples.len(), weights.len());
    let is_frame = |index: &Value| index.as_u64().is_some_and(|index| index < frames.len() as u64);
    assert!(samples.iter().all(|sample| sample.as_array().unwrap().iter().all(is_frame)));
    assert_eq!(weights.iter().map(|weight| weight.as_u64().unwrap()).sum::<u64>(), total);
    assert_eq!(number(profile, "endValue"), total);
}
