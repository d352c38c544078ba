//! The reports of a trace: when each one is due, what it is made from, and what is forgotten after it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sockleak_core::leftover::followers;
use sockleak_core::observed::{BlindSpot, Cause, Death, Process, Snapshot, State};
use sockleak_core::verdict::{Evidence, Lost, Outcome, Report, examine, settled};
use sockleak_ebpf::{
    DEATH_IO_URING, Death as DeathRecord, FdKey, ProcessKey, WATCHED_IO_URING, WATCHED_MANY_TABLES,
};
use sockleak_kernel::netns::Netns;
use sockleak_kernel::{proc, translate};

use super::aftermath::{self, Records};
use super::deaths::Deaths;
use super::lending::{Aside, Lenders};
use super::looks::Seen;
use super::owned::Keys;
use super::processes::{ProcessId, Stage};
use super::session::Session;
use super::survey::Survey;

/// The report is made at the earliest this long after the pidfd became readable.
const SETTLE_MIN: Duration = Duration::from_millis(50);
/// And at the latest by the first look that is this long after.
const SETTLE_MAX: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Makes the reports of the dead whose sockets have settled; of all that are dead or dying if there is no later call.
    ///
    /// # Errors
    /// When sock_diag does not answer, or stdout cannot be written.
    pub fn report_settled(&mut self, is_last: bool) -> Result<()> {
        let settle = match self.args.settle {
            _ if is_last => Duration::ZERO,
            Some(settle) => settle,
            None => SETTLE_MIN,
        };
        let dying = self.processes.dying().filter(|_| is_last);
        let dead: Vec<(ProcessId, Duration)> = self
            .processes
            .dead()
            .map(|(id, since)| (id, since.elapsed()))
            .chain(dying.map(|id| (id, Duration::ZERO)))
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        let recorded = Deaths::read(&self.tables);
        let (dead, silent): (Vec<_>, Vec<_>) = dead
            .into_iter()
            .partition(|(id, _)| self.may_have_left(*id, &recorded));
        for (id, _) in silent.into_iter().filter(|(_, elapsed)| *elapsed >= settle) {
            self.forget(id, &recorded);
        }
        let due = || dead.iter().filter(|(_, elapsed)| *elapsed >= settle);
        let has_settle = self.args.settle.is_some();
        let must = |elapsed: Duration| is_last || has_settle || elapsed >= SETTLE_MAX;
        let now = Instant::now();
        if !is_last && !self.pace.allows(now) {
            return Ok(());
        }
        // The maps are read while sockets settle.
        self.survey(&dead.iter().map(|(id, _)| (*id, recorded.time(*id))).collect())?;
        if due().next().is_none() {
            return Ok(());
        }
        let gathered = self.gather(due().map(|(id, _)| *id))?;
        self.pace.looked(now, gathered.searched);
        let mut reported = Vec::new();
        for (id, elapsed) in due() {
            if self.report_one(*id, must(*elapsed), &gathered, &recorded)? {
                reported.push(*id);
            }
        }
        self.forget_sockets(&reported, &gathered, &recorded)?;
        for id in reported {
            self.forget(id, &recorded);
        }
        Ok(())
    }

    /// A target always gets a report; a child only if it held or left a socket.
    fn may_have_left(&self, id: ProcessId, recorded: &Deaths) -> bool {
        self.processes
            .get(id)
            .is_some_and(|followed| followed.process.target || followed.closed)
            || self.lost_something()
            || recorded
                .of(id)
                .is_none_or(|(_, death)| death.sockets + death.not_recorded + death.slots_skipped != 0)
    }

    /// Looks for what is left of processes that were surveyed.
    fn gather(&mut self, ids: impl Iterator<Item = ProcessId>) -> Result<Gathered> {
        let mut all = Survey::default();
        let mut owned: HashMap<ProcessId, Keys> = HashMap::new();
        for (id, survey) in ids.filter_map(|id| self.surveys.remove_entry(&id)) {
            let keys = all.take_in(survey);
            if keys.len() > 0 {
                owned.insert(id, keys);
            }
        }
        let aside = Aside::read(&self.tables, &all.unchanged)?;
        let began = Timestamp::now();
        let ports = self.loaded.ports.as_mut();
        let Seen {
            snapshots,
            holders,
            searched,
        } = all.looks.look(all.shared, &mut self.namespaces, ports)?;
        let time = Timestamp::now();
        Ok(Gathered {
            began,
            time,
            snapshots,
            holders,
            searched,
            owned,
            aside,
        })
    }

    /// True if the report was made.
    fn report_one(
        &mut self,
        id: ProcessId,
        must: bool,
        gathered: &Gathered,
        recorded: &Deaths,
    ) -> Result<bool> {
        let records = gathered.records(id, self)?;
        if !must && !settled(&records.inventory) && !waits_for_peers(&records) {
            return Ok(false);
        }
        let report = self.examine(id, records, gathered, recorded.of(id));
        let dying = |holder: u32| recorded.has(holder);
        // Nothing shows the descriptors of a process that has let go of its table and not closed it yet.
        let somebody_closes = recorded.iter().any(|(other, death)| {
            let other = self.processes.at(other.tgid, death.time);
            matches!(other, Some((_, followed)) if matches!(followed.stage, Stage::Alive | Stage::Dying))
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
        id: ProcessId,
        records: Records,
        gathered: &Gathered,
        recorded: Option<&(ProcessKey, DeathRecord)>,
    ) -> Report {
        let followed = self.processes.get(id);
        let mut process =
            followed.map_or_else(|| Process::unknown(id.pid), |followed| followed.process.clone());
        if let Some((key, death)) = recorded {
            process.comm = translate::comm(&death.comm);
            if process.started.is_none() {
                process.started = Some(self.translator.time(key.start));
            }
            if process.ns_pid.is_none() && death.ns_pid != 0 {
                process.ns_pid = Some(death.ns_pid);
            }
        }
        let death = recorded.map(|(_, death)| death);
        let lives = followed.is_some_and(|followed| matches!(followed.stage, Stage::Alive | Stage::Dying));
        let mut blind = self.loaded.blind.clone();
        if death.is_none() && !followed.is_some_and(|followed| matches!(followed.stage, Stage::Alive)) {
            blind.push(BlindSpot::ExitUnseen);
        }
        if death.is_some_and(|death| death.watched.flags & WATCHED_MANY_TABLES != 0) {
            blind.push(BlindSpot::OtherTables);
        }
        let living = self.watched(id);
        let snapshots = of_interest(&gathered.snapshots, &records);
        examine(Evidence {
            time: gathered.time,
            process,
            death: death.map(|death| Death::decide(&self.translator.exit(death))),
            holdings: aftermath::holdings((id.pid, lives), &records, &gathered.holders.held, &self.processes),
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
    fn forget_sockets(&mut self, ids: &[ProcessId], gathered: &Gathered, recorded: &Deaths) -> Result<()> {
        let others_wait =
            recorded.iter().count() > ids.iter().filter(|id| recorded.of(**id).is_some()).count();
        if !others_wait {
            self.reported.clear();
        }
        let owned = ids.iter().filter_map(|id| gathered.owned.get(id));
        for keys in owned {
            let death = recorded.of(keys.id);
            let shared = keys.shared(death.is_none_or(|(_, death)| death.files_users > 1));
            for key in shared.filter(|_| others_wait) {
                if let Some(record) = self.tables.socket(&key).filter(|record| record.change_count > 0) {
                    self.reported.insert(key.sk, (key, record));
                }
            }
            self.tables.forget_sockets(&keys.iter().collect::<Vec<_>>())?;
            let extra = |key: &FdKey| key.tgid == keys.id.pid && key.time == keys.death;
            for fd in self.tables.extra_fds(extra)? {
                self.tables.forget_fd(&fd);
            }
        }
        Ok(())
    }

    /// Nothing else of a reported process is kept: its death and its namespaces go.
    fn forget(&mut self, id: ProcessId, recorded: &Deaths) {
        match recorded.of(id) {
            Some((key, _)) => self.tables.forget_death(key),
            // Unless it is another process by now.
            None if self.watched(id).is_some() => self.tables.unwatch(id.pid),
            None => {}
        }
        self.surveys.remove(&id);
        self.namespaces.leave(id);
        if self
            .processes
            .at(id.pid, u64::MAX)
            .is_some_and(|(last, _)| last == id)
        {
            self.processes.forget_table(id.pid);
        }
        match self.processes.get_mut(id) {
            Some(followed) if followed.process.target => followed.stage = Stage::Reported,
            _ => self.processes.forget(id),
        }
    }

    /// Reports the targets that live, as far as they are known, with no death.
    ///
    /// # Errors
    /// When sock_diag does not answer, or stdout cannot be written.
    pub fn report_living(&mut self) -> Result<()> {
        let ids: Vec<ProcessId> = self
            .processes
            .alive()
            .filter(|(_, followed)| followed.process.target || followed.closed)
            .map(|(id, _)| id)
            .collect();
        self.survey(&ids.iter().map(|id| (*id, 0)).collect())?;
        let gathered = self.gather(ids.iter().copied())?;
        for id in ids {
            let records = gathered.records(id, self)?;
            let report = self.examine(id, records, &gathered, None);
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
    /// How long it took to find those.
    searched: Duration,
    /// A process without sockets has none.
    owned: HashMap<ProcessId, Keys>,
    /// What may lend changes of state to those of them that have none.
    aside: Aside,
}

impl Gathered {
    fn records(&self, id: ProcessId, session: &Session<'_>) -> Result<Records> {
        let Some(keys) = self.owned.get(&id) else {
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
