//! What became of each socket, and why: from evidence to a report.

pub(crate) mod decide;
mod examine;
pub(crate) mod join;
pub(crate) mod judge;
mod left_while_alive;
mod mptcp;
mod overflow;
mod report;
mod settle;
mod side;
mod socket_verdict;

pub use examine::examine;
pub use report::{
    FreeRule, Holder, How, LeftWhileAlive, Leftover, Outcome, Report, SocketReport, Summary, Why,
};
pub use settle::{has_settled, settled};
pub use side::{Side, Sides};
