use std::{fs, path::Path, time::Instant};

use proptest::{collection::vec, prelude::*};

use super::{
    builder::{Builder, blob},
    *,
};

const SIGNED: u32 = 1;
const BOOL: u32 = 4;

fn integer(size: u8, signed: bool) -> Shape {
    Shape::Integer { size, signed, boolean: false, character: false }
}

/// Asks everything about every type, and about some that are not there.
pub(crate) fn ask_everything(btf: &Btf) {
    let names: Vec<_> = btf.functions().map(|(name, _)| name.to_owned()).collect();
    for name in names.iter().take(100) {
        let _ = btf.function(name);
    }
    let names: Vec<_> = btf.tracepoints().map(str::to_owned).collect();
    for name in names.iter().take(100) {
        let _ = btf.tracepoint(name);
    }
    let names: Vec<_> = btf.structures().map(str::to_owned).collect();
    for name in names.iter().take(100) {
        let _ = btf.structure_named(name);
    }
    let end = btf.ids().end;
    for id in (0..=end.saturating_add(2)).chain([u32::MAX]) {
        let _ = (btf.shape(id), btf.type_name(id), btf.size(id), btf.enumerators(id));
        let members = btf.members(id);
        for (name, _) in members.iter().take(10) {
            let _ = btf.member(id, name);
        }
        assert_eq!(btf.member(id, "no such member"), None);
    }
}

#[test]
fn shapes_look_through_names_and_qualifiers() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let char = b.int("char", 1, 0);
    let flag = b.int("_Bool", 1, BOOL);
    let volatile = b.add("", 9, int, &[]);
    let constant = b.constant(volatile);
    let name = b.typedef("pid_t", constant);
    let user = b.tag("user", char);
    let user_const = b.constant(user);
    let pointers = [b.pointer(name), b.pointer(user), b.pointer(user_const), b.pointer(VOID)];
    let array = b.array(name, 3);
    let rows = b.array(array, 2);
    let structure = b.structure("s", 12, &[]);
    let union = b.union("u", 8, &[]);
    let enumeration = b.entries("e", 1 << 31 | 19 << 24, 8, &[]);
    let float = b.add("double", 16, 8, &[]);
    let prototype = b.prototype(int, &[]);
    let function = b.add("f", 12, prototype, &[]);
    let forward = b.add("later", 7, 0, &[]);
    let variable = b.add("v", 14, int, &[0]);
    let section = b.entries(".data", 15 << 24, 4, &[("", variable, 0)]);
    let note = b.add("note", 17, structure, &[u32::MAX]);
    let btf = b.btf();

    assert_eq!(btf.shape(VOID), Shape::Void);
    assert_eq!((btf.shape(int), btf.shape(name)), (integer(4, true), integer(4, true)));
    assert_eq!(btf.shape(char), Shape::Integer { size: 1, signed: false, boolean: false, character: true });
    assert_eq!(btf.shape(flag), Shape::Integer { size: 1, signed: false, boolean: true, character: false });
    let users = pointers.map(|pointer| match btf.shape(pointer) {
        Shape::Pointer { to, user } => (to, user),
        other => panic!("{other:?}"),
    });
    assert_eq!(users, [(name, false), (user, true), (user_const, true), (VOID, false)]);
    assert_eq!(btf.shape(array), Shape::Array { element: name, count: 3 });
    assert_eq!((btf.size(array), btf.size(rows), btf.size(pointers[0])), (Some(12), Some(24), Some(8)));
    assert_eq!(btf.shape(structure), Shape::Structure { size: 12, union: false });
    assert_eq!(btf.shape(union), Shape::Structure { size: 8, union: true });
    assert_eq!(btf.shape(enumeration), Shape::Enumeration { size: 8, signed: true });
    assert_eq!(btf.shape(float), Shape::Float { size: 8 });
    assert_eq!((btf.shape(prototype), btf.shape(function)), (Shape::Function, Shape::Function));
    for id in [forward, variable, section, note, note + 1, u32::MAX] {
        assert_eq!((btf.shape(id), btf.size(id)), (Shape::Unknown, None), "{id}");
    }
    ask_everything(&btf);
}

