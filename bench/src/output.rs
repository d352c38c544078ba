//! What a process writes, with the moment of each line.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::LIMIT;

/// As much as a pipe holds.
const PIPE: usize = 1 << 16;

/// A pipe that is read to its end.
pub struct Output {
    shared: Arc<(Mutex<Written>, Condvar)>,
}

/// What came so far.
#[derive(Default)]
pub struct Written {
    bytes: Vec<u8>,
    /// Where each line ends, behind its line feed, and when that was read.
    ends: Vec<(usize, Instant)>,
    /// There will be no more.
    pub ended: bool,
}

impl Written {
    /// Every line, with the moment at which its last byte was read.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], Instant)> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|(end, _)| *end));
        let lines = starts.zip(&self.ends);
        lines.map(|(start, (end, time))| (&self.bytes[start..*end], *time))
    }

    /// When the last line was read.
    pub fn last(&self) -> Option<Instant> {
        self.ends.last().map(|(_, time)| *time)
    }

    /// All of it, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Output {
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::default(), Condvar::new()));
        let written: Arc<(Mutex<Written>, Condvar)> = Arc::clone(&shared);
        thread::spawn(move || {
            let (written, changed) = &*written;
            let lock = || written.lock().unwrap_or_else(PoisonError::into_inner);
            let mut pipe = BufReader::with_capacity(PIPE, pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let time = Instant::now();
                let mut written = lock();
                written.bytes.append(&mut line);
                let end = written.bytes.len();
                written.ends.push((end, time));
                changed.notify_all();
            }
            lock().ended = true;
            changed.notify_all();
        });
        Self { shared }
    }

    /// Looks at what came so far.
    pub fn look<T>(&self, look: impl FnOnce(&Written) -> T) -> T {
        look(&self.shared.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until what came satisfies.
    ///
    /// # Errors
    /// When the output ends before, or it takes too long.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Written) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        let (written, changed) = &*self.shared;
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&written) {
                return Ok(found);
            }
            if written.ended || start.elapsed() >= LIMIT {
                bail!("there came no {what}, but only:\n{}", head(&written.text()));
            }
            let left = LIMIT.saturating_sub(start.elapsed());
            let waited = changed.wait_timeout(written, left);
            written = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nothing has come for that long.
    ///
    /// # Errors
    /// When there is always more.
    pub fn wait_for_silence(&self, silence: Duration) -> Result<()> {
        let start = Instant::now();
        crate::process::wait_until("silence", || {
            let last = self.look(Written::last).unwrap_or(start).max(start);
            Ok((last.elapsed() >= silence).then_some(()))
        })
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When somebody keeps the pipe open.
    pub fn wait_for_end(&self) -> Result<()> {
        self.wait("end of the output", |written| written.ended.then_some(()))
    }
}

/// What fits into a message.
fn head(text: &str) -> String {
    text.chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_and_waited_for() {
        let output = Output::of(&b"one\ntwo\nthree"[..]);
        output.wait_for_end().expect("it ends");
        output.look(|written| {
            let lines: Vec<_> = written.lines().map(|(line, _)| line).collect();
            assert_eq!(lines, [&b"one\n"[..], b"two\n", b"three"]);
        });
        let error = output.wait("fourth line", |_| None::<()>).expect_err("it ended");
        assert!(error.to_string().contains("fourth line"), "{error}");
    }
}
