//! `relayd report` in Debian's Chromium, which `cargo xtask setup` installs: that the page loads without an error, shows what is in the trace, and obeys no name.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const TRACES: [&str; 5] = ["mixed", "lossy", "overwrite", "stacks", "calls"];
/// For a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser, driven by the DevTools protocol over pipes: messages end with NUL.
struct Browser {
    process: Child,
    input: ChildStdin,
    output: ChildStdout,
    unread: Vec<u8>,
    calls: u64,
    session: String,
    /// Messages that are not answers.
    events: Vec<Value>,
    _folder: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags =
            "--headless=new --no-sandbox --disable-gpu --no-first-run --window-size=1440,900 --remote-debugging-pipe";
        let mut process = Command::new("sh")
            // Chromium reads from 3 and writes to 4.
            .args(["-c", &format!("exec chromium {flags} --user-data-dir=\"$0\" 3<&0 4>&1 </dev/null >/dev/null 2>&1")])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (unread, events) = Default::default();
        let mut browser =
            Self { process, input, output, unread, calls: 0, session: String::new(), events, _folder: folder };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.input.write_all(message.to_string().as_bytes()).unwrap();
        self.input.write_all(b"\0").unwrap();
        loop {
            let message = self.read();
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn read(&mut self) -> Value {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == 0) {
                let message = self.unread.drain(..=end).collect::<Vec<_>>();
                return serde_json::from_slice(&message[..end]).unwrap();
            }
            let mut bytes = [0; 1 << 16];
            let read = self.output.read(&mut bytes).unwrap();
            assert!(read > 0, "chromium has ended (is it installed? cargo xtask setup): {:?}", self.process.wait());
            self.unread.extend_from_slice(&bytes[..read]);
        }
    }

    /// The value of an expression, waited for.
    fn evaluate(&mut self, expression: &str) -> Value {
        let call = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", call);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Opens a page, and waits until it is ready. Whatever goes wrong meanwhile is told by [`Self::faults`].
    fn open(&mut self, page: &Path) {
        self.events.clear();
        self.call("Page.navigate", json!({"url": format!("file://{}", page.display())}));
        let begun = Instant::now();
        while self.evaluate("document.documentElement?.dataset.ready") != "1" {
            if begun.elapsed() > PATIENCE {
                let said = self.evaluate("document.getElementById('err').textContent");
                panic!("not ready: {said}, {:#?}", self.faults(page));
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Errors, dialogs, and requests for anything but the page.
    fn faults(&self, page: &Path) -> Vec<&Value> {
        let own = format!("file://{}", page.display());
        let is_fault = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown"
            | "Log.entryAdded"
            | "Page.javascriptDialogOpening"
            | "Runtime.consoleAPICalled" => true,
            "Network.requestWillBeSent" => !event["params"]["request"]["url"].as_str().unwrap().starts_with(&own),
            _ => false,
        };
        self.events.iter().filter(is_fault).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn traces() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces")
}

fn relayd(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_relayd")).current_dir(traces()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn report(trace: &Path, folder: &tempfile::TempDir, more: &[&str]) -> PathBuf {
    let page = folder.path().join("report.html");
    relayd(&[&["report", trace.to_str().unwrap(), "-o", page.to_str().unwrap(), "--force"], more].concat());
    page
}

fn records(trace: &str) -> Vec<Value> {
    let printed = relayd(&["print", trace, "--json"]);
    printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line.get("event").is_some())
        .collect()
}

#[test]
fn the_page_has_what_the_trace_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start();
    for trace in TRACES {
        let page = report(&traces().join(trace), &folder, &[]);
        browser.open(&page);
        assert_eq!(browser.faults(&page), Vec::<&Value>::new(), "{trace}");
        let stat: Value = serde_json::from_str(&relayd(&["stat", trace, "--json"])).unwrap();
        let stat = &stat["traces"][0];
        let count = stat["records"].as_u64().unwrap();
        let digits = "document.getElementById('infiles').textContent.replace(/\\D/g, '')";
        assert_eq!(browser.evaluate(digits), count.to_string(), "{trace}: the head");
        let sums = browser.evaluate("relaydTest.sums()");
        assert!(sums.as_array().unwrap().iter().all(|sum| *sum == count), "{trace}: every level has all: {sums}");
        let cpus = browser.evaluate("relaydTest.perCpu()");
        let events: BTreeMap<String, u64> =
            serde_json::from_value(browser.evaluate("Object.fromEntries(relaydTest.M.events.filter(e => e[1]))"))
                .unwrap();
        let expected: BTreeMap<String, u64> = stat["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| (event["name"].as_str().unwrap().to_owned(), event["records"].as_u64().unwrap()))
            .filter(|(_, records)| *records > 0)
            .collect();
        assert_eq!(events, expected, "{trace}");
        for cpu in stat["cpus"].as_array().unwrap() {
            let shown = &cpus[usize::try_from(cpu["cpu"].as_u64().unwrap()).unwrap()];
            assert_eq!(*shown, cpu["records"], "{trace}: {cpu}");
        }
        let in_files: u64 = stat["account"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cpu| ["recorded", "overrun", "unwritten"].map(|key| cpu[key].as_u64().unwrap()))
            .map(|[recorded, overrun, unwritten]| recorded - overrun - unwritten)
            .sum();
        assert_eq!(
            browser.evaluate("document.getElementById('acc3').textContent.replace(/\\D/g, '')"),
            in_files.to_string()
        );
        assert_eq!(browser.evaluate("document.body.textContent.includes('The account adds up')"), true, "{trace}");
        let losses = relayd(&["print", trace, "--json"]).lines().filter(|line| line.contains("\"since\":")).count();
        assert_eq!(browser.evaluate("relaydTest.M.lost.length"), losses as u64, "{trace}");
    }
}

#[test]
fn every_record_is_there_and_a_click_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start();
    let page = report(&traces().join("mixed"), &folder, &[]);
    browser.open(&page);
    let all = browser.evaluate(
        "(async () => { const T = relaydTest, out = [];
           for (const k of T.has.keys()) { await T.open(k); const z = T.tiles.get(k);
             for (let c = 0; c < T.M.ncpu; c++) for (let i = z.at[c]; i < z.at[c + 1]; i++)
               out.push({time: T.clock(z.t[i]).replace('.', ''), cpu: c, event: T.M.events[z.ev[i]][0], tid: T.M.threads[z.th[i]][0], fields: Object.fromEntries(z.fields(i))}); }
           return out; })()",
    );
    let mut shown: Vec<Value> = all.as_array().unwrap().clone();
    let mut expected = records("mixed");
    let key = |record: &Value| {
        (
            record["time"].as_str().map_or_else(|| record["time"].as_u64().unwrap(), |time| time.parse().unwrap()),
            record["cpu"].as_u64(),
        )
    };
    shown.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(shown.len(), expected.len());
    for (shown, expected) in shown.iter().zip(&expected) {
        assert_eq!((key(shown), &shown["event"], &shown["tid"]), (key(expected), &expected["event"], &expected["tid"]));
        for (name, value) in shown["fields"].as_object().unwrap() {
            let Some(number) = expected["fields"].get(name) else { continue };
            let word = expected["words"].get(name).unwrap_or(number);
            let word = word.as_str().map_or_else(|| word.to_string(), str::to_owned);
            let value = value.as_str().unwrap();
            // What has more than 63 bits is an address.
            let address = value.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
            assert!(
                value == word || address.is_some_and(|address| address.to_string() == word),
                "{name} {value} of {expected}"
            );
        }
    }
    for record in expected.iter().step_by(7) {
        let (time, cpu) = key(record);
        let place = browser.evaluate(&format!(
            "(async () => {{ const T = relaydTest, t = {time} - Number(T.M.t0), L = T.lanes.find(l => l.type === 'cpu' && l.i === {});
               T.to(t - 400, t + 600); for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame);
               const box = document.getElementById('view'); box.scrollIntoView({{block: 'center'}});
               const r = box.getBoundingClientRect(), v = T.view; return [r.left + T.px(t), r.top + L.y - v.sy + v.RUL + L.h / 2]; }})()",
            cpu.unwrap()
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            browser.call(
                "Input.dispatchMouseEvent",
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1}),
            );
        }
        let detail = browser
            .evaluate("new Promise(requestAnimationFrame).then(() => document.getElementById('detail').textContent)");
        let detail = detail.as_str().unwrap();
        let clock = format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
        assert!(detail.contains(record["event"].as_str().unwrap()) && detail.contains(&clock), "{record}: {detail}");
    }
    assert_eq!(browser.faults(&page), Vec::<&Value>::new());
}

