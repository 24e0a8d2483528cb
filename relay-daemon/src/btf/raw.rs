//! Types as they stand in the bytes.

use super::{BtfError, TypeId};

/// Bytes of a type before what its kind adds.
const TYPE: usize = 12;

/// What the kinds' numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TypeKind {
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

impl TypeKind {
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
pub(crate) struct Type<'a> {
    /// Offset of its name.
    pub(crate) name: u32,
    pub(crate) kind: TypeKind,
    /// The kind's flag: bit fields, a union, signed values, an attribute.
    pub(crate) flag: bool,
    /// Its size, or the type that it refers to.
    pub(crate) word: u32,
    /// What its kind adds.
    pub(crate) extra: &'a [u8],
}

impl<'a> Type<'a> {
    /// What its kind adds, each entry of `N` words.
    pub(crate) fn entries<const N: usize>(self) -> impl Iterator<Item = [u32; N]> + 'a {
        self.extra.chunks_exact(4 * N).map(|entry| std::array::from_fn(|at| word(entry, 4 * at).unwrap_or(0)))
    }

    /// The one entry of kinds that have one word.
    pub(crate) fn extra_word(self) -> u32 {
        word(self.extra, 0).unwrap_or(0)
    }
}

pub(crate) fn is_modifier(kind: TypeKind) -> bool {
    matches!(kind, TypeKind::Typedef | TypeKind::Volatile | TypeKind::Const | TypeKind::Restrict | TypeKind::TypeTag)
}

/// Where each type begins. The types are the bytes from `at` on.
pub(crate) fn offsets(bytes: &[u8], mut at: usize, first: TypeId) -> Result<Vec<u32>, BtfError> {
    // On average a type has twice the bytes of the shortest.
    let mut types = Vec::with_capacity(bytes.len().saturating_sub(at) / (2 * TYPE));
    let mut id = first;
    while at < bytes.len() {
        let this = read(bytes, at).map_err(|kind| match kind {
            Some(kind) => BtfError::TypeKind { id, kind },
            None => BtfError::CutOff(id),
        })?;
        types.push(u32::try_from(at).map_err(|_| BtfError::TooLong)?);
        id = id.checked_add(1).ok_or(BtfError::TooLong)?;
        at += TYPE + this.extra.len();
    }
    Ok(types)
}

/// The type at that place; else its kind if that is not known, or nothing if it is cut off.
pub(crate) fn read(bytes: &[u8], at: usize) -> Result<Type<'_>, Option<u32>> {
    let (common, rest) = bytes.get(at..).and_then(|rest| rest.split_at_checked(TYPE)).ok_or(None)?;
    let [name, info, word] = std::array::from_fn(|at| word(common, 4 * at).unwrap_or(0));
    let number = info >> 24 & 0x1F;
    let kind = TypeKind::new(number).ok_or(Some(number))?;
    let extra = rest.get(..kind.extra((info & 0xFFFF) as usize)).ok_or(None)?;
    Ok(Type { name, kind, flag: info >> 31 != 0, word, extra })
}

/// The 4 bytes at that place, as a number.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
