//! The names that are most like one that does not exist.

/// How many near names an error offers.
pub const SUGGESTIONS: usize = 3;
/// Longer names are not compared: it takes long, and nobody types them.
const LONGEST: usize = 128;
/// Names whose lengths differ by more are not compared.
const DIFFERENCE: usize = 8;
/// The likeness (Jaro-Winkler) above which a name is near.
const LIKENESS: f64 = 0.85;

/// Of some things those whose names are most like a name or pattern, the nearest first, at most [`SUGGESTIONS`].
pub fn nearest<'a, T: Copy + Ord>(
    wanted: &str,
    things: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> &'a str,
) -> Vec<T> {
    let wanted: String = wanted.chars().filter(|character| !matches!(character, '*' | '?' | '[' | ']')).collect();
    if wanted.len() > LONGEST {
        return Vec::new();
    }
    let compared = things.into_iter().filter(|thing| name(*thing).len().abs_diff(wanted.len()) <= DIFFERENCE);
    let likenesses = compared.map(|thing| (strsim::jaro_winkler(&wanted, name(thing)), thing));
    let mut near: Vec<_> = likenesses.filter(|(likeness, _)| *likeness > LIKENESS).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    near.dedup_by_key(|(_, thing)| *thing);
    near.into_iter().take(SUGGESTIONS).map(|(_, thing)| thing).collect()
}

/// `; did you mean …?` of the names that are most like another, or nothing.
pub fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    offer(&nearest(wanted, names, |name| name))
}

/// `; did you mean …?` of names, or nothing.
pub fn offer(near: &[impl AsRef<str>]) -> String {
    let near: Vec<_> = near.iter().map(AsRef::as_ref).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_offered_once_each() {
        let names = ["vfs_read", "vfs_write", "vfs_read", "vfs_readv", "vfs_lock_file", "vfs_readlink"];
        assert_eq!(did_you_mean("vfs_raed*", names), "; did you mean vfs_read, vfs_readv, vfs_readlink?");
        assert_eq!(did_you_mean("nothing_like_it", names), "");
        assert_eq!(did_you_mean(&"v".repeat(200), names), "");
    }
}
