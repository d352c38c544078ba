//! When the last of several leftovers is gone.

use jiff::Timestamp;

use crate::expiry::{EarlierBy, Freedom};

/// All is `None` where one of them has no moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastFree {
    /// When its timer ends the last one, if nothing more arrives.
    pub at: Option<Timestamp>,
    /// When all of them are gone, even if the peers close late.
    pub latest: Option<Timestamp>,
    /// What may end the last one sooner.
    pub earlier_by: Option<EarlierBy>,
}

impl LastFree {
    /// Of these.
    pub fn of(freedoms: impl Iterator<Item = Freedom>) -> Self {
        let Some(freedoms): Option<Vec<Freedom>> =
            freedoms.map(|freedom| freedom.at().and(Some(freedom))).collect()
        else {
            return Self::default();
        };
        let last = freedoms.iter().max_by_key(|freedom| freedom.at());
        let latest: Option<Vec<Timestamp>> = freedoms.iter().map(Freedom::latest).collect();
        Self {
            at: last.and_then(Freedom::at),
            latest: latest.and_then(|moments| moments.into_iter().max()),
            earlier_by: last.and_then(|freedom| freedom.rule.earlier_by()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expiry::FreeRule;
    use crate::testing::at;

    #[test]
    fn each_moment_is_that_of_its_last() {
        let freedom = |rule, from, to: Option<i64>| Freedom::new(rule, Some(at(from)), to.map(at));
        let time_wait = freedom(FreeRule::TimewaitTimer, 60_000, Some(62_000));
        let fin_wait2 = freedom(FreeRule::FinTimeout, 50_000, Some(114_000));
        let of = |freedoms: &[Freedom]| LastFree::of(freedoms.iter().copied());
        let expected = LastFree {
            at: Some(at(60_000)),
            latest: Some(at(114_000)),
            earlier_by: Some(EarlierBy::Syn),
        };
        assert_eq!(of(&[time_wait, fin_wait2]), expected);
        let probes = freedom(FreeRule::Persist, 70_000, None);
        let expected = LastFree {
            at: Some(at(70_000)),
            latest: None,
            earlier_by: Some(EarlierBy::Ack),
        };
        assert_eq!(of(&[time_wait, probes]), expected);
        assert_eq!(
            of(&[time_wait, Freedom::open(FreeRule::Holder)]),
            LastFree::default()
        );
        assert_eq!(of(&[]), LastFree::default());
    }
}
