//! Types as C spells them.

use super::{Btf, MAX_DEPTH, TypeId, VOID, raw::TypeKind};

/// A type that is not there, or too deep.
const UNKNOWN: &str = "(unknown type)";

/// How compilers name integers, and how people do.
const INTEGERS: [(&str, &str); 8] = [
    ("long unsigned int", "unsigned long"),
    ("long long unsigned int", "unsigned long long"),
    ("short unsigned int", "unsigned short"),
    ("long int", "long"),
    ("long long int", "long long"),
    ("short int", "short"),
    ("_Bool", "bool"),
    ("__int128 unsigned", "unsigned __int128"),
];

impl Btf {
    /// A type as C spells it: `const char *`, `struct file *`, `u8[16]`, `int (*)(…)`. Typedefs keep their name.
    #[must_use]
    pub fn type_name(&self, id: TypeId) -> String {
        let mut id = id;
        // What stands after the type's name; and of the next type the words before and after it.
        let (mut declarator, mut qualifiers, mut marks) = (String::new(), String::new(), String::new());
        for _ in 0..MAX_DEPTH {
            let this = match self.get(id) {
                Some(this) => this,
                None if id == VOID => return spell(&qualifiers, "void", &marks, &declarator),
                None => break,
            };
            let name = || self.string(this.name).unwrap_or_default();
            let tagged = |keyword: &str| match name() {
                "" => format!("(anonymous {keyword})"),
                name => format!("{keyword} {name}"),
            };
            let leaf = match this.kind {
                TypeKind::Const | TypeKind::Volatile | TypeKind::Restrict => {
                    qualifiers += match this.kind {
                        TypeKind::Const => "const ",
                        TypeKind::Volatile => "volatile ",
                        _ => "restrict ",
                    };
                    None
                }
                TypeKind::TypeTag => {
                    if let (false, name @ ("user" | "percpu" | "rcu")) = (this.flag, name()) {
                        marks += &format!(" __{name}");
                    }
                    None
                }
                TypeKind::Ptr => {
                    let own = format!("{qualifiers}{}", marks.trim_start());
                    let own = own.trim_end();
                    let space = if own.is_empty() || declarator.is_empty() { "" } else { " " };
                    declarator = format!("*{own}{space}{declarator}");
                    (qualifiers, marks) = (String::new(), String::new());
                    // What binds closer than the star.
                    if self.get(this.word).is_some_and(|to| matches!(to.kind, TypeKind::Array | TypeKind::FuncProto)) {
                        declarator = format!("({declarator})");
                    }
                    None
                }
                TypeKind::Array => {
                    let [element, _, count] = this.entries().next().unwrap_or_default();
                    declarator += &if count == 0 { "[]".to_owned() } else { format!("[{count}]") };
                    id = element;
                    continue;
                }
                TypeKind::FuncProto => {
                    declarator += "(…)";
                    None
                }
                TypeKind::Func | TypeKind::Var => None,
                TypeKind::Int => {
                    let ours = INTEGERS.iter().find(|(theirs, _)| *theirs == name());
                    Some(ours.map_or_else(name, |(_, ours)| ours).to_owned())
                }
                TypeKind::Float | TypeKind::Typedef => Some(name().to_owned()),
                TypeKind::Struct => Some(tagged("struct")),
                TypeKind::Union => Some(tagged("union")),
                TypeKind::Fwd => Some(tagged(if this.flag { "union" } else { "struct" })),
                TypeKind::Enum | TypeKind::Enum64 => Some(tagged("enum")),
                TypeKind::Datasec | TypeKind::DeclTag => break,
            };
            match leaf {
                Some(leaf) => return spell(&qualifiers, &leaf, &marks, &declarator),
                None => id = this.word,
            }
        }
        UNKNOWN.to_owned()
    }
}

fn spell(qualifiers: &str, name: &str, marks: &str, declarator: &str) -> String {
    let name = if name.is_empty() { UNKNOWN } else { name };
    let space = if declarator.starts_with(['*', '(']) { " " } else { "" };
    format!("{qualifiers}{name}{marks}{space}{declarator}")
}
