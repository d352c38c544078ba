use super::*;
use crate::observed::{Death, Evidence, Process, Socket, State, WatchedProcess};
use crate::testing::{at, evidence, sighting, socket};
use crate::verdict::{Summary, examine};

const MASTER: u32 = 100;

/// A master and its workers, of which somebody watches all.
fn family(workers: &[u32]) -> Incidents {
    let process = |pid, parent| WatchedProcess {
        pid,
        parent,
        comm: "orderd".into(),
        target: pid == MASTER,
    };
    let mut processes = vec![process(MASTER, 1)];
    processes.extend(workers.iter().map(|&pid| process(pid, MASTER)));
    let mut incidents = Incidents::default();
    incidents.watching(&Watching {
        time: at(0),
        processes,
        sockets: None,
        kernel: String::new(),
        hooks: Vec::new(),
        hz: 250,
    });
    incidents
}

/// The death of a process with these sockets, at so many milliseconds.
fn death(pid: u32, millis: i64, sockets: Vec<Socket>) -> Report {
    let evidence = evidence(sockets, Vec::new());
    examine(Evidence {
        time: at(millis + 50),
        process: Process::unknown(pid),
        death: Some(Death {
            time: at(millis),
            ..evidence.death.clone().unwrap()
        }),
        ..evidence
    })
}

/// It dies, and that is all there is of it.
fn dies(incidents: &mut Incidents, pid: u32, millis: i64) -> (Incident, Option<Incident>) {
    let mut report = death(pid, millis, Vec::new());
    let incident = incidents.died(&mut report).pop().expect("it is part of one");
    assert_eq!(report.incident, Some(incident.id));
    (incident, incidents.ended(pid, report.time))
}

#[test]
fn the_deaths_of_a_family_are_one_incident() {
    let mut incidents = family(&[101, 102]);
    let (opened, closed) = dies(&mut incidents, 101, 0);
    assert_eq!((opened.phase, closed.is_none()), (Phase::Opened, true));
    let (changed, _) = dies(&mut incidents, 102, 9_000);
    assert_eq!((changed.phase, changed.id), (Phase::Changed, opened.id));
    assert_eq!(changed.processes.len(), 1, "only who came new");
    let (_, closed) = dies(&mut incidents, MASTER, 9_500);
    let closed = closed.expect("nobody of the family lives");
    let parts: Vec<_> = closed
        .processes
        .iter()
        .map(|part| (part.pid, part.role))
        .collect();
    assert_eq!(
        parts,
        [(101, Role::Child), (102, Role::Child), (MASTER, Role::Main)]
    );
    assert_eq!((closed.phase, closed.opened), (Phase::Closed, at(0)));
    assert_eq!(closed.closed, Some(at(9_550)));
}

#[test]
fn ten_quiet_seconds_end_it() {
    let mut incidents = family(&[101, 102]);
    let (first, _) = dies(&mut incidents, 101, 0);
    assert_eq!(incidents.due(), Some(at(12_050)));
    assert!(
        incidents.advance(at(12_049)).is_empty(),
        "a death of before may be told late"
    );
    let closed = incidents.advance(at(12_050));
    assert_eq!(closed[0].closed, Some(at(10_000)), "it was over then");
    assert_eq!(incidents.due(), None);
    let (second, _) = dies(&mut incidents, 102, 12_000);
    assert_ne!(second.id, first.id);
}

#[test]
fn a_parent_may_have_a_larger_pid_than_its_child() {
    let mut incidents = Incidents::default();
    let process = |pid, parent| WatchedProcess {
        pid,
        parent,
        comm: "orderd".into(),
        target: pid == MASTER,
    };
    incidents.watching(&Watching {
        time: at(0),
        // The targets first, and then by PID, as a trace has them.
        processes: vec![process(MASTER, 1), process(101, 300), process(300, MASTER)],
        sockets: None,
        kernel: String::new(),
        hooks: Vec::new(),
        hz: 250,
    });
    let (grandchild, closed) = dies(&mut incidents, 101, 0);
    assert_eq!(
        (grandchild.processes[0].role, closed.is_none()),
        (Role::Child, true)
    );
}

#[test]
fn a_death_may_have_any_moment() {
    let mut incidents = family(&[101]);
    let mut report = death(MASTER, 0, Vec::new());
    report.death.as_mut().unwrap().time = Timestamp::MAX;
    incidents.died(&mut report);
    assert_eq!(incidents.due(), Some(Timestamp::MAX));
}

#[test]
fn a_death_belongs_to_the_incident_that_was_open_then() {
    let mut incidents = family(&[101, 102, 103]);
    let (first, _) = dies(&mut incidents, 101, 0);
    assert!(incidents.advance(at(11_000)).is_empty());
    let (late, _) = dies(&mut incidents, 102, 9_900);
    assert_eq!(late.id, first.id, "it is told at 11 s");
    // Nothing asked for the time meanwhile.
    let after = incidents.died(&mut death(103, 25_000, Vec::new()));
    let told: Vec<_> = after
        .iter()
        .map(|incident| (incident.phase, incident.closed))
        .collect();
    assert_eq!(told, [(Phase::Closed, Some(at(19_900))), (Phase::Opened, None)]);
}

