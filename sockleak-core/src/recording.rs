//! A trace as it is kept: its observations, line by line, between a header and an end mark.
//!
//! What is recorded is what was observed, not what was said of it, so that today's rules judge it again.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observed::{Evidence, Loss, Observation, ProcessEvent, Snapshot, SocketTransition, Watching};

/// The format that is written. It grows when a reader of the format before could take a recording for something else.
pub const FORMAT: u32 = 1;

/// Bytes that a recording has at most, before compression.
pub const LARGEST: u64 = 64 << 20;

/// Where and how a recording was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    /// The version of sockleak that wrote it.
    pub sockleak: String,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`; `None` where it could not be read.
    pub boot_id: Option<String>,
    /// The wall clock when it was begun.
    pub time: Timestamp,
    /// The boot clock at that moment, in nanoseconds.
    pub boottime: u64,
    /// CONFIG_HZ.
    pub hz: u32,
    /// The time zone's name; `None` where the system has none.
    pub zone: Option<String>,
    /// How far that zone was ahead of UTC then, in seconds.
    pub utc_offset: i32,
    /// sockleak's own arguments. Of COMMAND only its name: its arguments may hold secrets.
    pub command_line: Vec<String>,
}

/// The end of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Observations before it.
    pub observations: u64,
    /// There were more, which found no room.
    pub cut: bool,
}

/// One line of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a> {
    Recording(Header),
    /// A look that the evidence of several deaths shares.
    Snapshot(Cow<'a, Snapshot>),
    Began(Cow<'a, Watching>),
    Process(Cow<'a, ProcessEvent>),
    Transition(Cow<'a, SocketTransition>),
    Dead(Recorded<'a>),
    Living(Recorded<'a>),
    Looked(Cow<'a, Snapshot>),
    Lost(Loss),
    Ended {
        time: Timestamp,
    },
    End(End),
}

/// Evidence, with the looks that it rests on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded<'a> {
    evidence: Cow<'a, Evidence>,
    snapshots: Vec<SnapshotKey>,
}

/// A snapshot that has a line of its own. No two looks at a namespace end at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct SnapshotKey {
    netns: u32,
    time: Timestamp,
}

impl SnapshotKey {
    const fn of(snapshot: &Snapshot) -> Self {
        Self {
            netns: snapshot.netns,
            time: snapshot.time,
        }
    }
}

/// Turns observations into lines.
#[derive(Debug, Default)]
pub struct Encoder {
    observations: u64,
    /// The latest of each namespace: no later evidence rests on earlier ones.
    written: Vec<SnapshotKey>,
}

impl Encoder {
    /// The lines of an observation: first those of the snapshots that it refers to and that have none yet.
    pub fn lines<'a>(&mut self, observation: &'a Observation) -> Vec<Line<'a>> {
        self.observations += 1;
        let mut lines = Vec::new();
        let line = match observation {
            Observation::Began(watching) => Line::Began(Cow::Borrowed(watching)),
            Observation::Process(event) => Line::Process(Cow::Borrowed(event)),
            Observation::Transition(transition) => Line::Transition(Cow::Borrowed(transition)),
            Observation::Dead(evidence) => Line::Dead(self.recorded(evidence, &mut lines)),
            Observation::Living(evidence) => Line::Living(self.recorded(evidence, &mut lines)),
            Observation::Looked(snapshot) => Line::Looked(Cow::Borrowed(snapshot)),
            Observation::Lost(loss) => Line::Lost(*loss),
            Observation::Ended { time } => Line::Ended { time: *time },
        };
        lines.push(line);
        lines
    }

    /// The end mark. `cut` says that further observations found no room.
    #[must_use]
    pub const fn end(&self, cut: bool) -> Line<'static> {
        Line::End(End {
            observations: if cut {
                self.observations.saturating_sub(1)
            } else {
                self.observations
            },
            cut,
        })
    }

    fn recorded<'a>(&mut self, evidence: &'a Evidence, lines: &mut Vec<Line<'a>>) -> Recorded<'a> {
        let keys: Vec<SnapshotKey> = evidence.snapshots.iter().map(SnapshotKey::of).collect();
        for (snapshot, key) in evidence.snapshots.iter().zip(&keys) {
            if !self.written.contains(key) {
                self.written.retain(|known| known.netns != key.netns);
                self.written.push(*key);
                lines.push(Line::Snapshot(Cow::Borrowed(snapshot)));
            }
        }
        Recorded {
            evidence: Cow::Borrowed(evidence),
            snapshots: keys,
        }
    }
}

/// A line that cannot be where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The first line is no header.
    NoHeader,
    /// There is a second header.
    SecondHeader,
    /// It is of a format that is not known, written by this version of sockleak.
    Format { format: u32, sockleak: String },
    /// Evidence refers to a snapshot that was not recorded.
    NoSnapshot,
    /// Evidence refers to two snapshots of one namespace: each costs time with every socket.
    SecondSnapshot,
    /// Something comes after the end mark.
    AfterEnd,
    /// The end mark counts so many observations, and there were so many.
    Count { told: u64, found: u64 },
}

/// Turns lines back into observations.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Option<Header>,
    snapshots: HashMap<SnapshotKey, Snapshot>,
    observations: u64,
    end: Option<End>,
}

impl Decoder {
    /// Takes a line; the observation, if it is one.
    ///
    /// # Errors
    /// When it cannot be where it is.
    pub fn take(&mut self, line: Line<'_>) -> Result<Option<Observation>, DecodeError> {
        if self.end.is_some() {
            return Err(DecodeError::AfterEnd);
        }
        if self.header.is_none() && !matches!(line, Line::Recording(_)) {
            return Err(DecodeError::NoHeader);
        }
        let observation = match line {
            Line::Recording(header) => return self.begin(header),
            Line::Snapshot(snapshot) => {
                self.snapshots
                    .insert(SnapshotKey::of(&snapshot), snapshot.into_owned());
                return Ok(None);
            }
            Line::End(end) => {
                if end.observations != self.observations {
                    return Err(DecodeError::Count {
                        told: end.observations,
                        found: self.observations,
                    });
                }
                self.end = Some(end);
                return Ok(None);
            }
            Line::Began(watching) => Observation::Began(watching.into_owned()),
            Line::Process(event) => Observation::Process(event.into_owned()),
            Line::Transition(transition) => Observation::Transition(transition.into_owned()),
            Line::Dead(recorded) => Observation::Dead(self.evidence(recorded)?),
            Line::Living(recorded) => Observation::Living(self.evidence(recorded)?),
            Line::Looked(snapshot) => Observation::Looked(Box::new(snapshot.into_owned())),
            Line::Lost(loss) => Observation::Lost(loss),
            Line::Ended { time } => Observation::Ended { time },
        };
        self.observations += 1;
        Ok(Some(observation))
    }

    /// The header, once it was taken.
    #[must_use]
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The end mark was taken, and it says that nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| !end.cut)
    }

    fn begin(&mut self, header: Header) -> Result<Option<Observation>, DecodeError> {
        if self.header.is_some() {
            return Err(DecodeError::SecondHeader);
        }
        if header.format != FORMAT {
            return Err(DecodeError::Format {
                format: header.format,
                sockleak: header.sockleak,
            });
        }
        self.header = Some(header);
        Ok(None)
    }

    fn evidence(&self, recorded: Recorded<'_>) -> Result<Box<Evidence>, DecodeError> {
        let mut evidence = recorded.evidence.into_owned();
        let mut namespaces = HashSet::new();
        for key in &recorded.snapshots {
            if !namespaces.insert(key.netns) {
                return Err(DecodeError::SecondSnapshot);
            }
            let snapshot = self.snapshots.get(key).ok_or(DecodeError::NoSnapshot)?;
            evidence.snapshots.push(snapshot.clone());
        }
        Ok(Box::new(evidence))
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
