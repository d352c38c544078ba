//! The reports of a trace: when each one is due, what it is made from, and what is forgotten after it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sockleak_ebpf::{
    DEATH_IO_URING, Death as DeathRecord, FdKey, ProcessKey, WATCHED_IO_URING, WATCHED_MANY_TABLES,
};

use super::aftermath::{self, Records};
use super::lending::{Aside, Lenders};
use super::owned::Keys;
use super::processes::Stage;
use super::session::Session;
use super::survey::Survey;
use crate::kernel::netns::Netns;
use crate::kernel::{proc, translate};
use crate::postmortem::{
    Cause, Death, Evidence, Lost, Outcome, Process, Report, Snapshot, State, examine, followers, settled,
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
        let dead: Vec<(u32, Duration)> = self
            .processes
            .dead()
            .map(|(pid, since)| (pid, since.elapsed()))
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        let recorded: HashMap<u32, (ProcessKey, DeathRecord)> = self
            .tables
            .deaths()
            .into_iter()
            .map(|(key, death)| (key.tgid, (key, death)))
            .collect();
        let (dead, silent): (Vec<_>, Vec<_>) = dead
            .into_iter()
            .partition(|(pid, _)| self.may_have_left(*pid, &recorded));
        for (pid, _) in silent.into_iter().filter(|(_, elapsed)| *elapsed >= settle) {
            self.forget(pid, &recorded);
        }
        let due = || dead.iter().filter(|(_, elapsed)| *elapsed >= settle);
        let has_settle = self.args.settle.is_some();
        let must = |elapsed: Duration| has_settle || elapsed >= SETTLE_MAX;
        let overdue = due().any(|(_, elapsed)| must(*elapsed));
        if !overdue && self.looked.is_some_and(|at| at.elapsed() < SETTLE_STEP) {
            return Ok(());
        }
        let death = |pid: u32| recorded.get(&pid).map_or(0, |(_, death)| death.time);
        // The maps are read while sockets settle.
        self.survey(&dead.iter().map(|(pid, _)| (*pid, death(*pid))).collect())?;
        if due().next().is_none() {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let gathered = self.gather(due().map(|(pid, _)| *pid))?;
        let mut reported = Vec::new();
        for (pid, elapsed) in due() {
            if self.report_one(*pid, must(*elapsed), &gathered, &recorded)? {
                reported.push(*pid);
            }
        }
        self.forget_sockets(&reported, &gathered, &recorded)?;
        for pid in reported {
            self.forget(pid, &recorded);
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

    /// Looks for what is left of processes that were surveyed.
    fn gather(&mut self, pids: impl Iterator<Item = u32>) -> Result<Gathered> {
        let mut all = Survey::default();
        let mut owned: HashMap<u32, Keys> = HashMap::new();
        for (pid, survey) in pids.filter_map(|pid| self.surveys.remove_entry(&pid)) {
            let keys = all.take_in(survey);
            if keys.len() > 0 {
                owned.insert(pid, keys);
            }
        }
        let aside = Aside::read(&self.tables, &all.unchanged)?;
        let began = Timestamp::now();
        let snapshots = all.looks.look(&mut self.namespaces, self.loaded.ports.as_mut())?;
        let time = Timestamp::now();
        let holders = all.shared.holders(&snapshots);
        Ok(Gathered {
            began,
            time,
            snapshots,
            holders,
            owned,
            aside,
        })
    }

    /// True if the report was made.
    fn report_one(
        &mut self,
        pid: u32,
        must: bool,
        gathered: &Gathered,
        recorded: &HashMap<u32, (ProcessKey, DeathRecord)>,
    ) -> Result<bool> {
        let death = recorded.get(&pid).map(|(_, death)| death);
        let records = gathered.records(pid, self)?;
        if !must && !settled(&records.inventory) && !waits_for_peers(&records) {
            return Ok(false);
        }
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
            return Ok(false);
        }
        self.emit(&report, gathered.began)?;
        Ok(true)
    }

    fn examine(
        &self,
        pid: u32,
        records: Records,
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
        let snapshots = of_interest(&gathered.snapshots, &records);
        examine(Evidence {
            time: gathered.time,
            process,
            death: death.map(|death| Death::decide(&self.translator.exit(death))),
            holdings: aftermath::holdings(pid, &records, &gathered.holders.held, &self.processes),
            sockets: records.inventory,
            live: records.live,
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
        let left = || followers(report);
        self.left_behind |= left().next().is_some();
        self.target_reported |= report.process.target;
        if self.args.wait {
            let inodes: HashSet<u32> = left().map(|follower| follower.netns).collect();
            for inode in inodes {
                let cookie = self.namespaces.opened(inode).and_then(Netns::cookie);
                self.netns_cookies.insert(inode, cookie);
            }
            self.countdown.add(left(), seen);
        }
        Ok(())
    }

    /// The maps' entries of reported processes go.
    fn forget_sockets(
        &mut self,
        pids: &[u32],
        gathered: &Gathered,
        recorded: &HashMap<u32, (ProcessKey, DeathRecord)>,
    ) -> Result<()> {
        let others_wait = recorded.keys().any(|other| !pids.contains(other));
        if !others_wait {
            self.reported.clear();
        }
        let owned = pids.iter().filter_map(|pid| gathered.owned.get(pid));
        for keys in owned {
            let death = recorded.get(&keys.pid).map(|(_, death)| death);
            let shared = keys.shared(death.is_none_or(|death| death.files_users > 1));
            for key in shared.filter(|_| others_wait) {
                if let Some(record) = self.tables.socket(&key).filter(|record| record.change_count > 0) {
                    self.reported.insert(key.sk, (key, record));
                }
            }
            self.tables.forget_sockets(&keys.iter().collect::<Vec<_>>())?;
            let extra = |key: &FdKey| key.tgid == keys.pid && key.time == keys.death;
            for fd in self.tables.extra_fds(extra)? {
                self.tables.forget_fd(&fd);
            }
        }
        Ok(())
    }

    /// Nothing else of a reported process is kept: its death and its namespaces go.
    fn forget(&mut self, pid: u32, recorded: &HashMap<u32, (ProcessKey, DeathRecord)>) {
        match recorded.get(&pid) {
            Some((key, _)) => self.tables.forget_death(key),
            None => self.tables.unwatch(pid),
        }
        self.closers.remove(&pid);
        self.surveys.remove(&pid);
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
        self.survey(&pids.iter().map(|pid| (*pid, 0)).collect())?;
        let gathered = self.gather(pids.iter().copied())?;
        for pid in pids {
            let records = gathered.records(pid, self)?;
            let report = self.examine(pid, records, &gathered, None);
            self.emit(&report, gathered.began)?;
        }
        Ok(())
    }
}

/// Only sockets that wait for an answer of their peers are left: sock_diag knows more about them.
fn waits_for_peers(records: &Records) -> bool {
    records.inventory.iter().all(|socket| {
        settled(std::slice::from_ref(socket))
            || matches!(
                socket.last_state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
    })
}

/// What several reports share.
pub struct Gathered {
    /// When the first look began.
    began: Timestamp,
    time: Timestamp,
    snapshots: Vec<Snapshot>,
    holders: proc::Holders,
    /// By PID; a process without sockets has none.
    owned: HashMap<u32, Keys>,
    /// What may lend changes of state to those of them that have none.
    aside: Aside,
}

impl Gathered {
    fn records(&self, pid: u32, session: &Session<'_>) -> Result<Records> {
        let Some(keys) = self.owned.get(&pid) else {
            return Ok(Records::default());
        };
        let tables = &session.tables;
        let lenders = Lenders {
            tables,
            reported: &session.reported,
            aside: &self.aside,
        };
        Ok(aftermath::records(tables, &lenders, &session.translator, keys)?)
    }
}

fn of_interest(snapshots: &[Snapshot], records: &Records) -> Vec<Snapshot> {
    let sockets = records.inventory.iter().chain(&records.live);
    let wanted: HashSet<u32> = sockets.map(|socket| socket.netns).collect();
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
