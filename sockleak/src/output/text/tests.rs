//! What a person reads.

use jiff::tz::TimeZone;
use proptest::prelude::*;
use sockleak_core::observed::{Lost, OpenSockets, State, WatchedProcess};
use sockleak_core::testing::{addr, at, evidence, process, sample, socket};
use sockleak_core::verdict::examine;

use super::*;

fn style() -> Style {
    Style {
        width: None,
        color: false,
        zone: TimeZone::UTC,
        verbose: false,
    }
}

type Printer<'a> = Text<&'a mut Vec<u8>, &'a mut Vec<u8>>;

/// What goes to the data writer and what to the status writer.
fn printed(style: Style, print: impl FnOnce(&mut Printer<'_>) -> io::Result<()>) -> (String, String) {
    let (mut data, mut status) = (Vec::new(), Vec::new());
    let mut text = Text::new(&mut data, LiveLine::new(&mut status, None), style);
    print(&mut text).expect("a Vec takes everything");
    let utf8 = |bytes| String::from_utf8(bytes).expect("text is UTF-8");
    (utf8(data), utf8(status))
}

fn report_text(report: &Report, style: Style) -> String {
    printed(style, |output| output.report(report)).0
}

#[test]
fn the_sample_report() {
    let text = report_text(&sample(), style());
    assert_eq!(text, include_str!("sample.txt"), "\n{text}");
}

#[test]
fn what_may_not_be_looked_into_is_not_called_free() {
    let listener = socket(State::Listen)
        .changes(&[(State::Listen, State::Close)])
        .with(|socket| socket.id.sk = 1)
        .build();
    let mut evidence = evidence(vec![listener], Vec::new());
    let closed = socket(State::Established).changes(&[(State::Established, State::FinWait1)]);
    evidence.closed_alive = vec![closed.build().into()];
    evidence.snapshots[0].sightings = None;
    evidence.snapshots[0].refused = Some("it needs CAP_SYS_ADMIN (sudo)".to_owned());
    let text = report_text(&examine(evidence), style());
    let expected = "\
orderd (pid 4242, 7 in its namespace): signal 11 (SEGV)
  /usr/bin/orderd, died 08:53:20 after 2 h 3 min

1 socket open when it died: 1 closed
  COUNT  LADDR      LPORT  RADDR  RPORT  STATE
      1  127.0.0.1   8080  -          -  closed
         a listener, closed with the process

while alive it left 1 socket in an unknown state from 127.0.0.1:8080
  COUNT  LADDR      LPORT  RADDR      RPORT  STATE
      1  127.0.0.1   8080  127.0.0.1      *  unknown

note: The network namespace net:[1] could not be looked into, so what is left in
      it is not known: it needs CAP_SYS_ADMIN (sudo).

1 socket: what became of it cannot be told
whether a restart can bind 127.0.0.1:8080 is not known: not everything that may
  have the port could be seen
";
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn a_process_without_sockets_left_nothing() {
    let text = report_text(&examine(evidence(Vec::new(), Vec::new())), style());
    let expected = "\
orderd (pid 4242, 7 in its namespace): signal 11 (SEGV)
  /usr/bin/orderd, died 08:53:20 after 2 h 3 min

no TCP socket was open when it died

nothing is left: every socket is free
";
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn what_cannot_be_told_is_not_called_free() {
    let mut evidence = evidence(vec![socket(State::Established).build()], Vec::new());
    evidence.lost = Lost {
        events: 1,
        inventory: 2,
        slots: 3,
    };
    let text = report_text(&examine(evidence), style());
    assert!(text.contains("note: 2 sockets more did not fit"), "{text}");
    assert!(
        text.contains("note: missed 1 kernel event: what became of 1 socket is unknown"),
        "{text}"
    );
    assert!(
        text.contains("\n3 sockets open when it died: 1 unknown, 2 not recorded\n"),
        "{text}"
    );
    assert!(
        text.ends_with("3 sockets: what became of them cannot be told\n"),
        "{text}"
    );
}

#[test]
fn what_was_not_looked_at_is_not_called_free() {
    let with = |lost| {
        let mut evidence = evidence(Vec::new(), Vec::new());
        evidence.lost = lost;
        report_text(&examine(evidence), style())
    };
    let not_recorded = with(Lost {
        inventory: 1,
        ..Lost::default()
    });
    for words in [
        "\n1 socket open when it died: 1 not recorded\n",
        "\n1 socket: what became of it cannot be told\n",
    ] {
        assert!(not_recorded.contains(words), "{not_recorded}");
    }
    let not_looked_at = with(Lost {
        slots: 64,
        ..Lost::default()
    });
    for words in [
        "\nno TCP socket was found when it died\n",
        "\nnote: 64 descriptors were not looked at",
        "\nnothing is left of what was looked at\n",
    ] {
        assert!(not_looked_at.contains(words), "{not_looked_at}");
    }
}

#[test]
fn a_pipe_gets_no_control_characters_and_a_terminal_gets_colours() {
    let plain = report_text(&sample(), style());
    assert!(
        !plain
            .chars()
            .any(|character| character.is_control() && character != '\n')
    );
    let mut colored = style();
    colored.color = true;
    let colored = report_text(&sample(), colored);
    assert!(colored.contains("\u{1b}["));
    assert!(
        !colored.contains("\u{1b}[2J"),
        "another process's name is escaped"
    );
}

/// A recording is a file that anybody may have written.
#[test]
fn what_could_not_be_seen_is_told_without_control_characters() {
    let problem = "\u{1b}[2J\nno member".to_owned();
    let mut report = sample();
    report.blind = vec![sockleak_core::observed::BlindSpot::FieldMissing { problem }];
    let text = report_text(&report, style());
    assert!(text.contains("no member"), "{text}");
    assert!(
        !text.contains('\u{1b}') && !text.contains("\nno member"),
        "{text}"
    );
}

#[test]
fn status_is_apart_from_data() {
    let process = |pid, target| WatchedProcess {
        pid,
        parent: 1,
        comm: "orderd\u{7}".into(),
        target,
    };
    let watch = Watching {
        time: at(0),
        processes: vec![process(4242, true), process(4243, false)],
        sockets: Some(OpenSockets {
            listeners: 1,
            connections: 1412,
        }),
        kernel: "6.12.107".into(),
        hooks: vec!["sched_process_exit".into(), "inet_sock_set_state".into()],
        hz: 250,
    };
    let uncounted = Watching {
        sockets: None,
        ..watch.clone()
    };
    let (data, status) = printed(style(), |output| {
        output.watch(&watch)?;
        output.watch(&uncounted)?;
        for processes in [0, 1] {
            output.lost(&Loss {
                time: at(0),
                events: 12,
                processes,
            })?;
        }
        output.notice(&Notice::Unread)?;
        output.status(&Status::Watching {
            processes: 1,
            sockets: Some(1),
        })?;
        output.finish()
    });
    assert_eq!(data, "");
    assert_eq!(
        status,
        "watching orderd\\x07 (pid 4242): 1 listener, 1,412 connections; kernel 6.12.107, 2 hooks\n\
         watching orderd\\x07 (pid 4242): open sockets could not be counted (see `sockleak check`); kernel 6.12.107, 2 \
         hooks\n\
         sockleak: 1 process could not be followed and will not be reported\n\
         sockleak: nothing reads stdout any more; the trace ends\n"
    );
}

#[test]
fn single_events_are_for_the_verbose() {
    let print = |output: &mut Printer<'_>| {
        output.process(&ProcessEvent {
            time: at(0),
            pid: 4242,
            comm: "orderd".into(),
            change: ProcessChange::Forked { child: 4243 },
        })?;
        output.transition(&SocketTransition {
            time: at(0),
            pid: 4242,
            comm: "orderd".into(),
            local: addr("10.0.0.7:40310"),
            remote: Some(addr("10.0.0.5:5432")),
            from: State::Established,
            to: State::FinWait1,
        })
    };
    assert_eq!(printed(style(), print).1, "");
    let mut verbose = style();
    verbose.verbose = true;
    assert_eq!(
        printed(verbose, print).1,
        "08:53:20 orderd (pid 4242) forked pid 4243\n\
         08:53:20 orderd (pid 4242) 10.0.0.7:40310 to 10.0.0.5:5432: ESTABLISHED to FIN_WAIT1\n"
    );
}

#[test]
fn a_closed_pipe_is_told_as_one() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut text = Text::new(Closed, LiveLine::new(io::sink(), None), style());
    let error = text.report(&sample()).expect_err("nobody reads it");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

proptest! {
    #[test]
    fn lines_fit_and_names_do_no_harm(width in 60usize..200, comm in any::<String>()) {
        let mut report = sample();
        report.process = process();
        report.process.comm = comm.chars().take(15).collect();
        let mut style = style();
        style.width = Some(width);
        let text = report_text(&report, style);
        for line in text.lines() {
            prop_assert!(!line.chars().any(char::is_control));
            // A name is never broken, and one of 15 characters may be 165 escaped.
            if !line.contains("pid 4242") && !line.contains('\\') {
                prop_assert!(line.chars().count() <= width, "{}", line);
            }
        }
    }
}
