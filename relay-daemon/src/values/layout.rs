//! Lays out the payload of an event whose values are fetched, and describes it as tracefs describes a tracepoint: so that one
//! description serves every kind of event, and whoever reads the trace needs to understand one.

use anyhow::{Context as _, Result, bail};
use relay_common::recipe::{self, Fetch, HIDDEN, KEPT, MAX_FETCHES, MAX_STRING};
use relay_trace::form::format::{self, COMMON, Display, Element, Field, FieldKind, Format};

/// One value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedValue {
    /// The field's name.
    pub name: String,
    /// Its type, as C spells it.
    pub c_type: String,
    /// What is stored.
    pub content: Stored,
    /// How it is fetched; [`lay_out`] says where to.
    pub fetch: Fetch,
}

/// What is stored of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A number of so many bytes: 1, 2, 4 or 8.
    Number {
        /// Bytes.
        size: u8,
        /// It can be negative.
        signed: bool,
        /// It is shown in base 16.
        hexadecimal: bool,
    },
    /// So many bytes.
    Bytes(u16),
    /// So many characters, up to a NUL.
    Text(u16),
    /// A string of any length.
    String,
    /// Any number of strings.
    Strings,
}

impl Stored {
    fn size(self) -> u16 {
        match self {
            Self::Number { size, .. } => size.into(),
            Self::Bytes(len) | Self::Text(len) => len,
            Self::String | Self::Strings => 4,
        }
    }

    /// Whether its data come after the fixed part.
    fn is_dynamic(self) -> bool {
        matches!(self, Self::String | Self::Strings)
    }
}

/// The values of an event: how they are fetched to where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How each is fetched, those of a pair's entry first.
    pub fetches: Vec<Fetch>,
    /// How many of them are fetched at the entry of a pair.
    pub n_entry: usize,
    /// Bytes before the strings.
    pub size: u16,
}

/// Lays the values out without gaps, and says which fields they are. `n_entry` of them, the first, are fetched at the entry of a pair.
///
/// # Errors
/// When there are too many, they are too long, or one has a name that a field cannot have.
pub fn lay_out(event: &str, mut values: Vec<RecordedValue>, n_entry: usize) -> Result<(Layout, Format)> {
    if values.len() > MAX_FETCHES {
        bail!("{event}: {} values are more than the {MAX_FETCHES} that one event can have", values.len());
    }
    let mut at = 0u16;
    for value in &mut values {
        value.fetch.to = at;
        at = at.saturating_add(value.content.size());
    }
    let most = if n_entry == 0 { HIDDEN } else { KEPT };
    let strings = values.iter().take(if n_entry == 0 { values.len() } else { n_entry });
    let strings = strings.filter(|value| value.content.is_dynamic()).count();
    let room = most
        .checked_sub(at)
        .with_context(|| format!("{event}: its values take {at} bytes, and {most} are the most"))?;
    // At the entry all strings together have to fit into what is kept until the return.
    let each = if n_entry == 0 { MAX_STRING } else { room / u16::try_from(strings.max(1))? };
    for value in values.iter_mut().filter(|value| value.content.is_dynamic()) {
        value.fetch.len = value.fetch.len.min(each);
    }
    if let Some(value) = values.iter().find(|value| !format::is_identifier(&value.name)) {
        bail!("{event}: a field cannot be named '{}'", value.name);
    }
    // Nothing of no length is a field.
    let fields = values.iter().filter(|value| value.content.size() != 0).map(field).collect();
    let fetches = values.iter().map(|value| value.fetch).collect();
    Ok((Layout { fetches, n_entry, size: at }, Format { id: 0, fields }))
}

/// A value as a field of the event's records.
fn field(value: &RecordedValue) -> Field {
    let element = |size: u8, signed, display| Element { size: size.into(), signed, display };
    let is_address = value.c_type.contains('*');
    let (c_type, kind) = match value.content {
        Stored::Number { size, hexadecimal: true, .. } if !is_address => {
            ("void *", FieldKind::Integer(element(size, false, Display::Hexadecimal)))
        }
        Stored::Number { size, .. } if is_address => {
            (&*value.c_type, FieldKind::Integer(element(size, false, Display::Hexadecimal)))
        }
        Stored::Number { size, signed, .. } => {
            (&*value.c_type, FieldKind::Integer(element(size, signed, Display::Decimal)))
        }
        Stored::Bytes(_) => ("u8", FieldKind::Array(element(1, false, Display::Decimal))),
        Stored::Text(_) => ("char", FieldKind::Array(element(1, false, Display::Text))),
        Stored::String => ("char", FieldKind::Dynamic { element: element(1, false, Display::Text), relative: false }),
        Stored::Strings => {
            (format::TEXTS, FieldKind::Dynamic { element: element(1, false, Display::Texts), relative: false })
        }
    };
    let start = usize::from(value.fetch.to) + COMMON;
    let bytes = start..start + usize::from(value.content.size());
    Field { name: value.name.clone(), bytes, kind, c_type: c_type.to_owned() }
}

