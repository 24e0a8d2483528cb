//! Access paths: what `file->f_inode->i_ino` means for the kernel side, which knows no types, only offsets to add and pointers
//! to follow ([`relay_common::recipe::Fetch`]).

use relay_common::recipe::{MAX_STEPS, MAX_STRING};

use super::btf::{Btf, Member, Shape, TypeId};

/// Most bytes of a structure or an array that are taken as they are.
pub const MAX_BYTES: u64 = 256;
/// Most stars, members and indices of a path. Members need no step each, so there can be more than [`MAX_STEPS`].
const MAX_COMPONENTS: usize = 64;
/// How many near names an error offers.
const SUGGESTIONS: usize = 3;
/// Longest name that is compared with others: each byte costs time.
const MAX_COMPARED: usize = 128;
/// How many members an error lists where no name is near.
const LISTED: usize = 8;

/// A path as it is written: `*a->b.c[3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPath {
    /// What it begins with: an argument's name.
    pub root: String,
    /// What is done to it, the first first.
    pub components: Vec<Component>,
}

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    /// `->name` or `.name`: the types say which it is.
    Member(String),
    /// `[N]`.
    Index(u32),
    /// `*` in front.
    Target,
}

/// How to get at the value: the root plus the first offset; then, for each further offset, the 8 bytes there plus that offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The offsets; there is at least one, and at most [`MAX_STEPS`] more.
    pub offsets: Vec<i32>,
    /// What is there.
    pub terminal: Terminal,
    /// The type of the value.
    pub type_id: TypeId,
    /// The first of the offsets that is added to a pointer marked as the process's (`__user`): that one and the later ones lead
    /// into its memory. Nothing if no pointer has the mark, which not every compiler passes on.
    pub user_from: Option<usize>,
}

/// What is taken at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// The root itself is the value.
    Value,
    /// A number is loaded.
    Number {
        /// Bytes: 1, 2, 4 or 8.
        size: u8,
        /// It can be negative.
        signed: bool,
        /// Of a bit field: bits to shift left, in 64.
        left: u8,
        /// Then bits to shift right.
        right: u8,
    },
    /// A pointer is loaded: 8 bytes.
    Address,
    /// An array or a structure as it is.
    Bytes {
        /// How many.
        len: u16,
    },
    /// A text that ends at its NUL.
    Text {
        /// At most so many bytes.
        len: u16,
    },
}

/// Why a path means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// Not of the form.
    #[error(
        "'{0}' is no path; give NAME, then any of ->MEMBER, .MEMBER and [NUMBER], for example file->f_inode->i_ino"
    )]
    Syntax(String),
    /// Too many parts.
    #[error("a path of more than {MAX_COMPONENTS} parts")]
    TooManyComponents,
    /// Too many pointers.
    #[error("a path that follows more than {MAX_STEPS} pointers")]
    TooManySteps,
    /// The structure has no such member.
    #[error("{structure} has no member '{member}'; {hint}")]
    NoMember {
        /// Its name.
        structure: String,
        /// What it does not have.
        member: String,
        /// What it has.
        hint: String,
    },
    /// A member of what has none.
    #[error(
        "'{member}' cannot be a member of {type_name}, which is no structure and no pointer to one that is known here"
    )]
    NoStructure {
        /// The type.
        type_name: String,
        /// What was asked for.
        member: String,
    },
    /// A star before, or an index after, what is neither a pointer nor an array.
    #[error("{0} is no pointer and no array")]
    NoPointer(String),
    /// An index after the last.
    #[error("{type_name} has no element {index}")]
    NoElement {
        /// The array.
        type_name: String,
        /// The index.
        index: u32,
    },
    /// There is a value, but not one that can be taken.
    #[error("a value of the type {type_name} cannot be recorded; {hint}")]
    NoValue {
        /// Its type.
        type_name: String,
        /// Why, or what to name instead.
        hint: String,
    },
    /// Farther than an offset can say.
    #[error("an offset of more than 2 GiB")]
    TooFar,
}

