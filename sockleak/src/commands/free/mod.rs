//! `sockleak free`: destroys what nobody has any more, or says what it would destroy.

mod recorded;
mod task;

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use sockleak_core::leftover::{Asked, Power, Powers, Recorded, Removal};
use sockleak_core::verdict::Holder;
use sockleak_kernel::{proc, sock_diag};

use self::task::{Task, Terms};
use super::cli::{Common, FreeArgs};
use crate::exit_status::ExitStatus;
use crate::output::{Answer, Note, Removals, Subject};

/// Which sockets are meant.
enum Wanted {
    Port(u16),
    Recorded(Vec<Recorded>),
}

/// Destroys the leftovers, or in a dry run only lists them. The exit status is 1 when a leftover was left that was to be
/// destroyed ([`Removal::is_left`]).
///
/// # Errors
/// When the report cannot be used, the kernel or the privileges allow no destruction, or sock_diag fails.
pub fn run(common: &Common, args: &FreeArgs) -> Result<u8> {
    let mut notes = Vec::new();
    let mut is_left = false;
    let (subject, asked, wanted) = match (args.port, &args.report) {
        (Some(port), _) => (Subject::Port(port), Asked::Port, Wanted::Port(port)),
        (None, Some(file)) => {
            let recording = recorded::read(file)?;
            notes.extend(recording.unnamed.note());
            notes.extend(recording.is_cut.then_some(Note::Cut));
            is_left = !recording.unnamed.is_empty();
            (
                Subject::Report,
                Asked::Report,
                Wanted::Recorded(recording.sockets),
            )
        }
        (None, None) => bail!("neither a port nor a report is given"),
    };
    ensure!(
        sock_diag::may_destroy(),
        "the kernel destroys sockets only for CAP_NET_ADMIN, and sockleak tries it first in a network namespace \
         of its own, which needs CAP_SYS_ADMIN: run it with sudo"
    );
    let terms = Terms {
        powers: powers(&mut notes)?,
        discard_unsent: args.discard_unsent,
    };

    let mut tasks = tasks(wanted, &terms)?;
    name_holders(&mut tasks, &mut notes);
    if args.yes {
        for task in &mut tasks {
            task.destroy(&terms)?;
        }
    }
    let time = Timestamp::now();
    let removals: Vec<Removal> = tasks.into_iter().flat_map(|task| task.removals).collect();
    is_left |= removals.iter().any(|removal| removal.is_left(asked));
    let removals = Removals {
        time,
        subject,
        removals,
        notes,
    };
    common.open_output(false).answer(&Answer::Removals(&removals))?;
    Ok(ExitStatus::NotFreed.unless(!(args.yes && is_left)))
}

/// What the kernel was seen to destroy. Where that could not be tried, only what does no harm is asked of it.
fn powers(notes: &mut Vec<Note>) -> Result<Powers> {
    let powers = match sock_diag::powers() {
        Ok(powers) => powers,
        Err(error) => {
            notes.push(Note::PowersUntried(error.to_string()));
            Powers::UNTRIED
        }
    };
    if !powers.is_powerless() {
        return Ok(powers);
    }
    let why = match powers.orphan {
        Power::Unsupported => "it was built without CONFIG_INET_DIAG_DESTROY",
        _ => {
            "it refuses TIME_WAIT (that needs Linux 6.0), and of a socket without an owner it would drop the data and \
             the FIN and keep the socket, maybe for ever"
        }
    };
    bail!("this kernel cannot destroy what a dead process left: {why}. Nothing was touched")
}

fn tasks(wanted: Wanted, terms: &Terms) -> Result<Vec<Task>> {
    match wanted {
        Wanted::Port(port) => Ok(vec![Task::of_port(port, terms)?]),
        Wanted::Recorded(sockets) => {
            let mut namespaces: HashMap<u32, Vec<Recorded>> = HashMap::new();
            for socket in sockets {
                namespaces.entry(socket.netns).or_default().push(socket);
            }
            namespaces
                .into_iter()
                .map(|(netns, sockets)| Task::of_recorded(netns, &sockets, terms))
                .collect()
        }
    }
}

/// Says who has the sockets that are left alone, and the ports of what still sends.
fn name_holders(tasks: &mut [Task], notes: &mut Vec<Note>) {
    let inodes: HashSet<u64> = tasks.iter().flat_map(Task::inodes).collect();
    let Ok(found) = proc::holders(&inodes) else {
        notes.push(Note::HoldersUnnamed);
        return;
    };
    let mut holders: HashMap<u64, Vec<Holder>> = HashMap::new();
    for held in found.held {
        holders.entry(held.inode).or_default().push(Holder {
            pid: held.pid,
            comm: held.comm,
            fd: held.fd,
            how: None,
        });
    }
    if found.unreadable > 0 && inodes.iter().any(|inode| !holders.contains_key(inode)) {
        notes.push(Note::HoldersUnreadable {
            processes: found.unreadable,
        });
    }
    for task in tasks {
        task.name_holders(&holders);
    }
}
