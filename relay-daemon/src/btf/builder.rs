//! Makes BTF for tests.

use super::{Btf, HEADER, MAGIC, TypeId};

/// Types and names that are added one by one.
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: TypeId,
    first_string: u32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], next: 1, first_string: 0 }
    }

    /// Split BTF on top of a base.
    pub(crate) fn on(base: &Btf) -> Self {
        let first_string = base.strings_end().unwrap();
        Self { types: Vec::new(), strings: Vec::new(), next: base.ids().end, first_string }
    }

    pub(crate) fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        self.first_string + at
    }

    /// A type as it stands.
    pub(crate) fn raw(&mut self, name: u32, info: u32, word: u32, extra: &[u32]) -> TypeId {
        for word in [name, info, word].iter().chain(extra) {
            self.types.extend(word.to_le_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn add(&mut self, name: &str, kind: u32, word: u32, extra: &[u32]) -> TypeId {
        let name = self.string(name);
        self.raw(name, kind << 24, word, extra)
    }

    pub(crate) fn int(&mut self, name: &str, size: u32, encoding: u32) -> TypeId {
        self.add(name, 1, size, &[(encoding << 24) | (size * 8)])
    }

    pub(crate) fn pointer(&mut self, to: TypeId) -> TypeId {
        self.add("", 2, to, &[])
    }

    pub(crate) fn array(&mut self, element: TypeId, count: u32) -> TypeId {
        self.add("", 3, 0, &[element, element, count])
    }

    pub(crate) fn typedef(&mut self, name: &str, to: TypeId) -> TypeId {
        self.add(name, 8, to, &[])
    }

    pub(crate) fn constant(&mut self, to: TypeId) -> TypeId {
        self.add("", 10, to, &[])
    }

    pub(crate) fn tag(&mut self, name: &str, to: TypeId) -> TypeId {
        self.add(name, 18, to, &[])
    }

    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[(&str, TypeId, u32)]) -> TypeId {
        self.entries(name, 4 << 24, size, members)
    }

    pub(crate) fn union(&mut self, name: &str, size: u32, members: &[(&str, TypeId, u32)]) -> TypeId {
        self.entries(name, 5 << 24, size, members)
    }

    /// A structure whose members' offsets have the sizes of bit fields in their highest byte.
    pub(crate) fn bit_fields(&mut self, name: &str, size: u32, members: &[(&str, TypeId, u32)]) -> TypeId {
        self.entries(name, 1 << 31 | 4 << 24, size, members)
    }

    pub(crate) fn prototype(&mut self, result: TypeId, parameters: &[(&str, TypeId)]) -> TypeId {
        let extra: Vec<_> = parameters.iter().flat_map(|(name, id)| [self.string(name), *id]).collect();
        self.raw(0, 13 << 24 | u32::try_from(parameters.len()).unwrap(), result, &extra)
    }

    pub(crate) fn function(&mut self, name: &str, result: TypeId, parameters: &[(&str, TypeId)]) -> TypeId {
        let prototype = self.prototype(result, parameters);
        self.add(name, 12, prototype, &[])
    }

    pub(crate) fn entries(&mut self, name: &str, info: u32, word: u32, entries: &[(&str, u32, u32)]) -> TypeId {
        let name = self.string(name);
        let extra: Vec<_> = entries.iter().flat_map(|(name, a, b)| [self.string(name), *a, *b]).collect();
        self.raw(name, info | u32::try_from(entries.len()).unwrap(), word, &extra)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        blob(&self.types, &self.strings)
    }

    pub(crate) fn btf(&self) -> Btf {
        Btf::parse(self.bytes(), None).unwrap()
    }
}

/// A header and two sections.
pub(crate) fn blob(types: &[u8], strings: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend([1, 0]);
    for word in [HEADER, 0, types.len(), types.len(), strings.len()] {
        bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}
