//! Which kernels there are to test: `tests/kernels.toml`.

use std::fs;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::shell;

/// Path of the list in the repository.
const LIST: &str = "tests/kernels.toml";
/// The word for every kernel of the list.
const ALL: &str = "all";

/// The whole list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    /// Names of modules in the order in which they are loaded, without their suffix.
    pub modules: Vec<String>,
    #[serde(rename = "kernel")]
    pub all: Vec<Kernel>,
}

/// One kernel of the list.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Beginning of its version: `6.12`, or `7` for whatever is the newest 7.x.
    pub series: String,
    /// Debian suite in which it is looked for.
    pub suite: String,
}

impl Kernels {
    /// # Errors
    /// When the list cannot be read.
    pub fn read() -> Result<Self> {
        let path = shell::repository().join(LIST);
        let text = fs::read_to_string(&path).with_context(|| format!("{LIST} cannot be read"))?;
        toml::from_str(&text).with_context(|| format!("{LIST} is not what it should be"))
    }

    /// The kernels that were asked for by their series, in the order of the list.
    ///
    /// # Errors
    /// When a series is not in the list.
    pub fn select(&self, asked: &[String]) -> Result<Vec<Kernel>> {
        for series in asked {
            if series != ALL && self.all.iter().all(|kernel| kernel.series != *series) {
                let known: Vec<_> = self.all.iter().map(|kernel| kernel.series.as_str()).collect();
                bail!(
                    "no kernel {series} in {LIST}: there are {} and {ALL}",
                    known.join(", ")
                );
            }
        }
        let is_asked = |kernel: &&Kernel| {
            asked
                .iter()
                .any(|series| series == ALL || *series == kernel.series)
        };
        Ok(self.all.iter().filter(is_asked).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(asked: &[&str]) -> Result<Vec<String>> {
        let asked: Vec<_> = asked.iter().map(|word| (*word).to_owned()).collect();
        let selected = Kernels::read()?.select(&asked)?;
        Ok(selected.into_iter().map(|kernel| kernel.series).collect())
    }

    #[test]
    fn kernels_are_selected_by_series() {
        assert_eq!(series(&["6.12", "5.10"]).unwrap(), ["5.10", "6.12"]);
        assert_eq!(series(&["all"]).unwrap().len(), 5);
        assert_eq!(
            series(&["6.1", "4.19"]).unwrap_err().to_string(),
            "no kernel 4.19 in tests/kernels.toml: there are 5.10, 6.1, 6.12, 6.18, 7 and all"
        );
    }
}
