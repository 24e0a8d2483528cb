//! What relayd shows of a record is what ftrace shows of it: both record the same tracepoints at the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use regex::{Regex, escape};
use relay_channel::machine;
use relay_tests::{Recording, record, succeed, text, wait_until};
use rustix::fs::{FlockOperation, fcntl_lock, flock};

/// Two clock readings for one record are no farther apart, in microseconds.
const NEAR: i64 = 300;

/// Fields that are not as ftrace shows them, and why.
const KNOWN: [(&[&str], &str); 4] = [
    (&["jbd2_run_stats.logging", "jbd2_run_stats.running"], "jiffies, where ftrace shows milliseconds"),
    (
        &[
            "mm_filemap_add_to_page_cache.index",
            "mm_filemap_delete_from_page_cache.index",
            "mm_filemap_fault.index",
            "mm_filemap_get_pages.index",
            "mm_filemap_map_pages.index",
        ],
        "pages, where ftrace shows bytes under another name",
    ),
    (&["sock_recv_length.ret", "sock_send_length.ret"], "ftrace shows what of it depends on another field"),
    (&["timer_start.flags"], "ftrace shows three parts of it in three places"),
];

/// Fields that the kernel may leave unset: each of the two has what was in its own buffer before, so that there is nothing to compare.
const UNSET: [&str; 2] = ["fib_table_lookup.gw4", "fib_table_lookup.gw6"];

/// An instance of ftrace's buffers, with every address as it is and the clock of relayd. Dropping it removes it.
struct Ftrace(PathBuf);

impl Ftrace {
    fn new(name: &str) -> Self {
        let folder = machine::tracefs().unwrap().join("instances").join(name);
        if folder.exists() {
            fs::remove_dir(&folder).unwrap();
        }
        fs::create_dir(&folder).unwrap();
        let ftrace = Self(folder);
        for (file, value) in [
            ("trace_clock", "mono"),
            ("buffer_size_kb", "16384"),
            ("options/irq-info", "0"),
            // Not on every kernel.
            ("options/hash-ptr", "0"),
        ] {
            let _ = fs::write(ftrace.0.join(file), value);
        }
        ftrace
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{file}: {value}: {error}"));
    }

    /// The lines of its `trace` file.
    fn lines(&self) -> Vec<Line> {
        let shape = Regex::new(r"-(\d+) +\[(\d+)\] +(\d+)\.(\d{6}): (\w+): ?(.*)$").unwrap();
        let number = |text: &str| text.parse::<i64>().unwrap();
        let trace = text(&fs::read(self.0.join("trace")).unwrap());
        let lines = trace.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let found = shape.captures(line)?;
            Some(Line {
                key: (found[5].to_owned(), number(&found[2]), number(&found[1])),
                micros: number(&found[3]) * 1_000_000 + number(&found[4]),
                text: found[6].to_owned(),
            })
        });
        lines.collect()
    }
}

