//! The command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use sockleak_core::port::Reuse;
use sockleak_kernel::{page, terminal};

use super::users;
use crate::output::{self, Color, Format, Output};

/// Default of `--max-sockets`.
const MAX_SOCKETS: u32 = 262_144;
/// Default of `--ring-size`, in bytes.
const RING_SIZE: u32 = 1 << 20;

/// Says what a crashed process left of its sockets, why, and when they are free again.
///
/// Attach to a running process with `--pid PID`, or start one with `-- COMMAND ARGS`. When it dies,
/// sockleak tells for every TCP socket it held what is left of it: TIME_WAIT, FIN_WAIT, LAST_ACK, a
/// reset, or a copy in another process.
#[derive(Parser, Debug)]
#[command(
    name = "sockleak",
    version,
    max_term_width = 100,
    after_help = EXIT_STATUS,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub trace: TraceArgs,
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

impl Cli {
    /// Options of the trace, if that is the verb.
    #[must_use]
    pub fn trace_args(&self) -> Option<&TraceArgs> {
        match &self.verb {
            None => Some(&self.trace),
            Some(Verb::Trace(args)) => Some(args),
            Some(
                Verb::Port(_) | Verb::Wait(_) | Verb::Free(_) | Verb::Replay(_) | Verb::Demo | Verb::Check(_),
            ) => None,
        }
    }
}

const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 as asked by --exit-code, by `port` (a restart would
fail), by `wait` (timeout) or by `free --yes` (a leftover is left), 2 usage or
refused. With COMMAND: its own (128+N for signal N), 125 if sockleak failed, 126
or 127 if COMMAND could not be run.";

#[derive(Args, Debug, Clone)]
pub struct Common {
    /// What to print: text for people, or one JSON object a line
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// When to use colours; NO_COLOR turns `auto` off
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Tell more on stderr: the BPF programs' warnings, and with -vv the verifier's log
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Common {
    /// The output that these options ask for.
    #[must_use]
    pub fn open_output(&self, summary: bool) -> Box<dyn Output> {
        self.open_output_in(None, summary)
    }

    /// The same, with the times of text in this zone.
    #[must_use]
    pub fn open_output_in(&self, zone: Option<TimeZone>, summary: bool) -> Box<dyn Output> {
        output::open(output::Options {
            format: self.output,
            color: self.color,
            summary,
            verbose: self.verbose > 0,
            stdout_width: terminal::stdout_width(),
            stderr_width: terminal::stderr_width(),
            zone,
        })
    }
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Follow a process across its death and report (what sockleak does without a verb)
    Trace(TraceArgs),
    /// Say who has a port now, and whether a restart can have it: no tracer needed before
    Port(BindArgs),
    /// Wait until a restart on a port would succeed
    Wait(WaitArgs),
    /// Destroy what dead processes left on a port, or of a report: sockets that no process holds
    Free(FreeArgs),
    /// Judge a recording of `trace --record` again: no root, no kernel needed
    Replay(ReplayArgs),
    /// Make a small server in its own network namespace, crash it, and report
    Demo,
    /// Say whether sockleak can run here, and what to do if not
    Check(CheckArgs),
}

#[derive(Args, Debug, Default, Clone, PartialEq, Eq)]
pub struct TraceArgs {
    /// Attach to these running processes
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Do not follow children
    #[arg(long)]
    pub no_follow: bool,
    /// End after the first death of a target
    #[arg(long)]
    pub once: bool,
    /// End after this time, with a report of what is known
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Report only deaths by a signal or with a non-zero status
    #[arg(short = 'x', long)]
    pub failed: bool,
    /// Stay after the last report until every leftover is free
    #[arg(long)]
    pub wait: bool,
    /// How long the kernel may take to settle between the death and the report [default: 50ms to 1s, as needed]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub settle: Option<Duration>,
    /// Leave the single sockets out of the report
    #[arg(long)]
    pub summary: bool,
    /// Exit with 1 when something was left behind or is still held
    #[arg(long, conflicts_with = "command")]
    pub exit_code: bool,
    /// Record everything that is observed to this file, for `sockleak replay`; `.gz` compresses it
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// End the inventory of a process after this many sockets [default: 262144]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_sockets: Option<u32>,
    /// Size of the buffer in which events wait for sockleak, a power of two [default: 1048576]
    #[arg(long, value_name = "BYTES", value_parser = ring_size)]
    pub ring_size: Option<u32>,
    /// Run COMMAND as this user and group
    #[arg(long, value_name = "UID:GID", value_parser = identity)]
    pub user: Option<(u32, u32)>,
    /// Run this command and follow it
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    pub command: Vec<OsString>,
}

impl TraceArgs {
    /// The size of the maps and the end of the walk.
    #[must_use]
    pub fn max_sockets(&self) -> u32 {
        self.max_sockets.unwrap_or(MAX_SOCKETS)
    }

