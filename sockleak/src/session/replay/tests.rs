use std::io::{Cursor, Write as _};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use sockleak_core::observed::{Loss, State};
use sockleak_core::testing::{at, evidence, sighting, socket};

use super::*;
use crate::sinks::{Recorder, Sink as _};

fn header() -> Header {
    Header {
        format: FORMAT,
        sockleak: "0.1.0".into(),
        ..Header::default()
    }
}

fn death() -> Observation {
    let closed = socket(State::Established).build();
    let seen = sighting(&closed, State::FinWait2);
    Observation::Dead(Box::new(evidence(vec![closed], vec![seen])))
}

fn lost() -> Observation {
    Observation::Lost(Loss {
        time: at(0),
        events: 1,
        processes: 0,
    })
}

/// A place for the recordings of one test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sockleak-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A recording of these, with its end mark if it was finished.
    fn record(&self, name: &str, observations: &[Observation], finished: bool) -> PathBuf {
        let path = self.0.join(name);
        let mut recorder = Recorder::create(&path, header()).unwrap();
        for observation in observations {
            recorder.observe(observation).unwrap();
        }
        if finished {
            recorder.finish().unwrap();
        }
        drop(recorder);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How many observations a recording has, and whether it is complete.
fn count(mut replay: Replay) -> Result<(usize, bool)> {
    let mut count = 0;
    while replay.read()?.is_some() {
        count += 1;
    }
    Ok((count, replay.is_complete()))
}

fn of_bytes(bytes: impl Into<Vec<u8>>) -> Result<(usize, bool)> {
    Replay::new(Cursor::new(bytes.into())).and_then(count)
}

fn error(bytes: impl Into<Vec<u8>>) -> String {
    let error = of_bytes(bytes).expect_err("it cannot be replayed");
    format!("{error:#}")
}

#[test]
fn what_was_recorded_is_read_again_compressed_or_not() {
    let folder = Folder::new("recorded");
    for name in ["plain", "packed.gz"] {
        let path = folder.record(name, &[death(), lost()], true);
        let replay = Replay::open(&path).unwrap();
        assert_eq!(replay.header(), &header());
        assert_eq!(count(replay).unwrap(), (2, true), "{name}");
        let packed = std::fs::read(&path).unwrap().starts_with(&GZIP);
        assert_eq!(packed, name == "packed.gz");
    }
}

#[test]
fn what_was_written_before_a_crash_is_there() {
    let folder = Folder::new("crash");
    for name in ["plain", "packed.gz"] {
        let path = folder.record(name, &[lost(), death()], false);
        assert_eq!(count(Replay::open(&path).unwrap()).unwrap(), (2, false), "{name}");
        let bytes = std::fs::read(&path).unwrap();
        // In the midst of the last line.
        let (found, complete) = of_bytes(&bytes[..bytes.len() - 40]).unwrap();
        assert!(found <= 1 && !complete, "{name}");
    }
}

#[test]
fn nobody_else_may_read_it_and_nothing_is_left_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("mode");
    let path = folder.record("file", &[lost()], true);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    let missing = folder.0.join("no/such/folder");
    let refused = Recorder::create(&missing, header())
        .err()
        .expect("there is no folder");
    assert!(
        format!("{refused:#}").starts_with("cannot record to "),
        "{refused:#}"
    );
}

#[test]
fn a_recording_has_an_end_in_size() {
    let folder = Folder::new("size");
    let path = folder.0.join("packed.gz");
    let mut recorder = Recorder::create(&path, header()).unwrap();
    let sockets: Vec<_> = (0..10_000).map(|_| socket(State::Established).build()).collect();
    let large = Observation::Dead(Box::new(evidence(sockets, Vec::new())));
    let mut written = 0;
    let refused = loop {
        match recorder.observe(&large) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000);
    };
    assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    assert!(recorder.observe(&large).is_err(), "what is missing is counted");
    recorder.finish().unwrap();
    drop(recorder);
    assert_eq!(count(Replay::open(&path).unwrap()).unwrap(), (written, false));
}

#[test]
fn only_a_regular_file_is_replaced() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("replaced");
    let target = folder.0.join("target");
    std::fs::write(&target, "precious").unwrap();
    let (link, inner) = (folder.0.join("link"), folder.0.join("inner"));
    symlink(&target, &link).unwrap();
    std::fs::create_dir(&inner).unwrap();
    for (path, kind) in [(&link, "a symbolic link"), (&inner, "a directory")] {
        let refused = Recorder::create(path, header()).err().expect("it is no file");
        assert!(format!("{refused:#}").contains(kind), "{refused:#}");
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    let path = folder.record("target", &[lost()], true);
    assert_eq!(count(Replay::open(&path).unwrap()).unwrap(), (1, true));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 3);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_unpacked() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(BEGINNING).unwrap();
    let zeros = vec![b'0'; 1 << 20];
    for _ in 0..=LARGEST >> 20 {
        gzip.write_all(&zeros).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(error(bomb).contains("larger than the 64 MiB"));
}

#[test]
fn what_is_no_recording_is_said() {
    assert!(error("").contains("it has no whole line"));
    assert!(error("{\"type\":\"report\"}\n").contains("it is no recording"));
    let first = |format: u32| {
        format!("{{\"recording\":{{\"format\":{format},\"sockleak\":\"9.1\\u001b\",\"new\":1}}}}\n")
    };
    assert_eq!(
        error(first(9)),
        "it has format 9, and this sockleak reads format 1: replay it with sockleak 9.1\u{1b}, which wrote it"
    );
    assert!(error(first(FORMAT)).contains("line 1 has something at column"));
    let header = serde_json::to_string(&Line::Recording(header())).unwrap();
    assert!(error(format!("{header}\nsecret\n")).ends_with("line 2 is no JSON at column 1"));
    assert!(error(format!("{header}\n{header}\n")).contains("begins another recording"));
    let miscounted = format!("{header}\n{{\"end\":{{\"observations\":3,\"cut\":false}}}}\n");
    assert!(error(miscounted).contains("counts 3 observations, and there are 0"));
}

proptest! {
    #[test]
    fn a_recording_of_anything_is_read_or_refused(place in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut lines = Vec::new();
        let mut encoder = sockleak_core::recording::Encoder::default();
        let observations = [death(), lost()];
        let all = std::iter::once(Line::Recording(header()))
            .chain(observations.iter().flat_map(|observation| encoder.lines(observation)))
            .collect::<Vec<_>>();
        for line in all {
            serde_json::to_writer(&mut lines, &line).unwrap();
            lines.push(b'\n');
        }
        let length = lines.len();
        lines[place.index(length)] = byte;
        lines.truncate(cut.index(length) + 1);
        let _ = of_bytes(lines);
    }
}
