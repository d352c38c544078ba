//! What the programs say of watched processes as it happens.

use std::io;
use std::net::SocketAddr;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use jiff::Timestamp;
use sockleak_core::observed::State;
use sockleak_ebpf::WATCHED_SHARES_FILES;
use tokio::io::unix::AsyncFd;

use super::decode::{self, DecodeError};
use super::maps::{self, MapsError};
use super::translate;
use crate::clock::BootClock;
use crate::wait;

/// Something that a watched process did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub pid: u32,
    /// When, in boot-time nanoseconds.
    pub boottime: u64,
    /// The same moment on the wall clock.
    pub time: Timestamp,
    pub what: Change,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It made a child, which is watched from its first instruction on. With CLONE_FILES both have one fd table.
    Forked { child: u32, shares_files: bool },
    /// It became another program.
    Executed { comm: String },
    /// The exit hook saw it: its sockets are being closed.
    Exiting,
    /// It listened, connected, or closed or shut down a socket itself.
    Socket(SocketChange),
}

/// A change of a socket's state, made by its living owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketChange {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Port 0 before connect() has chosen one.
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    pub from: State,
    pub to: State,
}

impl Event {
    fn new(event: decode::Event, clock: &BootClock) -> Self {
        let (header, what) = match event {
            decode::Event::Fork(fork) => {
                let shares_files = fork.flags & WATCHED_SHARES_FILES != 0;
                let child = fork.child;
                (fork.header, Change::Forked { child, shares_files })
            }
            decode::Event::Exec(exec) => {
                let comm = translate::comm(&exec.comm);
                (exec.header, Change::Executed { comm })
            }
            decode::Event::Death(header) => (header, Change::Exiting),
            decode::Event::State(event) => {
                let (local, remote) = translate::event_addresses(&event);
                let change = SocketChange {
                    netns: event.netns,
                    local,
                    remote,
                    from: translate::state(event.from),
                    to: translate::state(event.to),
                };
                (event.header, Change::Socket(change))
            }
        };
        Self {
            pid: header.tgid,
            boottime: header.time,
            time: clock.timestamp(header.time).unwrap_or(Timestamp::UNIX_EPOCH),
            what,
        }
    }
}

/// The ring in which they wait.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    clock: BootClock,
}

impl Events {
    /// Takes the ring out of the loaded object.
    pub(crate) fn open(ebpf: &mut Ebpf) -> Result<Self, EventsError> {
        Ok(Self {
            ring: wait::readable(maps::take_ring(ebpf)?)?,
            clock: BootClock::sample(),
        })
    }

    /// Waits until something is in the ring. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// When the event loop has ended.
    pub async fn readable(&mut self) -> io::Result<()> {
        // What comes after this wakes again, and what is there is taken by the caller.
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Takes the next one. What is no event is told by the log, and passed over.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            let decoded: Result<_, DecodeError> = decode::event(&self.ring.get_mut().next()?);
            match decoded {
                Ok(event) => return Some(Event::new(event, &self.clock)),
                Err(error) => log::warn!("{error}"),
            }
        }
    }
}

/// The event ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error(transparent)]
    Maps(#[from] MapsError),
    #[error("cannot wait for the event ring: {0}")]
    Wait(#[from] io::Error),
}

/// What the programs warn of.
pub struct ProgramLog(AsyncFd<EbpfLogger<&'static dyn log::Log>>);

impl ProgramLog {
    /// Takes the log out of the loaded object; `None` where it has none.
    pub(crate) fn open(ebpf: &mut Ebpf) -> Option<Self> {
        let logger = EbpfLogger::init(ebpf).ok()?;
        wait::readable(logger).ok().map(Self)
    }

    /// Waits for warnings and gives them to the log.
    pub async fn forward(&mut self) {
        if let Ok(mut guard) = self.0.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
