//! The evidence of one process, from its records and from what a look at the kernel showed.

use std::collections::HashSet;

use jiff::Timestamp;
use sockleak_core::observed::{BlindSpot, Death, Evidence, Holding, Lost, Process, ProcessId, Snapshot};
use sockleak_core::verdict::has_settled;
use sockleak_kernel::inventory::{Deaths, RecordedDeath, Records};
use sockleak_kernel::load::Programs;
use sockleak_kernel::proc::{Held, Holders};

use super::losses::Losses;
use super::processes::{Lifecycle, Processes, WatchedProcess};
use super::watch::Watch;

/// The parts of a trace that evidence is collected from.
pub struct Parts<'a> {
    pub watch: &'a mut Watch,
    pub programs: &'a mut Programs,
    pub losses: &'a Losses,
}

impl Parts<'_> {
    /// Events that were lost until now.
    pub fn lost_events(&self) -> u64 {
        lost_events(self.watch, self.programs)
    }
}

/// Events that the programs could not send, or were skipped for, and processes that are not watched.
pub fn lost_events(watch: &Watch, programs: &Programs) -> u64 {
    let counters = watch.inventory().counters();
    counters.events_lost + counters.follow_failed + watch.unwatched() + programs.recursion_misses()
}

/// What a look showed that several processes share.
pub struct Gathered {
    /// When it ended.
    pub time: Timestamp,
    pub snapshots: Vec<Snapshot>,
    pub holders: Holders,
    /// Those that were not forgotten; `None` when it was a look at what living processes left.
    pub deaths: Option<Deaths>,
}

impl Gathered {
    /// The evidence of a process.
    pub fn evidence(&self, id: ProcessId, records: Records, parts: &Parts<'_>) -> Evidence {
        let death = self.deaths.as_ref().and_then(|deaths| deaths.of(id));
        let watched = parts.watch.processes().get(id);
        let is_in = |wanted: fn(&Lifecycle) -> bool| watched.is_some_and(|known| wanted(&known.lifecycle));
        let lives = is_in(|lifecycle| matches!(lifecycle, Lifecycle::Alive | Lifecycle::Dying));
        let mut blind = parts.programs.blind_spots().to_vec();
        if death.is_none() && !is_in(|lifecycle| matches!(lifecycle, Lifecycle::Alive)) {
            blind.push(BlindSpot::ExitUnseen);
        }
        if death.is_some_and(|death| death.watched.many_tables) {
            blind.push(BlindSpot::OtherTables);
        }
        let entry = parts.watch.entry(id);
        let since = death.map_or(0, |death| death.time);
        Evidence {
            time: self.time,
            process: process(id, watched, death, parts),
            death: death.map(|death| Death::decide(&death.exit)),
            holdings: holdings(
                (id.pid, lives),
                &records,
                &self.holders.held,
                parts.watch.processes(),
            ),
            snapshots: self.of_interest(&records),
            sockets: records.inventory,
            closed_alive: records.closed_alive,
            unreadable: self.holders.unreadable,
            io_uring: death.is_some_and(|death| death.io_uring) || entry.is_some_and(|entry| entry.io_uring),
            blind,
            lost: Lost {
                events: parts.losses.since(since, parts.lost_events()),
                inventory: death.map_or(0, |death| death.not_recorded.into()),
                slots: death.map_or(0, |death| death.slots_skipped.into()),
            },
            hz: parts.watch.inventory().hz(),
        }
    }

    /// Another look a moment later would say the same of it.
    pub fn has_settled(&self, evidence: &Evidence) -> bool {
        let deaths = self.deaths.as_ref();
        has_settled(evidence, |pid| deaths.is_some_and(|deaths| deaths.has(pid)))
    }

    fn of_interest(&self, records: &Records) -> Vec<Snapshot> {
        let sockets = records.inventory.iter().chain(&records.closed_alive);
        let wanted: HashSet<u32> = sockets.map(|socket| socket.netns).collect();
        let all = self.snapshots.iter();
        all.filter(|snapshot| wanted.contains(&snapshot.netns))
            .cloned()
            .collect()
    }
}

/// What is known of a process, with what the exit hook saw.
fn process(
    id: ProcessId,
    watched: Option<&WatchedProcess>,
    death: Option<&RecordedDeath>,
    parts: &Parts<'_>,
) -> Process {
    let mut process = watched.map_or_else(|| Process::unknown(id.pid), |watched| watched.process.clone());
    if let Some(death) = death {
        process.comm.clone_from(&death.comm);
        process.started = process
            .started
            .or_else(|| Some(parts.watch.inventory().time(death.start)));
        process.ns_pid = process.ns_pid.or(death.ns_pid);
    }
    process
}

/// Those of the holders that have a socket of this process, and how they are related to it. A process that lives is no
/// holder of its own sockets; the PID of a dead one may be another's.
fn holdings(
    (pid, lives): (u32, bool),
    records: &Records,
    held: &[Held],
    processes: &Processes,
) -> Vec<Holding> {
    if held.is_empty() {
        return Vec::new();
    }
    let sockets = records.inventory.iter().chain(&records.closed_alive);
    let inodes: HashSet<u64> = sockets.filter_map(|socket| socket.inode).collect();
    held.iter()
        .filter(|held| !(lives && held.pid == pid) && inodes.contains(&held.inode))
        .map(|held| Holding {
            inode: held.inode,
            pid: held.pid,
            comm: held.comm.clone(),
            fd: held.fd,
            relation: processes.relation(pid, held.pid, held.inode),
        })
        .collect()
}
