//! What the maps have of a process, in one pass over them: of a dead one its sockets are all there, and what a look at
//! the kernel needs to know about them changes no more.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use super::aftermath::Shared;
use super::looks::Looks;
use super::owned::{self, Dead, Keys};
use super::processes::ProcessId;
use super::session::Session;

/// What was found of one process, or of several.
#[derive(Default)]
pub struct Survey {
    keys: Keys,
    pub looks: Looks,
    pub shared: Shared,
    /// Addresses of sockets without a change of state: another record may have it.
    pub unchanged: HashSet<u64>,
}

impl Survey {
    /// Adds what another survey found, but for its keys.
    pub fn take_in(&mut self, other: Self) -> Keys {
        self.looks.extend(other.looks);
        self.shared.extend(other.shared);
        self.unchanged.extend(other.unchanged);
        other.keys
    }
}

impl Session<'_> {
    /// Surveys those of these processes that were not surveyed since they died.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn survey(&mut self, dead: &Dead) -> Result<()> {
        let dead: Dead = dead
            .iter()
            .map(|(id, death)| (*id, *death))
            .filter(|(id, death)| {
                let survey = self.surveys.get(id);
                // The death was not known yet.
                survey.is_none_or(|survey| survey.keys.death != *death)
            })
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        let empty = |(id, death): (&ProcessId, &u64)| {
            let keys = Keys::of(*id, *death);
            (
                *id,
                Survey {
                    keys,
                    ..Survey::default()
                },
            )
        };
        let mut surveys: HashMap<ProcessId, Survey> = dead.iter().map(empty).collect();
        let who = |pid, time| self.processes.at(pid, time).map(|(id, _)| id);
        let owner = |key: &_| owned::owner(key, &dead, who);
        let mut among = 0;
        self.tables.visit_sockets(
            |key| {
                among += 1;
                owner(key).is_some()
            },
            |key, record| {
                let Some((id, survey)) = owner(&key).and_then(|id| Some((id, surveys.get_mut(&id)?))) else {
                    return;
                };
                survey.keys.add(key, &record);
                if record.change_count == 0 {
                    survey.unchanged.insert(key.sk);
                }
                survey.shared.add(&record);
                // Before somebody else leaves it, and the namespace is gone.
                self.namespaces.sighted(id, record.netns);
                survey.looks.add(&self.translator.socket(&key, &record, &[]));
            },
        )?;
        for survey in surveys.values_mut() {
            survey.keys.settle(among);
        }
        self.surveys.extend(surveys);
        Ok(())
    }
}
