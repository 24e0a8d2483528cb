//! Print formats of Linux 6.18, and texts that are none.

use proptest::prelude::*;

use super::{Lookup, PrintFormat, Value};
use crate::{
    form::format::{FieldKind, Format},
    read::value::Number,
};

/// One function, and one text.
struct Known;

impl Lookup for Known {
    fn symbol(&self, address: u64) -> Option<String> {
        (address == 7).then(|| "seven+0x0 [module]".to_owned())
    }

    fn string(&self, address: u64) -> Option<String> {
        (address == 9).then(|| "nine".to_owned())
    }
}

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
    let text = print.decoder(field)?.print(&|index| (index == field).then_some(value), &Known)?;
    Some(String::from_utf8(text).unwrap())
}

/// How a record of these bytes is printed: `field=text` of each field that has a decoder and can be printed by it.
fn record(of: &[(&str, &str, usize, bool)], print: &str, bytes: &[u8]) -> Vec<String> {
    let format = fields(of) + "print fmt: " + print;
    let fields = Format::parse(&format).unwrap().fields;
    let print = PrintFormat::parse(&format, &fields);
    let value = |index: usize| {
        let field = fields.get(index)?;
        let bytes = &bytes[field.bytes.start - 8..field.bytes.end - 8];
        Some(match field.kind {
            FieldKind::Integer(element) => Value::Number(Number::new(element, bytes)),
            FieldKind::Array(element) | FieldKind::Dynamic { element, .. } => Value::array(element, bytes),
        })
    };
    let shown = fields.iter().enumerate().filter_map(|(index, field)| {
        let text = String::from_utf8(print.decoder(index)?.print(&value, &Known)?).unwrap();
        Some(format!("{}={text}", field.name))
    });
    shown.collect()
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
        (r#""f=%#x", REC->f"#, 0, Some("0x0")),
        (r#""f=%#010x", REC->f"#, 255, Some("0x000000ff")),
        (r#""f=%#10x", REC->f"#, 255, Some("      0xff")),
        (r#""f=%#o", REC->f"#, 8, Some("010")),
        (r#""f=%#o", REC->f"#, 0, Some("0")),
        (r#""f=%#06o", REC->f"#, 0o644, Some("000644")),
        (r#""f=%#-6o|", REC->f"#, 8, Some("010   ")),
        (r#""f=%+d", REC->f"#, 3, Some("+3")),
        (r#""f=%05d", (int)REC->f"#, 4_294_967_295, Some("-0001")),
        (r#""f=%*d", 4, REC->f"#, 1, Some("   1")),
        (r#""f=%pS", (void *)REC->f"#, 7, Some("seven+0x0 [module]")),
        (r#""f=%ps", (void *)REC->f"#, 7, Some("seven [module]")),
        (
            r#""f=%s", __print_flags(REC->f, "|", {( int) (( __kernel_rwf_t)0x1), "HIPRI" }, { 2, "TWO" })"#,
            3,
            Some("HIPRI|TWO"),
        ),
        (r#""f=%s", ((REC->f >= -9ULL) || (REC->f <= 8ULL)) ? "known" : "-""#, 256, Some("-")),
        (r#""f=%ps", (void *)REC->f"#, 8, Some("0x8")),
        (r#""f=%s", REC->f ? "yes" : "no""#, 0, Some("no")),
        (r#""f=%llu%%", REC->f * 100 / 7"#, 14, Some("200")),
        // Another field's name, an unknown function, and two fields at once: the type says how.
        (r#""g=%x", REC->f"#, 1, None),
        (r#""f=%u", jiffies_to_msecs(REC->f)"#, 1, None),
        (r#""f=%s", REC->f / 0 ? "yes" : "no""#, 1, None),
        (r#""f=%lx", REC->f[0]"#, 1, None),
    ] {
        assert_eq!(one(print, number).as_deref(), text, "{print}");
    }
}

#[test]
fn a_field_is_shown_whole_or_as_its_number() {
    let dev = [("s_dev", "dev_t", 4, false)];
    let device = 0x0fe0_0003_u32.to_le_bytes();
    let halves = r#"((unsigned int) ((REC->s_dev) >> 20)), ((unsigned int) ((REC->s_dev) & ((1U << 20) - 1)))"#;
    for (format, shown) in [
        (format!(r#""s_dev=0x%x:0x%x", {halves}"#), Some("s_dev=0xfe:0x3")),
        (format!(r#""dev=%d:%d", {halves}"#), Some("s_dev=254:3")),
        (format!(r#""major=%d minor=%d", {halves}"#), None),
        (r#""s_dev=%d,%d", ((unsigned int) ((REC->s_dev) >> 20)), minor(REC->s_dev)"#.to_owned(), None),
        (r#""s_dev=%d rest=%d", REC->s_dev >> 20, minor(REC->s_dev)"#.to_owned(), None),
        (r#""%s", __print_symbolic(REC->s_dev >> 20, { UNKNOWN, "a" })"#.to_owned(), None),
    ] {
        assert_eq!(
            record(&dev, &format, &device),
            shown.map(str::to_owned).into_iter().collect::<Vec<_>>(),
            "{format}"
        );
    }
    let class = r#"__print_symbolic((((REC->ioprio) >> 13) & (8 - 1)), { 2, "be" }, { 0, "none" })"#;
    let format = format!(r#""%s,%u,%u [%d]", {class}, REC->ioprio >> 3 & 1023, REC->ioprio & 7, REC->error"#);
    let block = [("ioprio", "unsigned int", 4, false), ("error", "int", 4, true)];
    assert_eq!(record(&block, &format, &[4, 0x40, 0, 0, 0, 0, 0, 0]), ["ioprio=be,0,4"]);
}

#[test]
fn what_pointers_are_to_is_read() {
    let pointer = |size, format: &str, bytes: &[u8]| {
        record(&[("f[64]", "__u8", size, false)], format, bytes).first().map(|text| text["f=".len()..].to_owned())
    };
    let v6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let count: Vec<u8> = (0..16).collect();
    let mut socket = vec![2, 0, 0, 80, 127, 0, 0, 1];
    socket.resize(28, 0);
    let mut socket6 = vec![10, 0, 1, 187, 0, 0, 0, 0];
    socket6.extend(v6);
    socket6.extend([3, 0, 0, 0]);
    let text = |format, bytes: &[u8]| pointer(bytes.len(), format, bytes);
    for (format, bytes, shown) in [
        (r#""addr=%pI4", REC->f"#, &[127, 0, 0, 1][..], Some("127.0.0.1")),
        (r#""daddr=%pI6c", REC->f"#, &v6, Some("fe80::1")),
        (r#""%pI6", &REC->f"#, &v6, Some("fe80:0000:0000:0000:0000:0000:0000:0001")),
        (r#""src=%pISpc", REC->f"#, &socket, Some("127.0.0.1:80")),
        (r#""src=%pISpc", REC->f"#, &socket6, Some("[fe80::1]:443")),
        (r#""src=%pISpfsc", REC->f"#, &socket6, Some("[fe80::1]:443/0%3")),
        (r#""src=%pISpc", REC->f"#, &[1, 0, 0, 0], None),
        (r#""%pU: x", REC->f"#, &count, Some("00010203-0405-0607-0809-0a0b0c0d0e0f")),
        (r#""%pUL", REC->f"#, &count, Some("03020100-0504-0706-0809-0A0B0C0D0E0F")),
        (r#""%pM", REC->f"#, &count, Some("00:01:02:03:04:05")),
        (r#""mac %02x:%02x:%02x", REC->f[0], REC->f[1], REC->f[2]"#, &count, Some("00:01:02")),
        (r#""addr=%02x:%02x:%02x", REC->f[0], REC->f[1], REC->f[99]"#, &count, None),
        (r#""x=%s", __print_hex_str(REC->f, 3)"#, &count, Some("000102")),
        (r#""x=%s", __print_hex(REC->f, sizeof(u32))"#, &count, Some("00 01 02 03")),
        (r#""x=%s", __print_hex(REC->f, 17)"#, &count, None),
        (
            r#""x=%s", __print_array(REC->f, sizeof(REC->f) / 8, 8)"#,
            &count,
            Some("{0x706050403020100,0xf0e0d0c0b0a0908}"),
        ),
        (r#""x=%*phC", 3, REC->f"#, &count, Some("00:01:02")),
        (r#""x=%*pbl", (1 << 4), REC->f"#, &[0b0110_1011, 0xff], Some("0-1,3,5-6,8-15")),
        (r#""x=%*pb", 36, REC->f"#, &[1, 0, 0, 0x80, 3], Some("3,80000001")),
        (r#""x=%s", __get_cpumask(f)"#, &[3, 0, 0, 0, 0, 0, 0, 0], Some("00000000,00000003")),
    ] {
        assert_eq!(text(format, bytes).as_deref(), shown, "{format}");
    }
}

#[test]
fn one_field_can_say_how_another_is_shown() {
    let lladdr = [("lladdr[8]", "__u8", 8, false), ("len", "__u8", 1, false)];
    let format = r#""lladdr %s len %d", __print_hex_str(REC->lladdr, REC->len), REC->len"#;
    assert_eq!(record(&lladdr, format, &[1, 2, 3, 4, 5, 6, 7, 8, 6]), ["lladdr=010203040506"]);
    let found = [("found", "int", 4, true), ("pblk", "int", 4, true)];
    let format = r#""found %d at %s", REC->found, REC->found ? __print_symbolic(REC->pblk, { 1, "one" }) : "-""#;
    assert_eq!(record(&found, format, &[1, 0, 0, 0, 1, 0, 0, 0]), ["pblk=one"]);
    assert_eq!(record(&found, format, &[0, 0, 0, 0, 1, 0, 0, 0]), ["pblk=-"]);
    // Which of two it is cannot be told from the text.
    let format = r#""%s", REC->found ? __print_symbolic(REC->pblk, { 1, "one" }) : REC->found"#;
    assert_eq!(record(&found, format, &[1, 0, 0, 0, 1, 0, 0, 0]), [""; 0]);
}

#[test]
fn a_pointer_to_a_constant_text_is_shown_as_the_text() {
    let fields = [("s", "const char *", 8, false)];
    assert_eq!(record(&fields, r#""%s", REC->s"#, &9u64.to_le_bytes()), ["s=nine"]);
    assert_eq!(record(&fields, r#""%3s", REC->s"#, &0u64.to_le_bytes()), ["s=(null)"]);
    assert_eq!(record(&fields, r#""%s", REC->s"#, &10u64.to_le_bytes()), [""; 0]);
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
