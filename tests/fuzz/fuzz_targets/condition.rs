//! What users write after -e: no text makes the parsers panic, and what is parsed can be evaluated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trace::condition::{
    expression::{Comparand, Expression},
    spec,
};

fuzz_target!(|text: &str| {
    let _ = spec::parse(&[text.to_owned()]);
    if let Ok(condition) = Expression::parse(text) {
        let _ = condition.evaluate(&mut |name| match name.len() % 3 {
            0 => Some(Comparand::Integer(7)),
            1 => Some(Comparand::Text(name.as_bytes().to_vec())),
            _ => None,
        });
    }
});
