//! Access paths: what `file->f_inode->i_ino` means for the kernel side, which knows no types, only offsets to add and pointers
//! to follow ([`relay_common::recipe::Fetch`]).

use relay_common::recipe::{MAX_STEPS, MAX_STRING};
use relay_trace::similar::nearest;

use crate::btf::{Btf, Member, Shape, TypeId};

/// Most bytes of a structure or an array that are taken as they are.
pub const MAX_BYTES: u64 = 256;
/// Most stars, members and indices of a path. Members need no step each, so there can be more than [`MAX_STEPS`].
const MAX_COMPONENTS: usize = 64;
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
        "'{0}' is not a path; give NAME, then any of ->MEMBER, .MEMBER and [NUMBER], for example file->f_inode->i_ino"
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
        "'{member}' cannot be a member of {type_name}, which is neither a structure nor a pointer to one that is known here"
    )]
    NoStructure {
        /// The type.
        type_name: String,
        /// What was asked for.
        member: String,
    },
    /// A star before, or an index after, what is neither a pointer nor an array.
    #[error("{0} is neither a pointer nor an array")]
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
            Shape::Structure { .. } => {
                let hint = "it is passed in a register: record it as a whole".to_owned();
                return Err(PathError::NoValue { type_name: btf.type_name(self.type_id), hint });
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
                Shape::Integer { size: ..=8, .. }
                | Shape::Enumeration { .. }
                | Shape::Pointer { .. }
                | Shape::Structure { size: 1..=8, .. } => Ok(Terminal::Value),
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
        let near = nearest(member, self.btf.fields(structure).map(|field| field.name), |name| name);
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::btf::{
        VOID,
        builder::Builder,
        tests::{ask_everything, running_kernel},
    };

    /// Types as the kernel has them, and the root that the tests begin at: a `struct file *`.
    struct Types {
        btf: Btf,
        bytes: Vec<u8>,
        file: TypeId,
        int: TypeId,
        by_value: TypeId,
        user: TypeId,
        text: TypeId,
        nothing: TypeId,
        double: TypeId,
    }

    fn types() -> Types {
        let mut b = Builder::new();
        let int = b.int("int", 4, 1);
        let long = b.int("long unsigned int", 8, 0);
        let huge = b.int("__int128", 16, 1);
        let char = b.int("char", 1, 0);
        let double = b.add("double", 16, 8, &[]);
        let nothing = b.pointer(VOID);
        let text = b.pointer(char);
        let comm = b.array(char, 16);
        let flexible = b.array(char, 0);
        let numbers = b.array(int, 4);
        let many = b.array(long, 100);
        let mode = b.typedef("umode_t", int);
        let bits = b.bit_fields(
            "bits",
            24,
            &[("low", int, 3 << 24 | 5), ("across", int, 10 << 24 | 27), ("wide", long, 60 << 24 | 68)],
        );
        let big = b.structure("big", 800, &[("many", many, 0)]);
        let empty = b.structure("empty", 0, &[]);
        let forward = b.add("later", 7, 0, &[]);
        let later = b.pointer(forward);
        let prototype = b.prototype(VOID, &[]);
        let callback = b.pointer(prototype);
        let far = b.structure("far", 8, &[("end", int, 0)]);
        let fars = b.array(far, u32::MAX);
        let inner = b.structure("", 8, &[("i_nlink", int, 0), ("i_flags", int, 32)]);
        let inode = b.structure(
            "inode",
            64,
            &[("i_mode", mode, 0), ("", inner, 64), ("i_ino", long, 256), ("comm", comm, 320)],
        );
        let inode_constant = b.constant(inode);
        let inode_pointer = b.pointer(inode_constant);
        let inode_pointers = b.pointer(inode_pointer);
        let user_tag = b.tag("user", inode);
        let user = b.pointer(user_tag);
        let itself = user + 2;
        let by_value = b.structure(
            "file",
            128,
            &[
                ("f_inode", inode_pointer, 64),
                ("f_pos", long, 128),
                ("f_self", itself, 192),
                ("f_path", inode, 256),
                ("numbers", numbers, 320),
                ("bits", bits, 320),
                ("big", big, 0),
                ("empty", empty, 0),
                ("later", later, 0),
                ("callback", callback, 0),
                ("fars", fars, 0),
                ("text", text, 384),
                ("name", flexible, 448),
                ("nothing", nothing, 0),
                ("list", inode_pointers, 512),
                ("huge", huge, 0),
                ("double", double, 0),
                ("user", user, 576),
                ("odd", int, 3),
            ],
        );
        let file = b.pointer(by_value);
        assert_eq!(file, itself);
        Types { btf: b.btf(), bytes: b.bytes(), file, int, by_value, user, text, nothing, double }
    }

    fn resolve(path: &str) -> Result<Access, PathError> {
        let types = types();
        AccessPath::parse(path).and_then(|path| path.resolve(&types.btf, types.file))
    }

    fn number(size: u8, signed: bool) -> Terminal {
        Terminal::Number { size, signed, left: 0, right: 0 }
    }

    #[test]
    fn paths_are_parsed_to_their_parts() {
        let member = |name: &str| Component::Member(name.to_owned());
        let path = |root: &str, components| AccessPath { root: root.to_owned(), components };
        assert_eq!(AccessPath::parse(" how->flags "), Ok(path("how", vec![member("flags")])));
        assert_eq!(
            AccessPath::parse("**a.b[3]->c_1"),
            Ok(path("a", vec![member("b"), Component::Index(3), member("c_1"), Component::Target, Component::Target]))
        );
        let (found, rest) = AccessPath::parse_prefix("a->b & 3 == 1").unwrap();
        assert_eq!((found, rest), (path("a", vec![member("b")]), " & 3 == 1"));
        for text in
            ["", "*", "3a", "->a", "a->", "a.", "a..b", "a[", "a[]", "a[-1]", "a[x]", "a[99999999999]", "a b", "é"]
        {
            assert!(matches!(AccessPath::parse(text), Err(PathError::Syntax(_))), "{text}");
        }
        for text in [format!("a{}", ".b".repeat(1000)), format!("{}a", "*".repeat(1000))] {
            assert_eq!(AccessPath::parse(&text), Err(PathError::TooManyComponents));
        }
    }

    #[test]
    fn paths_lead_to_offsets_and_loads() {
        for (path, offsets, terminal) in [
            ("file", vec![0], Terminal::Value),
            ("file->f_pos", vec![16], number(8, false)),
            ("file.f_pos", vec![16], number(8, false)),
            ("file->f_inode", vec![8], Terminal::Address),
            ("file->f_inode->i_ino", vec![8, 32], number(8, false)),
            ("file->f_inode->i_mode", vec![8, 0], number(4, true)),
            ("file->f_inode->i_flags", vec![8, 12], number(4, true)),
            ("file->f_path.i_ino", vec![64], number(8, false)),
            ("file->f_path", vec![32], Terminal::Bytes { len: 64 }),
            ("file->f_inode->comm", vec![8, 40], Terminal::Text { len: 16 }),
            ("file->f_inode->comm[3]", vec![8, 43], number(1, false)),
            ("*file->f_inode", vec![8, 0], Terminal::Bytes { len: 64 }),
            ("file->numbers", vec![40], Terminal::Bytes { len: 16 }),
            ("file->numbers[3]", vec![52], number(4, true)),
            ("*file->numbers", vec![40], number(4, true)),
            ("file->text", vec![48], Terminal::Address),
            ("file->text[5]", vec![48, 5], number(1, false)),
            ("file->name", vec![56], Terminal::Text { len: MAX_STRING }),
            ("file->name[70]", vec![126], number(1, false)),
            ("file->list[2]->i_ino", vec![64, 16, 32], number(8, false)),
            ("**file->list", vec![64, 0, 0], Terminal::Bytes { len: 64 }),
            ("file->f_self->f_self->f_pos", vec![24, 24, 16], number(8, false)),
            ("file[1].f_pos", vec![144], number(8, false)),
            ("file->huge", vec![0], Terminal::Bytes { len: 16 }),
            ("file->double", vec![0], Terminal::Bytes { len: 8 }),
            ("file->callback", vec![0], Terminal::Address),
            ("file->big.many[99]", vec![792], number(8, false)),
        ] {
            let access = resolve(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!((access.offsets, access.terminal, access.user_from), (offsets, terminal, None), "{path}");
        }
    }

    #[test]
    fn bit_fields_are_cut_out_of_what_is_loaded() {
        let cut = |size, signed, left, right| Terminal::Number { size, signed, left, right };
        // The structure begins at byte 40. 3 bits from bit 5 are the byte's highest.
        let access = resolve("file->bits.low").unwrap();
        assert_eq!((access.offsets, access.terminal), (vec![40], cut(1, true, 56, 61)));
        // 10 bits from bit 27: only 8 bytes hold them.
        let access = resolve("file->bits.across").unwrap();
        assert_eq!((access.offsets, access.terminal), (vec![40], cut(8, true, 27, 54)));
        let access = resolve("file->bits.wide").unwrap();
        assert_eq!((access.offsets, access.terminal), (vec![48], cut(8, false, 0, 4)));
    }

    #[test]
    fn pointers_of_the_process_are_told() {
        let types = types();
        let from = |path: &str, root| AccessPath::parse(path).unwrap().resolve(&types.btf, root).unwrap().user_from;
        assert_eq!((from("p->i_ino", types.user), from("p", types.user)), (Some(0), None));
        assert_eq!((from("f->user", types.file), from("f->user->i_ino", types.file)), (None, Some(1)));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        for (path, message) in [
            ("file->f_inod", "struct file has no member 'f_inod'; did you mean f_inode"),
            ("file->f_inode->i_link", "struct inode has no member 'i_link'; did you mean i_nlink"),
            ("file->f_inode->qqq", "has no member 'qqq'; it has i_mode, i_nlink, i_flags, i_ino, comm"),
            ("file->qqq", "it has f_inode, f_pos, f_self, f_path, numbers, bits, big, empty, …"),
            ("file->empty.x", "struct empty has no member 'x'; it has no members"),
            ("file->f_pos->x", "'x' cannot be a member of unsigned long, which is neither a structure"),
            ("file->list->i_ino", "cannot be a member of const struct inode **"),
            ("file->later->x", "cannot be a member of struct later *"),
            ("file->nothing->x", "cannot be a member of void *"),
            ("*file->nothing", "a value of the type void cannot be recorded"),
            ("*file->later", "a value of the type struct later cannot be recorded"),
            ("*file->callback", "a value of the type void (…) cannot be recorded"),
            ("file->nothing[1]", "void cannot be recorded; its size is not known"),
            ("*file->f_pos", "unsigned long is neither a pointer nor an array"),
            ("file->bits.low[1]", "int is neither a pointer nor an array"),
            ("file->numbers[4]", "int[4] has no element 4"),
            ("file->big", "its 800 bytes are more than 256; it has many"),
            ("file->big.many", "its 800 bytes are more than 256; name an element"),
            ("file->empty", "its length is zero or not known"),
            ("file->odd", "it does not begin at a byte"),
            ("file->fars[400000000].end", "an offset of more than 2 GiB"),
            ("file->f_self->f_self->f_self->f_self->f_self->f_self->f_self->f_pos", "follows more than 6 pointers"),
        ] {
            let error = resolve(path).map(|_| path).unwrap_err().to_string();
            assert!(error.contains(message), "{path}: {error}");
        }
        assert!(resolve("file->f_self->f_self->f_self->f_self->f_self->f_self->f_pos").is_ok());
    }

    #[test]
    fn roots_are_registers() {
        let types = types();
        let resolve = |path: &str, root| AccessPath::parse(path).unwrap().resolve(&types.btf, root);
        for root in [types.int, types.text, types.nothing, types.file] {
            let access = resolve("x", root).unwrap();
            assert_eq!((access.offsets, access.terminal, access.type_id), (vec![0], Terminal::Value, root));
        }
        assert_eq!(resolve("*x", types.text).unwrap().terminal, number(1, false));
        for (path, root) in
            [("x", types.by_value), ("x", types.double), ("x", VOID), ("x", u32::MAX), ("x.f_pos", types.by_value)]
        {
            assert!(resolve(path, root).is_err(), "{path} {root}");
        }
    }

    #[test]
    fn a_container_holds_its_bit_field() {
        for bit_offset in 0..200 {
            for size in 1..=64 {
                let Some((start, (bytes, left, right))) = container(bit_offset, size) else {
                    assert!(bit_offset % 8 + u64::from(size) > 64);
                    continue;
                };
                assert!(start * 8 <= bit_offset && bit_offset + u64::from(size) <= (start + u64::from(bytes)) * 8);
                // Only the field's bits are set: all of them arrive, and no other.
                let field = u64::MAX >> (64 - size);
                let loaded = field << (bit_offset - start * 8);
                assert_eq!(loaded << left >> right, field);
                assert_eq!(!loaded << left >> right, 0);
            }
        }
        assert_eq!((container(0, 65), container(u64::MAX, 8)), (None, None));
    }

    /// Needs `/sys/kernel/btf/vmlinux`.
    #[test]
    fn the_running_kernel_has_files_with_inodes() {
        let kernel = running_kernel();
        let btf = kernel.vmlinux();
        let file = btf.function("vfs_read").unwrap().prototype.parameters[0].type_id;
        let access = AccessPath::parse("file->f_inode->i_ino").unwrap().resolve(btf, file).unwrap();
        let Shape::Pointer { to: file, .. } = btf.shape(file) else { panic!("{}", btf.type_name(file)) };
        let inode = btf.member(file, "f_inode").unwrap();
        let Shape::Pointer { to, .. } = btf.shape(inode.type_id) else { panic!("{}", btf.type_name(inode.type_id)) };
        let number_offset = btf.member(to, "i_ino").unwrap().bit_offset;
        let offsets = [inode.bit_offset, number_offset].map(|bits| i32::try_from(bits / 8).unwrap());
        assert_eq!((access.offsets.as_slice(), access.terminal), (&offsets[..], number(8, false)));

        let task = btf.function("wake_up_new_task").unwrap().prototype.parameters[0].type_id;
        let terminal = |path: &str| AccessPath::parse(path).unwrap().resolve(btf, task).unwrap().terminal;
        assert_eq!((terminal("p->comm"), terminal("p->tgid")), (Terminal::Text { len: 16 }, number(4, true)));
        let bit = terminal("p->in_execve");
        assert!(matches!(bit, Terminal::Number { signed: false, right: 63, .. }), "{bit:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_none(text in "([*]{0,2}[a-f_]{0,6}((->|[.])[a-f_]{1,7}|\\[[0-9]{0,11}\\]){0,9})|.*") {
            let types = types();
            if let Ok(path) = AccessPath::parse(&text) {
                for root in 0..=types.file + 1 {
                    let _ = path.resolve(&types.btf, root);
                }
            }
        }

        /// Whatever the types are, what is resolved fits the kernel side's tables.
        #[test]
        fn any_types_give_an_access_that_fits(
            flips in vec((any::<prop::sample::Index>(), 0..64_u8), 0..30),
            parts in vec(prop_oneof![
                prop::sample::select(vec!["f_inode", "f_self", "bits", "low", "fars", "comm", "i_ino", "list", "user"])
                    .prop_map(|name| Component::Member(name.to_owned())),
                any::<u32>().prop_map(Component::Index),
                Just(Component::Target),
            ], 0..8),
        ) {
            let mut bytes = types().bytes;
            for (at, byte) in flips {
                // After the header.
                let at = 24 + at.index(bytes.len() - 24);
                bytes[at] ^= byte;
            }
            if let Ok(btf) = Btf::parse(bytes, None) {
                ask_everything(&btf);
                let path = AccessPath { root: "x".to_owned(), components: parts };
                for root in 0..btf.ids().end {
                    match path.resolve(&btf, root) {
                        Ok(access) => {
                            prop_assert!((1..=MAX_STEPS + 1).contains(&access.offsets.len()));
                            prop_assert!(access.user_from.is_none_or(|at| at < access.offsets.len()));
                        }
                        Err(error) => prop_assert!(!error.to_string().is_empty()),
                    }
                }
            }
        }
    }
}
