//! Writes the trace's `metadata`: CTF 1.8 TSDL that describes every byte of the `cpuN` files.
//!
//! Nothing is converted: the description follows the bytes that the kernel side copies. `docs/format.md` explains it.

use std::fmt::Write as _;

use relay_common::recipe::context;

use super::{
    format::{self, Display, Element, Field, FieldKind},
    session::SessionFile,
};

/// What stands before a payload: bit, name, and the fields as they lie.
const CONTEXT: [(u32, &str, &str); 5] = [
    (context::CGROUP, "cgroup", "\t\tu64 cgroup;\n"),
    (context::COMM, "comm", "\t\tchr comm[16];\n"),
    (context::UID, "uid", "\t\tu32 uid;\n"),
    (context::KSTACK, "kstack", ""),
    (context::USTACK, "ustack", ""),
];

/// The names of what stands before every payload, in the order of the bytes.
#[must_use]
pub fn context_fields(context: u32) -> Vec<&'static str> {
    CONTEXT.iter().filter(|(bit, ..)| context & bit != 0).map(|(_, name, _)| *name).collect()
}

/// The metadata of a session with `events`: their ids, names and fields.
#[must_use]
pub fn write<'a>(session: &SessionFile, events: impl IntoIterator<Item = (u16, &'a str, &'a [Field])>) -> String {
    let mut text = String::from("/* CTF 1.8 */\n\n");
    for bits in [8, 16, 32, 64] {
        for (letter, options) in [("u", ""), ("s", " signed = true;"), ("x", " base = 16;")] {
            push(
                &mut text,
                &format!("typealias integer {{ size = {bits}; align = 8;{options} }} := {letter}{bits};\n"),
            );
        }
    }
    push(&mut text, "typealias integer { size = 8; align = 8; encoding = UTF8; } := chr;\n");
    push(
        &mut text,
        "typealias integer { size = 64; align = 8; map = clock.monotonic.value; } := ts64;\n\n\
         trace {\n\tmajor = 1;\n\tminor = 8;\n\tbyte_order = le;\n",
    );
    push(&mut text, &format!("\tuuid = \"{}\";\n", escape(&session.uuid)));
    push(&mut text, "\tpacket.header := struct {\n\t\tu32 magic;\n\t\tu8 uuid[16];\n\t\tu32 stream_id;\n\t};\n};\n\n");
    push_env(&mut text, session);
    push_clock(&mut text, session);
    push(
        &mut text,
        "stream {\n\tid = 0;\n\
         \tpacket.context := struct {\n\t\tts64 timestamp_begin;\n\t\tts64 timestamp_end;\n\t\tu64 content_size;\n\
         \t\tu64 packet_size;\n\t\tu64 packet_seq_num;\n\t\tu64 events_discarded;\n\t\tu32 cpu_id;\n\t\tu32 zero;\n\t};\n\
         \tevent.header := struct {\n\t\tts64 timestamp;\n\t\tu16 id;\n\t} align(32);\n\
         \tevent.context := struct {\n\t\tu16 len;\n\t\ts32 tid;\n\t\ts32 pid;\n",
    );
    push_context(&mut text, &session.context);
    push(&mut text, "\t};\n};\n");
    for (id, name, fields) in events {
        push_event(&mut text, id, name, fields);
    }
    text
}

fn push(text: &mut String, more: &str) {
    text.push_str(more);
}

fn push_context(text: &mut String, wanted: &[String]) {
    let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == name);
    for (_, _, fields) in CONTEXT.iter().filter(|(_, name, _)| is_wanted(name)) {
        push(text, fields);
    }
    if is_wanted("kstack") || is_wanted("ustack") {
        push(text, "\t\tu16 kstack_len;\n\t\tu16 ustack_len;\n\t\tx64 kstack[kstack_len];\n");
        push(text, "\t\tstruct { s32 status; x8 build_id[20]; x64 offset; } ustack[ustack_len];\n");
    }
}

