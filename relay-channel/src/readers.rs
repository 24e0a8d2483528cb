//! librelay's main loop: a reader for every CPU, from the first record to the last, as CPUs come and go.
//!
//! What a reader does with its CPU is [`crate::consumer`]'s; here are the threads.

use std::{
    collections::BTreeMap,
    io::{self, PipeWriter},
    mem,
    sync::{Arc, Barrier, Mutex, PoisonError, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use relay_common::Mode;
use rustix::thread::{CpuSet, Pid};
use tokio::sync::{mpsc, watch};

use crate::{
    channel::Channel,
    consumer::{ConsumeError, Consumer, Statistics, Work},
    hotplug::Watch,
    machine::OnlineCpus,
    output::Output,
    snapshot::{Snapshot, snapshot},
    sys::run_ahead_of_tasks,
};

/// How often a snapshot tries to find an instant at which no writer is at work.
const SNAPSHOT_TRIES: u32 = 10_000;
/// How long it waits between two tries, after the first few.
const SNAPSHOT_PAUSE: Duration = Duration::from_micros(100);

/// Makes the output for a CPU.
type MakeOutput = dyn Fn(u32) -> Result<Box<dyn Output>> + Send + Sync;

/// The readers of a channel. In no-overwrite mode they read all the time; in overwrite mode they wait until [`Readers::stop`].
///
/// ```no_run
/// # use std::sync::Arc;
/// # use relay_common::{Geometry, Mode, Plain};
/// # use relay_channel::{channel::Channel, output::CpuFile, readers::Readers};
/// # let channel = Arc::new(Channel::create(Geometry::new(4096, 4)?, Mode::NoOverwrite, Plain)?);
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().to_path_buf();
/// let readers = Readers::start(Arc::clone(&channel), move |cpu| Ok(Box::new(CpuFile::create(&path, cpu)?)))?;
/// for (cpu, statistics) in readers.statistics() {
///     println!("cpu {cpu}: {statistics:?}");
/// }
/// let stopped = readers.stop()?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[expect(missing_debug_implementations, reason = "of threads there is little to show")]
pub struct Readers {
    team: Arc<Team>,
    stop: watch::Sender<bool>,
    watcher: (PipeWriter, JoinHandle<()>),
    failed: mpsc::UnboundedReceiver<u32>,
}

/// A reader that has stopped.
///
/// ```
/// use relay_channel::readers::Stopped;
///
/// /// Takes what is left, unless the reader had to give up.
/// fn drain(mut stopped: Stopped, channel: &relay_channel::channel::Channel) -> anyhow::Result<()> {
///     stopped.result?;
///     stopped.consumer.drain(channel)
/// }
/// ```
#[derive(Debug)]
pub struct Stopped {
    /// It can go on.
    pub consumer: Consumer,
    /// How it ended.
    pub result: Result<(), ConsumeError>,
}

struct Team {
    channel: Arc<Channel>,
    output: Box<MakeOutput>,
    readers: Mutex<BTreeMap<u32, Member>>,
    stop: watch::Receiver<bool>,
    failed: mpsc::UnboundedSender<u32>,
}

/// One CPU's reader.
struct Member {
    statistics: Arc<Statistics>,
    state: State,
}

enum State {
    Waiting(Consumer),
    Running { thread: JoinHandle<Stopped>, id: Option<Pid>, work: mpsc::UnboundedSender<Work> },
}

impl Readers {
    /// Starts a reader for every CPU that has a buffer, and gives every CPU that comes online a buffer and a reader.
    ///
    /// # Errors
    /// When an output cannot be made or a thread not be started.
    pub fn start(
        channel: Arc<Channel>,
        output: impl Fn(u32) -> Result<Box<dyn Output>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (failed_at, failed) = mpsc::unbounded_channel();
        let team = Arc::new(Team {
            channel,
            output: Box::new(output),
            readers: Mutex::default(),
            stop: stopped,
            failed: failed_at,
        });
        for buffer in team.channel.buffers() {
            team.add(buffer.cpu())?;
        }
        let watching = Arc::clone(&team);
        let list = OnlineCpus::open()?;
        let (mut watch, ender) = Watch::start().context("preparing to watch for CPUs that come online")?;
        let watcher = thread::Builder::new().name("relayd/hotplug".to_owned()).spawn(move || {
            let mut online: Vec<u32> = watching.channel.buffers().iter().map(|buffer| buffer.cpu()).collect();
            // At once: some may have come since the channel was made.
            let mut look_soon = !watching.look(&list, &mut online);
            while watch.wait(look_soon) {
                look_soon = !watching.look(&list, &mut online);
            }
        });
        let watcher = watcher.context("starting the thread that watches for CPUs that come online")?;
        Ok(Self { team, stop, watcher: (ender, watcher), failed })
    }

    /// What the reader of each CPU has done so far.
    #[must_use]
    pub fn statistics(&self) -> BTreeMap<u32, Arc<Statistics>> {
        self.team.members().iter().map(|(cpu, member)| (*cpu, Arc::clone(&member.statistics))).collect()
    }

    /// Has every reader do something with its consumer, on its own thread, between two passes; returns what came of it, by CPU. Readers
    /// that could not go on, and those that wait for the end, are left out.
    pub fn each<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Consumer) -> T + Clone + Send + 'static,
    ) -> BTreeMap<u32, T> {
        let (answer, answers) = std_mpsc::channel();
        for (&cpu, member) in &*self.team.members() {
            if let State::Running { work: to_do, .. } = &member.state {
                let (work, answer) = (work.clone(), answer.clone());
                // It has given up, or nobody waits any more: nothing comes of it.
                let _ = to_do.send(Box::new(move |consumer| {
                    let _ = answer.send((cpu, work(consumer)));
                }));
            }
        }
        drop(answer);
        answers.into_iter().collect()
    }

    /// Returns the CPU of the next reader that could not go on.
    pub async fn failed(&mut self) -> u32 {
        match self.failed.recv().await {
            Some(cpu) => cpu,
            // The team holds the other end.
            None => std::future::pending().await,
        }
    }

    /// Stops the readers and takes what is left, when the programs that wrote have been detached: every record is in the outputs then.
    ///
    /// ```no_run
    /// # fn stop(readers: relay_channel::readers::Readers, link: aya::programs::raw_trace_point::RawTracePointLink) -> anyhow::Result<()> {
    /// drop(link);
    /// for consumer in readers.drain()? {
    ///     println!("cpu {}: {:?}", consumer.buffer().cpu(), consumer.statistics());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When a reader had to give up, or could not be read to its end.
    pub fn drain(self) -> Result<Vec<Consumer>> {
        let channel = Arc::clone(&self.team.channel);
        channel.wait_for_running_programs()?;
        let drained = self.stop()?.into_iter().map(|mut stopped| {
            stopped.result?;
            stopped.consumer.drain(&channel)?;
            Ok(stopped.consumer)
        });
        drained.collect()
    }

    /// Stops the readers and returns them; in no-overwrite mode they have taken what was ready. What is left is the caller's: stop
    /// the writers, and have each consumer [`Consumer::drain`].
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(self) -> Result<Vec<Stopped>> {
        let (ender, watcher) = self.watcher;
        drop(ender);
        watcher.join().map_err(|_| anyhow!("the thread that watches for CPUs that come online panicked"))?;
        // Nobody is there to be told when every reader has failed.
        let _ = self.stop.send(true);
        let members = mem::take(&mut *self.team.members());
        let stopped = members.into_values().map(|member| match member.state {
            State::Waiting(consumer) => Ok(Stopped { consumer, result: Ok(()) }),
            State::Running { thread, .. } => thread.join().map_err(|_| anyhow!("a reader's thread panicked")),
        });
        stopped.collect()
    }
}

