//! What a condition can be about: a field of the record, or the task and the CPU that every record has.

use relay_common::{recipe::input, trace::COMMON_FIELDS};

use super::expression::{FieldSubject, Source, TextSource};
use crate::{
    form::format::{Display, Element, Field, FieldKind},
    similar::did_you_mean,
};

/// A field that is in the record.
pub fn recorded(fields: &[Field], name: &str) -> Option<FieldSubject> {
    let field = fields.iter().find(|field| field.name == name)?;
    // Records leave the common fields out.
    let at = u16::try_from(field.bytes.start).ok()?.checked_sub(u16::try_from(COMMON_FIELDS).ok()?)?;
    let len = u16::try_from(field.bytes.len()).ok()?;
    Some(match field.kind {
        FieldKind::Integer(element) => {
            let size = u8::try_from(element.size).ok()?;
            FieldSubject::Integer { source: Source::Payload(at), size, signed: element.signed }
        }
        FieldKind::Array(Element { display: Display::Text, .. }) => {
            FieldSubject::Text { source: TextSource::Fixed { at, len } }
        }
        FieldKind::Dynamic { element: Element { display: Display::Text, .. }, relative } => {
            FieldSubject::Text { source: TextSource::Located { at, relative } }
        }
        FieldKind::Dynamic { element: Element { display: Display::Texts, .. }, .. } => {
            FieldSubject::Other("a list of texts".to_owned())
        }
        FieldKind::Array(_) | FieldKind::Dynamic { .. } => FieldSubject::Other("an array".to_owned()),
    })
}

/// What every event has: its task and its CPU.
pub fn of_task(name: &str) -> Option<FieldSubject> {
    let input = |input| Some(FieldSubject::Integer { source: Source::Input(input), size: 8, signed: false });
    match name {
        "pid" => input(input::PID),
        "tid" => input(input::TID),
        "uid" => input(input::UID),
        "cpu" => input(input::CPU),
        "comm" => Some(FieldSubject::Text { source: TextSource::Comm }),
        _ => None,
    }
}

/// What to say of a name that an event does not have.
pub fn unknown(event: &str, fields: &[Field], name: &str) -> String {
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    let near = did_you_mean(name, names.iter().copied());
    let listed = if names.is_empty() { String::new() } else { format!("{}, and ", names.join(", ")) };
    format!("{event} has no field '{name}'{near}; there are {listed}pid, tid, uid, cpu, comm of the task")
}
