//! The words of the text output.

use std::net::IpAddr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sockleak_core::leftover::{Danger, Reason};
use sockleak_core::observed::{Cause, Death, Sender, State, signal_name};
use sockleak_core::verdict::{How, Outcome, Why};

use crate::output::escape;

/// Follows a latest moment: no moment holds for a peer that goes on for ever.
pub(super) const UNLESS: &str = " unless the peer keeps sending";

/// A number with its thousands set apart: `1,412`.
pub(in crate::output) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 socket`, `2 sockets`.
pub(in crate::output) fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A length of time in its two largest units, or in tenths of a second below ten seconds.
pub(in crate::output) fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let millis = duration.subsec_millis().max(0);
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{seconds}.{} s", millis / 100),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The time of day.
pub(super) fn clock(time: Timestamp, zone: &TimeZone) -> String {
    zone.to_datetime(time).strftime("%H:%M:%S").to_string()
}

/// A latest moment, such as `by 14:02:40`: the whole second that has passed by then.
pub(super) fn by(latest: Timestamp, zone: &TimeZone) -> String {
    let second = SignedDuration::from_nanos(999_999_999);
    format!(
        "by {}",
        clock(latest.saturating_add(second).unwrap_or(latest), zone)
    )
}

/// How a process died, in the words of exitsnoop.
pub(super) fn death(death: &Death) -> String {
    let mut text = match death.cause {
        Cause::Exit { code } => format!("code {code}"),
        Cause::Signal { signal, core_dumped } => {
            named_signal(signal) + if core_dumped { ", core dumped" } else { "" }
        }
    };
    if death.oom {
        text += ", out of memory";
    }
    if let Some(first) = death.dump_interrupted {
        text += &format!(", during the core dump of {}", named_signal(first));
    }
    text
}

fn named_signal(signal: u8) -> String {
    match signal_name(signal) {
        Some(name) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}

pub(super) fn sender(sender: &Sender) -> String {
    format!("{} (pid {})", escape(&sender.comm), sender.pid)
}

/// What stands in the STATE column: the kernel's word while there is one, else the outcome in lower case.
pub(super) fn state(outcome: Outcome, state: Option<State>) -> &'static str {
    match (state, outcome) {
        (Some(state), _) => state.name(),
        (None, outcome) => self::outcome(outcome),
    }
}

/// An outcome: leftovers by the kernel's word, the others in lower case.
pub(super) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::TimeWait => State::TimeWait.name(),
        Outcome::FinWait2 => State::FinWait2.name(),
        Outcome::FinWait1 => State::FinWait1.name(),
        Outcome::Closing => State::Closing.name(),
        Outcome::LastAck => State::LastAck.name(),
        Outcome::Reset => "reset",
        Outcome::Closed => "closed",
        Outcome::Held => "held",
        Outcome::Unknown => "unknown",
    }
}

/// Why a socket became what it is, for somebody who does not know the kernel.
pub(super) const fn why(outcome: Outcome, why: Why) -> &'static str {
    match (why, outcome) {
        (Why::Inherited, _) => "still open: a process that was forked has it too",
        (Why::PassedOn, _) => "still open: another process received it",
        (Why::InKernel, _) => "still open: in flight over a unix socket, or registered with io_uring",
        (Why::SharedTable, _) => "still open: another process shares the table of descriptors",
        (Why::LingerZero, Outcome::Reset) => "reset by this side: SO_LINGER with 0 seconds was set",
        (Why::LingerZero, _) => "closed without a FIN: SO_LINGER with 0 seconds was set",
        (Why::UnreadData, _) => "reset by this side: received data was never read",
        (Why::PeerReset, _) => "reset by the peer",
        (Why::DataAfterClose, _) => "reset by this side: the peer sent data after the close",
        (Why::Linger2, _) => "reset by this side: TCP_LINGER2 is negative",
        (Why::OrphanLimit, _) => "reset by this side: too many orphans (tcp_max_orphans, tcp_mem)",
        (Why::TimeWaitOverflow, _) => "no TIME_WAIT: tcp_max_tw_buckets was reached",
        (Why::Repair, _) => "closed without a FIN: TCP_REPAIR was on",
        (Why::PeerUnreachable, _) => "the peer does not acknowledge",
        (Why::Listener, _) => "a listener, closed with the process",
        (Why::NeverConnected, _) => "it had no connection",
        (Why::EndedBefore, _) => "its connection had ended before",
        (Why::PeerClosedFirst, _) => "the peer had closed first",
        (Why::ShutdownBefore, _) => "the process had called shutdown() before",
        (Why::ClosedByKernel, _) => "closed by the kernel with the process",
        (Why::NetnsUnreachable, _) => "its network namespace could not be looked into",
        (Why::Unknown, Outcome::Closed) => "gone without a leftover; what ended it was not seen",
        (Why::Unknown, Outcome::Held) => "still open; how it came there was not seen",
        (Why::Unknown, _) => "why was not seen",
    }
}

/// How a holder came by a descriptor.
pub(super) const fn how(how: Option<How>) -> Option<&'static str> {
    match how {
        Some(How::Inherited) => Some("inherited"),
        Some(How::Received) => Some("received"),
        Some(How::SharedTable) => Some("shared table"),
        None => None,
    }
}

/// Why a socket is left alone or was not destroyed.
pub(super) const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Listener => "a listener",
        Reason::LiveConnection => "a live connection",
        Reason::Bound => "bound, with no connection",
        Reason::Held => "still open",
        Reason::Mptcp => "of an MPTCP connection, which may live on; the kernel does not tell",
        Reason::PortInUse => "still sending, and its port is in use",
        Reason::Unacknowledged => "still sending, and its peer may answer yet: it is given 10 seconds",
        Reason::NoCookie => "known without its cookie: a later socket could not be told from it",
        Reason::NetnsUnreachable => {
            "its network namespace cannot be entered: nobody has it any more, or root is needed"
        }
        Reason::TimeWaitUnsupported => "this kernel, older than 6.0, cannot destroy it",
        Reason::OrphanDefect => {
            "this kernel would drop its data and its FIN, and keep the socket, maybe for ever"
        }
        Reason::OrphanUntried => "whether this kernel can destroy it without harm could not be tried",
        Reason::Unsupported => "this kernel was built without CONFIG_INET_DIAG_DESTROY",
        Reason::NotPermitted => "CAP_NET_ADMIN is missing in its network namespace",
        Reason::Refused => "the kernel refused, with an errno that is not known here",
    }
}

/// What the end of a leftover costs.
pub(super) fn danger(danger: Danger, bytes: u64) -> String {
    match danger {
        Danger::None => "nothing is lost: both sides have closed, and the peer is this machine".to_owned(),
        Danger::OldDuplicates => {
            "both sides have closed; for a minute a delayed segment could disturb a new \
                                  connection between the same addresses and ports (RFC 1337)"
                .to_owned()
        }
        Danger::PeerReset => "the peer gets an RST, at once or when it sends or closes".to_owned(),
        Danger::PeerLeftWaiting => "the peer is not told, and waits for the end by itself".to_owned(),
        Danger::DataLost if bytes == 1 => "1 byte that was sent and not acknowledged is lost".to_owned(),
        Danger::DataLost => format!(
            "{} bytes that were sent and not acknowledged are lost",
            count(bytes)
        ),
    }
}

/// What a leftover that still sends has not got acknowledged.
pub(super) fn unacknowledged(bytes: u64) -> String {
    match bytes {
        0 => "its FIN is not acknowledged".to_owned(),
        1 => "1 byte is not acknowledged".to_owned(),
        _ => format!("{} bytes are not acknowledged", count(bytes)),
    }
}

/// The text in lines of at most `width` characters, each but the first indented by `indent`. A word that is
/// longer than that gets a line of its own; words with a no-break space between them stay together.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    fill(String::new(), text, width, indent)
}

/// Like [`wrap`], with the first line indented too.
pub(super) fn block(text: &str, width: usize, indent: usize) -> String {
    fill(" ".repeat(indent), text, width, indent)
}

fn fill(mut filled: String, text: &str, width: usize, indent: usize) -> String {
    let mut column = filled.len();
    for (place, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if place > 0 && column + 1 + length > width {
            filled.push('\n');
            filled.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if place > 0 {
            filled.push(' ');
            column += 1;
        }
        filled.push_str(&word.replace('\u{a0}', " "));
        column += length;
    }
    filled
}

/// Up to three of them, and how many more there are.
pub(super) fn first_few(parts: impl ExactSizeIterator<Item = String>) -> String {
    const NAMED: usize = 3;
    let more = parts.len().saturating_sub(NAMED);
    let mut named: Vec<String> = parts.take(NAMED).collect();
    if more > 0 {
        named.push(format!("and {} more", count(more as u64)));
    }
    named.join(", ")
}

/// A local address and port as `ss` writes them: `0.0.0.0%lo:8053`.
pub(super) fn place(address: IpAddr, device: Option<&str>, port: u16) -> String {
    let local = with_device(address, device);
    if address.is_ipv4() {
        format!("{local}:{port}")
    } else {
        format!("[{local}]:{port}")
    }
}

/// The address of that alone.
pub(super) fn with_device(address: IpAddr, device: Option<&str>) -> String {
    device.map_or_else(
        || address.to_string(),
        |device| format!("{address}%{}", escape(device)),
    )
}

#[cfg(test)]
mod tests {
    use sockleak_core::testing::at;

    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_412), "1,412");
        assert_eq!(count(160_000), "160,000");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (340, "340 ms"),
            (4_260, "4.2 s"),
            (47_900, "47 s"),
            (123_000, "2 min 3 s"),
            (7_380_000, "2 h 3 min"),
            (270_000_000, "3 d 3 h"),
            (-5, "0 ms"),
        ];
        for (millis, text) in cases {
            assert_eq!(duration(SignedDuration::from_millis(millis)), text);
        }
    }

    #[test]
    fn deaths_are_worded_as_exitsnoop_words_them() {
        let mut died = Death {
            time: at(0),
            cause: Cause::Signal {
                signal: 11,
                core_dumped: true,
            },
            oom: false,
            sent_by: None,
            core_dump: None,
            dump_interrupted: None,
        };
        assert_eq!(death(&died), "signal 11 (SEGV), core dumped");
        died.cause = Cause::Exit { code: 1 };
        assert_eq!(death(&died), "code 1");
        died.cause = Cause::Signal {
            signal: 9,
            core_dumped: false,
        };
        died.dump_interrupted = Some(11);
        assert_eq!(
            death(&died),
            "signal 9 (KILL), during the core dump of signal 11 (SEGV)"
        );
        died.dump_interrupted = None;
        died.oom = true;
        assert_eq!(death(&died), "signal 9 (KILL), out of memory");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7, 2), "one two\n  three");
        assert_eq!(block("one two three", 7, 2), "  one\n  two\n  three");
        assert_eq!(wrap("muchlonger x", 4, 0), "muchlonger\nx");
        assert_eq!(wrap("one 2\u{a0}three", 7, 0), "one\n2 three");
    }
}
