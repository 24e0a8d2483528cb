//! From the names of arguments to the values that are fetched: what a function takes, where the machine has it, and what the user wants
//! of it.

use anyhow::{Context as _, Result, anyhow, bail};
use relay_common::recipe::{Fetch, FetchKind, MAX_STEPS, MAX_STRING, input};

use super::{
    layout::{self, RecordedValue, Stored},
    path::{Access, AccessPath, Terminal},
    registers,
};
use crate::btf::{Btf, Prototype, Shape, TypeId};
use relay_trace::condition::spec::{self, Argument, Read};

/// How the program that runs at an event gets a function's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// In registers and on the stack, as the architecture has it for functions.
    Registers,
    /// Side by side in its own context (fentry, fexit, raw tracepoints); at an exit, the result after them.
    Context,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    input: u16,
    /// As of `Fetch::offsets`: a value on the stack is loaded first.
    offsets: Vec<i32>,
    /// Its type; `None` for a whole register of which nothing is known.
    type_id: Option<TypeId>,
}

/// What can be said of a function's call: by its prototype, or by its registers alone.
#[derive(Debug)]
pub struct Parameters<'a> {
    btf: Option<&'a Btf>,
    sources: Vec<Source>,
    /// Parameters that are passed in a way that is not understood.
    left_out: Vec<String>,
}

/// The name of what a function returns.
pub const RESULT: &str = "retval";
/// The name of the time from entry to return.
pub const DURATION: &str = "duration_ns";
/// How many arguments can be named where there is no prototype.
const ARGUMENTS: usize = 8;

impl<'a> Parameters<'a> {
    /// The entry of a function with a prototype.
    #[must_use]
    pub fn entry(btf: &'a Btf, prototype: &Prototype, convention: Convention) -> Self {
        let mut call = Self { btf: Some(btf), sources: Vec::new(), left_out: Vec::new() };
        let mut word = 0;
        for (index, parameter) in prototype.parameters.iter().enumerate() {
            let name =
                if spec::is_identifier(&parameter.name) { parameter.name.clone() } else { format!("arg{index}") };
            let words = match btf.shape(parameter.type_id) {
                Shape::Structure { size, .. } => usize::try_from(size.div_ceil(8)).unwrap_or(usize::MAX),
                Shape::Integer { size: 9.., .. } => 2,
                Shape::Float { .. } => 0,
                _ => 1,
            };
            match place(word, convention) {
                Some((input, offsets)) if words == 1 => {
                    call.sources.push(Source { name, input, offsets, type_id: Some(parameter.type_id) });
                }
                _ => call.left_out.push(name),
            }
            // A structure of more than two words is passed on the stack, where none of the following are.
            word += if convention == Convention::Registers && words > 2 { 0 } else { words };
        }
        call
    }

    /// The return of a function with a prototype.
    #[must_use]
    pub fn exit(btf: &'a Btf, prototype: &Prototype, convention: Convention) -> Self {
        let mut call = match convention {
            // The registers of the arguments hold something else by then.
            Convention::Registers => Self { btf: Some(btf), sources: Vec::new(), left_out: Vec::new() },
            Convention::Context => Self::entry(btf, prototype, convention),
        };
        let input = match convention {
            Convention::Registers => Some(registers::RETURN),
            Convention::Context => {
                let words = prototype.parameters.iter().map(|parameter| match btf.shape(parameter.type_id) {
                    Shape::Structure { size, .. } => size.div_ceil(8),
                    Shape::Integer { size: 9.., .. } => 2,
                    _ => 1,
                });
                u16::try_from(words.sum::<u32>()).ok()
            }
        };
        let returns =
            !matches!(btf.shape(prototype.result), Shape::Void | Shape::Structure { .. } | Shape::Float { .. });
        if let Some(input) = input.filter(|_| returns) {
            call.sources.push(Source {
                name: RESULT.to_owned(),
                input,
                offsets: vec![0],
                type_id: Some(prototype.result),
            });
        }
        call
    }

