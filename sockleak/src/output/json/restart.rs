//! What a restart meets, in JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Serialize, Serializer};
use sockleak_core::port::{Answer, BindVerdict, Obstacle, Restart, Reuse};

use super::view::{Each, Time};

#[derive(Serialize)]
pub(super) struct RestartView<'a> {
    laddr: IpAddr,
    lport: u16,
    v6only: Option<bool>,
    netns: u32,
    verdicts: Each<'a, BindVerdict, VerdictView<'a>>,
}

impl<'a> RestartView<'a> {
    pub(super) fn new(restart: &'a Restart) -> Self {
        let endpoint = &restart.endpoint;
        Self {
            laddr: endpoint.address,
            lport: endpoint.port,
            v6only: endpoint.v6only,
            netns: endpoint.netns,
            verdicts: Each(&restart.verdicts, VerdictView::new),
        }
    }
}

#[derive(Serialize)]
struct VerdictView<'a> {
    flags: Vec<&'static str>,
    bind: &'static str,
    listen: &'static str,
    blocked_by: Names<'a>,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
}

impl<'a> VerdictView<'a> {
    fn new(verdict: &'a BindVerdict) -> Self {
        let answer = answer(verdict.answer);
        Self {
            flags: flags(verdict.reuse),
            bind: answer,
            // listen() applies the rule of bind() again, to the same sockets.
            listen: answer,
            blocked_by: Names(&verdict.blocked_by),
            free_at: verdict.free_at.map(Time),
            free_at_latest: verdict.free_at_latest.map(Time),
        }
    }
}

/// The kinds of what is in the way.
struct Names<'a>(&'a BTreeMap<Obstacle, u64>);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.keys())
    }
}

fn flags(reuse: Reuse) -> Vec<&'static str> {
    let names = [(reuse.addr, "reuseaddr"), (reuse.port, "reuseport")];
    names
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect()
}

const fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Ok => "ok",
        Answer::InUse => "in_use",
        Answer::Unknown => "unknown",
    }
}