#[test]
fn a_page_too_small_for_all_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start();
    let page =
        report(&traces().join("lossy"), &folder, &["--max-size", "4K", "-e", "raw_syscalls:sys_enter if id == 0"]);
    browser.open(&page);
    assert_eq!(browser.faults(&page), Vec::<&Value>::new());
    assert_eq!(browser.evaluate("document.body.textContent.includes('A part of the trace was chosen')"), true);
    assert_eq!(browser.evaluate("document.body.textContent.includes('▼')"), true, "its losses come first");
    for (key, what) in [("n", "detail"), ("t", "detail"), ("?", "keys")] {
        browser.call("Input.dispatchKeyEvent", json!({"type": "keyDown", "key": key, "text": key}));
        browser.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key}));
        assert_eq!(browser.evaluate(&format!("document.getElementById('{what}').textContent.length > 0")), true);
    }
    assert_eq!(
        browser.evaluate("document.getElementById('detail').textContent.includes('lost')"),
        true,
        "N goes to a loss"
    );
    assert_eq!(browser.faults(&page), Vec::<&Value>::new());
}

#[test]
fn a_trace_that_is_broken_has_a_page() {
    type Break = fn(&Path);
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start();
    let empty: Break = |trace| ["cpu0", "cpu1"].iter().for_each(|cpu| fs::write(trace.join(cpu), "").unwrap());
    let damaged: Break = |trace| {
        let mut bytes = fs::read(trace.join("cpu1")).unwrap();
        bytes[700..2200].fill(0xa5);
        fs::write(trace.join("cpu1"), bytes).unwrap();
    };
    let killed: Break = |trace| {
        let path = trace.join(".relayd/session.json");
        let mut session: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        (session["clock"]["end"], session["cpus"]) = (Value::Null, json!([]));
        fs::write(path, session.to_string()).unwrap();
    };
    let broken = [
        (empty, "The account does not add up"),
        (damaged, "The account does not add up"),
        (killed, "there is no account · 90 records · none lost, as far as the files tell"),
    ];
    for (index, (how, verdict)) in broken.into_iter().enumerate() {
        let trace = folder.path().join(format!("trace{index}"));
        assert!(Command::new("cp").arg("-r").arg(traces().join("mixed")).arg(&trace).status().unwrap().success());
        how(&trace);
        let page = folder.path().join(format!("{index}.html"));
        let mut relayd = Command::new(env!("CARGO_BIN_EXE_relayd"));
        let status = relayd.arg("report").arg(&trace).arg("-o").arg(&page).stderr(Stdio::null()).status().unwrap();
        assert!(page.is_file(), "{index}: {status}");
        browser.open(&page);
        assert_eq!(browser.faults(&page), Vec::<&Value>::new());
        let said = browser.evaluate("document.querySelector('.verdict').textContent");
        assert!(said.as_str().unwrap().contains(verdict), "{index}: {said}");
    }
}

