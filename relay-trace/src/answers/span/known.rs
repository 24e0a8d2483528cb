//! Spans that are known by name.

use anyhow::{Result, bail};

use super::grammar::{self, Definition, Sched, SpanKind};
use crate::{read::trace::Trace, similar::did_you_mean};

/// One that says how spans are written.
pub(super) const EXAMPLE: &str = "'block:block_rq_issue -> block:block_rq_complete by dev,sector'";

/// What ends each of the scheduler's spans.
const SWITCH: &str = "sched:sched_switch";
/// What the scheduler has to say for its spans, that first.
const SCHED: &str = "sched:sched_switch,sched:sched_wakeup,sched:sched_wakeup_new";

/// A span that is known.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The time that it is.
    pub meaning: &'static str,
    /// How it would be written, or the events that it takes.
    pub written: &'static str,
    /// By which field it is counted when nothing else is said.
    by: &'static str,
    sched: Option<Sched>,
}

/// All that are known.
pub const KNOWN: [Known; 9] = [
    Known { name: "runq", meaning: "waiting for a CPU", written: SCHED, by: "comm", sched: Some(Sched::Runq) },
    Known { name: "oncpu", meaning: "running", written: SCHED, by: "comm", sched: Some(Sched::Oncpu) },
    Known { name: "offcpu", meaning: "not running", written: SCHED, by: "comm", sched: Some(Sched::Offcpu) },
    Known {
        name: "block",
        meaning: "a request at a disk",
        // A flush is completed without having been issued.
        written: "block:block_rq_issue -> block:block_rq_complete by dev,sector",
        by: "dev",
        sched: None,
    },
    Known {
        name: "irq",
        meaning: "an interrupt's handler",
        written: "irq:irq_handler_entry -> irq:irq_handler_exit by cpu,irq nest",
        by: "irq",
        sched: None,
    },
    Known {
        name: "softirq",
        meaning: "a softirq's handler",
        written: "irq:softirq_entry -> irq:softirq_exit by cpu,tid,vec",
        by: "vec",
        sched: None,
    },
    Known {
        name: "syscall",
        meaning: "a system call",
        written: "raw_syscalls:sys_enter -> raw_syscalls:sys_exit by tid",
        by: "comm",
        sched: None,
    },
    Known {
        name: "fsync",
        meaning: "ext4 writing a file out",
        written: "ext4:ext4_sync_file_enter -> ext4:ext4_sync_file_exit by tid",
        by: "comm",
        sched: None,
    },
    Known {
        name: "tcp-connect",
        meaning: "a TCP connection being made",
        written: "sock:inet_sock_set_state if newstate == 2 -> sock:inet_sock_set_state if oldstate == 2 by skaddr",
        by: "comm",
        sched: None,
    },
];

/// A known span, with other keys than its own where some are given.
pub(super) fn with_keys(name: &str, keys: Option<&str>) -> Result<Definition> {
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        let near = did_you_mean(name, KNOWN.iter().map(|known| known.name));
        let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
        bail!("the span '{name}' is not known{near}; there are {}, or two events: {EXAMPLE}", names.join(", "));
    };
    let by = vec![known.by.to_owned()];
    if let Some(sched) = known.sched {
        if keys.is_some() {
            bail!("the span '{name}' is made of what the scheduler says of each thread: it has no keys of its own");
        }
        return Ok(Definition { name: name.to_owned(), kind: SpanKind::Sched(sched), by });
    }
    let Definition { mut kind, .. } = grammar::parse(known.written)?;
    if let (SpanKind::Ends(ends), Some(keys)) = (&mut kind, keys) {
        (ends.keys, ends.matching) = grammar::keys(keys)?;
    }
    Ok(Definition { name: name.to_owned(), kind, by })
}

impl Definition {
    /// The lists of events that are START and END. Of what the scheduler can say, that which the traces have.
    pub(super) fn sides(&self, traces: &[Trace]) -> (String, String) {
        match &self.kind {
            SpanKind::Ends(ends) => (ends.start.clone(), ends.end.clone()),
            SpanKind::Sched(_) => {
                let has = |name: &&str| traces.iter().flat_map(|trace| trace.schema.events()).any(|e| e.name == **name);
                let woken = SCHED.split(',').skip(1).filter(has);
                (std::iter::once(SWITCH).chain(woken).collect::<Vec<_>>().join(","), SWITCH.to_owned())
            }
        }
    }

    /// The lists of events that it takes, as after `-e`.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        match &self.kind {
            SpanKind::Sched(_) => vec![SCHED.to_owned()],
            SpanKind::Ends(ends) if ends.start == ends.end => vec![ends.start.clone()],
            SpanKind::Ends(ends) => vec![ends.start.clone(), ends.end.clone()],
        }
    }
}
