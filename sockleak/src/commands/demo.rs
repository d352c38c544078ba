//! `sockleak demo`: a server of its own, a real crash, the real report.

use std::io::{self, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::{env, process};

use anyhow::{Context as _, Result};
use sockleak_kernel::netns::{self, Netns};
use sockleak_kernel::preflight::{self, Requirement};
use sockleak_kernel::{proc, sandbox};

use super::cli::{Common, TraceArgs};
use super::{refuse_unmet, trace};

/// Peers that do nothing.
const IDLE: usize = 12;
/// Peers that close before the crash.
const CLOSED: usize = 3;
/// Peers that have sent what the server never reads.
const UNREAD: usize = 2;
/// Peers that cannot be reached any more.
const UNREACHABLE: usize = 2;
/// Peers whose connection the server closes while it lives.
const SERVED: usize = 4;
const PEERS: usize = IDLE + CLOSED + UNREAD + UNREACHABLE + SERVED;

/// What the server's namespace takes, by number (include/uapi/linux/capability.h), name and purpose.
const CAPABILITIES: [(u32, &str, &str); 2] = [
    (21, "CAP_SYS_ADMIN", "make a network namespace"),
    (12, "CAP_NET_ADMIN", "switch on its loopback device"),
];

/// Makes the server and its peers, crashes the server, and reports.
///
/// # Errors
/// When the environment is refused, or the server cannot be made.
pub fn run(common: &Common) -> Result<u8> {
    let mut requirements = preflight::requirements();
    let status = proc::status(process::id()).unwrap_or_default();
    requirements.extend(unmet(status.effective_capabilities.unwrap_or(0)));
    refuse_unmet(&requirements)?;
    let mut server = sandbox::fork(serve).context("cannot start the demo's server")?;
    let mut says = BufReader::new(server.says);
    let address: SocketAddr = line(&mut says)?
        .parse()
        .context("the demo's server could not make its network namespace")?;
    let pid = server.process.pid();
    let mut peers = connect(pid, address).context("cannot connect to the demo's server")?;
    line(&mut says)?;
    let served = peers.split_off(PEERS - SERVED);
    let closed = peers.split_off(peers.len() - CLOSED);
    drop(closed);
    for peer in &mut peers[..UNREAD] {
        peer.write_all(b"a request that the server never reads")?;
    }
    for peer in &peers[UNREAD..][..UNREACHABLE] {
        sandbox::drop_everything(peer).context("cannot make a peer unreachable")?;
    }

    let args = TraceArgs {
        pids: vec![pid],
        once: true,
        ..TraceArgs::default()
    };
    let mut output = common.open_output(args.summary);
    let mut served = Some(served);
    let mut crash = || {
        server.told.write_all(b"close\n")?;
        line(&mut says)?;
        served = None;
        server.told.write_all(b"crash\n")
    };
    let traced = trace::start(common, &args, trace::Begin::Call(&mut crash), output.as_mut());
    // The helper goes when nobody can tell it anything any more, and its end of the pipe with it.
    drop(server.told);
    says.read_to_end(&mut Vec::new())?;
    server.process.wait_status()?;
    traced
}

/// What is missing for the server's namespace, if anything is.
fn unmet(effective_capabilities: u64) -> Option<Requirement> {
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(number, ..)| effective_capabilities >> number & 1 == 0)
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    let executable = env::current_exe().map_or_else(
        |_| env!("CARGO_PKG_NAME").to_owned(),
        |path| path.display().to_string(),
    );
    (!missing.is_empty()).then(|| Requirement {
        name: "demo_capabilities",
        required: true,
        met: false,
        detail: format!("missing {}", missing.join(", ")),
        fix: Some(format!("`sudo {executable} demo`")),
    })
}

/// Connects the peers from inside the server's namespace.
fn connect(pid: u32, address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    // The descriptor is closed again here: an open namespace would outlive the demo's processes.
    let namespace = Netns::of_process(pid)?;
    netns::within(namespace.as_fd(), || {
        (0..PEERS).map(|_| TcpStream::connect(address)).collect()
    })
}

fn line(reader: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The server. It ends when it crashes, or when the demo is gone.
fn serve(told: PipeReader, mut says: PipeWriter) {
    sandbox::rename(c"demo-server");
    // What fails here is told by the end of the pipe.
    let _ = try_serve(told, &mut says);
}

fn try_serve(told: PipeReader, says: &mut PipeWriter) -> io::Result<()> {
    sandbox::isolate()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080))?;
    // The mistake that no SO_REUSEADDR heals: a helper that inherits the listener and outlives the server.
    let helper = sandbox::fork(|_, _| {
        sandbox::rename(c"demo-helper");
        sandbox::wait_for_end(&told);
    })?;
    writeln!(says, "{}", listener.local_addr()?)?;
    let mut connections: Vec<TcpStream> = (0..PEERS)
        .map(|_| listener.accept().map(|(connection, _)| connection))
        .collect::<io::Result<_>>()?;
    writeln!(says, "accepted")?;
    let mut orders = BufReader::new(&told);
    line(&mut orders)?;
    connections.truncate(PEERS - SERVED);
    writeln!(says, "closed")?;
    if line(&mut orders)? == "crash" {
        sandbox::crash();
    }
    drop(helper);
    Ok(())
}
