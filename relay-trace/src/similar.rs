//! The names that are most like one that there is not.

/// How many near names an error offers.
const SUGGESTIONS: usize = 3;

/// `; did you mean …?` of the names that are most like another, or nothing.
pub fn did_you_mean<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut near: Vec<(f64, &str)> = names
        .filter(|name| name.len().abs_diff(wanted.len()) <= 8)
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by_key(|(_, name)| *name);
    let near: Vec<_> = near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}