    /// The entry of a function of which nothing is known but how functions are called: `arg0` and so on.
    #[must_use]
    pub fn unknown_entry() -> Self {
        let source = |index| {
            let (input, offsets) = place(index, Convention::Registers)?;
            Some(Source { name: format!("arg{index}"), input, offsets, type_id: None })
        };
        Self { btf: None, sources: (0..ARGUMENTS).filter_map(source).collect(), left_out: Vec::new() }
    }

    /// Its return.
    #[must_use]
    pub fn unknown_exit() -> Self {
        let source = Source { name: RESULT.to_owned(), input: registers::RETURN, offsets: vec![0], type_id: None };
        Self { btf: None, sources: vec![source], left_out: Vec::new() }
    }

    /// Nothing can be named.
    #[must_use]
    pub fn nothing() -> Self {
        Self { btf: None, sources: Vec::new(), left_out: Vec::new() }
    }

    /// What can be named.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.sources.iter().map(|source| source.name.as_str()).collect()
    }

    /// `type name` of everything that can be named.
    #[must_use]
    pub fn declarations(&self) -> Vec<(String, String)> {
        let c_type = |source: &Source| match (self.btf, source.type_id) {
            (Some(btf), Some(id)) => btf.type_name(id),
            _ => "u64".to_owned(),
        };
        self.sources.iter().map(|source| (c_type(source), source.name.clone())).collect()
    }

    /// The values of a user's selection, or, without one, of everything whose type is known.
    ///
    /// # Errors
    /// What there is not, with what there is.
    pub fn values(&self, selection: Option<&[Argument]>) -> Result<Vec<RecordedValue>> {
        let Some(selection) = selection else {
            if !self.left_out.is_empty() {
                log::info!("left out, since they are passed by value: {}", self.left_out.join(", "));
            }
            // Of a register that is an argument perhaps, nothing is known; a function's result is there when anything is.
            let typed = self.sources.iter().filter(|source| source.type_id.is_some() || source.name == RESULT);
            let value = |source: &Source| match self.value(source, &source.name, &source.name, Read::AsTyped) {
                Ok(value) => Some(value),
                Err(error) => {
                    log::info!("left out: {error:#}");
                    None
                }
            };
            return Ok(typed.filter_map(value).collect());
        };
        let mut values: Vec<RecordedValue> = Vec::new();
        for argument in selection {
            let value = self.select(argument)?;
            if values.iter().any(|other| other.name == value.name) {
                bail!("two values are named '{}': give one another name, as in other={}", value.name, argument.path);
            }
            values.push(value);
        }
        Ok(values)
    }

    /// The value of one selection.
    ///
    /// # Errors
    /// What there is not, with what there is.
    pub fn select(&self, argument: &Argument) -> Result<RecordedValue> {
        let path = AccessPath::parse(&argument.path)?;
        let source = self.sources.iter().find(|source| source.name == path.root);
        let source = source.ok_or_else(|| self.unknown(&path.root))?;
        let name = argument.name.clone().unwrap_or_else(|| field_name(&argument.path));
        self.value(source, &name, &argument.path, argument.read)
    }

    fn unknown(&self, name: &str) -> anyhow::Error {
        if self.left_out.iter().any(|left_out| left_out == name) {
            return anyhow!(
                "'{name}' is passed by value, as a structure or a floating-point number: that is not supported"
            );
        }
        match self.names()[..] {
            [] => anyhow!("there is nothing to record by the name '{name}': there are no arguments here"),
            ref names => anyhow!("there is no argument '{name}'; there are: {}", names.join(", ")),
        }
    }

    fn value(&self, source: &Source, name: &str, path: &str, read: Read) -> Result<RecordedValue> {
        let access = match (self.btf, source.type_id) {
            (Some(btf), Some(type_id)) => AccessPath::parse(path)?.resolve(btf, type_id)?,
            _ if path == source.name => {
                Access { offsets: vec![0], terminal: Terminal::Value, type_id: 0, user_from: None }
            }
            _ => bail!("'{path}': the type of {} is not known here, only its number", source.name),
        };
        let c_type = match self.btf {
            _ if let Read::Number { size, signed } = read => spec::number_type(size, signed).to_owned(),
            Some(btf) if source.type_id.is_some() => layout::plain_type(&btf.type_name(access.type_id)),
            _ => "u64".to_owned(),
        };
        let offsets = join(&source.offsets, &access.offsets)?;
        let shape = self.btf.filter(|_| source.type_id.is_some()).map(|btf| btf.shape(access.type_id));
        let (content, fetch) =
            content(shape, &access.terminal, read).with_context(|| format!("'{path}' ({c_type})"))?;
        let mut fetch = Fetch { source: source.input, ..fetch };
        // A string or bytes are where the value points to, also where an address is kept in an integer: what was the last number is loaded as one
        // more pointer.
        let is_pointer =
            matches!(read, Read::UserString | Read::KernelString | Read::String | Read::Strings | Read::Bytes(_));
        let is_address = matches!(access.terminal, Terminal::Address | Terminal::Number { .. });
        let offsets = if is_pointer && is_address { join_load(offsets)? } else { offsets };
        fetch.steps = u8::try_from(offsets.len() - 1)?;
        for (to, from) in fetch.offsets.iter_mut().zip(&offsets) {
            *to = *from;
        }
        Ok(RecordedValue { name: name.to_owned(), c_type, content, fetch })
    }
}

