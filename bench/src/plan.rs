//! What is measured with, and how much of everything.

use std::path::PathBuf;

use anyhow::Result;
use sockleak_kernel::descriptors;

use crate::tools::Installed;

/// What every measurement needs.
pub struct Bench {
    pub sockleak: PathBuf,
    pub installed: Installed,
    pub sizes: Sizes,
}

/// How much of everything.
pub struct Sizes {
    /// Connections of the process whose crash is compared, with both ends in it.
    pub pairs: usize,
    /// Processes and the connections of each, for the curve.
    pub curve: Vec<(usize, usize)>,
    /// Stretches of connections that an unrelated process makes at a time.
    pub stretches: usize,
    /// How often a round measures uninvolved changes.
    pub repeats: u32,
    /// How often it measures the walks and the answers.
    pub crashes: u32,
    /// A descriptor at the end of a large table.
    pub high: u64,
}

impl Sizes {
    /// Those of the tables.
    ///
    /// # Errors
    /// When the limit of descriptors is not to be had.
    pub fn full() -> Result<Self> {
        /// What a process has open beside its sockets.
        const OTHERS: u64 = 20;
        let limit = descriptors::raise_limit(0)?.min(20_000);
        let most = (limit.saturating_sub(OTHERS) / 2) as usize;
        let curve = [
            (1, 0),
            (1, 50),
            (1, 500),
            (1, 5000),
            (1, 9000),
            (4, most),
            (8, most),
        ];
        Ok(Self {
            pairs: most.min(9000),
            curve: curve
                .map(|(processes, pairs)| (processes, pairs.min(most)))
                .into(),
            stretches: 5,
            repeats: 8,
            crashes: 4,
            high: limit - 1,
        })
    }

    /// Those of a smoke test.
    pub fn smoke() -> Self {
        Self {
            pairs: 100,
            curve: vec![(1, 0), (1, 50), (2, 50)],
            stretches: 1,
            repeats: 1,
            crashes: 1,
            high: 999,
        }
    }
}