#[test]
fn types_are_spelled_as_in_c() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let long = b.int("long unsigned int", 8, 0);
    let char = b.int("char", 1, 0);
    let byte = b.typedef("u8", char);
    let file = b.structure("file", 8, &[]);
    let anonymous = b.structure("", 8, &[]);
    let forward = b.raw(0, 1 << 31 | 7 << 24, 0, &[]);
    let kind = b.entries("pid_type", 6 << 24, 4, &[]);
    let constant = b.constant(char);
    let text = b.pointer(constant);
    let constant_text = b.constant(text);
    let texts = b.pointer(constant_text);
    let bytes = b.array(byte, 16);
    let names = b.array(text, 4);
    let to_array = b.pointer(bytes);
    let prototype = b.prototype(int, &[("x", int)]);
    let callback = b.pointer(prototype);
    let callbacks = b.array(callback, 3);
    let function = b.add("main", 12, prototype, &[]);
    let user = b.tag("user", constant);
    let buffer = b.pointer(user);
    let to_file = b.pointer(file);
    let nothing = b.constant(VOID);
    let address = b.pointer(nothing);
    let open = b.array(int, 0);
    let btf = b.btf();
    for (id, name) in [
        (VOID, "void"),
        (int, "int"),
        (long, "unsigned long"),
        (byte, "u8"),
        (file, "struct file"),
        (anonymous, "(anonymous struct)"),
        (forward, "(anonymous union)"),
        (kind, "enum pid_type"),
        (text, "const char *"),
        (constant_text, "const char *const"),
        (texts, "const char *const *"),
        (bytes, "u8[16]"),
        (names, "const char *[4]"),
        (to_array, "u8 (*)[16]"),
        (prototype, "int (…)"),
        (callback, "int (*)(…)"),
        (callbacks, "int (*[3])(…)"),
        (function, "int (…)"),
        (buffer, "const char __user *"),
        (to_file, "struct file *"),
        (address, "const void *"),
        (open, "int[]"),
        (u32::MAX, "(unknown type)"),
    ] {
        assert_eq!(btf.type_name(id), name);
    }
}

#[test]
fn members_are_found_in_members_without_a_name() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let inner = b.structure("", 8, &[("b", int, 0), ("c", int, 32)]);
    let either = b.union("", 8, &[("", inner, 0), ("d", int, 0)]);
    let name = b.typedef("either_t", either);
    let outer = b.structure("outer", 16, &[("a", int, 0), ("", name, 32), ("e", int, 96)]);
    let constant = b.constant(outer);
    let bits = b.bit_fields("bits", 8, &[("x", int, 3 << 24 | 5), ("whole", int, 32)]);
    // The old way: an integer of 3 bits, the lowest of which is bit 2.
    let three = b.add("int", 1, 4, &[2 << 16 | 3]);
    let old = b.structure("old", 4, &[("x", three, 8)]);
    let btf = b.btf();

    let names = btf.members(constant);
    assert_eq!(names, [("a", int), ("b", int), ("c", int), ("d", int), ("e", int)]);
    let whole = |bit_offset| Some(Member { bit_offset, bit_size: None, type_id: int });
    assert_eq!((btf.member(constant, "c"), btf.member(outer, "d")), (whole(64), whole(32)));
    assert_eq!((btf.member(outer, ""), btf.member(outer, "f"), btf.member(int, "a")), (None, None, None));
    assert_eq!(btf.member(bits, "x"), Some(Member { bit_offset: 5, bit_size: Some(3), type_id: int }));
    assert_eq!(btf.member(bits, "whole"), whole(32));
    assert_eq!(btf.member(old, "x"), Some(Member { bit_offset: 10, bit_size: Some(3), type_id: three }));
}

#[test]
fn structures_are_found_by_their_names() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let word = b.typedef("word_t", int);
    b.add("later", 7, 0, &[]);
    let anonymous = b.structure("", 4, &[("counter", int, 0)]);
    let counter = b.typedef("counter_t", anonymous);
    let pair = b.structure("pair", 8, &[("a", int, 0), ("b", word, 32)]);
    let either = b.union("either", 4, &[("a", int, 0)]);
    let base = Arc::new(b.btf());
    let mut b = Builder::on(&base);
    let own = b.structure("own", 8, &[("pair", pair, 0)]);
    let module = Btf::parse(b.bytes(), Some(Arc::clone(&base))).unwrap();

    let found = ["pair", "either", "counter_t"].map(|name| base.structure_named(name));
    assert_eq!(found, [Some(pair), Some(either), Some(counter)]);
    for name in ["int", "word_t", "later", "", "own"] {
        assert_eq!(base.structure_named(name), None, "{name}");
    }
    assert_eq!((module.structure_named("own"), module.structure_named("pair")), (Some(own), None));
    assert_eq!(base.structures().collect::<Vec<_>>(), ["pair", "either"]);
    assert_eq!(module.structures().collect::<Vec<_>>(), ["own"]);
}

