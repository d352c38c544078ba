//! What is decided of one socket.

use crate::expiry::Freedom;
use crate::observed::State;
use crate::verdict::{Holder, Outcome, Why};

/// What became of one socket.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub outcome: Outcome,
    /// What sock_diag calls it now; `None` if it is gone.
    pub state: Option<State>,
    /// The cookie that sock_diag told; `None` if it is gone.
    pub seen_cookie: Option<u64>,
    pub why: Why,
    pub holders: Vec<Holder>,
    pub freedom: Freedom,
    /// Of its subflows, in their order.
    pub subflows: Vec<Self>,
}
