//! The ABI's records in the domain's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use smallvec::SmallVec;
use sockleak_core::observed::{
    Exit, Family, Linger, Origin, Protocol, ResetReason, ResetReceived, ResetSent, Sender, SignalSent,
    Socket, SocketId, State, Transition,
};
use sockleak_ebpf::{
    DEATH_OOM, Death as DeathRecord, NO_FD, NO_LINGER, ORIGIN_LIVE, ORIGIN_SUBFLOW, SIGNAL_GROUP_EXIT,
    SOCKET_ERR_RESET, SOCKET_NONLOCAL, SOCKET_REPAIR, SOCKET_REUSE, SOCKET_REUSEPORT, SOCKET_SUBFLOWS,
    SOCKET_V6ONLY, STATE_CHANGES, SignalSent as SignalRecord, SocketKey, SocketRecord, StateChange,
    StateEvent,
};

use crate::clock::BootClock;

const AF_INET6: u16 = 10;
const IPPROTO_MPTCP: u16 = 262;
/// `SEND_SHUTDOWN` of include/net/sock.h.
const SEND_SHUTDOWN: u8 = 2;

/// What the translation of numbers needs to know about the kernel.
pub struct Translator {
    /// Turns boot-time nanoseconds into wall-clock time.
    pub clock: BootClock,
    /// Ticks of the kernel a second.
    pub hz: u32,
    reasons: Vec<(i64, ResetReason)>,
}

impl Translator {
    /// `reset_reasons` are the names and numbers of `enum sk_rst_reason`.
    #[must_use]
    pub fn new(clock: BootClock, hz: u32, reset_reasons: &[(String, i64)]) -> Self {
        let reasons = reset_reasons
            .iter()
            .filter_map(|(name, number)| Some((*number, ResetReason::from_kernel_name(name)?)))
            .collect();
        Self { clock, hz, reasons }
    }

    /// A followed socket with its further descriptors. Its subflows have records of their own.
    #[must_use]
    pub fn socket(&self, key: &SocketKey, record: &SocketRecord, extra_fds: &[u32]) -> Socket {
        let mut fds = SmallVec::new();
        if record.fd != NO_FD {
            fds.push(record.fd);
            fds.extend_from_slice(extra_fds);
            fds.sort_unstable();
        }
        let state = state(record.state);
        let family = family(record.family);
        let fin_received = matches!(state, State::CloseWait | State::LastAck | State::Closing);
        let known = usize::from(record.change_count).min(STATE_CHANGES);
        Socket {
            id: SocketId {
                sk: key.sk,
                since: key.time,
                tgid: key.tgid,
                origin: match key.origin {
                    ORIGIN_LIVE => Origin::Live,
                    ORIGIN_SUBFLOW => Origin::Subflow,
                    _ => Origin::Inventory,
                },
            },
            protocol: protocol(record.protocol),
            family,
            local: address(record.family, &record.laddr, record.lport),
            remote: (record.rport != 0).then(|| address(record.family, &record.raddr, record.rport)),
            netns: record.netns,
            cookie: (record.cookie != 0).then_some(record.cookie),
            fds,
            inode: (record.inode != 0).then_some(record.inode),
            subflows: Vec::new(),
            subflows_complete: record.flags & SOCKET_SUBFLOWS != 0,
            references: (record.references != 0).then_some(record.references),
            state_at_death: state,
            shutdown: record.shutdown & SEND_SHUTDOWN != 0,
            // The FIN occupies one sequence number until the process reads the end of file.
            unread_bytes: record.unread.saturating_sub(u32::from(fin_received)),
            unacked_bytes: record.unacked,
            accept_queue: (state == State::Listen).then_some(record.accept_queue),
            reuseaddr: record.flags & SOCKET_REUSE != 0,
            reuseport: record.flags & SOCKET_REUSEPORT != 0,
            v6only: (family == Family::Ipv6).then_some(record.flags & SOCKET_V6ONLY != 0),
            linger: (record.linger != NO_LINGER).then(|| Linger {
                seconds: record.linger / self.hz.max(1),
            }),
            linger2_negative: record.linger2 < 0,
            repair: record.flags & SOCKET_REPAIR != 0,
            reset_before: record.flags & SOCKET_ERR_RESET != 0,
            uid: (record.uid != u32::MAX).then_some(record.uid),
            device: record.device,
            nonlocal: record.flags & SOCKET_NONLOCAL != 0,
            transitions: record.changes[..known]
                .iter()
                .map(|change| self.transition(record.time, *change))
                .collect(),
            transitions_truncated: usize::from(record.change_count) > STATE_CHANGES,
            reset_sent: (record.reset_sent != 0).then(|| ResetSent {
                reason: self.reason(record.reset_reason),
            }),
            reset_received: (record.reset_received != 0).then(|| ResetReceived {
                state: self::state(record.reset_received_in),
            }),
        }
    }

