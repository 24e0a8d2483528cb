//! The signals that end this process.

use std::{future, process, thread, time::Duration};

use anyhow::{Context as _, Result};
use relay_trace::form::new;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

/// Ends after so much time; never without one.
pub(crate) async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => future::pending().await,
    }
}

/// SIGINT, SIGTERM and SIGHUP.
pub(crate) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone; unless that was to be ignored, as `nohup` has it.
    hangup: Option<Signal>,
}

impl Ending {
    /// From now on they end nothing by themselves.
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            hangup: if ignores_hangup() {
                None
            } else {
                Some(signal(SignalKind::hangup()).context("listening for SIGHUP")?)
            },
        })
    }

    /// Waits for one of them.
    pub(crate) async fn next(&mut self) -> SignalKind {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            () = hung_up => SignalKind::hangup(),
        }
    }

    /// Waits for SIGINT alone.
    pub(crate) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}

fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & 1 != 0)
}

/// From now on such a signal ends this process only when what it is making is removed.
pub(crate) fn leave_nothing_behind() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    let mut ending = {
        let _entered = runtime.enter();
        Ending::listen()?
    };
    thread::spawn(move || {
        let signal = runtime.block_on(ending.next());
        new::abandon();
        // As a shell tells that a signal has ended it.
        process::exit(128 + signal.as_raw_value());
    });
    Ok(())
}
