//! The lines that a process writes, each waited for with a limit.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::limit::limit;

/// Lines of a pipe. Bytes that are no UTF-8 are replaced.
pub struct Lines {
    coming: Receiver<String>,
    seen: Arc<Mutex<String>>,
}

impl Lines {
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, coming) = mpsc::channel();
        let seen = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&seen);
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                writer.lock().unwrap().push_str(&text);
                // A test that does not care for the rest has dropped the receiver.
                let _ = sender.send(text.trim_end_matches('\n').to_owned());
                line.clear();
            }
        });
        Self { coming, seen }
    }

    /// The next line, or `None` at the end of the pipe and when none comes within the limit.
    pub fn next(&self) -> Option<String> {
        self.coming.recv_timeout(limit()).ok()
    }

    /// Everything up to the end of the pipe.
    #[must_use]
    pub fn all(&self) -> String {
        while self.next().is_some() {}
        self.so_far()
    }

    /// Everything that was written so far, for a failure's message.
    #[must_use]
    pub fn so_far(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}
