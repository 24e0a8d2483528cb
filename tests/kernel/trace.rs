//! Traces of real workloads, read back by babeltrace2 and byte by byte.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use relay_channel::machine::online_cpus;
use relay_common::trace::{
    CONTENT_SIZE_AT, CPU_ID_AT, MAGIC, PACKET_SEQ_NUM_AT, PACKET_SIZE_AT, TIMESTAMP_BEGIN_AT, TIMESTAMP_END_AT,
};
use relay_tests::{
    Recording, Running, Trace, record, relayd, succeed, text,
    trace::{self, number_at},
    wait_until,
};
use relay_trace::read::packet::{BEFORE_PAYLOAD, HEADER};
use rustix::process::Signal;

/// `count` reads and writes of one byte, and little else.
fn dd(count: u32) -> Vec<String> {
    ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", &format!("count={count}"), "status=none"].map(str::to_owned).to_vec()
}

fn record_dd(arguments: &[&str], count: u32) -> Trace {
    let dd = dd(count);
    let command: Vec<&str> = arguments.iter().copied().chain(["--"]).chain(dd.iter().map(String::as_str)).collect();
    record(&command)
}

pub(crate) fn every_record_is_read_by_babeltrace2() {
    // Then a while in which CPUs are quiet and are flushed.
    let work_and_rest = "dd if=/dev/zero of=/dev/null bs=1 count=1000 status=none; sleep 0.3";
    let trace = record(&["-e", "sched:*,raw_syscalls:*", "--", "sh", "-c", work_and_rest]);
    assert_eq!(trace.total("lost"), 0, "{}", trace.summary);
    assert!(trace.total("recorded") > 1000, "{}", trace.summary);
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded"));
}

pub(crate) fn dynamic_strings_show_the_right_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("a program with a rather long name");
    fs::copy("/bin/true", &name).unwrap();
    let name = name.to_str().unwrap();
    let trace = record(&["-e", "sched:sched_process_exec", "--", "sh", "-c", &format!("'{name}'; /bin/true; exit 0")]);
    let lines = trace.babeltrace();
    for name in [name, "/bin/true"] {
        assert!(lines.iter().any(|line| line.contains(&format!("\"{name}\""))), "{name} is not in {lines:#?}");
    }
}

pub(crate) fn the_file_is_the_packets_and_nothing_else() {
    let trace = record_dd(&["-e", "raw_syscalls:*,sched:sched_process_exec", "-b", "4K", "-n", "64"], 20_000);
    for cpu in trace.session["cpus"].as_array().unwrap() {
        let file = fs::read(trace.path.join(format!("cpu{}", cpu["cpu"]))).unwrap();
        assert_eq!(file.len() as u64, cpu["bytes"].as_u64().unwrap());
        let (mut at, mut packets, mut records, mut last) = (0, 0, 0, 0);
        while at < file.len() {
            let packet = &file[at..];
            assert_eq!(number_at::<4>(packet, 0_usize), u64::from(MAGIC), "packet {packets} at {at}");
            let bits = number_at::<8>(packet, PACKET_SIZE_AT);
            let size = usize::try_from(bits).unwrap() / 8;
            assert_eq!(number_at::<8>(packet, CONTENT_SIZE_AT), bits, "content_size is packet_size");
            assert!((HEADER..=4096 - 16).contains(&size), "packet {packets} has {size} bytes");
            assert_eq!(number_at::<8>(packet, PACKET_SEQ_NUM_AT), packets, "packet_seq_num");
            assert_eq!(number_at::<4>(packet, CPU_ID_AT), cpu["cpu"].as_u64().unwrap());
            let (begin, end) = (number_at::<8>(packet, TIMESTAMP_BEGIN_AT), number_at::<8>(packet, TIMESTAMP_END_AT));
            let mut record = HEADER;
            while record < size {
                // Of the header: the time, the event's id, the payload's length.
                let timestamp = number_at::<8>(packet, record);
                let len = usize::try_from(number_at::<2>(packet, record + 10)).unwrap();
                assert!(last <= timestamp && begin <= timestamp && timestamp <= end, "time falls in packet {packets}");
                last = timestamp;
                records += 1;
                let next = record + BEFORE_PAYLOAD + len;
                record = if next < size { next.next_multiple_of(4) } else { next };
                assert!(packet[next..record].iter().all(|byte| *byte == 0), "an alignment gap is not zero");
            }
            assert_eq!(record, size, "packet {packets} ends inside a record");
            at += size;
            packets += 1;
        }
        assert_eq!(packets, cpu["subbufs_processed"].as_u64().unwrap());
        assert_eq!(records, cpu["recorded"].as_u64().unwrap());
    }
}

pub(crate) fn the_commands_own_system_calls_are_all_there() {
    const COUNT: u32 = 50_000;
    let trace = record_dd(&["-e", "syscalls:sys_enter_read,syscalls:sys_enter_write"], COUNT);
    assert_eq!(trace.total("lost"), 0, "{}", trace.summary);
    let lines = trace.babeltrace();
    for call in ["read", "write"] {
        let calls = lines.iter().filter(|line| line.contains(&format!("sys_enter_{call}:"))).count();
        assert!(calls >= COUNT as usize, "{calls} of {COUNT} {call} calls");
    }
}

