//! The unrelated process, as those who measure it see it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::children::Process;
use crate::roles::churn;
use crate::samples::Spread;

/// A process that makes connections and that nobody traces.
pub struct Unrelated {
    process: Process,
    answers: usize,
}

/// How long stretches of [`churn::STRETCH`] connections took, on the clock and in CPU time.
pub struct Stretches(Vec<Duration>, Vec<Duration>);

impl Unrelated {
    /// Starts it, and lets it come to speed: its first connections take a tenth longer.
    ///
    /// # Errors
    /// When the kernel refuses it a network namespace.
    pub fn start() -> Result<Self> {
        const BEFORE: usize = 40;
        let mut unrelated = Self {
            process: Process::in_role(&["churn"])?,
            answers: 0,
        };
        unrelated.run(BEFORE)?;
        Ok(unrelated)
    }

    /// # Errors
    /// When it has ended.
    pub fn run(&mut self, stretches: usize) -> Result<Stretches> {
        self.process.tell(&format!("run {stretches}"))?;
        let answer = self.process.answer(self.answers)?;
        self.answers += 1;
        let (wall, cpu) = churn::parse(&answer)?;
        Ok(Stretches(wall, cpu))
    }
}

impl Stretches {
    pub fn add(&mut self, more: Self) {
        self.0.extend(more.0);
        self.1.extend(more.1);
    }

    /// Seconds that the middle one took, on the clock and in CPU time.
    ///
    /// # Errors
    /// When there is none.
    pub fn medians(&self) -> Result<(f64, f64)> {
        let median = |times: &[Duration]| {
            let spread = Spread::of(times.iter().map(Duration::as_secs_f64));
            spread.map(|spread| spread.median).context("no stretch was run")
        };
        Ok((median(&self.0)?, median(&self.1)?))
    }
}