impl Drop for Ftrace {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("tracing_on"), "0");
        let _ = fs::write(self.0.join("events/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// A record as either shows it.
#[derive(Clone, Debug)]
struct Line {
    /// Event, CPU, thread.
    key: (String, i64, i64),
    micros: i64,
    /// What stands after the event.
    text: String,
}

/// A conversion of a print format, or some with nothing but punctuation between, that show one field.
struct Shown {
    field: String,
    /// The groups of [`Print::line`] that it begins and ends with.
    groups: (usize, usize),
    /// What is printed before it belongs to it: `0x`.
    prefix: &'static str,
    /// The base of its numbers.
    base: u32,
}

/// The print format of an event, taken apart without relayd's parser.
struct Print {
    line: Regex,
    shown: Vec<Shown>,
}

impl Print {
    fn parse(format: &str) -> Option<Self> {
        let field = Regex::new(r"(?m)^\s*field:.*?(\w+)(\[[^;]*\])?;\s*offset").unwrap();
        let fields: BTreeSet<&str> = field.captures_iter(format).map(|found| found.get(1).unwrap().as_str()).collect();
        let (_, print) = format.split_once("print fmt: \"")?;
        let mut end = 0;
        while !print[end..].starts_with('"') {
            end += if print[end..].starts_with('\\') { 2 } else { 1 };
        }
        let (format, rest) = (&print[..end], &print[end + 1..]);
        if rest.trim_start().starts_with('"') {
            return None;
        }
        let mut arguments = split_arguments(rest).into_iter();
        let conversion =
            Regex::new(r"%([-+ #0]*)(\*|\d*)(?:\.(\*|\d*))?(hh|h|ll|l|z|t|j|L)?(p[A-Za-z0-9]*|[A-Za-z%])").unwrap();
        let mentioned = Regex::new(r"REC->(\w+)|__get_\w+\((\w+)\)").unwrap();
        let (mut line, mut at, mut group) = ("^".to_owned(), 0, 0);
        let mut shown: Vec<Shown> = Vec::new();
        let mut may_go_on = false;
        for found in conversion.captures_iter(format) {
            let whole = found.get(0).unwrap();
            if &found[5] == "%" {
                continue;
            }
            let literal = format[at..whole.start()].replace("%%", "%").replace("\\n", " ").replace("\\\"", "\"");
            at = whole.end();
            let stars = [2, 3].iter().filter(|at| found.get(**at).is_some_and(|size| size.as_str() == "*")).count();
            let argument = arguments.by_ref().take(stars + 1).collect::<Vec<_>>().pop()?;
            let names: BTreeSet<&str> = mentioned
                .captures_iter(&argument)
                .filter_map(|found| found.get(1).or(found.get(2)))
                .map(|name| name.as_str())
                .filter(|name| fields.contains(name))
                .collect();
            group += 1;
            let _ = write!(
                line,
                "{}{}",
                escape(&literal),
                if "duxXo".contains(&found[5]) { r"\s*(-?[0-9a-fA-FxX]+)\s*" } else { "(.*?)" }
            );
            let between = literal.replace("0x", "");
            may_go_on &= !between.contains(|c: char| c.is_alphanumeric() || c.is_whitespace() || c == '=');
            let base = match &found[5] {
                "x" | "X" => 16,
                "o" => 8,
                p if p.starts_with('p') => 16,
                _ => 10,
            };
            let mut names = names.into_iter();
            match (names.next(), names.next()) {
                (Some(name), None) => match shown.last_mut() {
                    Some(last) if may_go_on && last.field == name => last.groups.1 = group,
                    _ => {
                        let prefix = if literal.ends_with("0x") { "0x" } else { "" };
                        shown.push(Shown { field: name.to_owned(), groups: (group, group), prefix, base });
                        may_go_on = true;
                    }
                },
                _ => may_go_on = false,
            }
        }
        let _ = write!(line, "{}\\s*$", escape(&format[at..].replace("%%", "%").replace("\\n", " ")).trim_end());
        Some(Self { line: Regex::new(&line).ok()?, shown })
    }
}

/// The arguments after a format string.
fn split_arguments(text: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for c in text.chars() {
        let separates = c == ',' && depth == 0 && !quoted;
        match c {
            _ if escaped => {}
            '"' => quoted = !quoted,
            '(' | '{' | '[' if !quoted => depth += 1,
            ')' | '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        if separates {
            arguments.push(String::new());
        } else if let Some(argument) = arguments.last_mut() {
            argument.push(c);
        }
    }
    arguments
}

/// `name=value` of relayd's text.
fn fields_of(mut text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some((name, rest)) = text.trim_start().split_once('=') {
        let (value, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
            Some(quoted) => {
                let mut value = String::new();
                let mut characters = quoted.chars();
                while let Some(c) = characters.next() {
                    match c {
                        '\\' => value.extend(characters.next()),
                        '"' => break,
                        _ => value.push(c),
                    }
                }
                (value, characters.as_str())
            }
        };
        fields.insert(name.to_owned(), value);
        text = after;
    }
    fields
}

/// Whether relayd's value is ftrace's: the same text, or the same number.
fn agrees(shown: &str, theirs: &str, base: u32) -> bool {
    let number = |text: &str, base| {
        let (text, negative) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => u64::from_str_radix(text, base).ok(),
        };
        number.map(|number| if negative { number.wrapping_neg() } else { number })
    };
    // ftrace also says how long a function is; relayd writes controls out.
    let length = Regex::new("(\\+0x[0-9a-f]+)/0x[0-9a-f]+").unwrap();
    let theirs = length.replace_all(theirs.trim(), "$1");
    if shown.trim() == theirs {
        return true;
    }
    let (Some(shown), Some(theirs)) = (number(shown.trim(), 10), number(&theirs, base)) else { return false };
    // A conversion of 32 bits shows no more of a number.
    shown == theirs || (theirs <= u64::from(u32::MAX) && shown & u64::from(u32::MAX) == theirs)
}

/// Pairs records of one thread and CPU: each of ours with the one of theirs that is nearest.
fn paired<'l>(ours: &'l [Line], theirs: &'l [Line]) -> Vec<(&'l Line, &'l Line)> {
    let mut pairs = Vec::new();
    let (mut our, mut their) = (0, 0);
    while let (Some(a), Some(b)) = (ours.get(our), theirs.get(their)) {
        let distance = |a: &Line, b: &Line| (a.micros - b.micros).abs();
        let next_is_nearer = theirs.get(their + 1).is_some_and(|next| distance(a, next) < distance(a, b));
        if next_is_nearer && theirs.len() - their > ours.len() - our {
            their += 1;
        } else if distance(a, b) <= NEAR {
            pairs.push((a, b));
            (our, their) = (our + 1, their + 1);
        } else if a.micros < b.micros {
            our += 1;
        } else {
            their += 1;
        }
    }
    pairs
}

