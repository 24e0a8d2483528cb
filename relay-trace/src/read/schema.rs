//! What the bytes of a payload mean: the session's events, their fields, and what stands before every payload.

use anyhow::{Result, bail};
use relay_common::{recipe::FAULT, trace::COMMON_FIELDS};

use super::{
    packet::{Flaw, Record},
    print_format::PrintFormat,
    value::{Number, Value, unsigned, until_nul},
};
use crate::form::{
    format::{Field, FieldKind, Format},
    session::{SessionEvent, SessionFile},
};

/// Bytes before a tracepoint's own fields, which the kernel's formats count.
#[expect(clippy::cast_possible_truncation, reason = "8")]
const COMMON: usize = COMMON_FIELDS as usize;
/// Bytes of a thread's name.
const COMM: usize = 16;
/// Bytes of a frame of a user stack.
pub const USER_FRAME: usize = 32;

/// The events of a session.
#[derive(Debug)]
pub struct Schema {
    /// By id; ids without an event are `None`.
    events: Vec<Option<EventClass>>,
    context: ContextLayout,
}

/// An event.
#[derive(Debug)]
pub struct EventClass {
    /// In every record.
    pub id: u16,
    /// `category:name` of a tracepoint, `kind:…` of anything else.
    pub name: String,
    /// Its fields, in the order of memory.
    pub fields: Vec<Field>,
    /// How the kernel prints it, where that is known and says more than the fields' types.
    pub print_format: PrintFormat,
    /// Bytes of a payload's fixed part.
    fixed: usize,
}

/// A field of an event that is made here.
#[derive(Clone, Debug)]
pub struct OwnField {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Bytes.
    pub size: usize,
}

/// Which fields stand before every payload.
#[derive(Clone, Copy, Debug, Default)]
struct ContextLayout {
    cgroup: bool,
    comm: bool,
    uid: bool,
    stacks: bool,
    /// Bytes, without the stacks' frames.
    least: usize,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// The current task's cgroup: an inode number.
    pub cgroup: Option<u64>,
    /// The current thread's name, up to its NUL.
    pub comm: Option<&'a [u8]>,
    /// Its user.
    pub uid: Option<u32>,
    /// Addresses in the kernel, 8 bytes each, innermost first.
    pub kstack: &'a [u8],
    /// Frames in the process, [`USER_FRAME`] bytes each, innermost first.
    pub ustack: &'a [u8],
}

impl Schema {
    /// Takes the descriptions of a session's events apart. Those that are not understood are left out and named in `flaws`.
    ///
    /// # Errors
    /// When what stands before every payload is not known.
    pub fn new(session: &SessionFile, flaws: &mut Vec<String>) -> Result<Self> {
        let mut events: Vec<Option<EventClass>> = Vec::new();
        for described in &session.events {
            let index = usize::from(described.id);
            if events.len() <= index {
                events.resize_with(index + 1, || None);
            }
            match EventClass::new(described, &session.machine) {
                Ok(_) if events[index].is_some() => flaws.push(format!("two events have the id {}", described.id)),
                Ok(event) => events[index] = Some(event),
                Err(error) => flaws.push(format!("the description of the event {}: {error:#}", described.name)),
            }
        }
        let context = ContextLayout::new(&session.context)?;
        Ok(Self { events, context })
    }

    /// The event of an id.
    #[must_use]
    pub fn event(&self, id: u16) -> Option<&EventClass> {
        self.events.get(usize::from(id))?.as_ref()
    }

    /// All events.
    pub fn events(&self) -> impl Iterator<Item = &EventClass> {
        self.events.iter().flatten()
    }

    /// By id; ids without an event are `None`.
    pub fn by_id(&self) -> impl Iterator<Item = Option<&EventClass>> {
        self.events.iter().map(Option::as_ref)
    }

    /// One more than the highest id.
    #[must_use]
    pub fn ids(&self) -> usize {
        self.events.len()
    }

