//! Lays out the payload of an event whose values are fetched, and describes it as tracefs describes a tracepoint: so that one
//! description serves every kind of event, and whoever reads the trace needs to understand one.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use relay_common::{
    recipe::{Fetch, HIDDEN, KEPT, Kind, MAX_FETCHES, MAX_STRING, Recipe, flag},
    trace::COMMON_FIELDS,
};

use relay_trace::form::format::Format;

/// One value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The field's name.
    pub name: String,
    /// Its type, as C spells it.
    pub c_type: String,
    /// What is stored.
    pub content: Content,
    /// How it is fetched; [`lay_out`] says where to.
    pub fetch: Fetch,
}

/// What is stored of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
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
}

impl Content {
    fn size(self) -> u16 {
        match self {
            Self::Number { size, .. } => size.into(),
            Self::Bytes(len) | Self::Text(len) => len,
            Self::String => 4,
        }
    }
}

/// Lays the values out without gaps, those of the entry first, writes how they are fetched into the recipe, and returns the description. `n_entry` of
/// the values are fetched at the entry of a pair.
///
/// # Errors
/// When there are too many, or they are too long.
pub fn lay_out(name: &str, values: &mut [Value], n_entry: usize, recipe: &mut Recipe) -> Result<String> {
    if values.len() > MAX_FETCHES {
        bail!("{name}: {} values are more than the {MAX_FETCHES} that one event can have", values.len());
    }
    let mut at = 0u16;
    for value in values.iter_mut() {
        value.fetch.to = at;
        at = at.saturating_add(value.content.size());
    }
    let most = if n_entry == 0 { HIDDEN } else { KEPT };
    let strings = values.iter().take(if n_entry == 0 { values.len() } else { n_entry });
    let strings = strings.filter(|value| value.content == Content::String).count();
    let room =
        most.checked_sub(at).with_context(|| format!("{name}: its values take {at} bytes, and {most} are the most"))?;
    // At the entry all strings together have to fit into what is kept until the return.
    let each = if n_entry == 0 { MAX_STRING } else { room / u16::try_from(strings.max(1))? };
    for (value, to) in values.iter_mut().zip(&mut recipe.fetches) {
        if value.content == Content::String {
            value.fetch.len = value.fetch.len.min(each);
        }
        *to = value.fetch;
    }
    recipe.n_fetches = u8::try_from(values.len())?;
    recipe.n_entry = u8::try_from(n_entry)?;
    recipe.size = at;
    if n_entry != 0 {
        recipe.flags |= flag::PAIR;
    }
    Ok(describe(name, values))
}

/// Adds a value that only the condition needs: it lies after all that is recorded.
///
/// # Errors
/// When there is no room.
pub fn hide(value: &Value, hidden: &mut u16, recipe: &mut Recipe) -> Result<u16> {
    let at = *hidden;
    let end = at.saturating_add(value.content.size());
    let index = usize::from(recipe.n_fetches);
    let most = HIDDEN + 512;
    if index >= MAX_FETCHES || end > most || value.content == Content::String {
        bail!(
            "the condition needs too many values that are not recorded, or too long ones: record '{}' too",
            value.name
        );
    }
    recipe.fetches[index] = Fetch { to: at, ..value.fetch };
    recipe.n_fetches += 1;
    *hidden = end;
    Ok(at)
}

/// The description, in the form of tracefs' `format` files.
fn describe(name: &str, values: &[Value]) -> String {
    let mut text = format!("name: {name}\nID: 0\nformat:\n");
    for value in values {
        let at = u64::from(value.fetch.to) + COMMON_FIELDS;
        let (declaration, signed) = match value.content {
            Content::Number { hexadecimal: true, .. } if !value.c_type.contains('*') => {
                (format!("void * {}", value.name), false)
            }
            Content::Number { signed, .. } => (format!("{} {}", value.c_type, value.name), signed),
            Content::Bytes(len) => (format!("u8 {}[{len}]", value.name), false),
            Content::Text(len) => (format!("char {}[{len}]", value.name), false),
            Content::String => (format!("__data_loc char[] {}", value.name), false),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\tfield:{declaration};\toffset:{at};\tsize:{};\tsigned:{};",
            value.content.size(),
            u8::from(signed)
        );
    }
    text
}

/// The format of a description that [`lay_out`] made.
///
/// # Errors
/// When a name or a type cannot be described.
pub fn format(text: &str) -> Result<Format> {
    Format::parse(text).with_context(|| format!("describing the values of {}", text.lines().next().unwrap_or_default()))
}

/// A type's C name as it can stand in a description: what has parentheses or brackets is an address.
#[must_use]
pub fn plain_type(name: &str) -> String {
    if name.contains(['(', '[', ';', ':', '\n']) || name.is_empty() { "void *".to_owned() } else { name.to_owned() }
}

/// A fetch of an input as it is.
#[must_use]
pub fn input(source: u16, size: u8) -> Fetch {
    Fetch { source, kind: Kind::Value as u8, len: size.into(), size, ..Fetch::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, size: u8) -> Value {
        Value {
            name: name.to_owned(),
            c_type: "int".to_owned(),
            content: Content::Number { size, signed: true, hexadecimal: false },
            fetch: input(0, size),
        }
    }

    fn string(name: &str) -> Value {
        let fetch = Fetch { kind: Kind::String as u8, len: MAX_STRING, ..Fetch::default() };
        Value { name: name.to_owned(), c_type: "char *".to_owned(), content: Content::String, fetch }
    }

    #[test]
    fn values_lie_one_after_the_other_and_are_described() {
        let mut recipe = Recipe::EMPTY;
        let mut values = [number("a", 1), number("b", 8), string("c"), number("d", 2)];
        let text = lay_out("kprobe:f", &mut values, 0, &mut recipe).unwrap();
        let format = format(&text).unwrap();
        let places: Vec<_> = format.fields.iter().map(|field| (field.name.as_str(), field.bytes.clone())).collect();
        assert_eq!(places, [("a", 8..9), ("b", 9..17), ("c", 17..21), ("d", 21..23)]);
        assert_eq!((recipe.size, recipe.n_fetches, recipe.fetches[1].to), (15, 4, 1));
    }

    #[test]
    fn strings_of_an_entry_fit_into_what_is_kept() {
        let mut recipe = Recipe::EMPTY;
        let mut values = [string("a"), string("b"), number("ret", 8)];
        lay_out("kretprobe:f", &mut values, 2, &mut recipe).unwrap();
        let longest = recipe.fetches[0].len + recipe.fetches[1].len + recipe.size;
        assert!(longest <= KEPT && longest + 2 > KEPT, "{longest}");
        assert!(recipe.flags & flag::PAIR != 0);
    }

    #[test]
    fn too_many_or_too_long_values_are_refused() {
        let mut recipe = Recipe::EMPTY;
        let mut values = vec![number("a", 8); MAX_FETCHES + 1];
        assert!(lay_out("k", &mut values, 0, &mut recipe).is_err());
        let mut values = [
            Value { content: Content::Bytes(4096), ..number("a", 8) },
            Value { content: Content::Bytes(4096), ..number("b", 8) },
        ];
        assert!(lay_out("k", &mut values, 0, &mut recipe).is_err());
    }
}