/// The input, and offsets, of the n-th word of arguments.
fn place(word: usize, convention: Convention) -> Option<(u16, Vec<i32>)> {
    match convention {
        Convention::Registers => match registers::argument(word) {
            Some(register) => Some((register, vec![0])),
            None => Some((registers::STACK_POINTER, vec![registers::stack_argument(word)?, 0])),
        },
        // As many as the kernel passes (include/linux/bpf.h, `MAX_BPF_FUNC_ARGS`).
        Convention::Context => u16::try_from(word).ok().filter(|word| *word < 12).map(|word| (word, vec![0])),
    }
}

/// Offsets one after the other: the first of the second are added to the last of the first.
fn join(first: &[i32], second: &[i32]) -> Result<Vec<i32>> {
    let (last, rest) = first.split_last().context("no offsets")?;
    let (next, after) = second.split_first().context("no offsets")?;
    let middle = last.checked_add(*next).context("it lies too far away")?;
    let offsets: Vec<i32> = rest.iter().copied().chain([middle]).chain(after.iter().copied()).collect();
    if offsets.len() > MAX_STEPS + 1 {
        bail!("more than {MAX_STEPS} pointers would have to be followed");
    }
    Ok(offsets)
}

fn join_load(mut offsets: Vec<i32>) -> Result<Vec<i32>> {
    offsets.push(0);
    join(&[0], &offsets)
}