    /// Whether records have the name of their thread.
    #[must_use]
    pub fn has_comm(&self) -> bool {
        self.context.comm
    }

    /// A record's event, what stands before its payload, and the payload.
    ///
    /// # Errors
    /// When there is no such event, or the record is too short for it.
    #[inline]
    pub fn open<'a>(&self, record: &Record<'a>) -> Result<(&EventClass, Context<'a>, &'a [u8]), Flaw> {
        let event = self.event(record.id).ok_or(Flaw::Unknown(record.id))?;
        let (context, payload) = self.context.split(record.payload).unwrap_or_default();
        if payload.len() < event.fixed || record.payload.len() < self.context.least {
            let least = event.fixed + record.payload.len().saturating_sub(payload.len()).max(self.context.least);
            return Err(Flaw::TooShort { name: event.name.clone(), length: record.payload.len(), least });
        }
        Ok((event, context, payload))
    }
}

impl ContextLayout {
    fn new(names: &[String]) -> Result<Self> {
        let mut layout = Self::default();
        for name in names {
            match name.as_str() {
                "cgroup" => layout.cgroup = true,
                "comm" => layout.comm = true,
                "uid" => layout.uid = true,
                "kstack" | "ustack" => layout.stacks = true,
                other => bail!("records have a context '{other}', which this version of relayd does not know"),
            }
        }
        let part = |there, bytes| if there { bytes } else { 0 };
        layout.least = part(layout.cgroup, 8) + part(layout.comm, COMM) + part(layout.uid, 4) + part(layout.stacks, 4);
        Ok(layout)
    }

    /// What stands before the payload, and the payload; `None` when it is cut off.
    #[inline]
    fn split<'a>(&self, bytes: &'a [u8]) -> Option<(Context<'a>, &'a [u8])> {
        let mut context = Context::default();
        if self.least == 0 {
            return Some((context, bytes));
        }
        let mut rest = bytes;
        let mut take = |len: usize| {
            let (taken, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(taken)
        };
        if self.cgroup {
            context.cgroup = Some(unsigned(take(8)?));
        }
        if self.comm {
            context.comm = Some(until_nul(take(COMM)?));
        }
        if self.uid {
            context.uid = u32::try_from(unsigned(take(4)?)).ok();
        }
        if self.stacks {
            let lengths = take(4)?;
            let frames = |at: usize| usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
            context.kstack = take(8 * frames(0))?;
            context.ustack = take(USER_FRAME * frames(2))?;
        }
        Some((context, rest))
    }
}

impl EventClass {
    fn new(described: &SessionEvent, machine: &str) -> Result<Self> {
        let Format { fields, .. } = Format::parse(&described.format)?;
        let format = Format { id: 0, fields };
        let fixed = format.payload_size();
        if fixed != described.size {
            bail!("its fields take {fixed} bytes, and its size is {}", described.size);
        }
        let print_format = PrintFormat::of(&described.name, machine, &described.format, &format.fields);
        Ok(Self { id: described.id, name: described.name.clone(), fields: format.fields, print_format, fixed })
    }

    /// One that no session has, of integers.
    #[must_use]
    pub fn of(id: u16, name: String, fields: &[OwnField]) -> Self {
        let mut at = COMMON;
        let field = |own: &OwnField| {
            let bytes = at..at + own.size;
            at = bytes.end;
            Field { name: own.name.to_owned(), bytes, kind: own.kind.clone(), c_type: String::new() }
        };
        let fields = fields.iter().map(field).collect();
        Self { id, name, fields, print_format: PrintFormat::default(), fixed: at - COMMON }
    }

