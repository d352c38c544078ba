//! How connections ended.

use std::time::Duration;

use super::*;
use crate::observed::ResetSent;

#[test]
fn closing_side() {
    let id = AdviceId::ClosingSide;
    let died = |cause| {
        let mut evidence = server(true, false);
        evidence.death.as_mut().expect("it died").cause = cause;
        evidence
    };
    let signal = |signal| Cause::Signal {
        signal,
        core_dumped: false,
    };
    assert_eq!(count(died(signal(15)), id), Some(Fact::Count(1)));
    assert!(is_said(died(Cause::Exit { code: 0 }), id));
    assert!(!is_said(died(signal(11)), id), "a crash closes in no order");
    assert!(!is_said(died(signal(9)), id));

    let mut shut_down = server(true, false);
    shut_down.sockets[1].state_at_death = State::FinWait2;
    shut_down.sockets[1].transitions.clear();
    assert!(is_said(shut_down, id));

    let client = outgoing(40_000).build();
    let left = sighting(&client, State::TimeWait);
    let mut exited = with(vec![client], vec![left]);
    exited.death.as_mut().expect("it died").cause = Cause::Exit { code: 0 };
    assert!(!is_said(exited, id));
}

/// A connection that ended at once by a reset of this side.
fn reset(change: impl FnOnce(&mut Socket)) -> Evidence {
    let reset = socket(State::Established)
        .changes(&[(State::Established, State::Close)])
        .with(change);
    with(vec![reset.build()], Vec::new())
}

#[test]
fn unread_data_reset() {
    let id = AdviceId::UnreadDataReset;
    let unread = reset(|socket| {
        socket.reset_sent = Some(ResetSent {
            reason: Some(ResetReason::AbortOnClose),
        });
        socket.unread_bytes = 5;
    });
    let expected = vec![("sockets", Fact::Count(1)), ("unread_bytes", Fact::Count(5))];
    assert_eq!(grounds(unread.clone(), id), Some(expected));
    assert!(!is_said(unread, AdviceId::LingerZero));
    assert!(!is_said(server(true, false), id));
}

#[test]
fn linger_zero() {
    let id = AdviceId::LingerZero;
    let lingering = reset(|socket| {
        socket.reset_sent = Some(ResetSent {
            reason: Some(ResetReason::TcpState),
        });
        socket.linger = Some(Linger { seconds: 0 });
        socket.unacked_bytes = 7;
    });
    let expected = vec![("sockets", Fact::Count(1)), ("unsent_bytes", Fact::Count(7))];
    assert_eq!(grounds(lingering.clone(), id), Some(expected));
    assert!(!is_said(lingering, AdviceId::UnreadDataReset));
    let mut waiting = server(true, false);
    waiting.sockets[1].linger = Some(Linger { seconds: 5 });
    assert!(!is_said(waiting, id));
}

/// A connection in FIN_WAIT1 with that timer.
fn orphan(timer: Timer, retransmits: u8) -> Evidence {
    let (mut connection, mut left) = accepted(true, false, State::FinWait1);
    connection.unacked_bytes = 9;
    (left.timer, left.retransmits) = (timer, retransmits);
    left.rto = Some(Duration::from_millis(204));
    left.expires = Duration::from_millis(200);
    with(vec![connection], vec![left])
}

#[test]
fn unreachable_peer() {
    let id = AdviceId::UnreachablePeer;
    assert_eq!(count(orphan(Timer::Retransmit, 2), id), Some(Fact::Count(1)));
    assert!(!is_said(orphan(Timer::Retransmit, 0), id), "it may answer yet");
    assert!(!is_said(orphan(Timer::Persist, 0), id));
    assert!(!is_said(server(true, false), id));
}

#[test]
fn zero_window_orphan() {
    let id = AdviceId::ZeroWindowOrphan;
    let expected = vec![("sockets", Fact::Count(1)), ("unsent_bytes", Fact::Count(9))];
    assert_eq!(grounds(orphan(Timer::Persist, 0), id), Some(expected));
    assert!(!is_said(orphan(Timer::Retransmit, 2), id));
    assert!(!is_said(server(true, false), id));
}