/// What is stored, and how it is fetched, apart from where.
fn content(shape: Option<Shape>, terminal: &Terminal, read: Read) -> Result<(Stored, Fetch)> {
    let fetch = |kind: FetchKind, len: u16, size: u8| Fetch { kind: kind as u8, len, size, ..Fetch::default() };
    // A bit field is none.
    let is_whole = !matches!(terminal, Terminal::Number { left, right, .. } if (*left, *right) != (0, 0));
    let is_address = is_whole && matches!(shape, None | Some(Shape::Pointer { .. } | Shape::Integer { size: 8, .. }));
    let is_embedded = matches!(terminal, Terminal::Bytes { .. } | Terminal::Text { .. });
    Ok(match (read, terminal) {
        (Read::UserString | Read::KernelString | Read::String, _) if is_address || is_embedded => {
            (Stored::String, fetch(FetchKind::String, MAX_STRING, 0))
        }
        (Read::UserString | Read::KernelString | Read::String, _) => {
            bail!("it is not an address, so no string is there")
        }
        (Read::Strings, _) if is_address => (Stored::Strings, fetch(FetchKind::Strings, MAX_STRING, 0)),
        (Read::Strings, _) => bail!("it is not an address, so no strings are there"),
        (Read::Bytes(len), _) if is_address || is_embedded => (Stored::Bytes(len), fetch(FetchKind::Bytes, len, 0)),
        (Read::Bytes(_), _) => bail!("it is not an address, so no bytes are there"),
        (Read::Number { size, signed }, Terminal::Value) => {
            (Stored::Number { size, signed, hexadecimal: false }, fetch(FetchKind::Value, size.into(), size))
        }
        (Read::Number { size, signed }, Terminal::Number { size: whole, left: 0, .. }) if size <= *whole => {
            (Stored::Number { size, signed, hexadecimal: false }, fetch(FetchKind::Load, size.into(), size))
        }
        (Read::Number { size, signed }, Terminal::Address) => {
            (Stored::Number { size, signed, hexadecimal: false }, fetch(FetchKind::Load, size.into(), size))
        }
        (Read::Number { size, .. }, _) => bail!("it is not a number of {size} bytes"),
        (_, Terminal::Value) => {
            let (size, signed, pointer) = number(shape)?;
            let content = Stored::Number { size, signed, hexadecimal: pointer || read == Read::Hexadecimal };
            // What a register has beside a structure means nothing.
            let unused = match shape {
                Some(Shape::Structure { size, .. }) => 64u8.saturating_sub(u8::try_from(size * 8).unwrap_or(64)),
                _ => 0,
            };
            (content, Fetch { left: unused, right: unused, ..fetch(FetchKind::Value, size.into(), size) })
        }
        (_, Terminal::Number { size, signed, left, right }) => {
            let content = Stored::Number { size: *size, signed: *signed, hexadecimal: read == Read::Hexadecimal };
            let fetch = fetch(FetchKind::Load, (*size).into(), *size);
            (content, Fetch { left: *left, right: *right, signed: u8::from(*signed), ..fetch })
        }
        (_, Terminal::Address) => {
            (Stored::Number { size: 8, signed: false, hexadecimal: true }, fetch(FetchKind::Load, 8, 8))
        }
        (_, Terminal::Bytes { len }) => (Stored::Bytes(*len), fetch(FetchKind::Bytes, *len, 0)),
        // One whose length is only known by its NUL.
        (_, Terminal::Text { len: MAX_STRING }) => (Stored::String, fetch(FetchKind::String, MAX_STRING, 0)),
        (_, Terminal::Text { len }) => (Stored::Text(*len), fetch(FetchKind::Bytes, *len, 0)),
    })
}

/// Bytes of a number in a register, whether it is signed, and whether it is an address.
fn number(shape: Option<Shape>) -> Result<(u8, bool, bool)> {
    Ok(match shape {
        None => (8, false, false),
        Some(Shape::Integer { size: size @ (1 | 2 | 4 | 8), signed, .. } | Shape::Enumeration { size, signed }) => {
            (size, signed, false)
        }
        Some(Shape::Pointer { .. }) => (8, false, true),
        // Its bytes as they are.
        Some(Shape::Structure { size: size @ 1..=8, .. }) => (u8::try_from(size)?.next_power_of_two(), false, true),
        Some(_) => bail!("it is not a number"),
    })
}

/// A field's name for a path: `file->f_inode->i_ino` is `file_f_inode_i_ino`.
fn field_name(path: &str) -> String {
    let mut name = String::new();
    for part in path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('_');
        }
        name.push_str(part);
    }
    name
}

/// The time from entry to return.
#[must_use]
pub fn duration() -> RecordedValue {
    RecordedValue {
        name: DURATION.to_owned(),
        c_type: "u64".to_owned(),
        content: Stored::Number { size: 8, signed: false, hexadecimal: false },
        fetch: layout::input(input::DURATION, 8),
    }
}
