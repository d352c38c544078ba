//! The processes that die.

use std::time::Instant;

use anyhow::Result;

use crate::children::Process;
use crate::process;

/// Loopback addresses of the victims begin like this, so that their lines are told from those of others.
pub const ADDRESSES: &str = "127.66.";
/// Changes of state of a pair that is opened and killed, and of a listener.
const CHANGES_OF_A_PAIR: usize = 10;
const CHANGES_OF_A_LISTENER: usize = 2;
/// What the sockets of a victim are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A listener and so many connections with both ends; 0 means no socket at all.
    Pairs(usize),
    /// One listener at this descriptor.
    High(u64),
}

/// How a crash is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub processes: usize,
    pub shape: Shape,
    /// The sockets are opened while the tool is attached, and not before.
    pub traced_from_birth: bool,
    /// Ask `ss` before and after.
    pub ss: bool,
}

impl Plan {
    /// Sockets that all reports together must have.
    pub fn sockets(&self) -> usize {
        self.processes
            * match self.shape {
                Shape::Pairs(0) => 0,
                Shape::Pairs(pairs) => 2 * pairs + 1,
                Shape::High(_) => 1,
            }
    }

    /// Changes of state from the opening to the last close.
    pub fn changes(&self) -> usize {
        let Shape::Pairs(pairs) = self.shape else {
            return self.processes * CHANGES_OF_A_LISTENER;
        };
        self.processes * (pairs * CHANGES_OF_A_PAIR + CHANGES_OF_A_LISTENER)
    }
}

/// Children that have sockets.
pub struct Victims {
    pub processes: Vec<Process>,
    plan: Plan,
}

impl Victims {
    pub fn start(plan: Plan) -> Result<Self> {
        let processes = (0..plan.processes).map(|_| Process::in_role(&["load"]));
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
            plan,
        })
    }

    /// Lets all of them open their sockets, at the same time.
    pub fn open(&mut self) -> Result<()> {
        for (number, process) in self.processes.iter_mut().enumerate() {
            match self.plan.shape {
                Shape::Pairs(0) => return Ok(()),
                Shape::Pairs(pairs) => process.tell(&format!("pairs {pairs} {ADDRESSES}{}.1", number + 1))?,
                Shape::High(fd) => process.tell(&format!("high {fd}"))?,
            }
        }
        for process in &self.processes {
            process.answer(0)?;
        }
        Ok(())
    }

    /// Lets all of them crash; the moment of the last close.
    pub fn crash(&mut self) -> Result<Instant> {
        let pidfds = self
            .processes
            .iter()
            .map(Process::pidfd)
            .collect::<Result<Vec<_>>>()?;
        for process in &mut self.processes {
            process.tell("crash")?;
        }
        process::wait_for_deaths(&pidfds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_of_the_usual_size() {
        let plan = Plan {
            processes: 1,
            shape: Shape::Pairs(9000),
            traced_from_birth: true,
            ss: false,
        };
        assert_eq!((plan.sockets(), plan.changes()), (18_001, 90_002));
        let nothing = Plan {
            shape: Shape::Pairs(0),
            ..plan
        };
        assert_eq!(nothing.sockets(), 0);
    }
}