fn by_key(lines: Vec<Line>) -> BTreeMap<(String, i64, i64), Vec<Line>> {
    let mut keyed: BTreeMap<_, Vec<Line>> = BTreeMap::new();
    for line in lines {
        keyed.entry(line.key.clone()).or_default().push(line);
    }
    keyed.values_mut().for_each(|lines| lines.sort_by_key(|line| line.micros));
    keyed
}

/// Does a bit of everything: processes, files, locks, writeback, signals, timers, networks, memory.
fn work(folder: &Path) {
    let shell = "for i in 1 2 3; do /bin/true; done; (sleep 0.05 & wait); cat /proc/self/maps /proc/interrupts >/dev/null; \
                 dd if=/dev/zero of=big bs=64k count=32 conv=fsync 2>/dev/null; dd if=big of=/dev/null bs=64k iflag=direct 2>/dev/null; \
                 mkdir d; mv big d; rm -r d; nice -n 3 true; kill -USR1 $$ || true; trap '' USR1; kill -USR1 $$; chmod 600 lock; sync";
    fs::write(folder.join("lock"), "a lock").unwrap();
    let _ = Command::new("sh").args(["-c", shell]).current_dir(folder).output().unwrap();
    let mut file = File::options().read(true).write(true).open(folder.join("lock")).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    flock(&file, FlockOperation::Unlock).unwrap();
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    file.seek(SeekFrom::Start(1 << 16)).unwrap();
    file.write_all(&[1; 1 << 16]).unwrap();
    file.sync_all().unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&[7; 100_000][..]).unwrap();
        drop(server);
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        socket.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
    }
    std::thread::spawn(|| std::thread::sleep(Duration::from_millis(20))).join().unwrap();
}

/// The tracepoints that happen here while that work is done, system calls left out: ftrace does not print these by their print format.
fn triggered(folder: &Path) -> Vec<String> {
    let ftrace = Ftrace::new("relayd-which");
    ftrace.write("events/enable", "1");
    for other in ["syscalls", "raw_syscalls"] {
        ftrace.write(&format!("events/{other}/enable"), "0");
    }
    work(folder);
    ftrace.write("tracing_on", "0");
    let seen: BTreeSet<String> = ftrace.lines().into_iter().map(|line| line.key.0).collect();
    let events = machine::tracefs().unwrap().join("events");
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for category in fs::read_dir(&events).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for event in fs::read_dir(category.path()).unwrap().flatten().filter(|event| event.path().join("id").exists()) {
            let (category, name) = (category.file_name(), event.file_name());
            let name = name.to_string_lossy().into_owned();
            names.entry(name.clone()).or_default().push(format!("{}:{name}", category.to_string_lossy()));
        }
    }
    // ftrace does not tell events of one name apart.
    let unique = names.into_iter().filter(|(name, of)| of.len() == 1 && seen.contains(name)).flat_map(|(_, of)| of);
    unique.filter(|name| !name.starts_with("ftrace:")).collect()
}

