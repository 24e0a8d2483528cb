//! Reads BTF, the kernel's description of its own types: which functions and tracepoints there are, what they take, and where
//! the members of structures lie.
//!
//! The bytes are kept as they are, beside them the offset of every type: the kernel's own BTF has more than 100 thousand, and
//! a session asks about a few. Only the layout of the types is checked at first; what a type refers to is checked when it is
//! asked for. Nothing here panics, recurses without end or takes more than a few times the input's memory, whatever the input.

#[cfg(test)]
pub(in crate::tracer) mod builder;
mod kernel;
mod members;
mod names;
#[cfg(test)]
pub(in crate::tracer) mod tests;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::Range,
    sync::{Arc, OnceLock},
};

pub use self::{
    kernel::Kernel,
    members::{Field, Member},
};

/// Number of a type. 0 is `void`; those of split BTF begin where its base ends.
pub type TypeId = u32;

/// `void`.
pub const VOID: TypeId = 0;

const MAGIC: u16 = 0xEB9F;
const VERSION: u8 = 1;
/// Bytes of the header that are known. It says its own length, which may grow.
const HEADER: usize = 24;
/// Bytes of a type before what its kind adds.
const TYPE: usize = 12;
/// Most bytes of a name: twice the kernel's own limit. Without one, many types with one endless name would take forever.
const MAX_NAME: usize = 1024;
/// Most types that are looked through to find what one is. The kernel's own limit is 32.
const MAX_DEPTH: usize = 64;
/// Most parameters of a function that is described.
const MAX_PARAMETERS: usize = 128;
/// What the names of tracepoints' types begin with.
const TRACEPOINT: &str = "btf_trace_";
/// What the functions that call tracepoints' probes begin with. They name the parameters, the tracepoints' types do not.
const TRACEPOINT_CALLER: &str = "__traceiter_";

/// Why BTF was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// There is no whole header.
    #[error("{0} bytes are too few for a header")]
    Short(usize),
    /// It is no BTF.
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
    Kind {
        /// The type.
        id: TypeId,
        /// Its kind's number.
        kind: u32,
    },
    /// A type goes on after the section's end.
    #[error("type {0} is cut off")]
    CutOff(TypeId),
}

/// What the kinds' numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    fn new(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Bytes after the common ones of a type with so many entries.
    fn extra(self, count: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12 * count,
            Self::Enum | Self::FuncProto => 8 * count,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

/// A type as it stands.
#[derive(Clone, Copy)]
struct Type<'a> {
    /// Offset of its name.
    name: u32,
    kind: Kind,
    /// The kind's flag: bit fields, a union, signed values, an attribute.
    flag: bool,
    /// Its size, or the type that it refers to.
    word: u32,
    /// What its kind adds.
    extra: &'a [u8],
}

impl<'a> Type<'a> {
    /// What its kind adds, each entry of `N` words.
    fn entries<const N: usize>(self) -> impl Iterator<Item = [u32; N]> + 'a {
        self.extra.chunks_exact(4 * N).map(|entry| std::array::from_fn(|at| word(entry, 4 * at).unwrap_or(0)))
    }

    /// The one entry of kinds that have one word.
    fn extra_word(self) -> u32 {
        word(self.extra, 0).unwrap_or(0)
    }
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its id: what a program is attached to.
    pub id: TypeId,
    /// What it takes and returns.
    pub prototype: Prototype,
}

/// What a function takes and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// The type that it returns.
    pub result: TypeId,
    /// It takes more than that.
    pub variadic: bool,
}

/// One parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; may be empty.
    pub name: String,
    /// Its type.
    pub type_id: TypeId,
}