#[test]
fn survivors_of_the_main_process_keep_it_open() {
    let mut incidents = family(&[101]);
    dies(&mut incidents, MASTER, 0);
    assert_eq!(incidents.due(), Some(at(92_050)));
    let (_, closed) = dies(&mut incidents, 101, 60_000);
    assert_eq!(closed.map(|incident| incident.processes.len()), Some(2));

    let mut incidents = family(&[101]);
    dies(&mut incidents, MASTER, 0);
    assert_eq!(incidents.advance(at(92_050)).len(), 1, "but not for ever");
}

#[test]
fn a_silent_end_closes_it_and_does_not_prolong_it() {
    let mut incidents = family(&[101]);
    dies(&mut incidents, MASTER, 0);
    let ended = |pid, millis| ProcessEvent {
        time: at(millis),
        pid,
        comm: String::new(),
        change: ProcessChange::Ended,
    };
    let forked = ProcessEvent {
        change: ProcessChange::Forked { child: 102 },
        ..ended(101, 1_000)
    };
    assert!(incidents.changed(&forked).is_none());
    assert!(incidents.changed(&ended(101, 2_000)).is_none(), "its child lives");
    let closed = incidents.changed(&ended(102, 3_000)).expect("nobody is left");
    assert_eq!((closed.closed, closed.processes.len()), (Some(at(3_000)), 1));
}

#[test]
fn families_have_their_own() {
    let mut incidents = family(&[101]);
    let (own, _) = dies(&mut incidents, 101, 0);
    let (other, closed) = dies(&mut incidents, 700, 1_000);
    assert_ne!(own.id, other.id);
    assert_eq!(closed.map(|incident| incident.id), Some(other.id));
    assert_eq!(incidents.finish(at(2_000)).len(), 1);
}

#[test]
fn a_socket_that_two_had_is_counted_once() {
    let shared = || {
        let mut listener = socket(State::Listen).build();
        listener.references = Some(3);
        listener
    };
    let held = |pid, millis| {
        let listener = shared();
        let mut seen = sighting(&listener, State::Listen);
        seen.inode = 70;
        let evidence = evidence(vec![listener], vec![seen]);
        let mut report = death(pid, millis, Vec::new());
        report.sockets = examine(evidence).sockets;
        report.summary = Summary::of(&report.sockets);
        report
    };
    let mut incidents = family(&[101, 102]);
    let first = incidents.died(&mut held(101, 0)).remove(0);
    assert_eq!(first.summary.held, 1);
    let second = incidents.died(&mut held(102, 10)).remove(0);
    assert_eq!(second.summary.held, 1, "it is the same listener");
    let closing = shared();
    let changes = [(State::Listen, State::Close)];
    let closed = socket(State::Listen)
        .changes(&changes)
        .with(|socket| socket.inode = closing.inode);
    let last = incidents
        .died(&mut death(MASTER, 20, vec![closed.build()]))
        .remove(0);
    assert_eq!((last.summary.held, last.summary.total()), (0, 1));
}

/// They die together: whoever dies last has it for itself, and may be reported first.
#[test]
fn a_socket_that_all_had_who_are_dead_is_counted_once() {
    let report = |pid: u32, references| {
        let listener = socket(State::Listen)
            .changes(&[(State::Listen, State::Close)])
            .with(|socket| (socket.inode, socket.references) = (Some(77), Some(references)));
        let own = socket(State::Listen)
            .changes(&[(State::Listen, State::Close)])
            .with(|socket| socket.inode = Some(pid.into()));
        death(pid, 0, vec![listener.build(), own.build()])
    };
    let mut incidents = family(&[101, 102]);
    incidents.died(&mut report(MASTER, 1));
    incidents.died(&mut report(101, 3));
    let last = incidents.died(&mut report(102, 2)).remove(0);
    assert_eq!((last.summary.closed, last.summary.total()), (4, 4));
}

#[test]
fn reports_may_come_long_after_the_deaths() {
    let mut incidents = family(&[101, 102]);
    let late = |incidents: &mut Incidents, pid, millis: i64| {
        let mut report = death(pid, millis, Vec::new());
        report.time = at(millis + 15_000);
        let over = incidents.advance(report.time);
        assert!(over.is_empty(), "{over:?}");
        incidents.died(&mut report).remove(0).phase
    };
    assert_eq!(late(&mut incidents, 101, 0), Phase::Opened);
    assert_eq!(late(&mut incidents, 102, 9_900), Phase::Changed);
}

#[test]
fn more_than_can_be_named_are_counted() {
    let mut incidents = family(&[]);
    for child in 0..202 {
        let fork = ProcessEvent {
            time: at(0),
            pid: MASTER,
            comm: String::new(),
            change: ProcessChange::Forked { child: 1_000 + child },
        };
        incidents.changed(&fork);
        dies(&mut incidents, 1_000 + child, i64::from(child));
    }
    let closed = incidents.finish(at(2_000)).remove(0);
    assert_eq!((closed.processes.len(), closed.unnamed), (200, 2));
}

#[test]
fn an_id_is_short_and_the_same_again() {
    let id = |pid| IncidentId::of(pid, at(0)).to_string();
    assert_eq!(id(7), id(7));
    assert_ne!(id(7), id(8));
    let told = id(7);
    assert!(told.len() == 7 && told.starts_with('i'), "{told}");
}
