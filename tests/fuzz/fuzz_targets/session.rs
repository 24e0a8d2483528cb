//! `session.json`: any bytes are a session or refused, and so are the events that it describes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trace::{
    form::session::SessionFile,
    read::{geometry, schema::Schema},
};

fuzz_target!(|text: &[u8]| {
    if let Ok(session) = SessionFile::parse(text) {
        let _ = Schema::new(&session, &mut Vec::new());
        let _ = geometry::enough(&session);
    }
});