#[test]
fn enumerators_have_their_values() {
    let mut b = Builder::new();
    let values = [b.string("ONE"), 1, b.string("LAST"), u32::MAX];
    let unsigned = b.raw(0, 6 << 24 | 2, 4, &values);
    let signed = b.raw(0, 1 << 31 | 6 << 24 | 2, 4, &values);
    let wide = b.entries("", 19 << 24, 8, &[("BIG", 1, 2)]);
    let name = b.typedef("wide_t", wide);
    let btf = b.btf();
    assert_eq!(btf.enumerators(unsigned), [("ONE", 1), ("LAST", i64::from(u32::MAX))]);
    assert_eq!(btf.enumerators(signed), [("ONE", 1), ("LAST", -1)]);
    assert_eq!(btf.enumerators(name), [("BIG", 0x2_0000_0001)]);
    assert_eq!(btf.enumerators(VOID), []);
}

#[test]
fn functions_and_tracepoints_have_their_parameters() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    let data = b.pointer(VOID);
    let main = b.function("main", int, &[("argc", int), ("argv", data)]);
    let print = b.function("print", VOID, &[("format", data), ("", VOID)]);
    b.typedef("main", int);
    for name in ["wakeup", "nameless", "other"] {
        let probe = b.prototype(VOID, &[("", data), ("", int)]);
        let pointer = b.pointer(probe);
        b.typedef(&format!("btf_trace_{name}"), pointer);
    }
    b.function("__traceiter_wakeup", int, &[("__data", data), ("cpu", int)]);
    b.function("__traceiter_other", int, &[("__data", data)]);
    b.typedef("btf_trace_broken", int);
    b.add("broken", 12, int, &[]);
    let btf = b.btf();

    let parameter = |name: &str, type_id| Parameter { name: name.to_owned(), type_id };
    let parameters = vec![parameter("argc", int), parameter("argv", data)];
    let prototype = Prototype { parameters, result: int, variadic: false };
    assert_eq!(btf.function("main"), Some(Function { id: main, prototype }));
    let prototype = Prototype { parameters: vec![parameter("format", data)], result: VOID, variadic: true };
    assert_eq!(btf.function("print"), Some(Function { id: print, prototype }));
    assert_eq!((btf.function("broken"), btf.function("no"), btf.function("")), (None, None, None));
    let names: Vec<_> = btf.functions().map(|(name, _)| name).collect();
    assert_eq!(names, ["main", "print", "__traceiter_wakeup", "__traceiter_other", "broken"]);

    let cpu = |name| Some(Prototype { parameters: vec![parameter(name, int)], result: VOID, variadic: false });
    assert_eq!(btf.tracepoint("wakeup"), cpu("cpu"));
    assert_eq!((btf.tracepoint("nameless"), btf.tracepoint("other")), (cpu(""), cpu("")));
    assert_eq!((btf.tracepoint("broken"), btf.tracepoint("no")), (None, None));
    assert_eq!(btf.tracepoints().collect::<Vec<_>>(), ["wakeup", "nameless", "other", "broken"]);
}

#[test]
fn a_module_stands_on_the_kernel() {
    let mut b = Builder::new();
    let int = b.int("int", 4, SIGNED);
    b.function("of_kernel", int, &[("x", int)]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vmlinux"), b.bytes()).unwrap();
    let kernel = Kernel::load(folder.path()).unwrap();

    let mut module = Builder::on(kernel.vmlinux());
    let pointer = module.pointer(int);
    let name = module.string("of_module");
    // A name from the base.
    let prototype = module.raw(0, 13 << 24 | 1, int, &[1, pointer]);
    let id = module.raw(name, 12 << 24, prototype, &[]);
    fs::write(folder.path().join("driver"), module.bytes()).unwrap();
    fs::write(folder.path().join("broken"), "no BTF").unwrap();

    assert_eq!(kernel.modules(), ["broken", "driver"]);
    let (btf, name, function) = kernel.find_function("of_module").unwrap();
    assert_eq!((name.as_deref(), function.id), (Some("driver"), id));
    assert_eq!(function.prototype.parameters, [Parameter { name: "int".to_owned(), type_id: pointer }]);
    assert_eq!((btf.type_name(pointer), btf.type_name(int)), ("int *".to_owned(), "int".to_owned()));
    assert_eq!(btf.functions().collect::<Vec<_>>(), [("of_module", id)]);
    assert!(Arc::ptr_eq(&btf, &kernel.module("driver").unwrap()));
    ask_everything(&btf);
    assert_eq!(kernel.find_function("of_kernel").unwrap().1, None);
    assert!(kernel.find_function("of_none").is_none());
    for name in ["broken", "vmlinux", "../driver", "", "none"] {
        assert!(kernel.module(name).is_err(), "{name}");
    }
}

#[test]
fn a_kernel_without_btf_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = format!("{:#}", Kernel::load(folder.path()).unwrap_err());
    assert!(error.contains("built without CONFIG_DEBUG_INFO_BTF"), "{error}");
    fs::write(folder.path().join("vmlinux"), "\u{1}").unwrap();
    let error = format!("{:#}", Kernel::load(folder.path()).unwrap_err());
    assert!(error.contains("parsing") && error.contains("too few for a header"), "{error}");
}

