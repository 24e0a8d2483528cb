//! What structures and enumerations are made of.

use std::collections::HashSet;

use super::{
    Btf, TypeId,
    raw::{Type, TypeKind},
};

/// Where a member of a structure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bits from the structure's start.
    pub bit_offset: u64,
    /// Bits of a bit field; nothing for a whole value.
    pub bit_size: Option<u32>,
    /// What it is.
    pub type_id: TypeId,
}

/// A member and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedMember<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it lies.
    pub member: Member,
}

impl Btf {
    /// The structure, union, or typedef of one, of that name in this blob, not in its base.
    #[must_use]
    pub fn structure_named(&self, name: &str) -> Option<TypeId> {
        let of_kind = |kind| self.named(name, kind).map(|(id, _)| id).find(|id| self.structure(*id).is_some());
        [TypeKind::Struct, TypeKind::Union, TypeKind::Typedef]
            .into_iter()
            .filter(|_| !name.is_empty())
            .find_map(of_kind)
    }

    /// Names of the structures and unions in this blob, not in its base.
    pub fn structures(&self) -> impl Iterator<Item = &str> {
        self.all(TypeKind::Struct).chain(self.all(TypeKind::Union)).map(|(name, _)| name)
    }

    /// The member of that name of a structure or union, or of one without a name within it.
    #[must_use]
    pub fn member(&self, id: TypeId, name: &str) -> Option<Member> {
        self.fields(id).find(|field| field.name == name).map(|field| field.member)
    }

    /// Names and types of the members of a structure or union, with those of members without a name.
    #[must_use]
    pub fn members(&self, id: TypeId) -> Vec<(&str, TypeId)> {
        self.fields(id).map(|field| (field.name, field.member.type_id)).collect()
    }

    /// The members of a structure or union that have a name, also those within members that have none, in the order of
    /// declaration.
    pub fn fields(&self, id: TypeId) -> impl Iterator<Item = NamedMember<'_>> {
        let mut open = Vec::new();
        // A structure is entered once: one that contains itself would have no end, and it would have each name twice.
        let mut entered = HashSet::new();
        if let Some((id, this)) = self.structure(id) {
            entered.insert(id);
            open.push((this.flag, this.entries(), 0));
        }
        std::iter::from_fn(move || {
            loop {
                let (has_sizes, entries, start) = open.last_mut()?;
                let Some(entry) = entries.next() else {
                    open.pop();
                    continue;
                };
                let Some((name, member)) = self.field(*has_sizes, entry, *start) else { continue };
                if !name.is_empty() {
                    return Some(NamedMember { name, member });
                }
                if let Some((id, inner)) = self.structure(member.type_id)
                    && entered.insert(id)
                {
                    open.push((inner.flag, inner.entries(), member.bit_offset));
                }
            }
        })
    }

    /// Names and values of an enumeration.
    #[must_use]
    pub fn enumerators(&self, id: TypeId) -> Vec<(&str, i64)> {
        let Some(this) = self.resolve(id).and_then(|id| self.get(id)) else { return Vec::new() };
        let name = |at| self.string(at).unwrap_or_default();
        match this.kind {
            TypeKind::Enum => this
                .entries()
                .map(|[at, value]| {
                    let value = if this.flag { i64::from(value.cast_signed()) } else { i64::from(value) };
                    (name(at), value)
                })
                .collect(),
            TypeKind::Enum64 => this
                .entries()
                .map(|[at, low, high]| (name(at), (u64::from(high) << 32 | u64::from(low)).cast_signed()))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn structure(&self, id: TypeId) -> Option<(TypeId, Type<'_>)> {
        let id = self.resolve(id)?;
        let this = self.get(id).filter(|this| matches!(this.kind, TypeKind::Struct | TypeKind::Union))?;
        Some((id, this))
    }

    /// A member of a structure that begins at the bit `start`.
    fn field(&self, has_sizes: bool, [name, type_id, offset]: [u32; 3], start: u64) -> Option<(&str, Member)> {
        let name = self.string(name)?;
        let (offset, size) = if has_sizes { (offset & 0xFF_FFFF, offset >> 24) } else { (offset, 0) };
        let mut bit_offset = start.checked_add(u64::from(offset))?;
        let mut bit_size = (size != 0).then_some(size);
        // The old way: the integer's type says which of its bits they are.
        if !has_sizes
            && let Some(this) =
                self.resolve(type_id).and_then(|id| self.get(id)).filter(|this| this.kind == TypeKind::Int)
        {
            let (bits, shift) = (this.extra_word() & 0xFF, this.extra_word() >> 16 & 0xFF);
            if bits != 0 && (shift != 0 || u64::from(bits) != u64::from(this.word) * 8) {
                bit_offset = bit_offset.checked_add(u64::from(shift))?;
                bit_size = Some(bits);
            }
        }
        Some((name, Member { bit_offset, bit_size, type_id }))
    }
}
