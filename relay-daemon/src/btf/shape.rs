//! What types are, apart from their names and qualifiers.

use super::{Btf, MAX_DEPTH, TypeId, VOID, raw::TypeKind};

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

impl Btf {
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
            (TypeKind::Int, Ok(size @ (1 | 2 | 4 | 8 | 16))) => {
                let encoding = this.extra_word() >> 24;
                let name = self.string(this.name).unwrap_or_default();
                let character = size == 1 && (name == "char" || encoding & 2 != 0 && !name.contains("signed"));
                Shape::Integer { size, signed: encoding & 1 != 0, boolean: encoding & 4 != 0, character }
            }
            (TypeKind::Enum | TypeKind::Enum64, Ok(size @ (1 | 2 | 4 | 8))) => {
                Shape::Enumeration { size, signed: this.flag }
            }
            (TypeKind::Float, Ok(size)) => Shape::Float { size },
            (TypeKind::Ptr, _) => Shape::Pointer { to: this.word, user: self.is_user(this.word) },
            (TypeKind::Array, _) => match this.entries().next() {
                Some([element, _, count]) => Shape::Array { element, count },
                None => Shape::Unknown,
            },
            (TypeKind::Struct, _) => Shape::Structure { size: this.word, union: false },
            (TypeKind::Union, _) => Shape::Structure { size: this.word, union: true },
            (TypeKind::Func | TypeKind::FuncProto, _) => Shape::Function,
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

    /// Whether a pointer to that type is one of the process's.
    fn is_user(&self, id: TypeId) -> bool {
        self.modifiers(id)
            .any(|this| this.kind == TypeKind::TypeTag && !this.flag && self.string(this.name) == Some("user"))
    }
}