#[test]
fn no_name_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    assert!(Command::new("cp").arg("-r").arg(traces().join("mixed")).arg(&trace).status().unwrap().success());
    // A thread of the records, and what describes them.
    for cpu in ["cpu0", "cpu1"] {
        let bytes = fs::read(trace.join(cpu)).unwrap();
        let mut text = Vec::new();
        let (mut rest, name) = (&bytes[..], b"kworker/1:2");
        while let Some(at) = rest.windows(name.len()).position(|window| window == name) {
            text.extend_from_slice(&rest[..at]);
            text.extend_from_slice(b"</script><b");
            rest = &rest[at + name.len()..];
        }
        text.extend_from_slice(rest);
        fs::write(trace.join(cpu), text).unwrap();
    }
    let path = trace.join(".relayd/session.json");
    let mut session: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let script = "</script><script>window.pwned = 1; alert(1)</script><img src=x onerror=\"window.pwned = 1\">@@DATA@@\u{202e}\u{1b}[31m";
    for key in ["host", "kernel"] {
        session[key] = script.into();
    }
    session["command"] = json!(["relayd", script]);
    for event in session["events"].as_array_mut().unwrap() {
        if event["name"] == "kmem:kmalloc" {
            event["name"] = format!("kmem:{script}").into();
        }
    }
    fs::write(&path, session.to_string()).unwrap();
    let page = report(&trace, &folder, &[]);
    let mut browser = Browser::start();
    browser.open(&page);
    assert_eq!(browser.faults(&page), Vec::<&Value>::new());
    assert_eq!(browser.evaluate("typeof window.pwned"), "undefined");
    assert_eq!(browser.evaluate("document.querySelectorAll('img, b.x, script:not([type]):not([nonce])').length"), 0);
    for shown in ["</script><b", "kmem:</script><script>window.pwned", "⟨202E⟩␛[31m"] {
        assert_eq!(browser.evaluate(&format!("document.body.textContent.includes({})", json!(shown))), true, "{shown}");
    }
}