    /// What the kernel said about an exit.
    #[must_use]
    pub fn exit(&self, death: &DeathRecord) -> Exit {
        let watched = &death.watched;
        Exit {
            time: self.time(death.time),
            exit_code: death.exit_code,
            group_exit_code: death.group_exit_code,
            group_exit: death.signal_flags & SIGNAL_GROUP_EXIT != 0,
            oom: death.flags & DEATH_OOM != 0,
            kill: signal_sent(&watched.kill),
            core: signal_sent(&watched.core),
            term: signal_sent(&watched.term),
            dump_began: (watched.dump_began != 0)
                .then(|| (self.time(watched.dump_began), watched.dump_signal as u8)),
        }
    }

    /// Wall-clock time of boot-time nanoseconds. A clock that is set beyond the year 9999 shows the epoch.
    #[must_use]
    pub fn time(&self, boottime_ns: u64) -> Timestamp {
        self.clock.timestamp(boottime_ns).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn transition(&self, since: u64, change: StateChange) -> Transition {
        let time = self.time(since.saturating_add(change.after()));
        Transition::new(time, state(change.from()), state(change.to()))
    }

    fn reason(&self, number: u8) -> Option<ResetReason> {
        if number == 0 || self.reasons.is_empty() {
            return None;
        }
        let found = self.reasons.iter().find(|(known, _)| *known == i64::from(number));
        Some(found.map_or(ResetReason::Other, |(_, reason)| *reason))
    }
}

/// Local and remote address of an event; the remote is `None` without a peer.
#[must_use]
pub fn event_addresses(event: &StateEvent) -> (SocketAddr, Option<SocketAddr>) {
    (
        address(event.family, &event.laddr, event.lport),
        (event.rport != 0).then(|| address(event.family, &event.raddr, event.rport)),
    )
}

/// The state of that number; a number that no kernel up to 7.3 uses counts as CLOSE.
#[must_use]
pub fn state(number: u8) -> State {
    State::from_number(number).unwrap_or(State::Close)
}

/// A `comm` as text: bytes that are no UTF-8 are replaced.
#[must_use]
pub fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn signal_sent(record: &SignalRecord) -> Option<SignalSent> {
    (record.time != 0).then(|| SignalSent {
        signal: record.signal as u8,
        sender: (record.sender != 0).then(|| Sender {
            pid: record.sender,
            comm: comm(&record.sender_comm),
        }),
    })
}

pub(crate) fn protocol(number: u16) -> Protocol {
    if number == IPPROTO_MPTCP {
        Protocol::Mptcp
    } else {
        Protocol::Tcp
    }
}

pub(crate) fn family(number: u16) -> Family {
    if number == AF_INET6 {
        Family::Ipv6
    } else {
        Family::Ipv4
    }
}

pub(crate) fn address(family: u16, bytes: &[u8; 16], port: u16) -> SocketAddr {
    let ip: IpAddr = if family == AF_INET6 {
        Ipv6Addr::from(*bytes).into()
    } else {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translator() -> Translator {
        let reasons = [("SK_RST_REASON_TCP_ABORT_ON_CLOSE".to_owned(), 11)];
        Translator::new(BootClock::sample(), 250, &reasons)
    }

    fn key(origin: u32) -> SocketKey {
        SocketKey {
            sk: 1,
            time: 2,
            tgid: 3,
            origin,
        }
    }

    #[test]
    fn a_fin_is_not_an_unread_byte() {
        let record = SocketRecord {
            state: 8,
            unread: 1,
            linger: NO_LINGER,
            ..SocketRecord::default()
        };
        assert_eq!(translator().socket(&key(0), &record, &[]).unread_bytes, 0);
        let record = SocketRecord { state: 1, ..record };
        assert_eq!(translator().socket(&key(0), &record, &[]).unread_bytes, 1);
    }

    #[test]
    fn v4_mapped_addresses_stay_mapped() {
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let record = SocketRecord {
            family: AF_INET6,
            laddr: mapped.octets(),
            lport: 80,
            state: 10,
            ..SocketRecord::default()
        };
        let socket = translator().socket(&key(0), &record, &[9, 4]);
        assert_eq!(socket.local, SocketAddr::new(mapped.into(), 80));
        assert_eq!(
            (socket.remote, socket.accept_queue, socket.v6only),
            (None, Some(0), Some(false))
        );
        assert_eq!(socket.fds[..], [0, 4, 9]);
    }

    #[test]
    fn linger_is_told_in_seconds_and_reasons_by_name() {
        let record = SocketRecord {
            fd: NO_FD,
            linger: 500,
            reset_sent: 1,
            reset_reason: 11,
            ..SocketRecord::default()
        };
        let socket = translator().socket(&key(ORIGIN_LIVE), &record, &[]);
        assert_eq!(socket.linger, Some(Linger { seconds: 2 }));
        let because = |reason| Some(ResetSent { reason: Some(reason) });
        assert_eq!(socket.reset_sent, because(ResetReason::AbortOnClose));
        assert!(socket.fds.is_empty());
        let unknown = SocketRecord {
            reset_reason: 25,
            ..record
        };
        assert_eq!(
            translator().socket(&key(0), &unknown, &[]).reset_sent,
            because(ResetReason::Other)
        );
    }

    #[test]
    fn comm_ends_at_its_nul() {
        assert_eq!(comm(b"orderd\0\0\0garbage"), "orderd");
        assert_eq!(comm(b"sixteen-bytes-xx"), "sixteen-bytes-xx");
    }
}
