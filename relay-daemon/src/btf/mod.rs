//! Reads BTF, the kernel's description of its own types: which functions and tracepoints there are, what they take, and where
//! the members of structures lie.
//!
//! The bytes are kept as they are, beside them the offset of every type: the kernel's own BTF has more than 100 thousand, and
//! a session asks about a few. Only the layout of the types is checked at first; what a type refers to is checked when it is
//! asked for. Nothing here panics, recurses without end or takes more than a few times the input's memory, whatever the input.

#[cfg(test)]
pub(crate) mod builder;
mod functions;
mod kernel;
mod members;
mod names;
mod raw;
mod shape;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use self::raw::{Type, is_modifier, offsets, read, word};
pub use self::{
    functions::{Function, Parameter, Prototype},
    kernel::Kernel,
    members::{Member, NamedMember},
    shape::Shape,
};

/// Number of a type. 0 is `void`; those of split BTF begin where its base ends.
pub type TypeId = u32;

/// `void`.
pub const VOID: TypeId = 0;

const MAGIC: u16 = 0xEB9F;
const VERSION: u8 = 1;
/// Bytes of the header that are known. It says its own length, which may grow.
const HEADER: usize = 24;
/// Most bytes of a name: twice the kernel's own limit. Without one, many types with one endless name would take forever.
const MAX_NAME: usize = 1024;
/// Most types that are looked through to find what one is. The kernel's own limit is 32.
const MAX_DEPTH: usize = 64;

/// Why BTF was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// There is no whole header.
    #[error("{0} bytes are too few for a header")]
    Short(usize),
    /// It is not BTF.
    #[error("not BTF: it begins with {0:#06x}")]
    Magic(u16),
    /// It was made for another byte order.
    #[error("big-endian BTF is not supported")]
    BigEndian,
    /// A version that is not known.
    #[error("BTF of version {0} is not supported, only of version {VERSION}")]
    Version(u8),
    /// The header's length is none.
    #[error("a header of {0} bytes")]
    Header(u32),
    /// A section is not in the data.
    #[error("the {0} section is beyond the end of the data")]
    Section(&'static str),
    /// More than can be numbered.
    #[error("too long for BTF")]
    TooLong,
    /// A kind that is not known, so that the next type cannot be found.
    #[error("type {id} is of the unknown kind {kind}")]
    TypeKind {
        /// The type.
        id: TypeId,
        /// Its kind's number.
        kind: u32,
    },
    /// A type goes on after the section's end.
    #[error("type {0} is cut off")]
    CutOff(TypeId),
}

/// One blob of BTF: the kernel's, or a module's on top of the kernel's.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type begins in the bytes.
    types: Vec<u32>,
    /// The id of the first of them.
    first: TypeId,
    /// Where the names are in the bytes.
    strings: Range<usize>,
    /// The offset of the first of them.
    first_string: u32,
    base: Option<Arc<Self>>,
    /// Hashes of the names of functions, typedefs, structures and unions, sorted, when first asked for.
    index: OnceLock<Vec<(u64, TypeId)>>,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes would be millions of numbers.
        f.debug_struct("Btf").field("ids", &self.ids()).field("split", &self.base.is_some()).finish_non_exhaustive()
    }
}

impl Btf {
    /// Takes a blob: what it contains, and where. `base` is what split BTF refers to.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(bytes: Vec<u8>, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(BtfError::TooLong);
        }
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(BtfError::Short(bytes.len()))?;
        match u16::from_le_bytes([header[0], header[1]]) {
            MAGIC => {}
            magic if magic.swap_bytes() == MAGIC => return Err(BtfError::BigEndian),
            magic => return Err(BtfError::Magic(magic)),
        }
        if header[2] != VERSION {
            return Err(BtfError::Version(header[2]));
        }
        let [length, type_offset, type_length, string_offset, string_length] =
            std::array::from_fn(|at| word(header, 4 + 4 * at).unwrap_or(0));
        let start = length as usize;
        if start < HEADER || start > bytes.len() {
            return Err(BtfError::Header(length));
        }
        let section = |offset: u32, length: u32, name| {
            let begin = start.checked_add(offset as usize);
            let range = begin.and_then(|begin| Some(begin..begin.checked_add(length as usize)?));
            range.filter(|range| range.end <= bytes.len()).ok_or(BtfError::Section(name))
        };
        let types = section(type_offset, type_length, "type")?;
        let strings = section(string_offset, string_length, "string")?;

        let (first, first_string) = match &base {
            Some(base) => (base.ids().end, base.strings_end().ok_or(BtfError::TooLong)?),
            None => (VOID + 1, 0),
        };
        let types = offsets(&bytes[..types.end], types.start, first)?;
        let btf = Self { bytes, types, first, strings, first_string, base, index: OnceLock::new() };
        // So that no id and no offset of a name overflows later on.
        btf.strings_end().map(|_| btf).ok_or(BtfError::TooLong)
    }

    /// The ids of this blob's types, those of its base left out.
    #[must_use]
    pub fn ids(&self) -> Range<TypeId> {
        // Parsing has checked that they can be counted.
        self.first..u32::try_from(self.types.len()).ok().and_then(|n| self.first.checked_add(n)).unwrap_or(self.first)
    }

    /// The type behind typedefs, qualifiers and tags.
    fn resolve(&self, id: TypeId) -> Option<TypeId> {
        let last = self.modifiers(id).last().map_or(id, |modifier| modifier.word);
        // Whatever is left is beyond the limit.
        (last == VOID || self.get(last).is_some_and(|this| !is_modifier(this.kind))).then_some(last)
    }

    /// The typedefs, qualifiers and tags that a type begins with.
    fn modifiers(&self, id: TypeId) -> impl Iterator<Item = Type<'_>> {
        let next = move |id| self.get(id).filter(|this| is_modifier(this.kind));
        std::iter::successors(next(id), move |this| next(this.word)).take(MAX_DEPTH)
    }

    fn get(&self, id: TypeId) -> Option<Type<'_>> {
        let mut btf = self;
        while id < btf.first {
            btf = btf.base.as_deref()?;
        }
        let at = *btf.types.get((id - btf.first) as usize)?;
        read(&btf.bytes, at as usize).ok()
    }

    /// The name at that offset.
    fn string(&self, offset: u32) -> Option<&str> {
        std::str::from_utf8(self.string_bytes(offset)?).ok()
    }

    fn string_bytes(&self, offset: u32) -> Option<&[u8]> {
        let mut btf = self;
        while offset < btf.first_string {
            btf = btf.base.as_deref()?;
        }
        let rest = btf.bytes.get(btf.strings.clone())?.get((offset - btf.first_string) as usize..)?;
        let rest = &rest[..rest.len().min(MAX_NAME)];
        rest.iter().position(|byte| *byte == 0).map(|end| &rest[..end])
    }

    fn strings_end(&self) -> Option<u32> {
        self.first_string.checked_add(u32::try_from(self.strings.len()).ok()?)
    }
}
