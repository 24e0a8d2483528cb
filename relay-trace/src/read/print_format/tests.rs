//! Print formats of Linux 6.18, and texts that are none.

use proptest::prelude::*;

use super::{PrintFormat, Value};
use crate::{form::format::Format, read::value::Number};

/// Fields in the form of tracefs, from name, C type and size.
fn fields(of: &[(&str, &str, usize, bool)]) -> String {
    let mut at = 8;
    let mut text = "ID: 1\nformat:\n".to_owned();
    for (name, c_type, size, signed) in of {
        text += &format!("\tfield:{c_type} {name};\toffset:{at};\tsize:{size};\tsigned:{};\n", u8::from(*signed));
        at += size;
    }
    text
}

/// How a number in the field of this index is printed.
fn printed(format: &str, field: usize, number: i64) -> Option<String> {
    let fields = Format::parse(format).unwrap().fields;
    let print = PrintFormat::parse(format, &fields);
    let value =
        Value::Number(if number < 0 { Number::Signed(number) } else { Number::Unsigned(number.cast_unsigned()) });
    let text = print.decoder(field)?.print(value, &mut |address| (address == 7).then(|| "seven+0x0".to_owned()))?;
    Some(String::from_utf8(text).unwrap())
}

const SWITCH: &str = r#"
print fmt: "prev_comm=%s prev_pid=%d prev_state=%s%s ==> next_pid=%d", REC->prev_comm, REC->prev_pid, (REC->prev_state & ((((0x00000000 | 0x00000001 | 0x00000002) + 1) << 1) - 1)) ? __print_flags(REC->prev_state & ((((0x00000000 | 0x00000001 | 0x00000002) + 1) << 1) - 1), "|", { 0x00000001, "S" }, { 0x00000002, "D" }) : "R", REC->prev_state & (((0x00000000 | 0x00000001 | 0x00000002) + 1) << 1) ? "+" : "", REC->next_pid"#;

fn switch() -> String {
    fields(&[
        ("prev_comm[4]", "char", 4, false),
        ("prev_pid", "int", 4, true),
        ("prev_state", "long", 8, true),
        ("next_pid", "int", 4, true),
    ]) + SWITCH
}

#[test]
fn a_task_state_is_shown_by_letters() {
    for (state, letters) in [(0, "R"), (1, "S"), (2, "D"), (3, "S|D"), (8, "R+"), (9, "S+")] {
        assert_eq!(printed(&switch(), 2, state).as_deref(), Some(letters), "{state}");
    }
    for plain in [0, 1, 3] {
        assert_eq!(printed(&switch(), plain, 5), None, "field {plain} is as its type says");
    }
}

#[test]
fn tables_come_before_what_else_is_said_of_a_field() {
    let format = fields(&[("vec", "unsigned int", 4, false)])
        + "print fmt: \"vec=%u [action=%s]\", REC->vec, __print_symbolic(REC->vec, { 0, \"HI\" }, { 1, \"TIMER\" })";
    assert_eq!(printed(&format, 0, 1).as_deref(), Some("TIMER"));
    assert_eq!(printed(&format, 0, 99).as_deref(), Some("0x63"));
}

#[test]
fn flags_are_computed_as_in_c() {
    let format = fields(&[("gfp", "unsigned long", 8, false)])
        + "print fmt: \"gfp=%s node=%s\", (REC->gfp) ? __print_flags(REC->gfp, \"|\", {( unsigned long)((( gfp_t)((((1UL))) << (3))) \
           | (( gfp_t)((((1UL))) << (4)))), \"BOTH\"}, {(unsigned long)(1UL << 3), \"THREE\"}, { 0, ((void *)0) } ) : \"none\", \
           (1 && (REC->gfp & 8UL)) ? \"true\" : \"false\"";
    for (value, words) in [(0, "none"), (8, "THREE"), (24, "BOTH"), (28, "BOTH|0x4"), (9, "THREE|0x1")] {
        assert_eq!(printed(&format, 0, value).as_deref(), Some(words), "{value}");
    }
}

#[test]
fn numbers_are_printed_as_their_conversion_says() {
    let one = |print: &str, number| {
        printed(&(fields(&[("f", "unsigned int", 4, false)]) + &format!("print fmt: {print}")), 0, number)
    };
    for (print, number, text) in [
        (r#""f: 0x%08lx", ((unsigned long)(REC->f))"#, 255, Some("0x000000ff")),
        (
            r#""%d,%d", ((unsigned int) ((REC->f) >> 20)), ((unsigned int) ((REC->f) & ((1U << 20) - 1)))"#,
            8_388_609,
            Some("8,1"),
        ),
        (r#""f=%03u", REC->f"#, 7, Some("007")),
        (r#""f=%-5d|", (int)REC->f"#, 4_294_967_295, Some("-1   ")),
        (r#""f=%#x", REC->f"#, 16, Some("0x10")),
        (r#""f=%c", REC->f"#, 65, Some("A")),
        (r#""f=%pS", (void *)REC->f"#, 7, Some("seven+0x0")),
        (r#""f=%ps", (void *)REC->f"#, 8, Some("0x8")),
        (r#""f=%s", REC->f ? "yes" : "no""#, 0, Some("no")),
        (r#""f=%llu%%", REC->f * 100 / 7"#, 14, Some("200")),
        // Another field's name, an unknown function, and two fields at once: the type says how.
        (r#""g=%x", REC->f"#, 1, None),
        (r#""f=%u", jiffies_to_msecs(REC->f)"#, 1, None),
        (r#""f=%*d", 4, REC->f"#, 1, None),
        (r#""f=%s", REC->f / 0 ? "yes" : "no""#, 1, None),
        (r#""f=%lx", REC->f[0]"#, 1, None),
    ] {
        assert_eq!(one(print, number).as_deref(), text, "{print}");
    }
}

#[test]
fn addresses_in_networks_are_read() {
    let format = fields(&[("addr[4]", "__u8", 4, false), ("v6[16]", "__u8", 16, false)])
        + "print fmt: \"addr=%pI4 v6=%pI6c\", REC->addr, REC->v6";
    let parsed = Format::parse(&format).unwrap().fields;
    let print = PrintFormat::parse(&format, &parsed);
    let element =
        crate::form::format::Element { size: 1, signed: false, display: crate::form::format::Display::Decimal };
    let text = |field: usize, bytes: &[u8]| {
        String::from_utf8(print.decoder(field).unwrap().print(Value::List(element, bytes), &mut |_| None).unwrap())
            .unwrap()
    };
    assert_eq!(text(0, &[127, 0, 0, 1]), "127.0.0.1");
    assert_eq!(text(1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "::1");
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "[-a-zA-Z0-9_%\"'(){}\\[\\],?:&|<>=!~+*/ RECf>]{0,80}", number: u64) {
        let format = fields(&[("f", "unsigned int", 4, false)]) + "print fmt: " + &text;
        printed(&format, 0, number.cast_signed());
    }

    #[test]
    fn a_damaged_format_is_survived(at in 0..SWITCH.len(), with in "[\\x20-\\x7e]{0,3}", number: i64) {
        let mut text = switch();
        let start = text.len() - SWITCH.len();
        text.replace_range(start + at..=start + at, &with);
        if text.contains("print fmt:") {
            printed(&text, 2, number);
        }
    }

    #[test]
    fn nesting_has_an_end(depth in 1usize..2000) {
        let format = fields(&[("f", "unsigned int", 4, false)])
            + &format!("print fmt: \"f=%x\", {}REC->f{}", "(".repeat(depth), ")".repeat(depth));
        printed(&format, 0, 1);
    }
}
