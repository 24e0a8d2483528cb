//! Folded stacks: a line for each stack, outermost first, and its weight, for flame graphs.

use std::io::Write;

use anyhow::Result;

use super::{Exported, Job, stacks::Stacks};

/// Writes the stacks of the traces. Records weigh what their field `weight` has, or one.
///
/// # Errors
/// When a file cannot be read, `output` not be written, no event has the field, or nothing has a stack.
pub fn write(job: Job<'_>, weight: Option<&str>, output: &mut dyn Write) -> Result<Exported> {
    let (stacks, done) = Stacks::collect(job, weight)?;
    for (line, weight) in &stacks.lines {
        writeln!(output, "{} {weight}", line.join(";"))?;
    }
    Ok(done)
}
