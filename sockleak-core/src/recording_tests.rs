use super::*;
use crate::observed::{Holding, Relation, Socket, State};
use crate::testing::{at, evidence, sighting, socket};
use crate::verdict::examine;

fn header() -> Header {
    Header {
        format: FORMAT,
        sockleak: "0.1.0".into(),
        kernel: "6.12.0".into(),
        boot_id: None,
        time: at(0),
        boottime: 7,
        hz: 250,
        zone: Some("UTC".into()),
        utc_offset: 0,
        command_line: vec!["sockleak".into()],
    }
}

/// A death with a connection that is left and a listener that somebody holds.
fn death() -> Evidence {
    let changes = [
        (State::Established, State::FinWait1),
        (State::FinWait1, State::FinWait2),
        (State::FinWait2, State::Close),
    ];
    let closed: Socket = socket(State::Established).changes(&changes).build();
    let listener = socket(State::Listen)
        .with(|listener| {
            (listener.cookie, listener.inode, listener.references) = (Some(8), Some(80), Some(2));
            listener.fds[0] = 4;
        })
        .build();
    let sightings = vec![
        sighting(&closed, State::FinWait2),
        sighting(&listener, State::Listen),
    ];
    let mut evidence = evidence(vec![closed, listener], sightings);
    evidence.holdings.push(Holding {
        inode: 80,
        pid: 4243,
        comm: "helper".into(),
        fd: 4,
        relation: Relation::Family,
    });
    evidence
}

/// The lines of these observations as text, without header.
fn written(observations: &[Observation]) -> Vec<String> {
    let mut encoder = Encoder::default();
    let mut text = Vec::new();
    for observation in observations {
        for line in encoder.lines(observation) {
            text.push(serde_json::to_string(&line).unwrap());
        }
    }
    text.push(serde_json::to_string(&encoder.end(false)).unwrap());
    text
}

fn read(decoder: &mut Decoder, text: &str) -> Result<Option<Observation>, DecodeError> {
    decoder.take(serde_json::from_str(text).unwrap())
}

fn begun() -> Decoder {
    let mut decoder = Decoder::default();
    assert!(matches!(decoder.take(Line::Recording(header())), Ok(None)));
    decoder
}

#[test]
fn what_was_recorded_is_judged_as_what_was_seen() {
    let seen = death();
    let mut decoder = begun();
    let mut found = Vec::new();
    for line in written(&[Observation::Dead(Box::new(seen.clone()))]) {
        found.extend(read(&mut decoder, &line).unwrap());
    }
    let [Observation::Dead(recorded)] = &found[..] else {
        panic!("{found:?}")
    };
    let (one, other) = (examine(*recorded.clone()), examine(seen));
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    assert!(decoder.is_complete());
}

#[test]
fn a_look_that_several_deaths_share_is_written_once() {
    let second = Evidence {
        process: crate::observed::Process::unknown(7),
        ..death()
    };
    let mut later = death();
    later.snapshots[0].time = at(5_000);
    let text = written(&[
        Observation::Dead(Box::new(death())),
        Observation::Dead(Box::new(second)),
        Observation::Living(Box::new(later)),
    ]);
    let looks = text.iter().filter(|line| line.starts_with(r#"{"snapshot""#));
    assert_eq!(looks.count(), 2);
    let mut decoder = begun();
    let found: Vec<_> = text
        .iter()
        .filter_map(|line| read(&mut decoder, line).unwrap())
        .collect();
    assert_eq!(found.len(), 3);
}

#[test]
fn a_cut_recording_is_known() {
    let lost = Observation::Lost(Loss {
        time: at(0),
        events: 1,
        processes: 0,
    });
    let text = written(&[lost]);
    let mut decoder = begun();
    assert!(read(&mut decoder, &text[0]).unwrap().is_some());
    assert!(!decoder.is_complete(), "there is no end mark");
    assert_eq!(
        read(&mut begun(), &text[1]).unwrap_err(),
        DecodeError::Count { told: 1, found: 0 }
    );
    let mut encoder = Encoder::default();
    let observation = Observation::Ended { time: at(0) };
    let _ = encoder.lines(&observation);
    let mut decoder = begun();
    decoder.take(encoder.end(true)).unwrap();
    assert!(
        !decoder.is_complete(),
        "the end mark says that something is missing"
    );
    assert_eq!(read(&mut decoder, &text[0]).unwrap_err(), DecodeError::AfterEnd);
}

#[test]
fn lines_that_cannot_be_there_are_refused() {
    let text = written(&[Observation::Dead(Box::new(death()))]);
    assert_eq!(
        read(&mut Decoder::default(), &text[0]).unwrap_err(),
        DecodeError::NoHeader
    );
    assert_eq!(read(&mut begun(), &text[1]).unwrap_err(), DecodeError::NoSnapshot);
    assert_eq!(
        begun().take(Line::Recording(header())).unwrap_err(),
        DecodeError::SecondHeader
    );
    let later = Header {
        format: FORMAT + 1,
        ..header()
    };
    let refused = DecodeError::Format {
        format: FORMAT + 1,
        sockleak: "0.1.0".into(),
    };
    assert_eq!(
        Decoder::default().take(Line::Recording(later)).unwrap_err(),
        refused
    );
}