fn push_env(text: &mut String, session: &SessionFile) {
    let strings = [
        ("hostname", session.host.as_str()),
        ("domain", "kernel"),
        ("sysname", "Linux"),
        ("kernel_release", &session.kernel),
        ("tracer_name", "relayd"),
        ("tracer_version", env!("CARGO_PKG_VERSION")),
    ];
    push(text, "env {\n");
    for (key, value) in strings {
        push(text, &format!("\t{key} = \"{}\";\n", escape(value)));
    }
    push(text, "};\n\n");
}

fn push_clock(text: &mut String, session: &SessionFile) {
    const SECOND: u64 = 1_000_000_000;
    // Wall time at zero of the monotonic clock.
    let start = session.clock.start;
    let epoch = start.realtime.saturating_sub(start.monotonic);
    let (seconds, rest) = (epoch / SECOND, epoch % SECOND);
    push(
        text,
        &format!(
            "clock {{\n\tname = \"monotonic\";\n\tuuid = \"{}\";\n\tdescription = \"CLOCK_MONOTONIC\";\n\
             \tfreq = {SECOND};\n\toffset_s = {seconds};\n\toffset = {rest};\n\tabsolute = false;\n}};\n\n",
            escape(&session.boot_id)
        ),
    );
}

fn push_event(text: &mut String, id: u16, name: &str, fields: &[Field]) {
    push(text, &format!("\nevent {{\n\tname = \"{}\";\n\tid = {id};\n\tstream_id = 0;\n", escape(name)));
    push(text, "\tfields := struct {\n");
    let mut at = usize::try_from(relay_common::trace::COMMON_FIELDS).unwrap_or(0);
    for field in fields {
        if field.bytes.start < at {
            // Part of a union: its bytes are described already.
            continue;
        }
        push_gap(text, at, field.bytes.start);
        at = field.bytes.end;
        let name = &field.name;
        match field.kind {
            FieldKind::Integer(element) => push(text, &format!("\t\t{} _{name};\n", element_type(element))),
            FieldKind::Array(element) => {
                let count = field.bytes.len() / element.size;
                push(text, &format!("\t\t{} _{name}[{count}];\n", element_type(element)));
            }
            FieldKind::Dynamic { element, .. } => {
                push(text, &format!("\t\tstruct {{ u16 off; {} }} _{name}_loc;\n", length_type(element)));
            }
        }
    }
    for (field, element, _) in format::dynamic(fields) {
        push(text, &format!("\t\t{} _{name}[_{name}_loc.len];\n", element_type(element), name = field.name));
    }
    push(text, "\t};\n};\n");
}

/// Bytes that the compiler put between fields.
fn push_gap(text: &mut String, mut from: usize, to: usize) {
    while from < to {
        let bytes = (to - from).min(8);
        push(text, &format!("\t\tinteger {{ size = {}; align = 8; base = 16; }} __gap_{from};\n", bytes * 8));
        from += bytes;
    }
}

fn element_type(element: Element) -> String {
    let letter = match element.display {
        Display::Text | Display::Texts => return "chr".to_owned(),
        Display::Hexadecimal => "x",
        Display::Decimal if element.signed => "s",
        Display::Decimal => "u",
    };
    format!("{letter}{}", element.size * 8)
}

/// The length half of a location word counts bytes. Of the elements, whose size is a power of two, the upper bits count.
fn length_type(element: Element) -> String {
    match element.size.trailing_zeros() {
        0 => "u16 len;".to_owned(),
        bits => {
            format!("integer {{ size = {bits}; align = 1; }} rest; integer {{ size = {}; align = 1; }} len;", 16 - bits)
        }
    }
}

fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_ascii_graphic() || c == ' ' => c.to_string(),
            _ => "?".to_owned(),
        })
        .collect()
}

/// The UUID of what [`uuid_text`] has written.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(number.to_be_bytes())
}

/// A UUID as people write it.
#[must_use]
pub fn uuid_text(uuid: [u8; 16]) -> String {
    let mut text = String::new();
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