/// What a type is, apart from its names and qualifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Void,
    /// A whole number.
    Integer {
        /// Bytes.
        size: u8,
        /// It can be negative.
        signed: bool,
        /// It is true or false.
        boolean: bool,
        /// It is a plain `char`: an array of them is a text.
        character: bool,
    },
    /// One of named numbers.
    Enumeration {
        /// Bytes.
        size: u8,
        /// It can be negative.
        signed: bool,
    },
    /// An address.
    Pointer {
        /// What is there.
        to: TypeId,
        /// It is marked as the process's address (`__user`). Few compilers pass the mark on: without it nothing is said.
        user: bool,
    },
    /// Elements side by side.
    Array {
        /// What they are.
        element: TypeId,
        /// How many. 0 for as many as there are.
        count: u32,
    },
    /// A structure or a union.
    Structure {
        /// Bytes.
        size: u32,
        /// Its members lie over each other.
        union: bool,
    },
    /// A floating-point number.
    Float {
        /// Bytes.
        size: u8,
    },
    /// Code.
    Function,
    /// No type of a value, one whose definition is not there, or not understood.
    Unknown,
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
    /// Hashes of the names of functions and typedefs, sorted, when first asked for.
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

    /// The function of that name in this blob, not in its base.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function> {
        self.named(name, Kind::Func).find_map(|(id, function)| {
            let prototype = self.get(function.word).filter(|prototype| prototype.kind == Kind::FuncProto)?;
            Some(Function { id, prototype: self.prototype(prototype)? })
        })
    }

    /// Names and ids of the functions in this blob, not in its base.
    pub fn functions(&self) -> impl Iterator<Item = (&str, TypeId)> {
        self.all(Kind::Func)
    }

    /// The arguments of the tracepoint of that name in this blob, not in its base.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let caller = || self.function(&format!("{TRACEPOINT_CALLER}{name}")).map(|caller| caller.prototype.parameters);
        self.named(&format!("{TRACEPOINT}{name}"), Kind::Typedef).find_map(|(_, typedef)| {
            let pointer = self.get(typedef.word).filter(|pointer| pointer.kind == Kind::Ptr)?;
            let prototype = self.get(pointer.word).filter(|prototype| prototype.kind == Kind::FuncProto)?;
            let mut prototype = self.prototype(prototype)?;
            if prototype.parameters.iter().all(|parameter| parameter.name.is_empty())
                && let Some(named) = caller().filter(|named| named.len() == prototype.parameters.len())
            {
                for (parameter, named) in prototype.parameters.iter_mut().zip(named) {
                    parameter.name = named.name;
                }
            }
            // The first is the probe's own data.
            (!prototype.parameters.is_empty()).then(|| {
                prototype.parameters.remove(0);
                prototype
            })
        })
    }

    /// Names of the tracepoints in this blob, not in its base.
    pub fn tracepoints(&self) -> impl Iterator<Item = &str> {
        self.all(Kind::Typedef).filter_map(|(name, _)| name.strip_prefix(TRACEPOINT))
    }

    /// What a type is, looking through typedefs, qualifiers and tags.
    #[must_use]
    pub fn shape(&self, id: TypeId) -> Shape {
        let Some(id) = self.resolve(id) else { return Shape::Unknown };
        if id == VOID {
            return Shape::Void;
        }
        let Some(this) = self.get(id) else { return Shape::Unknown };
        let size = u8::try_from(this.word);
        match (this.kind, size) {
            (Kind::Int, Ok(size @ (1 | 2 | 4 | 8 | 16))) => {
                let encoding = this.extra_word() >> 24;
                let name = self.string(this.name).unwrap_or_default();
                let character = size == 1 && (name == "char" || encoding & 2 != 0 && !name.contains("signed"));
                Shape::Integer { size, signed: encoding & 1 != 0, boolean: encoding & 4 != 0, character }
            }
            (Kind::Enum | Kind::Enum64, Ok(size @ (1 | 2 | 4 | 8))) => Shape::Enumeration { size, signed: this.flag },
            (Kind::Float, Ok(size)) => Shape::Float { size },
            (Kind::Ptr, _) => Shape::Pointer { to: this.word, user: self.is_user(this.word) },
            (Kind::Array, _) => match this.entries().next() {
                Some([element, _, count]) => Shape::Array { element, count },
                None => Shape::Unknown,
            },
            (Kind::Struct, _) => Shape::Structure { size: this.word, union: false },
            (Kind::Union, _) => Shape::Structure { size: this.word, union: true },
            (Kind::Func | Kind::FuncProto, _) => Shape::Function,
            _ => Shape::Unknown,
        }
    }

    /// Bytes of a value of a type.
    #[must_use]
    pub fn size(&self, id: TypeId) -> Option<u64> {
        let (mut id, mut count) = (id, 1_u64);
        for _ in 0..MAX_DEPTH {
            let size = match self.shape(id) {
                Shape::Integer { size, .. } | Shape::Enumeration { size, .. } | Shape::Float { size } => {
                    u64::from(size)
                }
                Shape::Pointer { .. } => 8,
                Shape::Structure { size, .. } => u64::from(size),
                Shape::Array { element, count: n } => {
                    count = count.checked_mul(u64::from(n))?;
                    id = element;
                    continue;
                }
                Shape::Void | Shape::Function | Shape::Unknown => return None,
            };
            return count.checked_mul(size);
        }
        None
    }

    /// The type behind typedefs, qualifiers and tags.
    fn resolve(&self, id: TypeId) -> Option<TypeId> {
        let mut chain = self.modifiers(id);
        let last = chain.by_ref().last().map_or(id, |modifier| modifier.word);
        // Whatever is left is beyond the limit.
        (last == VOID || self.get(last).is_some_and(|this| !is_modifier(this.kind))).then_some(last)
    }

    /// The typedefs, qualifiers and tags that a type begins with.
    fn modifiers(&self, id: TypeId) -> impl Iterator<Item = Type<'_>> {
        let next = move |id| self.get(id).filter(|this| is_modifier(this.kind));
        std::iter::successors(next(id), move |this| next(this.word)).take(MAX_DEPTH)
    }

    /// Whether a pointer to that type is one of the process's.
    fn is_user(&self, id: TypeId) -> bool {
        self.modifiers(id)
            .any(|this| this.kind == Kind::TypeTag && !this.flag && self.string(this.name) == Some("user"))
    }

    fn prototype(&self, this: Type<'_>) -> Option<Prototype> {
        let mut parameters = Vec::new();
        let mut variadic = false;
        for [name, type_id] in this.entries() {
            // The last one of nothing: `...`.
            if variadic || parameters.len() == MAX_PARAMETERS {
                return None;
            }
            if type_id == VOID {
                variadic = true;
            } else {
                parameters.push(Parameter { name: self.string(name).unwrap_or_default().to_owned(), type_id });
            }
        }
        Some(Prototype { parameters, result: this.word, variadic })
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

    /// This blob's types of a kind that have a name.
    fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, TypeId)> {
        self.ids().filter_map(move |id| {
            let this = self.get(id).filter(|this| this.kind == kind)?;
            Some((self.string(this.name).filter(|name| !name.is_empty())?, id))
        })
    }

    /// This blob's types of a name and a kind.
    fn named(&self, name: &str, kind: Kind) -> impl Iterator<Item = (TypeId, Type<'_>)> {
        let hash = hash(name.as_bytes());
        let index = self.index.get_or_init(|| {
            let mut index = Vec::new();
            for id in self.ids() {
                if let Some(this) = self.get(id).filter(|this| matches!(this.kind, Kind::Func | Kind::Typedef))
                    && let Some(name) = self.string_bytes(this.name)
                {
                    index.push((self::hash(name), id));
                }
            }
            index.sort_unstable();
            index
        });
        let same = index.partition_point(|(other, _)| *other < hash);
        index[same..].iter().take_while(move |(other, _)| *other == hash).filter_map(move |(_, id)| {
            let this = self.get(*id).filter(|this| this.kind == kind)?;
            (self.string_bytes(this.name)? == name.as_bytes()).then_some((*id, this))
        })
    }
}

