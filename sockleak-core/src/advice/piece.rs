//! A piece of advice.

use std::time::Duration;

use jiff::Timestamp;

use crate::advice::id::AdviceId;

/// A piece of advice, and the facts that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    pub id: AdviceId,
    pub evidence: Grounds,
}

/// Facts by name; a name is the key in JSON.
pub(crate) type Grounds = Vec<(&'static str, Fact)>;

/// A fact that speaks for a piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// So many of what its name says, which is a plural.
    Count(u64),
    /// These local ports, ascending.
    Ports(Vec<u16>),
    /// How long it took; its name ends in `_ms`.
    Lasted(Duration),
    /// When the last of them is free; `None` where that cannot be told.
    FreeAt(Option<Timestamp>),
}
