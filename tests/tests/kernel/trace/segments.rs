//! `--wait`: what single segments do to a leftover that nobody has any more.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net;
use sockleak_tests::raw_tcp::{ACK, FIN, RST, RawTcp, Segment};
use sockleak_tests::report::{Report, a_second, moment};
use sockleak_tests::sandbox::{short_fin_timeout, sysctl};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::trace::countdown::{agrees_with_the_timer, entry_of};
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            the_first_expiry_of_fin_wait2_is_not_the_end,
            traffic_prolongs_time_wait,
            a_reset_ends_time_wait,
            a_new_connection_takes_the_place_of_time_wait,
        ],
    )
}

/// A connection whose process died, watched with `--wait`.
struct Leftover {
    tracer: Tracer,
    report: Report,
    /// Sees what was sent since before the death.
    wire: RawTcp,
    /// The peer's last segment, once it was looked for.
    fin: Option<Segment>,
    /// Where the dead process was.
    local: SocketAddr,
    /// Where its peer was.
    remote: SocketAddr,
}

impl Leftover {
    /// A TIME_WAIT: the peer closed when the process did.
    #[track_caller]
    fn time_wait() -> Self {
        let mut victim = Victim::start();
        let local = victim.listen("4 reuseaddr");
        let peer = victim.accept(local, 1).remove(0);
        let remote = peer.address();
        let wire = RawTcp::open();
        let peer = peer.closes_when_closed();
        let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
        // The report does not wait for a peer that is late on a busy machine.
        tracer.stops();
        victim.killed_by(libc::SIGKILL);
        peer.join().expect("it has closed");
        // Its FIN may still be on the way, and a FIN_WAIT2 counts as a time-wait socket too.
        wait_until("TIME_WAIT", || judge::count(local.port(), "TIME_WAIT") == 1);
        tracer.signal(libc::SIGCONT);
        let report = tracer.report();
        report.shows(&[
            "1 LISTEN closed listener now",
            "1 ESTABLISHED time_wait closed_by_kernel timewait_timer",
        ]);
        Self {
            tracer,
            report,
            wire,
            fin: None,
            local,
            remote,
        }
    }

    fn promise(&self) -> &Value {
        self.report.in_state("ESTABLISHED")[0]
    }

    /// Sends the next segment of the peer in its name: in order, without data.
    fn peer_sends(&mut self, flags: u8) {
        if flags == RST {
            // From now on an RST ends a TIME_WAIT.
            sysctl("ipv4/tcp_rfc1337", 0);
        }
        let (wire, remote, local) = (&self.wire, self.remote, self.local);
        let fin = *self.fin.get_or_insert_with(|| wire.sees(FIN, remote, local));
        self.wire.send(Segment {
            sequence: fin.sequence.wrapping_add(1),
            flags,
            ..fin
        });
    }

    #[track_caller]
    fn is_gone(&self) {
        wait_until("the end of the leftover", || {
            judge::of_port(self.local.port()).is_empty()
        });
    }

    /// It is told to be free, and earlier than promised.
    #[track_caller]
    fn frees_early(mut self) {
        let freed = self.tracer.record("freed");
        assert_eq!(freed["rport"], self.remote.port(), "{freed}");
        assert!(
            moment(&freed["time"]) < moment(&self.promise()["free_at"]),
            "{freed}"
        );
        self.tracer.finishes();
    }
}

/// It was to be free after a few seconds, and became a TIME_WAIT before.
fn the_first_expiry_of_fin_wait2_is_not_the_end() {
    short_fin_timeout();
    let mut victim = Victim::start();
    let local = victim.listen("4");
    let peer = victim.accept(local, 1).remove(0);
    let wire = RawTcp::open();
    let remote = peer.address();
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    drop(peer);
    let mut leftover = Leftover {
        tracer,
        report,
        wire,
        fin: None,
        local,
        remote,
    };
    let first = moment(&leftover.promise()["free_at"]);
    wait_until("the first expiry", || Timestamp::now() > first + a_second() * 2);
    assert_eq!(judge::count(local.port(), "TIME_WAIT"), 1);
    leftover.peer_sends(RST);
    let mut tracer = leftover.tracer;
    let freed = tracer.record("freed");
    assert!(moment(&freed["not_before"]) > first, "{freed}");
    assert_eq!(freed["free_rule"], "timewait_timer", "{freed}");
    tracer.finishes();
}

/// A bare acknowledgement in order arms the timer anew and is not answered.
fn traffic_prolongs_time_wait() {
    let mut leftover = Leftover::time_wait();
    let port = leftover.local.port();
    let left = |limit| judge::of_port(port).iter().all(|entry| entry.expires < limit);
    wait_until("a part of the minute", || left(Duration::from_secs(57)));
    leftover.peer_sends(ACK);
    let moved = leftover.tracer.record("moved");
    assert!(!left(Duration::from_secs(57)), "the kernel armed the timer");
    assert_eq!(moved["state"], "TIME_WAIT");
    agrees_with_the_timer(&moved);
    let before = moment(&leftover.promise()["free_at"]);
    assert!(
        moment(&moved["free_at"]) > before + SignedDuration::from_secs(2),
        "{moved}"
    );
    leftover.peer_sends(RST);
    leftover.is_gone();
    let freed = leftover.tracer.record("freed");
    assert!(moment(&freed["time"]) < moment(&moved["free_at"]), "{freed}");
    leftover.tracer.finishes();
}

/// RFC 1337 calls it an assassination.
fn a_reset_ends_time_wait() {
    let mut leftover = Leftover::time_wait();
    leftover.peer_sends(RST);
    leftover.is_gone();
    leftover.frees_early();
}

/// The restarted service accepts a SYN on the same addresses: what is there then is not the leftover.
fn a_new_connection_takes_the_place_of_time_wait() {
    let leftover = Leftover::time_wait();
    let service = TcpListener::bind(leftover.local).expect("both have SO_REUSEADDR");
    let client = net::socket(leftover.remote, 0, 0).expect("a socket");
    net::bind(&client, leftover.remote).expect("the peer had closed second");
    net::connect(&client, leftover.local).expect("the service listens");
    let (_connection, from) = service.accept().expect("the client has connected");
    assert_eq!(from, leftover.remote);
    let entry = entry_of(leftover.promise()).expect("the new connection");
    assert_eq!(entry.state, "ESTABLISHED");
    leftover.frees_early();
}