impl Team {
    fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Member>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a CPU that has a buffer a reader.
    fn add(&self, cpu: u32) -> Result<()> {
        let buffer = self.channel.buffer(cpu).with_context(|| format!("cpu {cpu} has no buffer"))?;
        let consumer = Consumer::new(buffer, self.channel.mode(), (self.output)(cpu)?);
        let statistics = consumer.statistics();
        let state = match self.channel.mode() {
            Mode::Overwrite => State::Waiting(consumer),
            Mode::NoOverwrite => self.run(consumer)?,
        };
        self.members().insert(cpu, Member { statistics, state });
        Ok(())
    }

    /// Starts a consumer on a thread that is pinned to its CPU: there it shares the cache with the writers, and takes its turn
    /// with them instead of racing them.
    fn run(&self, mut consumer: Consumer) -> Result<State> {
        let cpu = consumer.buffer().cpu();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .with_context(|| format!("starting the reader of cpu {cpu}"))?;
        let (channel, waker) = (Arc::clone(&self.channel), self.channel.waker(cpu)?);
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        let (tell_id, id) = std_mpsc::channel();
        let (work, to_do) = mpsc::unbounded_channel();
        let read = move || {
            let _ = tell_id.send(rustix::thread::gettid());
            run_on(cpu);
            let flush = move |cpu| {
                if let Err(error) = channel.flush(cpu) {
                    log::warn!("flushing cpu {cpu}: {error:#}");
                }
            };
            let result = runtime.block_on(consumer.run(waker, flush, to_do, stop));
            if result.is_err() {
                // Nobody listens any more when the session is ending already.
                let _ = failed.send(cpu);
            }
            Stopped { consumer, result }
        };
        let thread = thread::Builder::new().name(format!("relayd/cpu{cpu}")).spawn(read);
        let thread = thread.with_context(|| format!("starting the reader of cpu {cpu}"))?;
        Ok(State::Running { thread, id: id.recv().ok(), work })
    }

