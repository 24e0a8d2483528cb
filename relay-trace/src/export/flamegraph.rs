//! A flame graph as SVG, which a browser shows: what calls is below what is called, and as wide as all stacks through it weigh. A click makes a frame as wide as
//! the picture.
//!
//! It is our own: the licence of the crate `inferno`, CDDL-1.0, does not go with those of this program.

use std::io::Write;

use anyhow::Result;

use super::{Exported, Job, stacks::Stacks};
use crate::show::escape::{entity, escaped};

const WIDTH: f64 = 1200.0;
const ROW: usize = 17;
/// Above and below the frames.
const MARGIN: usize = 30;
/// What is narrower is not drawn: nobody could see it.
const NARROWEST: f64 = 0.1;
/// About what a letter takes.
const LETTER: f64 = 7.3;

const SCRIPT: &str = include_str!("flamegraph.js");
const STYLE: &str = "text{font:12px monospace;pointer-events:none;fill:#000}rect{stroke:#fff;stroke-width:.5}g.f{cursor:pointer}#head{font-weight:bold}";

/// Writes the stacks of the traces. Records weigh what their field `weight` has, or one.
///
/// # Errors
/// When a file cannot be read, `output` not be written, no event has the field, or nothing has a stack.
pub fn write(job: Job<'_>, weight: Option<&str>, output: &mut dyn Write) -> Result<Exported> {
    let name = job.traces.first().map_or(String::new(), |trace| trace.path.display().to_string());
    let (stacks, done) = Stacks::collect(job, weight)?;
    draw(&stacks, &name, output)?;
    Ok(done)
}

fn draw(stacks: &Stacks, name: &str, output: &mut dyn Write) -> Result<()> {
    let (frames, total) = (stacks.frames(), stacks.total().max(1));
    let rows = frames.iter().map(|frame| frame.depth + 2).max().unwrap_or(1);
    let height = rows * ROW + 2 * MARGIN;
    let scale = WIDTH / total as f64;
    writeln!(
        output,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text id=\"head\" x=\"6\" y=\"20\">{}: {total} {}</text>",
        xml(name),
        xml(stacks.unit())
    )?;
    rect(
        output,
        &Drawn { name: "all", left: 0.0, width: WIDTH, y: height - MARGIN - ROW, total, share: 100.0 },
        stacks.unit(),
    )?;
    // Where the next frame of each depth begins.
    let mut next: Vec<f64> = vec![0.0];
    for frame in &frames {
        next.truncate(frame.depth + 1);
        let left = next.last().copied().unwrap_or(0.0);
        let width = frame.total as f64 * scale;
        if let Some(last) = next.last_mut() {
            *last += width;
        }
        next.push(left);
        if width >= NARROWEST {
            let y = height - MARGIN - ROW * (frame.depth + 2);
            let share = frame.total as f64 * 100.0 / total as f64;
            rect(output, &Drawn { name: &frame.name, left, width, y, total: frame.total, share }, stacks.unit())?;
        }
    }
    writeln!(output, "<script>//<![CDATA[\n{SCRIPT}//]]></script>\n</svg>")?;
    Ok(())
}

/// A frame where it is drawn.
struct Drawn<'d> {
    name: &'d str,
    left: f64,
    width: f64,
    y: usize,
    total: u64,
    share: f64,
}

fn rect(output: &mut dyn Write, drawn: &Drawn<'_>, unit: &str) -> Result<()> {
    let Drawn { name, left, width, y, total, share } = drawn;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most WIDTH / LETTER")]
    let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
    let short: String = if letters < 3 { String::new() } else { escaped(name).chars().take(letters).collect() };
    writeln!(
        output,
        "<g class=\"f\"><title>{0} ({total} {1}, {share:.2}%)</title><rect x=\"{left:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{2}\" fill=\"{3}\"/><text x=\"{4:.2}\" y=\"{5}\">{6}</text></g>",
        xml(name),
        xml(unit),
        ROW - 1,
        colour(name),
        left + 3.0,
        y + 12,
        xml_plain(&short)
    )?;
    Ok(())
}

/// Of a function always the same: colours only tell neighbours apart.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("hsl({},75%,{}%)", hash % 50, 62 + hash / 50 % 16)
}

/// A text that nothing in it can end or begin an element, and that no reader obeys.
fn xml(text: &str) -> String {
    xml_plain(&escaped(text))
}

fn xml_plain(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match (entity(c), c) {
            (Some(entity), _) => all.push_str(entity),
            // XML has no such characters.
            (None, '\u{fffe}' | '\u{ffff}') => all.push('\u{fffd}'),
            (None, c) => all.push(c),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text() {
        let lines = vec![
            (vec!["</title><script>alert(1)</script>".to_owned(), "b\u{1b}[31m]]>".to_owned()], 3),
            (vec!["é".to_owned()], 1),
        ];
        let stacks = Stacks { lines, field: None };
        let mut svg = Vec::new();
        draw(&stacks, "a&b", &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert_eq!(svg.matches("<script>").count(), 1, "{svg}");
        for wanted in [
            "a&amp;b: 4 records",
            "&lt;/title&gt;&lt;script&gt;",
            "b\\x1b[31m]]&gt; (3 records, 75.00%)",
            "width=\"300.00\"",
        ] {
            assert!(svg.contains(wanted), "{wanted}: {svg}");
        }
    }
}
