//! tracefs' `format` files: any text is parsed or refused, and any value printed by any print format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trace::{
    form::format::{Display, Element, Format},
    read::print_format::{Lookup, PrintFormat},
    read::value::{Number, Value},
};

/// Every address has a name.
struct Named;

impl Lookup for Named {
    fn symbol(&self, address: u64) -> Option<String> {
        Some(format!("f+{address:#x} [m]"))
    }

    fn string(&self, address: u64) -> Option<String> {
        Some(format!("{address}"))
    }
}

fuzz_target!(|text: &str| {
    let Ok(format) = Format::parse(text) else { return };
    let print = PrintFormat::parse(text, &format.fields);
    for field in 0..format.fields.len() {
        let Some(decoder) = print.decoder(field) else { continue };
        for number in [0, 1, 0x1234_5678, i64::MAX, -1] {
            let number = Number::Signed(number);
            let _ = decoder.print(&|_| Some(Value::Number(number)), &Named);
        }
        let _ = decoder.print(&|_| Some(Value::Text(b"text")), &Named);
        for len in [0, 1, 7, 16, 64] {
            let bytes = &[0xa5; 64][..len];
            let element = Element { size: 1, signed: false, display: Display::Decimal };
            let _ = decoder.print(
                &|index| {
                    Some(if index % 2 == 0 { Value::List(element, bytes) } else { Value::Number(Number::Unsigned(9)) })
                },
                &Named,
            );
        }
    }
});