#[test]
fn what_is_not_btf_is_refused() {
    let mut b = Builder::new();
    b.int("int", 4, 0);
    let good = b.bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        Btf::parse(changed, None).unwrap_err()
    };
    assert_eq!(Btf::parse(good[..10].to_vec(), None).unwrap_err(), BtfError::Short(10));
    assert_eq!(with(0, &[0xEB, 0x9F]), BtfError::BigEndian);
    assert_eq!(with(0, b"EL"), BtfError::Magic(0x4C45));
    assert_eq!(with(2, &[2]), BtfError::Version(2));
    assert_eq!(with(4, &[8]), BtfError::Header(8));
    assert_eq!(with(8, &[0xFF; 4]), BtfError::Section("type"));
    assert_eq!(with(20, &[0xFF; 4]), BtfError::Section("string"));
    assert_eq!(with(HEADER + 7, &[31]), BtfError::TypeKind { id: 1, kind: 31 });
    assert_eq!(with(HEADER + 7, &[0]), BtfError::TypeKind { id: 1, kind: 0 });
    // A structure of 65535 members in 4 bytes.
    assert_eq!(with(HEADER + 4, &[0xFF, 0xFF, 0, 4]), BtfError::CutOff(1));
    assert_eq!(with(12, &[9]), BtfError::CutOff(1));
}

#[test]
fn types_that_lead_nowhere_are_unknown() {
    let mut b = Builder::new();
    let one = b.typedef("one", 2);
    let two = b.constant(one);
    let itself = b.array(3, u32::MAX);
    let arrays = b.array(itself, u32::MAX);
    // It contains itself without a name, and a name that is not there.
    let nested = b.structure("nested", 8, &[("", 5, 32), ("x", u32::MAX, 0)]);
    let stray = b.raw(u32::MAX, 8 << 24, u32::MAX, &[]);
    let pointer = b.pointer(8);
    let again = b.pointer(pointer);
    let btf = b.btf();
    for id in [one, two, stray] {
        assert_eq!((btf.shape(id), btf.size(id)), (Shape::Unknown, None));
    }
    assert_eq!((btf.size(itself), btf.size(arrays)), (None, None));
    assert_eq!(btf.type_name(again), "(unknown type)");
    assert_eq!(btf.members(nested), [("x", u32::MAX)]);
    ask_everything(&btf);
}

