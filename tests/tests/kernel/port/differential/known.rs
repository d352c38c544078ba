//! Mismatches that are known and not mended yet: this file goes away with the last of them.

use std::env;
use std::net::IpAddr;

use sockleak_tests::situation::{State, Step, Word};

use super::mismatch::Mismatch;

/// Every mismatch is a failure.
const STRICT: &str = "SOCKLEAK_DIFFERENTIAL_STRICT";

/// The name of the kind, if it is a known one.
pub fn kind(mismatch: &Mismatch) -> Option<&'static str> {
    if env::var_os(STRICT).is_some() {
        return None;
    }
    match mismatch.real.bind {
        Word::Invalid => return Some("EINVAL is not known"),
        Word::NotAvailable => return Some("EADDRNOTAVAIL is not known"),
        Word::Permission => return Some("EACCES is not known"),
        _ => {}
    }
    let has = |is: fn(&Step) -> bool| mismatch.steps.iter().any(is);
    if has(|step| step.mptcp && step.state == State::Bound) {
        return Some(
            "an MPTCP socket that is only bound has its bucket, IPV6_V6ONLY and options in the subflow",
        );
    }
    let is_said = (mismatch.said.bind, mismatch.real.bind) == (Word::Ok, Word::InUse);
    if is_said && mismatch.asked.reuseport && is_specific(mismatch.asked.address) {
        return Some("bind() to a specific IPv6 address sets IPV6_V6ONLY before SO_REUSEPORT is looked at");
    }
    None
}

/// An IPv6 address that is neither any nor mapped.
fn is_specific(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else {
        return false;
    };
    !address.is_unspecified() && address.to_ipv4_mapped().is_none()
}