impl AccessPath {
    /// Parses a whole path.
    ///
    /// # Errors
    /// When it is not of the form, or goes on after it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        match Self::parse_prefix(text.trim())? {
            (path, "") => Ok(path),
            _ => Err(PathError::Syntax(text.trim().to_owned())),
        }
    }

    /// Parses the path that a text begins with. What comes after it is returned too.
    ///
    /// # Errors
    /// When the text does not begin with a path.
    pub fn parse_prefix(text: &str) -> Result<(Self, &str), PathError> {
        let syntax = || PathError::Syntax(text.to_owned());
        let rest = text.trim_start_matches('*');
        let stars = text.len() - rest.len();
        let (root, mut rest) = identifier(rest).ok_or_else(syntax)?;
        let mut components = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix("->").or_else(|| rest.strip_prefix('.')) {
                let (name, after) = identifier(after).ok_or_else(syntax)?;
                components.push(Component::Member(name.to_owned()));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (index, after) = after.split_once(']').ok_or_else(syntax)?;
                let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
                let index = digits.then(|| index.parse().ok()).flatten().ok_or_else(syntax)?;
                components.push(Component::Index(index));
                rest = after;
            } else {
                break;
            }
            if components.len() > MAX_COMPONENTS {
                return Err(PathError::TooManyComponents);
            }
        }
        if components.len() + stars > MAX_COMPONENTS {
            return Err(PathError::TooManyComponents);
        }
        // In C a star binds last.
        components.extend(std::iter::repeat_n(Component::Target, stars));
        Ok((Self { root: root.to_owned(), components }, rest))
    }

    /// Finds the value in the kernel's types. The root is a register that holds a value of the type `root`.
    ///
    /// # Errors
    /// What the types do not have, with what they have instead.
    pub fn resolve(&self, btf: &Btf, root: TypeId) -> Result<Access, PathError> {
        let mut place = Place { btf, type_id: root, register: true, offsets: vec![0], user_from: None, bits: None };
        for component in &self.components {
            match component {
                Component::Member(name) => place.member(name)?,
                Component::Index(index) => place.element(*index)?,
                Component::Target => place.element(0)?,
            }
        }
        let terminal = place.terminal()?;
        let offsets: Option<_> = place.offsets.iter().map(|offset| i32::try_from(*offset).ok()).collect();
        let offsets = offsets.ok_or(PathError::TooFar)?;
        Ok(Access { offsets, terminal, type_id: place.type_id, user_from: place.user_from })
    }
}

/// The name that a text begins with.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then_some((name, rest))
}

/// Where a path has come to.
struct Place<'a> {
    btf: &'a Btf,
    /// What is there.
    type_id: TypeId,
    /// Still the root itself; else in memory, where the offsets lead.
    register: bool,
    offsets: Vec<u64>,
    user_from: Option<usize>,
    /// Of a bit field: bytes to load, bits to shift left and right.
    bits: Option<(u8, u8, u8)>,
}

