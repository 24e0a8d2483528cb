//! klog: the text that eBPF programs log into a channel, live.
//!
//! It runs any object that declares the channel `KLOG` and logs with `relay_ebpf::klog!`; the programs are attached where their
//! sections say. It knows lines of text and the time that each begins with.

use std::{collections::BTreeMap, io, sync::Arc};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, RawTracePoint, TracePoint},
};
use bytes::{Bytes, BytesMut};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use relay_common::{Counters, Geometry, Mode, Plain};
use tokio::sync::mpsc;

use crate::{
    channel::{self, Channel},
    output::{Content, Output},
    readers::Readers,
};

/// The channel that an object logs to.
const CHANNEL: &str = "KLOG";

/// Programs that log, and the readers of what they log.
///
/// ```no_run
/// use relay_common::Geometry;
/// use relay_channel::klog::Klog;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let mut klog = Klog::start(&std::fs::read("programs.o")?, Geometry::new(4096, 4)?)?;
/// std::process::Command::new("true").status()?;
/// print!("{}", String::from_utf8_lossy(&klog.next().await?.text));
/// let rest = klog.stop()?;
/// # anyhow::Ok(())
/// # })?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[expect(missing_debug_implementations, reason = "aya's maps have none")]
pub struct Klog {
    channel: Arc<Channel>,
    ebpf: Ebpf,
    readers: Readers,
    lines: mpsc::UnboundedReceiver<Lines>,
}

/// Lines of one CPU, in their order.
///
/// ```
/// use relay_channel::klog::Lines;
///
/// fn print(lines: &Lines) {
///     for line in String::from_utf8_lossy(&lines.text).lines() {
///         println!("cpu {}: {line}", lines.cpu);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Lines {
    /// Whose.
    pub cpu: u32,
    /// Whole lines, each with its end.
    pub text: Bytes,
}

impl Klog {
    /// Loads an object, attaches its programs, and starts to read.
    ///
    /// # Errors
    /// When the object is none that logs, or the kernel refuses it.
    pub fn start(object: &[u8], geometry: Geometry) -> Result<Self> {
        let channel = Arc::new(Channel::create(geometry, Mode::NoOverwrite, Plain)?);
        let mut ebpf = channel::load(object, &[(CHANNEL, &channel)], EbpfLoader::new())?;
        let (sender, lines) = mpsc::unbounded_channel();
        let output = move |cpu| {
            let output: Box<dyn Output> = Box::new(Sender { cpu, sender: sender.clone() });
            Ok(output)
        };
        let readers = Readers::start(Arc::clone(&channel), output)?;
        attach(&mut ebpf, object)?;
        Ok(Self { channel, ebpf, readers, lines })
    }

    /// The next lines that a CPU has logged.
    ///
    /// # Errors
    /// When a reader could not go on.
    pub async fn next(&mut self) -> Result<Lines> {
        tokio::select! {
            Some(lines) = self.lines.recv() => Ok(lines),
            cpu = self.readers.failed() => bail!("the reader of cpu {cpu} could not go on"),
        }
    }

    /// What every possible CPU has produced and lost so far.
    pub fn counters(&self) -> impl Iterator<Item = (u32, Counters)> {
        self.channel.possible().iter().filter_map(|&cpu| Some((cpu, self.channel.counters(cpu)?)))
    }

    /// Detaches the programs, and returns the lines that are left.
    ///
    /// # Errors
    /// When a buffer could not be read to its end.
    pub fn stop(self) -> Result<Vec<Lines>> {
        let Self { channel: _, ebpf, readers, mut lines } = self;
        drop(ebpf);
        readers.drain()?;
        let mut rest = Vec::new();
        while let Ok(lines) = lines.try_recv() {
            rest.push(lines);
        }
        Ok(rest)
    }
}

/// Sends a CPU's lines to whoever shows them.
struct Sender {
    cpu: u32,
    sender: mpsc::UnboundedSender<Lines>,
}

impl Output for Sender {
    fn append(&mut self, content: &Content<'_>) -> io::Result<()> {
        let mut text = BytesMut::new();
        content.copy_to(&mut text)?;
        // Nobody reads any more when the session is ending by an error.
        let _ = self.sender.send(Lines { cpu: self.cpu, text: text.freeze() });
        Ok(())
    }

    fn name(&self) -> String {
        format!("the lines of cpu {}", self.cpu)
    }
}

/// Attaches every program of an object where its section says: `tracepoint/CATEGORY/NAME` or `raw_tracepoint/NAME`.
fn attach(ebpf: &mut Ebpf, object: &[u8]) -> Result<()> {
    let places = places(object).context("reading the eBPF object")?;
    let mut attached = 0;
    for (name, program) in ebpf.programs_mut() {
        let Some(place) = places.get(name).and_then(|section| section.split_once('/')).map(|(_, place)| place) else {
            continue;
        };
        match program {
            Program::TracePoint(program) => attach_tracepoint(program, place),
            Program::RawTracePoint(program) => attach_raw_tracepoint(program, place),
            other => {
                bail!("klog attaches tracepoints and raw tracepoints; the program {name} is {:?}", other.prog_type())
            }
        }
        .with_context(|| format!("attaching the program {name} to {place}"))?;
        attached += 1;
    }
    if attached == 0 {
        bail!("no program of the eBPF object says where to attach it, as #[raw_tracepoint(tracepoint = \"…\")] does");
    }
    Ok(())
}

fn attach_tracepoint(program: &mut TracePoint, place: &str) -> Result<()> {
    let (category, name) = place.split_once('/').context("a tracepoint has a category and a name")?;
    program.load()?;
    program.attach(category, name)?;
    Ok(())
}

fn attach_raw_tracepoint(program: &mut RawTracePoint, place: &str) -> Result<()> {
    program.load()?;
    program.attach(place)?;
    Ok(())
}

/// The section of every function.
fn places(object: &[u8]) -> Result<BTreeMap<String, String>, object::Error> {
    let file = object::File::parse(object)?;
    let mut places = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text) {
        if let Some(index) = symbol.section_index() {
            places.insert(symbol.name()?.to_owned(), file.section_by_index(index)?.name()?.to_owned());
        }
    }
    Ok(places)
}
