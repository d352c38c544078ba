//! The truth table of crashes, row by row, and that no evidence is without a verdict.

use proptest::prelude::*;

use super::*;
use crate::observed::ResetSent;
use crate::observed::{ResetReceived, Snapshot, Transition};
use crate::testing::{SocketBuilder, at, sighting, snapshot, socket};
use State::{Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynSent, TimeWait};

fn gone(socket: SocketBuilder) -> (Outcome, Why) {
    decide(&socket.build(), Sight::Gone, &[], false)
}

fn seen(socket: SocketBuilder, state: State) -> (Outcome, Why) {
    let socket = socket.build();
    decide(
        &socket,
        Sight::Seen(&snapshot(Vec::new()), &sighting(&socket, state)),
        &[],
        false,
    )
}

fn reset_sent(socket: SocketBuilder, reason: Option<ResetReason>) -> SocketBuilder {
    socket.with(|socket| socket.reset_sent = Some(ResetSent { reason }))
}

fn reset_received(socket: SocketBuilder, state: State) -> SocketBuilder {
    socket.with(|socket| socket.reset_received = Some(ResetReceived { state }))
}

fn linger_zero(socket: SocketBuilder) -> SocketBuilder {
    socket.with(|socket| socket.linger = Some(Linger { seconds: 0 }))
}

const ACTIVE: [(State, State); 3] = [(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, Close)];

#[test]
fn idle_peer_leaves_a_fin_wait2_and_a_closing_one_a_time_wait() {
    let closed = socket(Established).changes(&ACTIVE);
    assert_eq!(
        seen(closed.clone(), FinWait2),
        (Outcome::FinWait2, Why::ClosedByKernel)
    );
    assert_eq!(seen(closed, TimeWait), (Outcome::TimeWait, Why::ClosedByKernel));
    let at_once =
        socket(Established).changes(&[(Established, FinWait1), (FinWait1, Closing), (Closing, Close)]);
    assert_eq!(seen(at_once, TimeWait), (Outcome::TimeWait, Why::ClosedByKernel));
}

#[test]
fn shutdown_before_the_crash_is_told() {
    let shut = socket(FinWait2).changes(&[(FinWait2, Close)]);
    assert_eq!(seen(shut, FinWait2), (Outcome::FinWait2, Why::ShutdownBefore));
    assert_eq!(
        seen(socket(Close), TimeWait),
        (Outcome::TimeWait, Why::ShutdownBefore)
    );
}

#[test]
fn a_missing_time_wait_is_gone_for_a_reason_nobody_saw() {
    assert_eq!(
        gone(socket(Established).changes(&ACTIVE)),
        (Outcome::Closed, Why::Unknown)
    );
}

#[test]
fn unread_data_resets() {
    let aborted = socket(Established).changes(&[(Established, Close)]);
    let reason = Some(ResetReason::AbortOnClose);
    assert_eq!(
        gone(reset_sent(aborted.clone(), reason)),
        (Outcome::Reset, Why::UnreadData)
    );
    assert_eq!(
        gone(reset_sent(aborted.clone(), None)),
        (Outcome::Reset, Why::UnreadData)
    );
    let unread = aborted.with(|socket| socket.unread_bytes = 5);
    assert_eq!(
        gone(unread.clone()),
        (Outcome::Reset, Why::UnreadData),
        "the RST is not recorded yet"
    );
    // The kernel looks at the queue before it looks at SO_LINGER.
    assert_eq!(
        gone(reset_sent(linger_zero(unread), reason)),
        (Outcome::Reset, Why::UnreadData)
    );
    let peer_first = socket(CloseWait).changes(&[(CloseWait, Close)]);
    assert_eq!(
        gone(reset_sent(peer_first, None)),
        (Outcome::Reset, Why::UnreadData)
    );
    let fin_came = socket(Established).changes(&[(Established, CloseWait), (CloseWait, Close)]);
    assert_eq!(
        gone(reset_sent(fin_came, None)),
        (Outcome::Reset, Why::UnreadData)
    );
}

#[test]
fn linger_zero_resets() {
    let aborted = linger_zero(socket(Established).changes(&[(Established, Close)]));
    for reason in [
        Some(ResetReason::TcpState),
        Some(ResetReason::DisconnectWithData),
        None,
    ] {
        assert_eq!(
            gone(reset_sent(aborted.clone(), reason)),
            (Outcome::Reset, Why::LingerZero)
        );
    }
    let silent = linger_zero(socket(Closing).changes(&[(Closing, Close)]));
    assert_eq!(gone(silent), (Outcome::Closed, Why::LingerZero));
}

