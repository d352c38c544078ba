//! Signals that end a trace.

use std::io::{self, Write as _};
use std::process;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sockleak_kernel::{spawn, terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::wait_status::exit_code;

/// The time that the main thread has to end by itself, once a second signal has come.
const PATIENCE: Duration = Duration::from_secs(1);

/// COMMAND's PID, and what is said if it is left alone.
type LastWords = Arc<OnceLock<(u32, String)>>;

/// SIGINT, SIGTERM and SIGHUP, as they arrive. A thread of its own takes them, because the main one may be stuck in a
/// write that nobody reads.
pub struct Interrupts {
    received: UnboundedReceiver<i32>,
    /// How many of them [`Interrupts::next`] gave, but for SIGHUP: with that a service is told to read its
    /// configuration, any number of times.
    seen: usize,
    /// The number of the last one; 0 before.
    last: i32,
    last_words: LastWords,
}

impl Interrupts {
    /// Takes these signals from now on. SIGHUP is left as it is if the caller, such as nohup(1), ignores it.
    ///
    /// # Errors
    /// When the kernel refuses the handlers or the thread.
    pub fn new() -> Result<Self> {
        let (sender, received) = unbounded_channel();
        let (ready, is_ready) = sync_channel(1);
        let last_words = Arc::new(OnceLock::new());
        let words = Arc::clone(&last_words);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            runtime.block_on(async {
                let mut signals = match Signals::new() {
                    Ok(signals) => signals,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                drop(ready.send(Ok(())));
                let mut seen = 0;
                loop {
                    let signal = signals.next().await.as_raw_value();
                    // Nobody listens any more when the trace has ended.
                    let _ = sender.send(signal);
                    seen += counted(signal);
                    if seen > 1 {
                        tokio::time::sleep(PATIENCE).await;
                        give_up(signal, &words);
                    }
                }
            });
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(run)
            .context("cannot start the thread that waits for signals")?;
        is_ready
            .recv()
            .context("the thread that waits for signals ended")??;
        Ok(Self {
            received,
            seen: 0,
            last: 0,
            last_words,
        })
    }

    /// What is said on stderr if the thread has to end the process while COMMAND runs.
    pub fn leave_words(&self, command: u32, words: String) {
        // There is one COMMAND.
        let _ = self.last_words.set((command, words));
    }

    /// The user insists on the end.
    pub const fn is_second(&self) -> bool {
        self.seen > 1
    }

    /// The exit status of a process that the last one ends.
    pub const fn exit_code(&self) -> u8 {
        128 + self.last as u8
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        match self.received.recv().await {
            Some(signal) => {
                self.seen += counted(signal);
                self.last = signal;
                signal
            }
            // The thread ends with the process only.
            None => std::future::pending().await,
        }
    }
}

const fn counted(signal: i32) -> usize {
    if signal == SignalKind::hangup().as_raw_value() {
        0
    } else {
        1
    }
}

/// Ends the process although the main thread is stuck, with the status of COMMAND if that has ended. Stderr may be what
/// the main thread is stuck in.
fn give_up(signal: i32, words: &LastWords) -> ! {
    const A_WRITE: Duration = Duration::from_millis(100);
    let mut status = None;
    if let Some((command, _)) = words.get() {
        match spawn::peek(*command) {
            Ok(None) => {
                let words = Arc::clone(words);
                let (told, is_told) = sync_channel(1);
                thread::spawn(move || {
                    if let Some((_, words)) = words.get() {
                        let _ = writeln!(io::stderr(), "{words}");
                    }
                    let _ = told.send(());
                });
                let _ = is_told.recv_timeout(A_WRITE);
            }
            Ok(ended) => status = ended,
            // It was reaped already.
            Err(_) => {}
        }
    }
    process::exit(status.map_or(128 + signal, |status| exit_code(status).into()))
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self> {
        let hangup = (!terminal::ignores_hangup())
            .then(|| signal(SignalKind::hangup()))
            .transpose();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            hangup: hangup.context("cannot wait for SIGHUP")?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            () = hung_up(self.hangup.as_mut()) => SignalKind::hangup(),
        }
    }
}

async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}