pub(crate) fn relayds_own_events_are_left_out_and_counted() {
    // Records of relayd's own process, and how many events were filtered.
    let run = |arguments: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let mut relayd = relayd();
        relayd
            .args(["trace", "--json", "-e", "raw_syscalls:sys_enter", "-d", "1s", "-o"])
            .arg(folder.path().join("trace"));
        let child = relayd.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let own = format!(" pid = {} }}", child.id());
        let output = child.wait_with_output().unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let lines = text(&succeed(Command::new("babeltrace2").arg(folder.path().join("trace"))).stdout);
        (lines.lines().filter(|line| line.contains(&own)).count(), summary["filtered"].as_u64().unwrap())
    };
    let (own, filtered) = run(&[]);
    assert_eq!(own, 0);
    assert!(filtered > 0);
    let (own, _) = run(&["--self"]);
    assert!(own > 0);
}

pub(crate) fn overwrite_keeps_the_newest_records() {
    let storm = "dd if=/dev/zero of=/dev/null bs=1 count=100000 status=none; exec /bin/true";
    let trace = record(&[
        "-e",
        "raw_syscalls:*,sched:sched_process_exec",
        "--overwrite",
        "-b",
        "16K",
        "-n",
        "4",
        // All of it on one CPU: what was on another at the start would stay there.
        "--",
        "taskset",
        "-c",
        "0",
        "sh",
        "-c",
        storm,
    ]);
    assert!(trace.total("overrun") > 100_000, "{}", trace.summary);
    let lines = trace.babeltrace();
    assert_eq!(lines.len() as u64, trace.total("recorded") - trace.total("overrun"));
    // The last thing that happened is there, and what was at the start is not.
    assert!(
        lines.iter().any(|line| line.contains("sched_process_exec") && line.contains("\"/bin/true\"")),
        "{lines:#?}"
    );
    assert!(!lines.iter().any(|line| line.contains("sched_process_exec") && line.contains("/dd\"")));
}

pub(crate) fn session_json_has_what_the_format_says() {
    let trace = record(&["-e", "sched:sched_switch", "-d", "200ms", "--bpf-stats"]);
    let session = &trace.session;
    for key in ["version", "host", "kernel", "boot_id", "command", "mode", "subbuf_size", "n_subbufs", "uuid"] {
        assert!(!session[key].is_null(), "{key}");
    }
    for clock in ["monotonic", "boottime", "realtime"] {
        let [start, end] = ["start", "end"].map(|at| session["clock"][at][clock].as_u64().unwrap());
        assert!((100_000_000..5_000_000_000).contains(&(end - start)), "{clock} went from {start} to {end}");
    }
    let event = &session["events"][0];
    assert_eq!((event["id"].as_u64(), event["name"].as_str()), (Some(0), Some("sched:sched_switch")));
    assert!(event["size"].as_u64().unwrap() >= 56 && event["format"].as_str().unwrap().contains("prev_comm"));
    let counts = [
        "cpu",
        "recorded",
        "bytes",
        "subbufs_processed",
        "max_backlog",
        "filtered",
        "lost_full",
        "lost_too_big",
        "lost_nested",
        "overrun",
    ];
    for cpu in session["cpus"].as_array().unwrap() {
        counts.iter().for_each(|key| assert!(cpu[key].is_u64(), "{key} in {cpu}"));
    }
    let program = &session["programs"][0];
    assert!(
        program["name"].is_string() && program["recursion_misses"].is_u64() && program["runs"].is_u64(),
        "{program}"
    );
}

/// Takes a CPU offline; it comes back when this is dropped.
pub(crate) struct Offline(String);

impl Offline {
    pub(crate) fn new(cpu: u32) -> Self {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::write(&path, "0").unwrap();
        Self(path)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        fs::write(&self.0, "1").unwrap();
    }
}

/// Where a shell waits until a test lets it go on: a pipe with a name, which is open here.
struct Gate {
    pipe: fs::File,
    folder: tempfile::TempDir,
}

impl Gate {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        succeed(Command::new("mkfifo").arg(&path));
        Self { pipe: fs::File::options().read(true).write(true).open(path).unwrap(), folder }
    }

    /// What a shell runs to wait.
    fn wait(&self) -> String {
        format!("read go < {}/gate", self.folder.path().display())
    }

    fn open(&mut self) {
        self.pipe.write_all(b"go\n").unwrap();
    }
}

fn bytes_of(trace: &Path, cpu: u32) -> u64 {
    fs::metadata(trace.join(format!("cpu{cpu}"))).map_or(0, |file| file.len())
}

