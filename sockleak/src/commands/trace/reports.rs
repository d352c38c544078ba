//! The reports of a trace: when each one is due, what it is made from, and what is forgotten after it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sockleak_ebpf::{
    DEATH_IO_URING, Death as DeathRecord, ORIGIN_INVENTORY, ProcessKey, SocketKey, WATCHED_IO_URING,
    WATCHED_MANY_TABLES,
};

use super::aftermath::{self, Records};
use super::looks;
use super::processes::Stage;
use super::session::Session;
use crate::kernel::netns::Netns;
use crate::kernel::{proc, translate};
use crate::postmortem::{
    Cause, Death, Evidence, Lost, Outcome, Process, Report, Snapshot, Socket, State, examine, followers,
    settled,
};

/// The report is made at the earliest this long after the pidfd became readable.
const SETTLE_MIN: Duration = Duration::from_millis(50);
/// And at the latest this long after.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Between two looks at a death that has not settled.
const SETTLE_STEP: Duration = Duration::from_millis(100);

impl Session<'_> {
    /// Makes the reports of the dead whose sockets have settled.
    ///
    /// # Errors
    /// When sock_diag does not answer, or stdout cannot be written.
    pub fn report_settled(&mut self) -> Result<()> {
        let settle = self.args.settle.unwrap_or(SETTLE_MIN);
        let due: Vec<(u32, Duration)> = self
            .processes
            .dead()
            .map(|(pid, since)| (pid, since.elapsed()))
            .filter(|(_, elapsed)| *elapsed >= settle)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let recorded: HashMap<u32, (ProcessKey, DeathRecord)> = self
            .tables
            .deaths()
            .into_iter()
            .map(|(key, death)| (key.tgid, (key, death)))
            .collect();
        let (due, silent): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|(pid, _)| self.may_have_left(*pid, &recorded));
        for (pid, _) in silent {
            self.forget(pid, &recorded, &[]);
        }
        let overdue = due
            .iter()
            .any(|(_, elapsed)| self.args.settle.is_some() || *elapsed >= SETTLE_MAX);
        if due.is_empty() || (!overdue && self.looked.is_some_and(|at| at.elapsed() < SETTLE_STEP)) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let times = due
            .iter()
            .map(|(pid, _)| (*pid, recorded.get(pid).map_or(0, |(_, death)| death.time)))
            .collect();
        let records = aftermath::records(&self.tables, &self.reported, &self.translator, &times);
        let gathered = self.gather(&records)?;
        for (pid, elapsed) in due {
            let must = self.args.settle.is_some() || elapsed >= SETTLE_MAX;
            self.report_one(pid, must, records.get(&pid), &gathered, &recorded)?;
        }
        Ok(())
    }

    /// A target always gets a report; a child only if it held or left a socket.
    fn may_have_left(&self, pid: u32, recorded: &HashMap<u32, (ProcessKey, DeathRecord)>) -> bool {
        self.processes
            .get(pid)
            .is_some_and(|followed| followed.process.target)
            || self.closers.contains(&pid)
            || self.lost_something()
            || recorded
                .get(&pid)
                .is_none_or(|(_, death)| death.sockets + death.not_recorded + death.slots_skipped != 0)
    }

    fn gather(&mut self, records: &HashMap<u32, Records>) -> Result<Gathered> {
        let sockets = || {
            records
                .values()
                .flat_map(|records| records.inventory.iter().chain(&records.live))
        };
        let began = Timestamp::now();
        let snapshots = looks::snapshots(sockets(), &mut self.namespaces, self.loaded.ports.as_mut())?;
        let time = Timestamp::now();
        let holders = aftermath::holders(sockets(), &snapshots);
        Ok(Gathered {
            began,
            time,
            snapshots,
            holders,
        })
    }

    fn report_one(
        &mut self,
        pid: u32,
        must: bool,
        records: Option<&Records>,
        gathered: &Gathered,
        recorded: &HashMap<u32, (ProcessKey, DeathRecord)>,
    ) -> Result<()> {
        let empty = Records::default();
        let records = records.unwrap_or(&empty);
        if !must && !settled(&records.inventory) && !self.waits_for_peers(records) {
            return Ok(());
        }
        let death = recorded.get(&pid).map(|(_, death)| death);
        let report = self.examine(pid, records, gathered, death);
        let dying = |holder: u32| recorded.contains_key(&holder);
        // /proc shows no descriptor of a process that has let go of its table and not closed it yet.
        let somebody_closes = recorded.keys().any(|other| {
            let other = self.processes.get(*other).map(|other| &other.stage);
            matches!(other, Some(Stage::Alive))
        });
        let held_by_the_dying = report.sockets.iter().any(|socket| {
            let by_nobody = socket.outcome == Outcome::Held && socket.holders.is_empty();
            socket.holders.iter().any(|holder| dying(holder.pid)) || (by_nobody && somebody_closes)
        });
        if !must && (held_by_the_dying || !report.settled()) {
            return Ok(());
        }
        self.emit(&report, gathered.began)?;
        let keys = records.keys.clone();
        self.forget(pid, recorded, &keys);
        Ok(())
    }

    /// Only sockets that wait for an answer of their peers are left: sock_diag knows more about them.
    fn waits_for_peers(&self, records: &Records) -> bool {
        records.inventory.iter().all(|socket| {
            settled(std::slice::from_ref(socket))
                || matches!(
                    socket.last_state(),
                    State::FinWait1 | State::Closing | State::LastAck
                )
        })
    }

    fn examine(
        &self,
        pid: u32,
        records: &Records,
        gathered: &Gathered,
        death: Option<&DeathRecord>,
    ) -> Report {
        let followed = self.processes.get(pid);
        let mut process = followed.map_or_else(|| unknown_process(pid), |followed| followed.process.clone());
        if let Some(death) = death {
            process.comm = translate::comm(&death.comm);
            if process.ns_pid.is_none() && death.ns_pid != 0 {
                process.ns_pid = Some(death.ns_pid);
            }
        }
        let mut blind = self.loaded.blind.clone();
        if death.is_none() && !followed.is_some_and(|followed| matches!(followed.stage, Stage::Alive)) {
            blind.push(
                "The exit hook did not see the process: the kernel skipped it, or the process was dying already when it \
                 was attached. How it died and what it held is not known."
                    .into(),
            );
        }
        if death.is_some_and(|death| death.watched.flags & WATCHED_MANY_TABLES != 0) {
            blind.push(
                "Threads of the process had fd tables of their own: sockets that were only in another one than the last \
                 thread's are not listed."
                    .into(),
            );
        }
        let living = self.tables.watched(pid);
        let snapshots = of_interest(&gathered.snapshots, &records.inventory, &records.live);
        let all: Vec<Socket> = records.inventory.iter().chain(&records.live).cloned().collect();
        examine(Evidence {
            time: gathered.time,
            process,
            death: death.map(|death| Death::decide(&self.translator.exit(death))),
            holdings: aftermath::holdings(pid, &all, &gathered.holders.held, &self.processes),
            sockets: records.inventory.clone(),
            live: records.live.clone(),
            snapshots,
            unread: gathered.holders.unreadable,
            io_uring: death.is_some_and(|death| death.flags & DEATH_IO_URING != 0)
                || living.is_some_and(|watched| watched.flags & WATCHED_IO_URING != 0),
            blind,
            lost: Lost {
                events: self.lost_since(death.map_or(0, |death| death.time)),
                inventory: death.map_or(0, |death| u64::from(death.not_recorded)),
                slots: death.map_or(0, |death| u64::from(death.slots_skipped)),
            },
            hz: self.translator.hz,
        })
    }

    /// `seen` is a moment at which everything that is left was there.
    fn emit(&mut self, report: &Report, seen: Timestamp) -> Result<()> {
        let failed = report
            .death
            .as_ref()
            .is_some_and(|death| death.cause != Cause::Exit { code: 0 });
        let empty = report.sockets.is_empty() && report.left_while_alive.is_empty();
        let wanted =
            (report.process.target || !empty) && (failed || !self.args.failed || report.death.is_none());
        if !wanted {
            return Ok(());
        }
        if let Some(death) = &report.death {
            self.output.death(&report.process, death)?;
        }
        self.output.report(report)?;
        let left = followers(report);
        self.left_behind |= !left.is_empty();
        self.target_reported |= report.process.target;
        if self.args.wait {
            let inodes: HashSet<u32> = left.iter().map(|follower| follower.netns).collect();
            for inode in inodes {
                let cookie = self.namespaces.opened(inode).and_then(Netns::cookie);
                self.netns_cookies.insert(inode, cookie);
            }
            self.countdown.add(left, seen);
        }
        Ok(())
    }

    /// Nothing of a reported process is kept: its maps' entries and its namespaces go.
    fn forget(&mut self, pid: u32, recorded: &HashMap<u32, (ProcessKey, DeathRecord)>, keys: &[SocketKey]) {
        let others_wait = recorded.keys().any(|other| *other != pid);
        if !others_wait {
            self.reported.clear();
        }
        for key in keys {
            if others_wait
                && key.origin == ORIGIN_INVENTORY
                && let Some(record) = self.tables.socket(key).filter(|record| record.change_count > 0)
            {
                self.reported.insert(key.sk, (*key, record));
            }
            self.tables.forget_socket(key);
        }
        if let Some((key, death)) = recorded.get(&pid) {
            for fd in self.tables.extra_fds(pid, death.time) {
                self.tables.forget_fd(&fd);
            }
            self.tables.forget_death(key);
        } else {
            self.tables.unwatch(pid);
        }
        self.closers.remove(&pid);
        self.namespaces.leave(pid);
        self.processes.forget_table(pid);
        let target = self
            .processes
            .get(pid)
            .is_some_and(|followed| followed.process.target);
        if target {
            if let Some(followed) = self.processes.get_mut(pid) {
                followed.stage = Stage::Reported;
            }
        } else {
            self.processes.forget(pid);
        }
    }

    /// Reports the targets that live, as far as they are known, with no death.
    ///
    /// # Errors
    /// When sock_diag does not answer, or stdout cannot be written.
    pub fn report_living(&mut self) -> Result<()> {
        let pids: Vec<u32> = self
            .processes
            .alive()
            .filter(|followed| followed.process.target || self.closers.contains(&followed.process.pid))
            .map(|followed| followed.process.pid)
            .collect();
        let times = pids.iter().map(|pid| (*pid, 0)).collect();
        let records = aftermath::records(&self.tables, &self.reported, &self.translator, &times);
        let gathered = self.gather(&records)?;
        let empty = Records::default();
        for pid in pids {
            let report = self.examine(pid, records.get(&pid).unwrap_or(&empty), &gathered, None);
            self.emit(&report, gathered.began)?;
        }
        Ok(())
    }
}

/// What several reports share.
pub struct Gathered {
    /// When the first look began.
    began: Timestamp,
    time: Timestamp,
    snapshots: Vec<Snapshot>,
    holders: proc::Holders,
}

fn of_interest(snapshots: &[Snapshot], inventory: &[Socket], live: &[Socket]) -> Vec<Snapshot> {
    let wanted: HashSet<u32> = inventory.iter().chain(live).map(|socket| socket.netns).collect();
    snapshots
        .iter()
        .filter(|snapshot| wanted.contains(&snapshot.netns))
        .cloned()
        .collect()
}

fn unknown_process(pid: u32) -> Process {
    Process {
        pid,
        ns_pid: None,
        comm: String::new(),
        exe: None,
        cgroup: None,
        started: None,
        target: false,
    }
}
