//! Writes what was observed to a file, for `sockleak replay`.

use std::fs::File;
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
    progress: Progress,
    part: PathBuf,
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Recording,
    /// There is no room left.
    Cut,
    /// Something could not be written: whatever came after it could not be read.
    Broken,
    /// It has its end mark and its name.
    Finished,
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
        user_files::may_replace(path).with_context(failed)?;
        let mut part = name.to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        let header = text(&Line::Recording(header)).with_context(failed)?;
        let file = BufWriter::new(user_files::create(&part).with_context(failed)?);
        let mut writer = if path.extension().is_some_and(|extension| extension == "gz") {
            Writer::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Writer::Plain(file)
        };
        if let Err(error) = writer.write_all(&header).and_then(|()| writer.flush()) {
            // Nothing is in it yet for which an earlier recording should give way.
            let _ = user_files::remove(&part);
            return Err(error).with_context(failed);
        }
        Ok(Self {
            writer,
            encoder: Encoder::default(),
            left: LARGEST - END - header.len() as u64,
            progress: Progress::Recording,
            part,
            path: path.to_owned(),
        })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.left = self.left.saturating_sub(text.len() as u64);
        self.writer.write_all(text)
    }

    fn record(&mut self, observation: &Observation) -> io::Result<()> {
        let mut lines = Vec::new();
        for line in self.encoder.lines(observation) {
            lines.extend(text(&line)?);
            if lines.len() as u64 > self.left {
                self.progress = Progress::Cut;
                return Err(too_large());
            }
        }
        self.write(&lines)?;
        // Whatever ends this process, the deaths until then are in the file.
        match observation {
            Observation::Process(_) | Observation::Transition(_) => Ok(()),
            _ => self.writer.flush(),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let end = text(&self.encoder.end(self.progress == Progress::Cut))?;
        self.write(&end)?;
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
        if self.progress != Progress::Finished {
            let _ = self.writer.flush();
            // What is there is worth to be found, though it has no end mark.
            let _ = user_files::rename(&self.part, &self.path);
        }
    }
}

impl Sink for Recorder {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn observe(&mut self, observation: &Observation) -> io::Result<()> {
        match self.progress {
            Progress::Recording => {}
            Progress::Cut => return Err(too_large()),
            Progress::Broken | Progress::Finished => return Err(io::ErrorKind::WriteZero.into()),
        }
        let recorded = self.record(observation);
        if recorded.is_err() && self.progress == Progress::Recording {
            self.progress = Progress::Broken;
        }
        recorded
    }

    fn take(&mut self, _: &Event) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.progress == Progress::Broken {
            return Ok(());
        }
        let ended = self.end();
        self.progress = if ended.is_ok() {
            Progress::Finished
        } else {
            Progress::Broken
        };
        ended?;
        user_files::rename(&self.part, &self.path)
    }
}

fn too_large() -> Error {
    let told = format!("it has {} MiB, and what comes later is not in it", LARGEST >> 20);
    Error::new(io::ErrorKind::FileTooLarge, told)
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
