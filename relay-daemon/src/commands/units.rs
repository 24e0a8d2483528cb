//! Numbers as people read them.

/// How the numbers of a field are shown.
pub(crate) fn unit(name: &str) -> fn(f64) -> String {
    if name.ends_with("_ns") { nanoseconds } else { plain }
}

fn plain(number: f64) -> String {
    scaled(number, 1024.0, &["", "K", "M", "G", "T", "P", "E"])
}

pub(crate) fn nanoseconds(time: f64) -> String {
    scaled(time, 1000.0, &["ns", "us", "ms", "s"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if number < step {
            break;
        }
        number /= step;
        unit = next;
    }
    if number.fract() == 0.0 || number >= 100.0 { format!("{number:.0}{unit}") } else { format!("{number:.1}{unit}") }
}

pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

/// A size as -b takes it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}
