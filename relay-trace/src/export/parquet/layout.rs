//! Which columns each file has.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use super::{COMMON, Columns, LOST, Sort};
use crate::{
    answers::span::Spans,
    form::format::{Display, Field, FieldKind},
    read::{schema::EventClass, trace::Trace},
};

/// What each file has.
pub(super) struct Layouts {
    pub(super) columns: BTreeMap<String, Columns>,
    /// Of spans, whose ends may be different events: which file has those of a trace and an id.
    pub(super) spans: BTreeMap<(usize, u16), String>,
}

impl Layouts {
    /// Traces whose event has the same name must agree on its fields.
    pub(super) fn new(traces: &[Trace], spans: Option<&Spans<'_>>) -> Result<Self> {
        let Common { common, lost } = Common::new(traces);
        let of =
            |event: &EventClass| common.iter().cloned().chain(event.fields.iter().map(column)).collect::<Columns>();
        let mut columns = BTreeMap::from([(LOST.to_owned(), lost)]);
        for trace in traces {
            for event in trace.schema.events() {
                let wanted = of(event);
                let known = columns.entry(event.name.clone()).or_insert_with(|| wanted.clone());
                if *known != wanted {
                    return Err(anyhow!(
                        "{}: {} has other fields than in another trace; export them apart",
                        trace.path.display(),
                        event.name
                    ));
                }
            }
        }
        let mut files = BTreeMap::new();
        for (trace, event) in spans.into_iter().flat_map(Spans::events) {
            let wanted = of(event);
            let numbered = (2..).map(|number| format!("{}\0{number}", event.name));
            let mut all = std::iter::once(event.name.clone()).chain(numbered);
            let fits = |name: &String| columns.get(name).is_none_or(|columns: &Columns| *columns == wanted);
            let name = all.find(fits).unwrap_or_default();
            columns.insert(name.clone(), wanted);
            files.insert((trace, event.id), name);
        }
        Ok(Self { columns, spans: files })
    }
}

/// The columns of every event, and those of losses.
struct Common {
    common: Columns,
    lost: Columns,
}

impl Common {
    fn new(traces: &[Trace]) -> Self {
        const NUMBER: Sort = Sort::Integer { bits: 32, signed: true };
        const ADDRESSES: Sort = Sort::List { signed: false };
        const WIDE: Sort = Sort::Integer { bits: 64, signed: true };
        let named = |columns: &[(&str, Sort)]| -> Columns {
            columns.iter().map(|(name, sort)| ((*name).to_owned(), *sort)).collect()
        };
        let has = |name: &str| traces.iter().any(|trace| trace.session.context.iter().any(|context| context == name));
        let place = named(&[("time", WIDE), ("wall", Sort::Wall), ("host", Sort::Text), ("cpu", NUMBER)]);
        let lost = [place.clone(), named(&[("since", WIDE), ("records", WIDE), ("subbufs", WIDE)])].concat();
        let unsigned = Sort::Integer { bits: 64, signed: false };
        let contexts = [
            ("cgroup", unsigned),
            ("cgroup_path", Sort::Text),
            ("uid", unsigned),
            ("kstack", ADDRESSES),
            ("ustack", ADDRESSES),
        ];
        let contexts = contexts.into_iter().filter(|(name, _)| has(name) || *name == "cgroup_path" && has("cgroup"));
        let thread = named(&[("pid", NUMBER), ("tid", NUMBER), ("comm", Sort::Text)]);
        Self { common: [place, thread, named(&contexts.collect::<Vec<_>>())].concat(), lost }
    }
}

fn column(field: &Field) -> (String, Sort) {
    let name = &field.name;
    let name = if COMMON.contains(&name.as_str()) { format!("field_{name}") } else { name.clone() };
    let bits = |size: usize| i8::try_from(size * 8).unwrap_or(64);
    let sort = match field.kind {
        FieldKind::Integer(element) => Sort::Integer { bits: bits(element.size), signed: element.signed },
        FieldKind::Array(element) | FieldKind::Dynamic { element, .. }
            if matches!(element.display, Display::Text | Display::Texts) =>
        {
            Sort::Text
        }
        FieldKind::Array(element) | FieldKind::Dynamic { element, .. } => Sort::List { signed: element.signed },
    };
    (name, sort)
}