    /// Looks which CPUs have come online since they were `online`; false when one of them is to be looked at again soon.
    fn look(&self, list: &OnlineCpus, online: &mut Vec<u32>) -> bool {
        let now = match list.now() {
            Ok(now) => now,
            Err(error) => {
                log::warn!("looking for CPUs that come online: {error:#}");
                return true;
            }
        };
        online.retain(|cpu| now.contains(cpu));
        let mut all = true;
        for cpu in now {
            if online.contains(&cpu) {
                continue;
            }
            match self.come_online(cpu) {
                Ok(()) => {
                    log::info!("cpu {cpu} has come online");
                    online.push(cpu);
                }
                Err(error) => {
                    // It may not run tasks yet.
                    log::debug!("cpu {cpu} has come online: {error:#}");
                    all = false;
                }
            }
        }
        all
    }

    fn come_online(&self, cpu: u32) -> Result<()> {
        if self.channel.buffer(cpu).is_none() {
            self.channel.add_buffers(&[cpu])?;
        }
        let running = self.members().get(&cpu).map(|member| match member.state {
            State::Running { id, .. } => id,
            State::Waiting(_) => None,
        });
        match running {
            None => self.add(cpu),
            // It was here before. Its reader was moved to another CPU when it went.
            Some(Some(id)) => pin(Some(id), cpu).with_context(|| format!("pinning the reader of cpu {cpu} to it")),
            Some(None) => Ok(()),
        }
    }
}

/// Makes the calling thread run on a CPU, before ordinary tasks. The writers' tasks may be many: while a reader waits for its
/// turn among them, records are lost. It sleeps as soon as it has caught up, and while it runs here they do not.
fn run_on(cpu: u32) {
    if let Err(error) = pin(None, cpu) {
        log::warn!("the reader of cpu {cpu} is not pinned to it: {error}");
    }
    if let Err(error) = run_ahead_of_tasks() {
        log::warn!("the reader of cpu {cpu} runs at ordinary priority, and may fall behind: {error}");
    }
}

fn pin(thread: Option<Pid>, cpu: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    Ok(rustix::thread::sched_setaffinity(thread, &set)?)
}

/// Flushes the buffers of a channel in overwrite mode and copies what they hold, each from its own CPU, while programs write to
/// them. `begin` is called on each CPU when the threads of all are there, before its buffer is flushed.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use relay_common::{Geometry, Mode, Plain};
/// # use relay_channel::{channel::Channel, output::{CpuFile, Output}, readers::snapshot_all};
/// # let channel = Arc::new(Channel::create(Geometry::new(4096, 4)?, Mode::Overwrite, Plain)?);
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().to_path_buf();
/// let output = |cpu| Ok(Box::new(CpuFile::create(&path, cpu)?) as Box<dyn Output>);
/// let snapshots = snapshot_all(&channel, || {}, output)?;
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// When an output cannot be made or written, a buffer is corrupt, or a writer stays at work for a second.
pub fn snapshot_all(
    channel: &Channel,
    begin: impl Fn() + Sync,
    output: impl Fn(u32) -> Result<Box<dyn Output>> + Sync,
) -> Result<BTreeMap<u32, Snapshot>> {
    let buffers = channel.buffers();
    let all_are_there = Barrier::new(buffers.len());
    let take = |cpu: u32| -> Result<Snapshot> {
        run_on(cpu);
        let buffer = channel.buffer(cpu).with_context(|| format!("cpu {cpu} has no buffer"));
        let ready = buffer.and_then(|buffer| Ok((buffer, output(cpu)?)));
        // Whatever has become of it: the others wait.
        all_are_there.wait();
        let (buffer, mut output) = ready?;
        begin();
        channel.flush(cpu)?;
        for attempt in 0..SNAPSHOT_TRIES {
            if let Some(snapshot) = snapshot(&buffer, &mut *output)? {
                return Ok(snapshot);
            }
            if attempt > SNAPSHOT_TRIES / 10 {
                thread::sleep(SNAPSHOT_PAUSE);
            }
        }
        Err(anyhow!("writers have been at work on cpu {cpu} for a second without a pause"))
    };
    thread::scope(|scope| {
        let start = |cpu| {
            (
                cpu,
                scope.spawn({
                    let take = &take;
                    move || take(cpu)
                }),
            )
        };
        let threads: Vec<_> = buffers.iter().map(|buffer| start(buffer.cpu())).collect();
        let join = |(cpu, thread): (u32, thread::ScopedJoinHandle<'_, Result<Snapshot>>)| {
            Ok((cpu, thread.join().map_err(|_| anyhow!("a snapshot's thread panicked"))??))
        };
        threads.into_iter().map(join).collect()
    })
}
