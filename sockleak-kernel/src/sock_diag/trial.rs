//! What this kernel does with SOCK_DESTROY, found out where it harms nobody.
//!
//! Before 6.0 a time-wait socket is refused. Kernels without the fix of 2024 report an orphan as destroyed, but drop
//! what it has to send, its FIN with it, and keep the socket: nothing ends it then. Stable series got that
//! fix at any time, so neither a version nor BTF tells.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sockleak_core::leftover::{DiscardRule, Power, Powers, Removable};
use sockleak_core::observed::{Family, Protocol, Sighting};

use super::{DestroyError, Filter, SockDiag, SockDiagError};
use crate::sandbox;

/// How long a leftover on loopback may take to come about.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a leftover is made before the trial is given up.
const ATTEMPTS: usize = 3;

/// Why there was no trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("no network namespace can be made for it: {0}; it needs CAP_SYS_ADMIN (sudo)")]
    Namespace(io::Error),
    #[error("no leftover can be made for it: {0}")]
    Io(#[from] io::Error),
    /// What the closed socket was instead.
    #[error("no leftover can be made for it: after {PATIENCE:?} the closed socket is {0}")]
    NoLeftover(&'static str),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

/// Makes leftovers in a network namespace of its own and destroys them.
///
/// # Errors
///
/// When the namespace or the leftovers cannot be made.
pub fn powers() -> Result<Powers, TrialError> {
    let trial = thread::Builder::new().name("trial".to_owned()).spawn(|| {
        sandbox::isolate().map_err(TrialError::Namespace)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Powers {
            time_wait: with_patience(|| time_wait(&listener))?,
            orphan: with_patience(|| orphan(&listener))?,
        })
    })?;
    trial
        .join()
        .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// A leftover may end before it is looked at: on a busy machine a FIN that is sent twice can end a TIME_WAIT.
fn with_patience(trial: impl Fn() -> Result<Power, TrialError>) -> Result<Power, TrialError> {
    for _ in 1..ATTEMPTS {
        match trial() {
            Err(TrialError::NoLeftover(_)) => {}
            other => return other,
        }
    }
    trial()
}

/// The side that closes first has the TIME_WAIT. Until its peer has closed too it may be a FIN_WAIT2 that is a full
/// socket: it is one where the peer's ACK comes while close() has the socket (`tcp_rcv_state_process`).
fn time_wait(listener: &TcpListener) -> Result<Power, TrialError> {
    let (peer, closed) = connection(listener)?;
    let addresses = addresses(&closed)?;
    drop(closed);
    drop(peer);
    power(addresses, Removable::is_mini)
}

/// A closed connection whose peer does not acknowledge is an orphan.
fn orphan(listener: &TcpListener) -> Result<Power, TrialError> {
    let (peer, closed) = connection(listener)?;
    sandbox::drop_everything(&peer)?;
    let addresses = addresses(&closed)?;
    drop(closed);
    let power = power(addresses, |leftover| !leftover.is_mini());
    // Where it was not destroyed, the peer's RST ends it, and with it the namespace, which it keeps.
    sandbox::reset(peer)?;
    power
}

fn connection(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let peer = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    Ok((peer, accepted))
}

/// The local and the remote one.
type Addresses = (SocketAddr, SocketAddr);

fn addresses(stream: &TcpStream) -> io::Result<Addresses> {
    Ok((stream.local_addr()?, stream.peer_addr()?))
}

/// Destroys what is left of a closed connection.
fn power(addresses: Addresses, is_wanted: impl Fn(&Removable) -> bool) -> Result<Power, TrialError> {
    let mut diag = SockDiag::open(None)?;
    let began = Instant::now();
    let leftover = loop {
        let found = find(&mut diag, addresses)?;
        let judge = |row| Removable::judge(row, &DiscardRule::Always).ok();
        let judged = found.as_ref().and_then(judge);
        match judged.filter(&is_wanted) {
            Some(leftover) => break leftover,
            None if began.elapsed() > PATIENCE => {
                return Err(TrialError::NoLeftover(
                    found.map_or("gone", |row| row.state.name()),
                ));
            }
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    match diag.destroy(&leftover) {
        Ok(()) if find(&mut diag, addresses)?.is_some() => Ok(Power::Defective),
        Ok(()) => Ok(Power::Works),
        Err(DestroyError::Unsupported) => Ok(Power::Unsupported),
        Err(DestroyError::Gone) => Err(TrialError::NoLeftover("gone")),
        Err(DestroyError::SockDiag(error)) => Err(error.into()),
        Err(other) => Err(io::Error::other(other).into()),
    }
}

fn find(diag: &mut SockDiag, (local, remote): Addresses) -> Result<Option<Sighting>, SockDiagError> {
    let filter = Filter::all().local_ports([local.port()]).without_tcp_info();
    let rows = diag.dump(Protocol::Tcp, Family::Ipv4, &filter)?;
    Ok(rows
        .into_iter()
        .find(|row| row.local == local && row.remote == remote))
}