    /// The size of the event ring, in bytes.
    #[must_use]
    pub fn ring_size(&self) -> u32 {
        self.ring_size.unwrap_or(RING_SIZE)
    }
}

/// The bind() that a restart would make. Without --user it is taken for one of the user who has the port.
#[derive(Args, Debug, Clone)]
pub struct BindArgs {
    /// The local port
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Answer for a socket with SO_REUSEADDR
    #[arg(long)]
    pub reuseaddr: bool,
    /// Answer for a socket with SO_REUSEPORT
    #[arg(long)]
    pub reuseport: bool,
    /// Where it would bind [default: 0.0.0.0 and ::]
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub address: Vec<IpAddr>,
    /// Answer for IPv6 sockets with IPV6_V6ONLY
    #[arg(long)]
    pub v6only: bool,
    /// Answer for a socket that is bound to this network device (SO_BINDTODEVICE)
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Answer for this user, by name or number [default: who has the port]
    #[arg(long = "user", value_name = "USER", value_parser = users::uid)]
    pub restart_as: Option<u32>,
}

impl BindArgs {
    /// The options of the socket.
    #[must_use]
    pub const fn reuse(&self) -> Reuse {
        Reuse::new(self.reuseaddr, self.reuseport)
    }
}

#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    #[command(flatten)]
    pub bind: BindArgs,
    /// Give up after this time, with exit status 1
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

#[derive(Args, Debug, Clone)]
pub struct ReplayArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show only deaths by a signal or with a non-zero status
    #[arg(short = 'x', long)]
    pub failed: bool,
    /// Leave the single sockets out of the report
    #[arg(long)]
    pub summary: bool,
}

#[derive(Args, Debug, Clone)]
pub struct CheckArgs {
    /// Look every struct member up in this BTF file instead (`/sys/kernel/btf/vmlinux` of another machine)
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}

#[derive(Args, Debug, Clone)]
pub struct FreeArgs {
    /// The local port, in this network namespace
    #[arg(required_unless_present = "report", conflicts_with = "report", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The leftovers of the reports in this file instead, which `sockleak -o json` or `trace --record` wrote; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Destroy also what still sends to a peer that may be alive: data that was not acknowledged is lost
    #[arg(long)]
    pub discard_unsent: bool,
    /// Do it; without, only say what would be done and what it costs
    #[arg(short, long)]
    pub yes: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text
        .parse()
        .map_err(|_| "expected a time such as 500ms, 30s or 2m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a time cannot be negative".to_owned())
}

/// What the kernel accepts (`ringbuf_map_alloc`, kernel/bpf/ringbuf.c), within reason.
fn ring_size(text: &str) -> Result<u32, String> {
    const LARGEST: u32 = 1 << 30;
    let page = page::size();
    text.parse()
        .ok()
        .filter(|size: &u32| size.is_power_of_two() && (page..=LARGEST).contains(size))
        .ok_or_else(|| {
            format!("expected a number of bytes that is a power of two, from {page} (a page) to {LARGEST}")
        })
}

fn identity(text: &str) -> Result<(u32, u32), String> {
    text.split_once(':')
        .and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)))
        .ok_or_else(|| "expected two numbers such as 1000:1000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn trace_is_the_default_verb() {
        let cli = Cli::try_parse_from(["sockleak", "-p", "1,2", "--once", "-o", "json"]).unwrap();
        assert!(cli.verb.is_none());
        assert_eq!(cli.trace.pids, [1, 2]);
        assert!(cli.trace.once);
        let cli = Cli::try_parse_from(["sockleak", "--user", "5:6", "--", "sleep", "-p"]).unwrap();
        assert_eq!(cli.trace.command, ["sleep", "-p"]);
        assert_eq!(cli.trace.user, Some((5, 6)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            &["sockleak", "-p", "0"][..],
            &["sockleak", "-p", "x"],
            &["sockleak", "-p", "1", "--", "true"],
            &["sockleak", "--exit-code", "--", "true"],
            &["sockleak", "-d", "soon", "-p", "1"],
            &["sockleak", "-d", "-5s", "-p", "1"],
            &["sockleak", "true"],
            &["sockleak", "free"],
            &["sockleak", "free", "0"],
            &["sockleak", "free", "65536"],
            &["sockleak", "free", "80", "--report", "x"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_ring_has_whole_pages() {
        let page = page::size();
        assert_eq!(ring_size(&page.to_string()), Ok(page));
        assert_eq!(ring_size("1073741824"), Ok(1 << 30));
        for wrong in ["0", "1", "1000000", "2147483648", "1M", "-4096", ""] {
            let words = ring_size(wrong).expect_err(wrong);
            assert!(words.contains("a power of two, from"), "{words}");
        }
        assert!(ring_size(&(page / 2).to_string()).is_err());
        assert!(ring_size(&(page * 3).to_string()).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("30").is_err());
    }
}
