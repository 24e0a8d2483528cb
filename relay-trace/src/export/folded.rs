//! Folded stacks: a line for each stack, outermost first, and how often it was seen, for flame graphs.

use std::{collections::HashMap, io::Write};

use anyhow::{Result, bail};

use super::Job;
use crate::{
    read::{
        choice::comm,
        slices::{Item, Slice},
        stream::Damage,
    },
    show::text::{kernel_frames, user_frames},
};

/// Trace, thread name, kernel stack and user stack, as they lie in the records.
type Key = (usize, Vec<u8>, Vec<u8>, Vec<u8>);

/// Writes the stacks of the traces. Returns what could not be read.
///
/// # Errors
/// When a file cannot be read, `output` not be written, or no record has a stack.
pub fn write(job: Job<'_>, output: &mut dyn Write) -> Result<Vec<Damage>> {
    let (traces, choice) = (job.traces, job.choice);
    let mut stacks: HashMap<Key, u64> = HashMap::new();
    let worker = || {
        move |slice: &Slice| {
            let mut stacks: HashMap<Key, u64> = HashMap::new();
            choice.show(slice, traces, |item, names| {
                let Item::Record(seen) = item else { return };
                let (kernel, user) = (seen.context.kstack, seen.context.ustack);
                if !kernel.is_empty() || !user.is_empty() {
                    let name = comm(&seen.context, seen.record.tid, names).to_vec();
                    *stacks.entry((seen.source.trace, name, kernel.to_vec(), user.to_vec())).or_default() += 1;
                }
            });
            stacks
        }
    };
    let damages = job.run(worker, |part| {
        for (stack, count) in part {
            *stacks.entry(stack).or_default() += count;
        }
        Ok(())
    })?;
    if stacks.is_empty() {
        bail!("no record has a stack: record with --context kstack,ustack");
    }
    let mut symbols: Vec<_> = traces.iter().map(crate::read::trace::Trace::symbols).collect();
    let mut lines: HashMap<String, u64> = HashMap::new();
    for ((trace, name, kernel, user), count) in stacks {
        let mut frames: Vec<String> = kernel_frames(&kernel)
            .chain(user_frames(&user))
            .map(|frame| function(&frame.name(&mut symbols[trace])))
            .collect();
        frames.push(clean(&String::from_utf8_lossy(&name)));
        frames.reverse();
        *lines.entry(frames.join(";")).or_default() += count;
    }
    let mut lines: Vec<_> = lines.into_iter().collect();
    lines.sort_unstable();
    for (line, count) in lines {
        writeln!(output, "{line} {count}")?;
    }
    Ok(damages)
}

/// A frame without its offset: calls from one function are one.
fn function(frame: &str) -> String {
    match frame.rsplit_once("+0x") {
        Some((function, rest)) => {
            let module = rest.split_once(' ').map_or("", |(_, module)| module);
            clean(&if module.starts_with('[') { format!("{function} {module}") } else { function.to_owned() })
        }
        None => clean(frame),
    }
}

/// What separates frames and lines cannot be in one.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c == ';' || c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_functions() {
        for (frame, expected) in [
            ("vfs_read+0x8", "vfs_read"),
            ("hook+0x1 [nf]", "hook [nf]"),
            ("operator+(a;b)+0x10 (/usr/bin/x)", "operator+(a_b)"),
            ("0x12 (no file)", "0x12 (no file)"),
        ] {
            assert_eq!(function(frame), expected);
        }
    }
}
