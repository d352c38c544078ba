//! Writes what was observed to a file, for `sockleak replay`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Error, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use sockleak_core::event::Event;
use sockleak_core::observed::Observation;
use sockleak_core::recording::{Encoder, Header, LARGEST, Line};
use sockleak_kernel::user_files;

use super::Sink;

/// Room for the end mark.
const END: u64 = 1024;

/// A recording that is being written. It has its name when it is finished or dropped; until then one that says that it is
/// not.
pub struct Recorder {
    writer: Writer,
    encoder: Encoder,
    /// Bytes that are left before compression.
    left: u64,
    /// There is no room left.
    is_cut: bool,
    /// It has its end mark.
    is_finished: bool,
    part: PathBuf,
    path: PathBuf,
}

enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Recorder {
    /// Begins a recording; it is compressed if the name ends in `.gz`.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn create(path: &Path, header: Header) -> Result<Self> {
        let failed = || format!("cannot record to {}", path.display());
        let name = path
            .file_name()
            .with_context(|| format!("{}: it names no file", failed()))?;
        let mut part = name.to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        let file = BufWriter::new(user_files::create(&part).with_context(failed)?);
        let writer = if path.extension().is_some_and(|extension| extension == "gz") {
            Writer::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Writer::Plain(file)
        };
        let mut recorder = Self {
            writer,
            encoder: Encoder::default(),
            left: LARGEST - END,
            is_cut: false,
            is_finished: false,
            part,
            path: path.to_owned(),
        };
        let header = text(&Line::Recording(header)).with_context(failed)?;
        recorder.write(&header).with_context(failed)?;
        recorder.writer.flush().with_context(failed)?;
        Ok(recorder)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.left = self.left.saturating_sub(text.len() as u64);
        self.writer.write_all(text)
    }

    fn end(&mut self) -> io::Result<()> {
        let end = text(&self.encoder.end(self.is_cut))?;
        self.write(&end)?;
        self.is_finished = true;
        match &mut self.writer {
            Writer::Plain(file) => file.flush(),
            Writer::Gzip(gzip) => {
                gzip.try_finish()?;
                gzip.get_mut().flush()
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.writer.flush();
        }
        // What is there is worth to be found, with or without its end mark.
        let _ = fs::rename(&self.part, &self.path);
    }
}

impl Sink for Recorder {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn observe(&mut self, observation: &Observation) -> io::Result<()> {
        if self.is_cut {
            return Ok(());
        }
        let mut lines = Vec::new();
        for line in self.encoder.lines(observation) {
            lines.extend(text(&line)?);
            if lines.len() as u64 > self.left {
                self.is_cut = true;
                let told = format!("it has {} MiB, and what comes later is not in it", LARGEST >> 20);
                return Err(Error::new(io::ErrorKind::FileTooLarge, told));
            }
        }
        self.write(&lines)?;
        // Whatever ends this process, the deaths until then are in the file.
        match observation {
            Observation::Process(_) | Observation::Transition(_) => Ok(()),
            _ => self.writer.flush(),
        }
    }

    fn take(&mut self, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end()
    }
}

fn text(line: &Line<'_>) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(gzip) => gzip.flush(),
        }
    }
}