#[test]
fn long_chains_and_wide_structures_end_soon() {
    let start = Instant::now();
    let mut b = Builder::new();
    let endless = b.string(&"x".repeat(100_000));
    for id in 1..20_000 {
        b.raw(endless, 8 << 24, id + 1, &[]);
    }
    // Each contains the next one many times.
    for id in 20_000..20_010 {
        b.structure("", 8, &[("", id + 1, 0); 1000]);
    }
    let btf = b.btf();
    assert_eq!((btf.shape(1), btf.function("x")), (Shape::Unknown, None));
    assert_eq!(btf.members(20_000), []);
    ask_everything(&btf);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// The running kernel's: every kernel that the tracer supports has `/sys/kernel/btf/vmlinux`, which everyone may read.
pub(crate) fn running_kernel() -> Kernel {
    Kernel::load(Path::new("/sys/kernel/btf")).expect("this test needs /sys/kernel/btf/vmlinux")
}

/// Needs `/sys/kernel/btf/vmlinux`.
#[test]
fn the_running_kernel_is_understood() {
    let kernel = running_kernel();
    let btf = kernel.vmlinux();
    let names = |prototype: &Prototype| -> Vec<_> {
        let spelled = |p: &Parameter| format!("{} {}", btf.type_name(p.type_id).replace(" __user", ""), p.name);
        prototype.parameters.iter().map(spelled).collect()
    };
    let read = btf.function("vfs_read").unwrap().prototype;
    assert_eq!(names(&read), ["struct file * file", "char * buf", "size_t count", "loff_t * pos"]);
    assert_eq!((btf.type_name(read.result), btf.shape(read.result)), ("ssize_t".to_owned(), integer(8, true)));

    let switch = btf.tracepoint("sched_switch").unwrap();
    assert!(btf.tracepoints().any(|name| name == "sched_switch"));
    let task = switch.parameters.iter().map(|p| btf.shape(p.type_id)).find_map(|shape| match shape {
        Shape::Pointer { to, .. } => Some(to),
        _ => None,
    });
    let task = task.unwrap();
    assert_eq!(btf.type_name(task), "struct task_struct");
    let pid = btf.member(task, "pid").unwrap();
    assert_eq!((btf.type_name(pid.type_id), btf.shape(pid.type_id)), ("pid_t".to_owned(), integer(4, true)));
    let comm = btf.member(task, "comm").unwrap();
    assert_eq!((btf.type_name(comm.type_id), btf.size(comm.type_id)), ("char[16]".to_owned(), Some(16)));
    assert!(comm.bit_offset.is_multiple_of(8) && comm.bit_offset / 8 + 16 <= btf.size(task).unwrap());
    assert!(btf.members(task).iter().any(|(name, _)| *name == "tgid"));
    assert!(btf.functions().count() > 10_000 && btf.tracepoints().count() > 100);
    // Whatever it has is of a known shape, but for declarations and what only names places.
    for (name, id) in btf.functions().take(5000) {
        let function = btf.function(name).unwrap_or_else(|| panic!("{name}"));
        assert!(btf.type_name(id) != "(unknown type)", "{name}");
        for parameter in function.prototype.parameters {
            assert_ne!(btf.shape(parameter.type_id), Shape::Unknown, "{name}");
        }
    }
    // Its modules, where it has any.
    for name in kernel.modules() {
        let module = kernel.module(&name).unwrap();
        assert!(module.ids().start == btf.ids().end);
    }
}

/// Needs `/sys/kernel/btf/vmlinux`: its first types, with bytes changed, and cut off.
#[test]
fn a_damaged_kernel_is_refused_or_answered() {
    let kernel = running_kernel();
    let btf = kernel.vmlinux();
    let types = &btf.bytes[btf.types[0] as usize..];
    let strings = &btf.bytes[btf.strings.clone()];
    let flips = vec((any::<prop::sample::Index>(), any::<u8>()), 0..40);
    let input = (0..1500_usize, 0..800_usize, 0..20_000_usize, flips, any::<bool>(), any::<prop::sample::Index>());
    proptest!(|((first, count, names, flips, cut, end) in input)| {
        // Most types refer to some that come soon before or after them: from the first on, they are there.
        let first = if first < 1000 { 0 } else { first };
        let start = (btf.types[first] - btf.types[0]) as usize;
        let stop = (btf.types[first + count] - btf.types[0]) as usize;
        let mut bytes = blob(&types[start..stop], &strings[..names]);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let start = Instant::now();
        if let Ok(damaged) = Btf::parse(bytes.clone(), None) {
            ask_everything(&damaged);
        }
        if let Ok(damaged) = Btf::parse(bytes, Some(Arc::clone(btf))) {
            for id in damaged.ids() {
                let _ = (damaged.shape(id), damaged.type_name(id), damaged.size(id), damaged.members(id));
            }
        }
        prop_assert!(start.elapsed().as_secs() < 10);
    });
}

/// Words of types: any, but mostly small ones, so that ids and kinds mean something.
fn any_word() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..40_u32, 3 => (1..20_u32, 0..4_u32).prop_map(|(kind, n)| kind << 24 | n), 1 => any::<u32>()]
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(btf) = Btf::parse(bytes, None) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn any_types_are_refused_or_answered(
        types in vec((any_word(), 1..20_u32, any::<bool>(), any_word(), vec(any_word(), 0..12)), 0..40),
        strings in vec(prop_oneof![Just(0_u8), any::<u8>(), Just(b'a')], 0..100),
    ) {
        let mut bytes = Vec::new();
        for (name, kind, flag, word, extra) in types {
            // As many entries as there are words for.
            let (count, used) = match kind {
                1 | 14 | 17 => (0, 1),
                3 => (0, 3),
                4 | 5 | 15 | 19 => (extra.len() / 3, extra.len() / 3 * 3),
                6 | 13 => (extra.len() / 2, extra.len() / 2 * 2),
                _ => (0, 0),
            };
            let info = u32::from(flag) << 31 | kind << 24 | u32::try_from(count).unwrap();
            let extra = extra.into_iter().chain(std::iter::repeat(1)).take(used);
            for word in [name, info, word].into_iter().chain(extra) {
                bytes.extend(word.to_le_bytes());
            }
        }
        let btf = Btf::parse(blob(&bytes, &strings), None).unwrap();
        ask_everything(&btf);
    }
}