impl Place<'_> {
    fn member(&mut self, name: &str) -> Result<(), PathError> {
        let btf = self.btf;
        let no_structure =
            || PathError::NoStructure { type_name: btf.type_name(self.type_id), member: name.to_owned() };
        // A structure in a register has no address.
        let structure = match self.shape() {
            Shape::Structure { .. } if !self.register => self.type_id,
            Shape::Pointer { to, user } if matches!(btf.shape(to), Shape::Structure { .. }) => {
                self.follow(to, user)?;
                to
            }
            _ => return Err(no_structure()),
        };
        let Some(member) = btf.member(structure, name) else { return Err(self.no_member(structure, name)) };
        self.enter(member)
    }

    /// Goes to a member of the structure here.
    fn enter(&mut self, member: Member) -> Result<(), PathError> {
        let type_name = || self.btf.type_name(member.type_id);
        let byte = match member.bit_size {
            None if member.bit_offset.is_multiple_of(8) => member.bit_offset / 8,
            Some(size) => {
                let (byte, bits) = container(member.bit_offset, size).ok_or_else(|| PathError::NoValue {
                    type_name: type_name(),
                    hint: format!("it is a bit field of {size} bits that 8 bytes do not hold"),
                })?;
                self.bits = Some(bits);
                byte
            }
            None => {
                let hint = "it does not begin at a byte".to_owned();
                return Err(PathError::NoValue { type_name: type_name(), hint });
            }
        };
        self.type_id = member.type_id;
        if self.bits.is_some() && !matches!(self.shape(), Shape::Integer { .. } | Shape::Enumeration { .. }) {
            return Err(PathError::NoValue { type_name: type_name(), hint: "it is a bit field".to_owned() });
        }
        self.advance(byte)
    }

    /// Goes to an element of the array here, or of the one that the pointer here points to.
    fn element(&mut self, index: u32) -> Result<(), PathError> {
        let type_name = self.btf.type_name(self.type_id);
        let element = match self.shape() {
            Shape::Array { element, count } if !self.register => {
                if count != 0 && index >= count {
                    return Err(PathError::NoElement { type_name, index });
                }
                self.type_id = element;
                element
            }
            Shape::Pointer { to, user } => {
                self.follow(to, user)?;
                to
            }
            _ => return Err(PathError::NoPointer(type_name)),
        };
        let size = match index {
            0 => 0,
            _ => self.btf.size(element).ok_or_else(|| PathError::NoValue {
                type_name: self.btf.type_name(element),
                hint: "its size is not known".to_owned(),
            })?,
        };
        self.advance(size.checked_mul(u64::from(index)).ok_or(PathError::TooFar)?)
    }

    /// Goes to what the pointer here points to.
    fn follow(&mut self, to: TypeId, user: bool) -> Result<(), PathError> {
        if !self.register {
            if self.offsets.len() > MAX_STEPS {
                return Err(PathError::TooManySteps);
            }
            self.offsets.push(0);
        }
        if user && self.user_from.is_none() {
            self.user_from = Some(self.offsets.len() - 1);
        }
        self.register = false;
        self.type_id = to;
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<(), PathError> {
        let last = self.offsets.last_mut().ok_or(PathError::TooFar)?;
        *last = last.checked_add(bytes).ok_or(PathError::TooFar)?;
        Ok(())
    }

    fn shape(&self) -> Shape {
        self.btf.shape(self.type_id)
    }

    fn terminal(&self) -> Result<Terminal, PathError> {
        let no_value = |hint: &str| {
            let hint = hint.to_owned();
            Err(PathError::NoValue { type_name: self.btf.type_name(self.type_id), hint })
        };
        let shape = self.shape();
        if self.register {
            return match shape {
                Shape::Integer { size: ..=8, .. } | Shape::Enumeration { .. } | Shape::Pointer { .. } => {
                    Ok(Terminal::Value)
                }
                _ => no_value("only numbers and pointers are taken from registers"),
            };
        }
        match shape {
            Shape::Integer { size: size @ ..=8, signed, .. } | Shape::Enumeration { size, signed } => {
                let (size, left, right) = self.bits.unwrap_or((size, 0, 0));
                Ok(Terminal::Number { size, signed, left, right })
            }
            Shape::Integer { size, .. } | Shape::Float { size } => Ok(Terminal::Bytes { len: u16::from(size) }),
            Shape::Pointer { .. } => Ok(Terminal::Address),
            Shape::Array { element, count }
                if matches!(self.btf.shape(element), Shape::Integer { character: true, .. }) =>
            {
                // A flexible array at a structure's end: its NUL says how long it is.
                let len = if count == 0 { MAX_STRING } else { u16::try_from(count).unwrap_or(u16::MAX) };
                Ok(Terminal::Text { len: len.min(MAX_STRING) })
            }
            Shape::Array { .. } | Shape::Structure { .. } => match self.btf.size(self.type_id) {
                Some(size @ 1..=MAX_BYTES) => Ok(Terminal::Bytes { len: u16::try_from(size).unwrap_or(u16::MAX) }),
                Some(0) => no_value("its length is zero or not known"),
                Some(size) => {
                    let part = if matches!(shape, Shape::Array { .. }) {
                        "name an element: [0]".to_owned()
                    } else {
                        self.listed(self.type_id)
                    };
                    no_value(&format!("its {size} bytes are more than {MAX_BYTES}; {part}"))
                }
                None => no_value("its size is not known"),
            },
            Shape::Void | Shape::Function | Shape::Unknown => no_value("its size is not known"),
        }
    }

    fn no_member(&self, structure: TypeId, member: &str) -> PathError {
        let mut near: Vec<_> = self
            .btf
            .fields(structure)
            .filter(|field| field.name.len().max(member.len()) <= MAX_COMPARED)
            .map(|field| (strsim::jaro_winkler(member, field.name), field.name))
            .filter(|(likeness, _)| *likeness > 0.8)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<_> = near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect();
        let hint = if near.is_empty() { self.listed(structure) } else { format!("did you mean {}?", near.join(", ")) };
        PathError::NoMember { structure: self.btf.type_name(structure), member: member.to_owned(), hint }
    }

    /// The first members of a structure.
    fn listed(&self, structure: TypeId) -> String {
        let mut names: Vec<_> = self.btf.fields(structure).map(|field| field.name).take(LISTED + 1).collect();
        if names.is_empty() {
            return "it has no members".to_owned();
        }
        if names.len() > LISTED {
            names[LISTED] = "…";
        }
        format!("it has {}", names.join(", "))
    }
}

/// The bytes to load for a bit field: where they begin, how many, and the bits to shift left and right in 64.
fn container(bit_offset: u64, size: u32) -> Option<(u64, (u8, u8, u8))> {
    let bits = u64::from(size);
    let end = bit_offset.checked_add(bits)?;
    // Aligned as the compiler itself would load it; in a packed structure, from the byte where it begins.
    let aligned = [1, 2, 4, 8].map(|bytes| (bytes, bit_offset / (8 * bytes) * bytes));
    let from_byte = [2, 4, 8].map(|bytes| (bytes, bit_offset / 8));
    let (bytes, start) =
        aligned.into_iter().chain(from_byte).find(|(bytes, start)| end.div_ceil(8) <= start + bytes)?;
    let left = 64_u64.checked_sub(end - start * 8)?;
    let right = 64_u64.checked_sub(bits)?;
    Some((start, (u8::try_from(bytes).ok()?, u8::try_from(left).ok()?, u8::try_from(right).ok()?)))
}
