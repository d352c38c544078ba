//! What the exit status says.

/// Why sockleak ended as it did.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(serde::Deserialize, schemars::JsonSchema))]
pub enum ExitStatus {
    Done,
    LeftBehind,
    WouldFail,
    TimedOut,
    NotFreed,
    Refused,
    Unmet,
    Failed,
    NotExecutable,
    NotFound,
}

impl ExitStatus {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::LeftBehind | Self::WouldFail | Self::TimedOut | Self::NotFreed => 1,
            Self::Refused | Self::Unmet => 2,
            Self::Failed => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }

    /// This status, or that of success.
    #[must_use]
    pub const fn unless(self, fine: bool) -> u8 {
        if fine { Self::Done.code() } else { self.code() }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sockleak_kernel::spawn::SpawnError;

    use super::*;

    #[test]
    fn a_command_that_cannot_be_started_ends_as_it_is_told() {
        let program = || "x".to_owned();
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, status) in [
            (
                SpawnError::NotExecutable {
                    program: program(),
                    source: source(),
                },
                ExitStatus::NotExecutable,
            ),
            (SpawnError::NotFound { program: program() }, ExitStatus::NotFound),
        ] {
            assert_eq!(error.exit_code(), status.code(), "{error}");
        }
    }
}
