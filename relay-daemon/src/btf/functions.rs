//! Functions and tracepoints by their names.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{
    Btf, TypeId, VOID,
    raw::{Type, TypeKind},
};

/// Most parameters of a function that is described.
const MAX_PARAMETERS: usize = 128;
/// What is found by name.
const INDEXED: [TypeKind; 4] = [TypeKind::Func, TypeKind::Typedef, TypeKind::Struct, TypeKind::Union];
/// What the names of tracepoints' types begin with.
const TRACEPOINT: &str = "btf_trace_";
/// What the functions that call tracepoints' probes begin with. They name the parameters, the tracepoints' types do not.
const TRACEPOINT_CALLER: &str = "__traceiter_";

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

impl Btf {
    /// The function of that name in this blob, not in its base.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Function> {
        self.named(name, TypeKind::Func).find_map(|(id, function)| {
            let prototype = self.get(function.word).filter(|prototype| prototype.kind == TypeKind::FuncProto)?;
            Some(Function { id, prototype: self.prototype(prototype)? })
        })
    }

    /// Names and ids of the functions in this blob, not in its base.
    pub fn functions(&self) -> impl Iterator<Item = (&str, TypeId)> {
        self.all(TypeKind::Func)
    }

    /// The arguments of the tracepoint of that name in this blob, not in its base.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let caller = || self.function(&format!("{TRACEPOINT_CALLER}{name}")).map(|caller| caller.prototype.parameters);
        self.named(&format!("{TRACEPOINT}{name}"), TypeKind::Typedef).find_map(|(_, typedef)| {
            let pointer = self.get(typedef.word).filter(|pointer| pointer.kind == TypeKind::Ptr)?;
            let prototype = self.get(pointer.word).filter(|prototype| prototype.kind == TypeKind::FuncProto)?;
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

    /// The type that programs at the tracepoint of that name are given, of this blob.
    pub(crate) fn tracepoint_type(&self, name: &str) -> Option<TypeId> {
        self.named(&format!("{TRACEPOINT}{name}"), TypeKind::Typedef).next().map(|(id, _)| id)
    }

    /// Names of the tracepoints in this blob, not in its base.
    pub fn tracepoints(&self) -> impl Iterator<Item = &str> {
        self.all(TypeKind::Typedef).filter_map(|(name, _)| name.strip_prefix(TRACEPOINT))
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

    /// This blob's types of a kind that have a name.
    pub(crate) fn all(&self, kind: TypeKind) -> impl Iterator<Item = (&str, TypeId)> {
        self.ids().filter_map(move |id| {
            let this = self.get(id).filter(|this| this.kind == kind)?;
            Some((self.string(this.name).filter(|name| !name.is_empty())?, id))
        })
    }

    /// This blob's types of a name and a kind.
    pub(crate) fn named(&self, name: &str, kind: TypeKind) -> impl Iterator<Item = (TypeId, Type<'_>)> {
        let hash = hash(name.as_bytes());
        let index = self.index.get_or_init(|| {
            let mut index = Vec::new();
            for id in self.ids() {
                if let Some(this) = self.get(id).filter(|this| INDEXED.contains(&this.kind))
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

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
