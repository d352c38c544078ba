//! Whose the sockets are that close when a process becomes another program.

use anyhow::Result;
use sockleak_kernel::proc;

use super::aftermath;
use super::processes::ProcessId;
use super::session::Session;

/// A program whose process has become another one. The kernel closes its sockets on the way back to user mode,
/// one right after the other: a pause means that the new program runs.
pub struct Former {
    comm: String,
    /// Boot-time nanoseconds until which the next close can be one of that row.
    until: u64,
    end: u64,
    /// The new program was seen to have got no connection.
    left_nothing: bool,
}

impl Former {
    const PAUSE: u64 = 100_000_000;
    const MOST: u64 = 1_000_000_000;

    /// `exec` is the moment of the exec, in boot-time nanoseconds.
    pub fn new(comm: String, exec: u64) -> Self {
        Self {
            comm,
            until: exec.saturating_add(Self::PAUSE),
            end: exec.saturating_add(Self::MOST),
            left_nothing: false,
        }
    }

    /// Its name, if a close at that moment is one of its row.
    pub fn closes(&mut self, time: u64) -> Option<&str> {
        if time > self.until {
            return None;
        }
        self.until = time.saturating_add(Self::PAUSE).min(self.end);
        Some(&self.comm)
    }
}

impl Session<'_> {
    /// A process became another program at that moment. False for one that is not followed.
    pub(super) fn executed(&mut self, id: ProcessId, comm: &str, time: u64) -> bool {
        let Some(followed) = self.processes.get(id) else {
            return false;
        };
        let target = followed.process.target;
        let left_nothing = lives_without_sockets(id.pid);
        let process = proc::process(id.pid, target);
        // Of a program that has ended meanwhile nothing more is known, and its PID may be another's.
        let is_still = self.is_still(id);
        let Some(followed) = self.processes.get_mut(id) else {
            return false;
        };
        let before = std::mem::take(&mut followed.process.comm);
        let mut former = Former::new(before, time);
        former.left_nothing = is_still && left_nothing;
        followed.former = Some(former);
        match process {
            Ok(process) if is_still => followed.process = process,
            _ => followed.process.exe = None,
        }
        // /proc may tell the name of a later program already.
        comm.clone_into(&mut followed.process.comm);
        true
    }

    /// The name of the program that a socket belonged to which the process closed at that moment.
    ///
    /// What an exec closes comes under the new name. It is told under the old one if the new program got no
    /// socket from it: then there is nothing else that could be closed at once.
    pub(super) fn owner(&mut self, id: ProcessId, time: u64) -> Result<String> {
        if let Some(followed) = self.processes.get_mut(id)
            && let Some(mut former) = followed.former.take()
            && let Some(comm) = former.closes(time).map(str::to_owned)
            && (former.left_nothing || self.has_no_connection(id)?)
            && let Some(followed) = self.processes.get_mut(id)
        {
            former.left_nothing = true;
            followed.former = Some(former);
            return Ok(comm);
        }
        Ok(self.comm(id))
    }

    fn has_no_connection(&mut self, id: ProcessId) -> Result<bool> {
        Ok(lives_without_sockets(id.pid)
            || (proc::socket_inodes(id.pid).is_ok_and(|inodes| !inodes.is_empty())
                && aftermath::count(&[id], &mut self.namespaces)? == Some((0, 0))))
    }
}

/// The table of a process that is dead says nothing: it is empty.
fn lives_without_sockets(pid: u32) -> bool {
    proc::socket_inodes(pid).is_ok_and(|inodes| inodes.is_empty())
        && proc::stat(pid).is_ok_and(|stat| !stat.is_zombie())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_pause_ends_the_closes_of_an_exec() {
        let mut former = Former::new("orderd".into(), 0);
        assert_eq!(former.closes(MILLISECOND), Some("orderd"));
        assert_eq!(former.closes(100 * MILLISECOND), Some("orderd"));
        assert_eq!(former.closes(201 * MILLISECOND), None);
    }

    #[test]
    fn a_new_program_that_closes_all_the_time_is_named_itself() {
        let mut former = Former::new("orderd".into(), 0);
        let last = (0..100).filter(|step| former.closes(step * 90 * MILLISECOND).is_some());
        assert_eq!(last.last(), Some(11));
    }
}
