//! tracefs' `format` files: any text is parsed or refused, and any value printed by any print format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trace::{
    form::format::Format,
    read::print_format::PrintFormat,
    read::value::{Number, Value},
};

fuzz_target!(|text: &str| {
    let Ok(format) = Format::parse(text) else { return };
    let print = PrintFormat::parse(text, &format.fields);
    for field in 0..format.fields.len() {
        let Some(decoder) = print.decoder(field) else { continue };
        for number in [0, 1, 0x1234_5678, i64::MAX, -1] {
            let number = Number::Signed(number);
            let _ = decoder.print(Value::Number(number), &mut |_| None);
        }
        let _ = decoder.print(Value::Text(b"text"), &mut |_| None);
    }
});
