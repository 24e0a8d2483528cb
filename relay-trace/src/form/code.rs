//! `.relayd/code.json`: what code of processes is called that is in no file: what programs have made while they ran, and the vDSO.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::folder::Folder;

/// Its name in the trace's own folder.
pub const FILE: &str = "code.json";
/// The most bytes that it can have.
const LONGEST: u64 = 64 << 20;

/// A function: where it begins, its bytes, its name.
pub type FunctionRange = (u64, u64, String);

/// What is known of such code.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Code {
    /// Functions of the vDSO, by the distance from its begin.
    pub vdso: Vec<FunctionRange>,
    /// By process.
    pub processes: BTreeMap<u32, Process>,
}

/// Of one process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Where it had the vDSO: another program that it executed has it elsewhere.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vdso: BTreeSet<u64>,
    /// Functions that it has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<FunctionRange>,
}

/// Reads what a trace has kept, which may be nothing.
///
/// # Errors
/// When the file cannot be read, or is damaged.
pub fn read(folder: &Folder) -> Result<Code> {
    let mut code: Code = folder.read_json(FILE, LONGEST)?;
    code.vdso.sort_unstable();
    code.processes.values_mut().for_each(|process| process.made.sort_unstable());
    Ok(code)
}

impl Code {
    /// `FUNCTION+0xOFFSET (WHERE)` of an address in a process.
    #[must_use]
    pub fn name(&self, process: u32, address: u64) -> Option<String> {
        let of = self.processes.get(&process)?;
        let made = find(&of.made, address).map(|(name, offset)| (name, offset, format!("perf-{process}.map")));
        let (name, offset, place) = made.or_else(|| {
            let begin = of.vdso.range(..=address).next_back()?;
            find(&self.vdso, address - begin).map(|(name, offset)| (name, offset, "[vdso]".to_owned()))
        })?;
        Some(format!("{name}+{offset:#x} ({place})"))
    }
}

pub(crate) fn find(functions: &[FunctionRange], address: u64) -> Option<(&str, u64)> {
    let before = functions.get(..functions.partition_point(|(begin, ..)| *begin <= address))?;
    // A function that has been made anew stands behind its place's former one.
    let (begin, len, name) = before.last()?;
    (address - begin < *len).then_some((name, address - begin))
}

/// Functions as lines of a `perf-PID.map` say them: begin and length in base 16, and a name. Other lines are passed over.
#[must_use]
pub fn parse_map(text: &[u8]) -> Vec<FunctionRange> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let function = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(3, ' ');
        let (begin, len, name) = (number(words.next()?)?, number(words.next()?)?, words.next()?.trim());
        (!name.is_empty()).then(|| (begin, len, name.to_owned()))
    };
    let mut functions: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    for (begin, len, name) in text.split(|byte| *byte == b'\n').filter_map(function) {
        // The last word on a place is the newest.
        functions.insert(begin, (len, name));
    }
    functions.into_iter().map(|(begin, (len, name))| (begin, len, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_named_by_the_process_that_has_them() {
        let made = parse_map(b"1000 20 old\n1000 10 void f(int)\n\nbad line\n0x2000 8 g\nzz 1 h\n3000 4  \n");
        assert_eq!(made, [(0x1000, 0x10, "void f(int)".to_owned()), (0x2000, 8, "g".to_owned())]);
        let process = Process { vdso: BTreeSet::from([0x7000, 0x9000]), made };
        let vdso = vec![(0x100, 0x10, "clock_gettime".to_owned())];
        let code = Code { vdso, processes: BTreeMap::from([(7, process)]) };
        let name = |process, address| code.name(process, address).unwrap_or_default();
        assert_eq!(name(7, 0x1004), "void f(int)+0x4 (perf-7.map)");
        assert_eq!(
            (name(7, 0x7108), name(7, 0x910f)),
            ("clock_gettime+0x8 ([vdso])".into(), "clock_gettime+0xf ([vdso])".into())
        );
        for (process, address) in [(7, 0x1010), (7, 0xfff), (7, 0x7110), (7, 0x7000), (8, 0x1004), (7, u64::MAX)] {
            assert_eq!(name(process, address), "", "{process} {address:#x}");
        }
    }
}