    /// This one, and after its fields those of another event, by other names. [`Self::join`] makes payloads.
    #[must_use]
    pub fn followed_by(mut self, other: &Self, names: Vec<String>) -> Self {
        let fields = other.fields.iter().zip(names).map(|(field, name)| Field {
            name,
            bytes: field.bytes.start + self.fixed..field.bytes.end + self.fixed,
            ..field.clone()
        });
        self.print_format = self.print_format.followed_by(self.fields.len(), &other.print_format);
        self.fields.extend(fields);
        self.fixed += other.fixed;
        self
    }

    /// One payload of the payloads of events that follow one another: first all fixed parts, then what is dynamic, of each as much as it says.
    #[must_use]
    pub fn join(parts: &[(&Self, &[u8])]) -> Vec<u8> {
        let fixed = parts.iter().flat_map(|(event, payload)| payload.get(..event.fixed).unwrap_or_default());
        let mut joined: Vec<u8> = fixed.copied().collect();
        for (event, payload) in parts {
            let end = joined.len() + event.dynamic_size(payload);
            joined.extend_from_slice(payload.get(event.fixed..).unwrap_or_default());
            joined.resize(end, 0);
        }
        joined
    }

    /// The index of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The values of a payload that [`Schema::open`] has found long enough, in the order of the fields.
    #[inline]
    pub fn values<'a>(&self, payload: &'a [u8]) -> impl Iterator<Item = (&Field, Value<'a>)> {
        let mut dynamic = self.fixed;
        self.fields.iter().map(move |field| {
            let bytes = fixed_bytes(field, payload);
            let value = match field.kind {
                FieldKind::Integer(element) => Value::Number(Number::new(element, bytes)),
                FieldKind::Array(element) => Value::array(element, bytes),
                FieldKind::Dynamic { element, .. } => {
                    let end = (dynamic + located(bytes)).min(payload.len());
                    let bytes = payload.get(dynamic..end).unwrap_or_default();
                    dynamic = end;
                    Value::array(element, bytes)
                }
            };
            (field, value)
        })
    }

    /// The value of one field.
    #[must_use]
    pub fn value<'a>(&self, index: usize, payload: &'a [u8]) -> Option<Value<'a>> {
        let field = self.fields.get(index)?;
        match field.kind {
            FieldKind::Integer(element) => Some(Value::Number(Number::new(element, fixed_bytes(field, payload)))),
            FieldKind::Array(element) => Some(Value::array(element, fixed_bytes(field, payload))),
            FieldKind::Dynamic { .. } => self.values(payload).nth(index).map(|(_, value)| value),
        }
    }

    /// Whether a field is a text that could not be read when the record was made.
    #[must_use]
    pub fn is_unreadable(&self, index: usize, payload: &[u8]) -> bool {
        let field = self.fields.get(index).filter(|field| matches!(field.kind, FieldKind::Dynamic { .. }));
        field.is_some_and(|field| {
            fixed_bytes(field, payload).first_chunk().is_some_and(|low| u64::from(u16::from_le_bytes(*low)) == FAULT)
        })
    }

    /// How far the lengths of the dynamic fields are from the length of the payload. Zero unless it is damaged.
    #[must_use]
    pub fn misfit(&self, payload: &[u8]) -> usize {
        payload.len().abs_diff(self.fixed + self.dynamic_size(payload))
    }

    /// Bytes of the dynamic fields, as their location words say.
    fn dynamic_size(&self, payload: &[u8]) -> usize {
        let dynamic = self.fields.iter().filter(|field| matches!(field.kind, FieldKind::Dynamic { .. }));
        dynamic.map(|field| located(fixed_bytes(field, payload))).sum()
    }
}

/// A field's bytes in the fixed part.
#[inline]
fn fixed_bytes<'a>(field: &Field, payload: &'a [u8]) -> &'a [u8] {
    payload.get(field.bytes.start - COMMON..field.bytes.end - COMMON).unwrap_or_default()
}

/// The length in a location word: its upper half.
fn located(word: &[u8]) -> usize {
    match word {
        [_, _, low, high] => usize::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    }
}