pub(crate) fn ftrace_shows_the_same_fields() {
    let folder = tempfile::tempdir().unwrap();
    let names = triggered(folder.path());
    assert!(names.len() > 50, "{names:?}");
    let ftrace = Ftrace::new("relayd-fields");
    // Only while relayd records: the buffer would be overwritten while events are attached and detached.
    ftrace.write("tracing_on", "0");
    for name in &names {
        ftrace.write(&format!("events/{}/enable", name.replace(':', "/")), "1");
    }
    let recording = Recording::start(&["-e", &names.join(","), "-b", "1M", "-n", "16"]);
    ftrace.write("tracing_on", "1");
    work(folder.path());
    ftrace.write("tracing_on", "0");
    let trace = recording.stop();

    let printed = text(&succeed(&mut trace.relayd("print")).stdout);
    let shape = Regex::new(r"-(\d+) +\[(\d+)\] +(\d+)\.(\d{6})\d{3}: \w+:(\w+): ?(.*)$").unwrap();
    let number = |text: &str| text.parse::<i64>().unwrap();
    let ours = printed.lines().filter_map(|line| {
        let found = shape.captures(line)?;
        Some(Line {
            key: (found[5].to_owned(), number(&found[2]), number(&found[1])),
            micros: number(&found[3]) * 1_000_000 + number(&found[4]),
            text: found[6].to_owned(),
        })
    });
    let (ours, theirs) = (by_key(ours.collect()), by_key(ftrace.lines()));
    let formats: BTreeMap<&str, Option<Print>> = names
        .iter()
        .map(|name| {
            let path = machine::tracefs().unwrap().join("events").join(name.replace(':', "/")).join("format");
            (name.split_once(':').unwrap().1, Print::parse(&fs::read_to_string(path).unwrap()))
        })
        .collect();

    let mut compared: BTreeMap<(String, String), (usize, usize, String)> = BTreeMap::new();
    let mut unparsed = BTreeSet::new();
    for (key, ours) in &ours {
        let Some(theirs) = theirs.get(key) else { continue };
        let Some(print) = &formats[key.0.as_str()] else {
            unparsed.insert(key.0.clone());
            continue;
        };
        for (our, their) in paired(ours, theirs) {
            let Some(found) = print.line.captures(&their.text) else {
                unparsed.insert(key.0.clone());
                continue;
            };
            let values = fields_of(&our.text);
            let mut fields: BTreeMap<&str, Vec<(String, u32)>> = BTreeMap::new();
            for shown in &print.shown {
                let (first, last) = (found.get(shown.groups.0).unwrap(), found.get(shown.groups.1).unwrap());
                let text = format!("{}{}", shown.prefix, &their.text[first.start()..last.end()]);
                fields.entry(&shown.field).or_default().push((text, shown.base));
            }
            for (field, theirs) in fields {
                let Some(value) = values.get(field) else { continue };
                if UNSET.contains(&&*format!("{}.{field}", key.0)) {
                    unparsed.insert(format!("{}.{field}", key.0));
                    continue;
                }
                let entry = compared.entry((key.0.clone(), field.to_owned())).or_default();
                entry.0 += 1;
                if !theirs.iter().any(|(theirs, base)| agrees(value, theirs, *base)) {
                    entry.1 += 1;
                    entry.2 = format!("{value:?} and {:?} in: {}", theirs[0].0, their.text);
                }
            }
        }
    }
    let total = compared.len();
    // A value may change between the two looks at it.
    let wrong: Vec<_> = compared.iter().filter(|(_, (all, wrong, _))| wrong * 10 > *all).collect();
    let share = 100.0 * (total - wrong.len()) as f64 / total as f64;
    let records: usize = compared.values().map(|(all, ..)| all).sum();
    println!(
        "{} tracepoints, {total} fields that ftrace shows, {records} values compared: {share:.1} % of the fields agree",
        names.len()
    );
    println!("not compared: {unparsed:?}");
    for ((event, field), (all, bad, example)) in &wrong {
        let reason = KNOWN.iter().find(|(fields, _)| fields.contains(&&*format!("{event}.{field}")));
        let reason = reason.map_or("not known", |(_, reason)| reason);
        println!("{event}.{field} ({reason}): {bad} of {all}: {}", example.chars().take(300).collect::<String>());
    }
    let count = |lines: &BTreeMap<_, Vec<Line>>| lines.values().map(Vec::len).sum::<usize>();
    assert!(
        total > 200,
        "only {total} fields compared; {} lines of relayd, {} of ftrace",
        count(&ours),
        count(&theirs)
    );
    assert!(share >= 98.0, "only {share:.1} % of the fields are as ftrace shows them");
}

