//! A recording as a source of observations.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use serde_json::error::Category;
use sockleak_core::observed::Observation;
use sockleak_core::recording::{DecodeError, Decoder, FORMAT, Header, LARGEST, Line};
use sockleak_kernel::user_files;

/// What a recording begins with.
const BEGINNING: &[u8] = br#"{"recording":"#;
/// What a compressed file begins with (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A recording that is being read.
pub struct Replay {
    input: io::Take<Box<dyn BufRead>>,
    decoder: Decoder,
    header: Header,
    /// The number of the last line.
    line: u64,
}

impl Replay {
    /// What begins so is a recording, or may be a compressed one.
    #[must_use]
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(BEGINNING) || bytes.starts_with(&GZIP)
    }

    /// Opens a recording.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        user_files::open(path)
            .map_err(anyhow::Error::from)
            .and_then(|file| Self::new(BufReader::new(file)))
            .with_context(|| format!("{} cannot be replayed", path.display()))
    }

    /// Begins to read a recording, which may be compressed.
    ///
    /// # Errors
    /// When its first line is no header, or one of a format that is not known.
    pub fn new(input: impl BufRead + 'static) -> Result<Self> {
        let mut replay = Self {
            input: unpacked(input)?.take(LARGEST + 1),
            decoder: Decoder::default(),
            header: Header::default(),
            line: 0,
        };
        if let Some(line) = replay.read_line()? {
            replay.take(&line)?;
        }
        let Some(header) = replay.decoder.header() else {
            bail!("it has no whole line: `sockleak trace --record FILE` writes recordings");
        };
        replay.header = header.clone();
        Ok(replay)
    }

    /// Where and how it was made.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next observation; `None` at the end.
    ///
    /// # Errors
    /// When a line is none of a recording, or there is too much of it.
    pub fn read(&mut self) -> Result<Option<Observation>> {
        while let Some(line) = self.read_line()? {
            if let Some(observation) = self.take(&line)? {
                return Ok(Some(observation));
            }
        }
        Ok(None)
    }

    /// Its end mark was read, and says that nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    /// A whole line. The last one of a recording that was cut may be a part of one, and counts as none.
    fn read_line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        match self.input.read_until(b'\n', &mut line) {
            // A compressed recording that was cut breaks off within a block.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        ensure!(
            self.input.limit() > 0,
            "it is larger than the {} MiB that a recording has",
            LARGEST >> 20
        );
        self.line += 1;
        Ok((line.last() == Some(&b'\n')).then_some(line))
    }

    /// What is wrong is said without a word of the line: who runs sockleak by sudo may not be allowed to read it.
    fn take(&mut self, line: &[u8]) -> Result<Option<Observation>> {
        let number = self.line;
        let is_first = self.decoder.header().is_none();
        ensure!(
            !is_first || line.starts_with(BEGINNING),
            "it is no recording: `sockleak trace --record FILE` writes them"
        );
        if is_first {
            refuse_other_formats(line)?;
        }
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| {
            let column = error.column();
            match error.classify() {
                Category::Data => {
                    anyhow!("line {number} has something at column {column} that no recording has there")
                }
                _ => anyhow!("line {number} is no JSON at column {column}"),
            }
        })?;
        self.decoder.take(line).map_err(|error| match error {
            DecodeError::NoHeader => {
                anyhow!("line {number} stands where the header of a recording should be")
            }
            DecodeError::SecondHeader => {
                anyhow!("line {number} begins another recording: replay one at a time")
            }
            DecodeError::Format { format, sockleak } => other_format(format, &sockleak),
            DecodeError::NoSnapshot => anyhow!("line {number} refers to a look that is not in the recording"),
            DecodeError::SecondSnapshot => {
                anyhow!("line {number} refers to two looks at one network namespace")
            }
            DecodeError::AfterEnd => anyhow!("line {number} comes after the end mark"),
            DecodeError::Count { told, found } => {
                anyhow!("the end mark in line {number} counts {told} observations, and there are {found}")
            }
        })
    }
}

/// The header of another format may have other members, so only these two are read.
fn refuse_other_formats(line: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct First {
        recording: Known,
    }
    #[derive(serde::Deserialize)]
    struct Known {
        format: u32,
        sockleak: String,
    }
    match serde_json::from_slice::<First>(line) {
        Ok(first) if first.recording.format != FORMAT => {
            Err(other_format(first.recording.format, &first.recording.sockleak))
        }
        _ => Ok(()),
    }
}

fn other_format(format: u32, sockleak: &str) -> anyhow::Error {
    anyhow!(
        "it has format {format}, and this sockleak reads format {FORMAT}: replay it with sockleak {sockleak}, which wrote it"
    )
}

/// What is in a file, whether or not it is compressed.
fn unpacked(mut input: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    Ok(if input.fill_buf()?.starts_with(&GZIP) {
        Box::new(BufReader::new(MultiGzDecoder::new(input)))
    } else {
        Box::new(input)
    })
}

#[cfg(test)]
mod tests;
