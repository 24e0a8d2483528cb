//! Which names are meant by what the user wrote after a kind.

use anyhow::{Context as _, Result, anyhow};
use relay_trace::similar::did_you_mean;

/// Which names are meant.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// This one.
    Exactly(String),
    /// All that match.
    Like(glob::Pattern),
}

impl Wanted {
    /// A name, or a pattern.
    pub(crate) fn new(text: &str) -> Result<Self> {
        if glob::Pattern::escape(text) == text {
            return Ok(Self::Exactly(text.to_owned()));
        }
        glob::Pattern::new(text).map(Self::Like).with_context(|| format!("the pattern '{text}'"))
    }

    /// A name may be written with where it is before it.
    pub(crate) fn without_place(self) -> Self {
        match self {
            Self::Exactly(name) => Self::Exactly(name.rsplit(':').next().unwrap_or_default().to_owned()),
            like @ Self::Like(_) => like,
        }
    }

    /// Whether a name is meant.
    pub(crate) fn is(&self, name: &str) -> bool {
        match self {
            Self::Exactly(wanted) => wanted == name,
            Self::Like(pattern) => pattern.matches(name),
        }
    }

    /// Whether it is named in full.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self, Self::Exactly(_))
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Exactly(wanted) => wanted,
            Self::Like(pattern) => pattern.as_str(),
        }
    }

    /// `; did you mean …?`, or nothing.
    pub(crate) fn nearest<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> String {
        did_you_mean(self.text(), names)
    }
}

/// `name+offset`
pub(crate) fn offset(text: &str) -> Result<(&str, u64)> {
    let Some((name, offset)) = text.rsplit_once('+') else { return Ok((text, 0)) };
    let number = match offset.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => offset.parse(),
    };
    Ok((name, number.map_err(|_| anyhow!("'{text}': '{offset}' is not an offset; give +16 or +0x10"))?))
}

/// Whether a name stays one when `spec::parse` takes it apart, and does no harm to terminals.
pub(crate) fn can_be_written(name: &str) -> bool {
    !name.contains(|c: char| c.is_control() || c.is_whitespace() || ",:+()[]*?\"".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_taken_apart_are_left_out() {
        assert!(can_be_written("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.1@@V$1"));
        for name in ["a,b", "f(int)", "a b", "a\x1b[0m", "x::y", "a+4"] {
            assert!(!can_be_written(name), "{name}");
        }
    }
}
