//! What became of each socket, and why: from evidence to a report.

pub(crate) mod decide;
mod examine;
pub(crate) mod join;
pub(crate) mod judge;
mod left_while_alive;
mod leftover;
mod mptcp;
mod outcome;
mod overflow;
mod report;
mod settle;
mod side;
mod socket_verdict;

pub use examine::examine;
pub use leftover::Leftover;
pub use outcome::{Holder, How, Outcome, Summary, Why};
pub use report::{LeftWhileAlive, Report, SocketReport};
pub use settle::{has_settled, settled};
pub use side::{Side, Sides};
