//! When to look which CPUs are online: when the kernel announces that one has come or gone.
//!
//! What is done then is [`crate::readers`]'. The kernel tells every network namespace of the initial user namespace (lib/kobject_uevent.c,
//! `uevent_net_init`), so that this works in a container too; elsewhere nothing is heard, and CPUs are looked for once a second.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
    net::{
        AddressFamily, SocketFlags, SocketType, bind,
        netlink::{KOBJECT_UEVENT, SocketAddrNetlink},
        socket_with,
    },
};

/// How often to look where nothing is announced, and when a CPU is there and cannot run tasks yet. A CPU that is new to the session
/// loses its events until it has been seen.
const OFTEN: Duration = Duration::from_millis(20);
/// How often to look all the same: nothing may be announced here.
const NOW_AND_THEN: Duration = Duration::from_secs(1);
/// The kernel's own announcements; the other group is udev's.
const KERNEL: u32 = 1;
/// So many are read before it is looked.
const MOST_AT_ONCE: u32 = 1000;

/// Waits for announcements, until it is told to end.
pub(crate) struct Watch {
    announcements: Option<OwnedFd>,
    end: PipeReader,
}

impl Watch {
    /// Listens from now on, until what is returned with it is dropped.
    pub(crate) fn start() -> io::Result<(Self, PipeWriter)> {
        let (end, ender) = io::pipe()?;
        let announcements = listen();
        if let Err(error) = &announcements {
            log::debug!("the kernel's announcements cannot be listened to ({error}): looking for CPUs every {OFTEN:?}");
        }
        Ok((Self { announcements: announcements.ok(), end }, ender))
    }

    /// Returns when it may be time to look, soon if need be; false when it is time to end.
    pub(crate) fn wait(&mut self, soon: bool) -> bool {
        let mut fds = vec![PollFd::new(&self.end, PollFlags::empty())];
        fds.extend(self.announcements.as_ref().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let pause = if soon || self.announcements.is_none() { OFTEN } else { NOW_AND_THEN };
        let polled = poll(&mut fds, Timespec::try_from(pause).ok().as_ref());
        // The other end of the pipe is gone.
        let has_ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        if self.announcements.as_ref().is_some_and(|socket| !drain(socket)) {
            self.announcements = None;
        }
        match polled {
            Ok(_) | Err(Errno::INTR) => !has_ended,
            Err(error) => {
                log::warn!("CPUs that come online are not looked for any more: {error}");
                false
            }
        }
    }
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

/// Reads whatever was announced, of any device: the list of CPUs says what is so. False when that cannot be read.
fn drain(socket: &OwnedFd) -> bool {
    let mut announcement = [0; 64];
    for _ in 0..MOST_AT_ONCE {
        match read(socket.as_fd(), &mut announcement) {
            // Some had no room.
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(error) => return error == Errno::AGAIN,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    #[test]
    fn a_watch_ends_at_once_when_it_is_told_to() {
        let (mut watch, ender) = Watch::start().unwrap();
        let start = Instant::now();
        let waiting = thread::spawn(move || while watch.wait(false) {});
        thread::sleep(OFTEN);
        drop(ender);
        waiting.join().unwrap();
        assert!(start.elapsed() < NOW_AND_THEN, "{:?}", start.elapsed());
    }

    #[test]
    fn where_nothing_is_announced_it_looks_often() {
        let (end, _ender) = io::pipe().unwrap();
        let mut watch = Watch { announcements: None, end };
        let start = Instant::now();
        assert!(watch.wait(false));
        assert!(start.elapsed() >= OFTEN && start.elapsed() < NOW_AND_THEN, "{:?}", start.elapsed());
    }
}