#[test]
fn the_peers_reset_and_its_data_after_close_are_two_things() {
    let orphan =
        socket(Established).changes(&[(Established, FinWait1), (FinWait1, FinWait2), (FinWait2, Close)]);
    assert_eq!(
        gone(reset_received(orphan.clone(), FinWait2)),
        (Outcome::Reset, Why::PeerReset)
    );
    let data = reset_sent(
        reset_received(orphan.clone(), FinWait2),
        Some(ResetReason::AbortOnData),
    );
    assert_eq!(gone(data), (Outcome::Reset, Why::DataAfterClose));
    let with_the_ack = reset_sent(orphan.clone(), Some(ResetReason::AbortOnData));
    assert_eq!(gone(with_the_ack), (Outcome::Reset, Why::DataAfterClose));
    let old_kernel = reset_sent(reset_received(orphan, FinWait1), None);
    assert_eq!(gone(old_kernel), (Outcome::Reset, Why::DataAfterClose));
    let before = socket(Close).with(|socket| socket.reset_before = true);
    assert_eq!(gone(before), (Outcome::Reset, Why::PeerReset));
}

#[test]
fn negative_linger2_and_the_orphan_limit_reset() {
    let skipped = socket(Established)
        .changes(&ACTIVE)
        .with(|socket| socket.linger2_negative = true);
    for reason in [
        Some(ResetReason::AbortOnLinger),
        Some(ResetReason::AbortOnData),
        None,
    ] {
        assert_eq!(
            gone(reset_sent(skipped.clone(), reason)),
            (Outcome::Reset, Why::Linger2)
        );
    }
    let refused = socket(Established).changes(&[(Established, FinWait1), (FinWait1, Close)]);
    for reason in [Some(ResetReason::AbortOnMemory), None] {
        assert_eq!(
            gone(reset_sent(refused.clone(), reason)),
            (Outcome::Reset, Why::OrphanLimit)
        );
    }
}

#[test]
fn what_needs_no_reset_is_closed() {
    let peer_first = socket(CloseWait).changes(&[(CloseWait, LastAck), (LastAck, Close)]);
    assert_eq!(gone(peer_first), (Outcome::Closed, Why::PeerClosedFirst));
    let shut = socket(LastAck).changes(&[(LastAck, Close)]);
    assert_eq!(gone(shut), (Outcome::Closed, Why::PeerClosedFirst));
    let connecting = socket(SynSent).changes(&[(SynSent, Close)]);
    assert_eq!(gone(connecting), (Outcome::Closed, Why::NeverConnected));
    let fresh = socket(Close).with(|socket| socket.remote = None);
    assert_eq!(gone(fresh), (Outcome::Closed, Why::NeverConnected));
    assert_eq!(gone(socket(Close)), (Outcome::Closed, Why::EndedBefore));
    let repaired = socket(Established)
        .changes(&[(Established, Close)])
        .with(|socket| socket.repair = true);
    assert_eq!(gone(repaired), (Outcome::Closed, Why::Repair));
}

#[test]
fn a_listeners_resets_are_about_others() {
    let listener = socket(Listen).changes(&[(Listen, Close)]);
    assert_eq!(gone(listener.clone()), (Outcome::Closed, Why::Listener));
    assert_eq!(gone(reset_sent(listener, None)), (Outcome::Closed, Why::Listener));
}

/// An event was lost: only of a listener is the end known without it.
#[test]
fn an_end_that_was_not_seen() {
    assert_eq!(gone(socket(Listen)), (Outcome::Closed, Why::Listener));
    assert_eq!(
        gone(reset_sent(socket(Listen), None)),
        (Outcome::Closed, Why::Listener)
    );
    assert_eq!(gone(socket(Established)), (Outcome::Unknown, Why::Unknown));
    assert_eq!(gone(socket(SynSent)), (Outcome::Unknown, Why::Unknown));
}

#[test]
fn a_silent_peer_is_unreachable_once_something_was_retransmitted() {
    let orphan = socket(Established).changes(&[(Established, FinWait1)]).build();
    let mut silent = Sighting {
        timer: Timer::Retransmit,
        ..sighting(&orphan, FinWait1)
    };
    let at_first = decide(&orphan, Sight::Seen(&snapshot(Vec::new()), &silent), &[], false);
    assert_eq!(at_first, (Outcome::FinWait1, Why::ClosedByKernel));
    silent.retransmits = 1;
    let later = decide(&orphan, Sight::Seen(&snapshot(Vec::new()), &silent), &[], false);
    assert_eq!(later, (Outcome::FinWait1, Why::PeerUnreachable));

    let given_up = socket(Established)
        .changes(&[(Established, FinWait1)])
        .with(|socket| {
            let change = Transition::new(at(107_900), FinWait1, Close);
            socket.transitions.push(change);
        });
    assert_eq!(gone(given_up), (Outcome::Closed, Why::PeerUnreachable));
}

