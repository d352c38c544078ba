//! What is needed, and whether it is there.

/// One thing that sockleak needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// A short name in snake_case.
    pub name: &'static str,
    /// Nothing can be traced without it; otherwise `detail` says what is not known then.
    pub required: bool,
    pub met: bool,
    /// What was found.
    pub detail: String,
    /// What to type or change; `None` if it is met.
    pub fix: Option<String>,
}

impl Requirement {
    pub(super) fn met(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            required: true,
            met: true,
            detail: detail.into(),
            fix: None,
        }
    }

    pub(super) fn unmet(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            met: false,
            fix: Some(fix.into()),
            ..Self::met(name, detail)
        }
    }

    pub(super) fn optional(self) -> Self {
        Self {
            required: false,
            ..self
        }
    }
}