pub(crate) fn constant_texts_of_the_kernel_are_shown() {
    let ftrace = Ftrace::new("relayd-texts");
    ftrace.write("events/rcu/rcu_utilization/enable", "1");
    let recording = Recording::start(&["-e", "rcu:rcu_utilization"]);
    let switches = || ftrace.lines().iter().filter(|line| line.text == "Start context switch").count();
    let before = switches();
    wait_until("the kernel has come by", || switches() > before);
    let trace = recording.stop();
    ftrace.write("tracing_on", "0");
    let theirs: BTreeSet<String> = ftrace.lines().into_iter().map(|line| line.text).collect();
    assert!(theirs.contains("Start context switch"), "{theirs:?}");
    let records = trace.print(&[]);
    let word = |record: &serde_json::Value| record["words"]["s"].as_str().map(str::to_owned);
    let ours: BTreeSet<String> = records.iter().filter_map(word).collect();
    assert!(ours.contains("Start context switch") && ours.is_subset(&theirs), "{ours:?}, and ftrace {theirs:?}");
    assert!(records.iter().all(|record| record["fields"]["s"].is_u64()), "JSON keeps the address");
    let lines = text(&succeed(&mut trace.relayd("print")).stdout);
    assert!(lines.contains("s=\"Start context switch\""), "{}", &lines[..lines.len().min(500)]);
    // Elsewhere the kernel's file is not there: the trace has kept it.
    let kept = fs::read_to_string(trace.path.join(".relayd/printk_formats")).unwrap();
    assert!(kept.contains("Start context switch"), "{kept}");
}

/// A line of strace: the call, its arguments, and what it returned.
fn strace_line(line: &str) -> Option<(String, Vec<String>, String)> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, returned) = rest.rsplit_once(") ").and_then(|_| rest.rsplit_once(" = "))?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    // As after a format string.
    let arguments = split_arguments(&format!(",{arguments}"));
    Some((
        name.to_owned(),
        arguments.into_iter().map(|argument| argument.trim().to_owned()).collect(),
        returned.to_owned(),
    ))
}

/// `A|B|C` in any order.
fn parts(text: &str) -> BTreeSet<&str> {
    text.split('|').collect()
}