/// Values that only a condition needs: they lie after all that is recorded.
#[derive(Debug)]
pub struct Hidden {
    fetches: Vec<Fetch>,
    end: u16,
    /// How many more one event can have.
    room: usize,
}

impl Hidden {
    /// None yet, beside those that are recorded.
    #[must_use]
    pub fn beside(values: Option<&Layout>) -> Self {
        let recorded = values.map_or(0, |values| values.fetches.len());
        Self { fetches: Vec::new(), end: HIDDEN, room: MAX_FETCHES.saturating_sub(recorded) }
    }

    /// Adds one, and returns where it lies.
    ///
    /// # Errors
    /// When there is no room.
    pub fn add(&mut self, value: &RecordedValue) -> Result<u16> {
        let at = self.end;
        let end = at.saturating_add(value.content.size());
        let most = HIDDEN + 512;
        if self.fetches.len() >= self.room || end > most || value.content.is_dynamic() {
            bail!(
                "the condition needs too many values that are not recorded, or too long ones: record '{}' too",
                value.name
            );
        }
        self.fetches.push(Fetch { to: at, ..value.fetch });
        self.end = end;
        Ok(at)
    }

    /// How they are fetched.
    #[must_use]
    pub fn into_fetches(self) -> Vec<Fetch> {
        self.fetches
    }
}

/// A type's C name as it can stand in a description: what has parentheses or brackets is an address.
#[must_use]
pub fn plain_type(name: &str) -> String {
    if name.contains(['(', '[', ';', ':', '\n']) || name.is_empty() { "void *".to_owned() } else { name.to_owned() }
}

/// A fetch of an input as it is.
#[must_use]
pub fn input(source: u16, size: u8) -> Fetch {
    Fetch { source, kind: recipe::FetchKind::Value as u8, len: size.into(), size, ..Fetch::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, size: u8) -> RecordedValue {
        RecordedValue {
            name: name.to_owned(),
            c_type: "int".to_owned(),
            content: Stored::Number { size, signed: true, hexadecimal: false },
            fetch: input(0, size),
        }
    }

    fn string(name: &str) -> RecordedValue {
        let fetch = Fetch { kind: recipe::FetchKind::String as u8, len: MAX_STRING, ..Fetch::default() };
        RecordedValue { name: name.to_owned(), c_type: "char *".to_owned(), content: Stored::String, fetch }
    }

    #[test]
    fn values_lie_one_after_the_other_and_are_described() {
        let values = vec![
            number("a", 1),
            number("b", 8),
            string("c"),
            number("d", 2),
            RecordedValue { content: Stored::Bytes(3), ..number("e", 1) },
            RecordedValue { content: Stored::Text(4), ..number("f", 1) },
            RecordedValue { c_type: "char *".to_owned(), ..number("g", 8) },
            RecordedValue {
                content: Stored::Number { size: 4, signed: false, hexadecimal: true },
                c_type: "u32".to_owned(),
                ..number("h", 4)
            },
            RecordedValue { content: Stored::Strings, ..string("i") },
        ];
        let (layout, format) = lay_out("kprobe:f", values, 0).unwrap();
        let places: Vec<_> = format.fields.iter().map(|field| (field.name.as_str(), field.bytes.clone())).collect();
        assert_eq!(places[..4], [("a", 8..9), ("b", 9..17), ("c", 17..21), ("d", 21..23)]);
        assert_eq!((layout.size, layout.fetches.len(), layout.fetches[1].to), (38, 9, 1));
        // Whoever reads the description sees the same fields.
        assert_eq!(Format::parse(&format.describe("kprobe:f")), Ok(format));
    }

    #[test]
    fn strings_of_an_entry_fit_into_what_is_kept() {
        let (layout, _) = lay_out("kretprobe:f", vec![string("a"), string("b"), number("ret", 8)], 2).unwrap();
        let longest = layout.fetches[0].len + layout.fetches[1].len + layout.size;
        assert!(longest <= KEPT && longest + 2 > KEPT, "{longest}");
    }

    #[test]
    fn too_many_or_too_long_values_are_refused() {
        assert!(lay_out("k", vec![number("a", 8); MAX_FETCHES + 1], 0).is_err());
        let long = |name| RecordedValue { content: Stored::Bytes(4096), ..number(name, 8) };
        assert!(lay_out("k", vec![long("a"), long("b")], 0).is_err());
        assert!(lay_out("k", vec![number("a b", 8)], 0).is_err());
        let (layout, _) = lay_out("k", vec![number("a", 8); MAX_FETCHES - 1], 0).unwrap();
        let mut hidden = Hidden::beside(Some(&layout));
        assert_eq!(hidden.add(&number("b", 8)).unwrap(), HIDDEN);
        assert!(hidden.add(&number("c", 8)).is_err());
    }
}
