//! What became of each socket, and why: from evidence to a report.

pub(crate) mod decide;
mod examine;
pub(crate) mod join;
mod left_while_alive;
mod mptcp;
mod overflow;
mod report;
mod settle;
mod side;

pub use examine::{Evidence, examine};
pub use overflow::Overflow;
pub use report::{
    Follower, FreeRule, Holder, How, LeftWhileAlive, Lost, Outcome, Report, SocketReport, Summary, Why,
};
pub use settle::settled;
pub use side::{Side, Sides};