pub(crate) fn strace_has_the_same_words() {
    const PROGRAM: &str = include_str!("words.c");
    let folder = tempfile::tempdir().unwrap();
    let (source, program, log) =
        (folder.path().join("words.c"), folder.path().join("relaywork"), folder.path().join("strace"));
    fs::write(&source, PROGRAM).unwrap();
    succeed(Command::new("cc").args(["-O0", "-o"]).args([&program, &source]));
    let calls: BTreeSet<&str> =
        PROGRAM.split("SYS_").skip(1).filter_map(|rest| rest.split([',', ')']).next()).collect();
    let events: Vec<String> = calls.iter().chain(&["mmap"]).map(|call| format!("syscall:{call}")).collect();
    let shell = format!("cd {} && exec strace -o {} {}", folder.path().display(), log.display(), program.display());
    let trace = record(&["-e", &events.join(","), "--", "sh", "-c", &shell]);
    let theirs: Vec<_> = fs::read_to_string(&log).unwrap().lines().filter_map(strace_line).collect();
    let theirs: Vec<_> =
        theirs.into_iter().skip_while(|(_, of, _)| of.get(1).is_none_or(|of| of != "\"nowhere\"")).collect();
    let ours: Vec<_> = trace.print(&[]);
    let start = ours.iter().position(|record| record["fields"]["filename"] == "nowhere").expect("the first call");
    let pid = &ours[start]["pid"];
    let ours: Vec<_> = ours[start..].iter().filter(|record| record["pid"] == *pid).collect();
    let theirs: Vec<_> = theirs.iter().filter(|(name, ..)| *name == "mmap" || calls.contains(name.as_str())).collect();
    let mut compared = BTreeSet::new();
    let (mut wrong, mut words) = (Vec::new(), 0);
    let mut theirs_left = theirs.iter();
    for our in ours.iter().filter(|record| record["event"] != "syscall:exit") {
        let name = our["event"].as_str().unwrap().trim_start_matches("syscall:").to_owned();
        let (their, arguments, returned) = theirs_left.next().unwrap_or_else(|| panic!("strace has no {our}"));
        assert_eq!(*their, name, "{our}");
        compared.insert(name.clone());
        let ours_of = |field: &str| our["words"][field].as_str();
        match returned.strip_prefix("-1 ").and_then(|error| error.split(' ').next()) {
            Some(error) if ours_of("ret") == Some(error) => words += 1,
            None if ours_of("ret").is_none() => {}
            _ => wrong.push(format!("{name} returned {returned}: {our}")),
        }
        // strace knows the arguments of clone by other names and in another order.
        let fields =
            our["fields"].as_object().unwrap().keys().filter(|field| !matches!(&***field, "ret" | "duration_ns"));
        let positions =
            trace.session["events"].as_array().unwrap().iter().find(|event| event["name"] == our["event"]).unwrap();
        let order = |field: &str| positions["format"].as_str().unwrap().find(&format!(" {field};")).unwrap();
        let mut fields: Vec<_> = fields.collect();
        fields.sort_by_key(|field| order(field));
        for (position, field) in fields.into_iter().enumerate() {
            let their = match &*name {
                "clone" => {
                    arguments.iter().find_map(|argument| argument.strip_prefix("flags=")).filter(|_| position == 0)
                }
                _ => arguments.get(position).map(String::as_str),
            };
            let Some(their) = their else { continue };
            let has_words = !their.starts_with(['"', '[', '{']) && their.contains(|c: char| c.is_ascii_uppercase());
            match ours_of(field) {
                Some(word) if parts(word) == parts(their) => words += 1,
                Some(word) if !has_words && our["fields"][field].is_string() => assert_eq!(word, their),
                Some(word) => wrong.push(format!("{name}: {field}={word}, not {their}")),
                None if has_words && !NOT_NAMED.iter().any(|known| their.starts_with(known)) => {
                    wrong.push(format!("{name}: {field} has no word, and {their} in strace"));
                }
                None => {}
            }
        }
    }
    println!("{words} words of {} calls are strace's", compared.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(words > 100 && compared.len() > 40, "{words} words of {compared:?}");
    let lines = text(&succeed(&mut trace.relayd("print")).stdout);
    assert!(lines.contains(" ret=-2 ENOENT "), "{lines}");
}

/// Arguments that are pointers or numbers whose names depend on others, and what strace alone has names for.
const NOT_NAMED: [&str; 3] = ["NULL", "IPPROTO_", "FUTEX_BITSET"];

pub(crate) fn system_calls_without_tracepoints_of_their_own_are_named() {
    let trace = record(&["-e", "raw_syscalls:*", "--", "sh", "-c", "cat /nowhere-at-all; true"]);
    let records = trace.print(&[]);
    let named = |event: &str, word: &str| {
        records
            .iter()
            .any(|record| record["event"] == event && record["words"]["id"] == word && record["fields"]["id"].is_i64())
    };
    assert!(
        named("raw_syscalls:sys_enter", "openat") && named("raw_syscalls:sys_exit", "execve"),
        "{:?}",
        records.first()
    );
    let lines = text(&succeed(&mut trace.relayd("print")).stdout);
    assert!(lines.lines().any(|line| line.contains("openat ret=-2 ENOENT")), "{lines}");
}