#[test]
fn whoever_has_a_file_holds_it() {
    let listener = socket(Listen).build();
    let with_file = Sighting {
        inode: 70,
        ..sighting(&listener, Listen)
    };
    let snapshot = snapshot(Vec::new());
    let held =
        |holders: &[Holder], unread| decide(&listener, Sight::Seen(&snapshot, &with_file), holders, unread);
    let holder = |how| Holder {
        pid: 1,
        comm: "child".into(),
        fd: 3,
        how,
    };
    assert_eq!(
        held(&[holder(Some(How::Inherited))], false),
        (Outcome::Held, Why::Inherited)
    );
    assert_eq!(
        held(&[holder(Some(How::SharedTable))], false),
        (Outcome::Held, Why::SharedTable)
    );
    assert_eq!(held(&[holder(None)], false), (Outcome::Held, Why::Unknown));
    assert_eq!(
        held(&[holder(Some(How::Received))], false),
        (Outcome::Held, Why::PassedOn)
    );
    assert_eq!(held(&[], false), (Outcome::Held, Why::InKernel));
    assert_eq!(
        held(&[], true),
        (Outcome::Held, Why::Unknown),
        "a process that may not be asked may have it"
    );
    let bound_only = socket(Close).build();
    let by_proc = decide(&bound_only, Sight::Gone, &[holder(Some(How::Inherited))], false);
    assert_eq!(by_proc, (Outcome::Held, Why::Inherited));
    let inherited = || socket(Close).with(|socket| socket.references = Some(2));
    let bound = |socket: SocketBuilder, unread| {
        let socket = socket.with(|socket| socket.remote = None).build();
        decide(&socket, Sight::Gone, &[], unread)
    };
    assert_eq!(bound(inherited(), true), (Outcome::Unknown, Why::Unknown));
    assert_eq!(bound(inherited(), false), (Outcome::Closed, Why::NeverConnected));
    assert_eq!(
        bound(socket(Close), true),
        (Outcome::Closed, Why::NeverConnected),
        "nobody else had it"
    );
}

#[test]
fn without_the_namespace_only_what_was_seen_is_said() {
    for sight in [Sight::Unreachable, Sight::Refused] {
        let unseen = |socket: SocketBuilder| decide(&socket.build(), sight, &[], false);
        let closed = socket(Established).changes(&ACTIVE);
        assert_eq!(unseen(closed), (Outcome::Unknown, Why::NetnsUnreachable));
        assert_eq!(
            unseen(socket(Established)),
            (Outcome::Unknown, Why::NetnsUnreachable)
        );
        let listener = socket(Listen).changes(&[(Listen, Close)]);
        assert_eq!(unseen(listener), (Outcome::Closed, Why::Listener));
        let aborted = reset_sent(socket(Established).changes(&[(Established, Close)]), None);
        assert_eq!(unseen(aborted), (Outcome::Reset, Why::UnreadData));
    }
}

fn any_state() -> impl Strategy<Value = State> {
    prop::sample::select(State::ALL.to_vec())
}

fn any_socket() -> impl Strategy<Value = Socket> {
    let reasons = prop::sample::select(vec![
        None,
        Some(ResetReason::AbortOnClose),
        Some(ResetReason::AbortOnData),
        Some(ResetReason::AbortOnMemory),
        Some(ResetReason::TcpState),
        Some(ResetReason::Other),
    ]);
    let changes = prop::collection::vec((any_state(), any_state()), 0..5);
    let resets = (prop::option::of(reasons), prop::option::of(any_state()));
    let flags = any::<(bool, bool, bool, bool, u32, bool)>();
    (any_state(), changes, resets, flags).prop_map(|(state, changes, (sent, received), flags)| {
        socket(state)
            .changes(&changes)
            .with(|socket| {
                socket.reset_sent = sent.map(|reason| ResetSent { reason });
                socket.reset_received = received.map(|state| ResetReceived { state });
                socket.repair = flags.0;
                socket.linger2_negative = flags.1;
                socket.reset_before = flags.2;
                socket.linger = flags.3.then_some(Linger { seconds: 0 });
                socket.unread_bytes = flags.4;
                socket.transitions_truncated = flags.5;
            })
            .build()
    })
}

proptest! {
    /// A sighting is the kernel's own word: no transition overrules it.
    #[test]
    fn what_was_seen_is_said(socket in any_socket(), state in any_state(), inode in 0u64..2) {
        let seen = Sighting { inode, ..sighting(&socket, state) };
        let look: Snapshot = snapshot(Vec::new());
        let (outcome, _) = decide(&socket, Sight::Seen(&look, &seen), &[], false);
        let expected = if inode != 0 { Outcome::Held } else { leftover(state).unwrap_or(Outcome::Unknown) };
        prop_assert_eq!(outcome, expected);
    }

    /// What is not in the dump is never called a leftover, and what was not seen to end is unknown.
    #[test]
    fn what_was_not_seen_is_not_a_leftover(socket in any_socket()) {
        let (outcome, _) = decide(&socket, Sight::Gone, &[], false);
        prop_assert!(matches!(outcome, Outcome::Reset | Outcome::Closed | Outcome::Unknown));
        if ![Close, Listen].contains(&socket.last_state()) && socket.reset_sent.is_none() && socket.reset_received.is_none() {
            prop_assert_eq!(outcome, Outcome::Unknown);
        }
    }
}