pub(crate) fn a_cpu_that_goes_offline_is_drained_all_the_same() {
    let cpu = *online_cpus().unwrap().last().unwrap();
    let (mut gate, done) = (Gate::new(), tempfile::NamedTempFile::new().unwrap());
    let storm = format!("taskset -c {cpu} dd if=/dev/zero of=/dev/null bs=1 count=20000 status=none");
    let storm = format!("{storm}; echo done > {}; {}", done.path().display(), gate.wait());
    let recording = Recording::start(&["-e", "raw_syscalls:*", "--bpf-stats", "--", "sh", "-c", &storm]);
    wait_until("the storm is over", || fs::metadata(done.path()).unwrap().len() > 0);
    let offline = Offline::new(cpu);
    gate.open();
    let trace = recording.finish();
    drop(offline);
    let account = &trace.session["cpus"].as_array().unwrap()[cpu as usize];
    assert!(account["recorded"].as_u64().unwrap() >= 80_000, "{account}");
    assert_eq!((trace.total("lost"), trace.total("overrun")), (0, 0), "{}", trace.summary);
    trace.adds_up();
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded"));
}

pub(crate) fn a_cpu_that_comes_online_gets_a_buffer_and_a_file() {
    let cpu = *online_cpus().unwrap().last().unwrap();
    let offline = Offline::new(cpu);
    let mut gate = Gate::new();
    let storm = format!("{}; taskset -c {cpu} dd if=/dev/zero of=/dev/null bs=1 count=20000 status=none", gate.wait());
    let recording = Recording::start(&["-e", "raw_syscalls:*", "--bpf-stats", "--", "sh", "-c", &storm]);
    assert_eq!(bytes_of(&recording.path, cpu), 0);
    drop(offline);
    // Its first packet has no records.
    wait_until("it has a buffer, and a reader that writes", || bytes_of(&recording.path, cpu) > 0);
    gate.open();
    let trace = recording.finish();
    let account = &trace.session["cpus"].as_array().unwrap()[cpu as usize];
    assert!(account["recorded"].as_u64().unwrap() >= 80_000, "{account}");
    // What it did before it had its buffer is known, too.
    assert_eq!(trace.total("lost"), account["lost_no_buffer"].as_u64().unwrap(), "{}", trace.summary);
    trace.adds_up();
    assert_eq!(trace.babeltrace().len() as u64, trace.total("recorded"));
    assert!(bytes_of(&trace.path, cpu) > 1 << 20);
}

/// With a CPU offline in their midst.
pub(crate) fn cpu_numbers_may_have_gaps() {
    let cpus = online_cpus().unwrap();
    let offline = Offline::new(cpus[1]);
    let storms: String = [cpus[0], cpus[2]]
        .map(|cpu| format!("taskset -c {cpu} dd if=/dev/zero of=/dev/null bs=1 count=2000 2> /dev/null; "))
        .concat();
    let trace = record(&["-e", "raw_syscalls:*", "--bpf-stats", "--", "sh", "-c", &storms]);
    drop(offline);
    for (index, cpu) in cpus.iter().enumerate() {
        let account = &trace.session["cpus"].as_array().unwrap()[*cpu as usize];
        assert_eq!(account["cpu"].as_u64(), Some(u64::from(*cpu)));
        assert_eq!(trace.path.join(format!("cpu{cpu}")).exists(), index != 1, "cpu {cpu}");
        assert_eq!(account["recorded"].as_u64().unwrap() >= 8000, index == 0 || index == 2, "{account}");
    }
    trace.adds_up();
}

pub(crate) fn the_end_does_not_wait_for_the_kernel_to_detach() {
    let duration = |more: &[&str]| {
        let start = Instant::now();
        let arguments = ["-e", "sched:*,timer:*,irq:*"];
        let trace = record(&[&arguments[..], more, &["--", "true"]].concat());
        assert!(trace.total("recorded") > 0, "{}", trace.summary);
        start.elapsed()
    };
    // There it waits, for the runs are counted until the last.
    let waiting = duration(&["--bpf-stats"]);
    let quick = duration(&[]);
    assert!(quick < waiting, "{quick:?}, and {waiting:?} where it waits");
}

pub(crate) fn a_second_interrupt_does_not_wait_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    // Enough that the kernel takes seconds to detach, and is waited for.
    let events = "sched:*,timer:*,irq:*,ext4:*,writeback:*,kmem:*,block:*,jbd2:*";
    let arguments = ["trace", "-e", events, "--bpf-stats", "-o"];
    let mut recorder = Running::start(relayd().args(arguments).arg(&path));
    trace::wait_until_it_records(&path);
    recorder.signal(Signal::INT);
    // Its readers have ended: what is left is to wait for the kernel.
    recorder.wait_until("no thread reads a buffer", |relayd| {
        let threads = fs::read_dir(format!("/proc/{}/task", relayd.pid())).unwrap();
        let name = |thread: io::Result<fs::DirEntry>| fs::read_to_string(thread.ok()?.path().join("comm")).ok();
        !threads.filter_map(name).any(|name| name.starts_with("relayd/cpu"))
    });
    // Not together with the first.
    std::thread::sleep(Duration::from_millis(400));
    recorder.signal(Signal::INT);
    let ended = recorder.end();
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("relayd recover"), "{}", ended.stderr);
    succeed(relayd().arg("recover").arg(&path));
    trace::verify(&path);
}