fn is_modifier(kind: Kind) -> bool {
    matches!(kind, Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag)
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Where each type begins. The types are the bytes from `at` on.
fn offsets(bytes: &[u8], mut at: usize, first: TypeId) -> Result<Vec<u32>, BtfError> {
    // On average a type has twice the bytes of the shortest.
    let mut types = Vec::with_capacity(bytes.len().saturating_sub(at) / (2 * TYPE));
    let mut id = first;
    while at < bytes.len() {
        let this = read(bytes, at).map_err(|kind| match kind {
            Some(kind) => BtfError::Kind { id, kind },
            None => BtfError::CutOff(id),
        })?;
        types.push(u32::try_from(at).map_err(|_| BtfError::TooLong)?);
        id = id.checked_add(1).ok_or(BtfError::TooLong)?;
        at += TYPE + this.extra.len();
    }
    Ok(types)
}

/// The type at that place; else its kind if that is not known, or nothing if it is cut off.
fn read(bytes: &[u8], at: usize) -> Result<Type<'_>, Option<u32>> {
    let (common, rest) = bytes.get(at..).and_then(|rest| rest.split_at_checked(TYPE)).ok_or(None)?;
    let [name, info, word] = std::array::from_fn(|at| word(common, 4 * at).unwrap_or(0));
    let number = info >> 24 & 0x1F;
    let kind = Kind::new(number).ok_or(Some(number))?;
    let extra = rest.get(..kind.extra((info & 0xFFFF) as usize)).ok_or(None)?;
    Ok(Type { name, kind, flag: info >> 31 != 0, word, extra })
}

/// The 4 bytes at that place, as a number.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
