//! The words of advice: what to do, for each id.

mod closing;
mod listeners;
mod peers;
mod ports;
mod survivors;

use sockleak_core::advice::AdviceId;

/// What a piece of advice always says.
pub(super) struct Words {
    /// What to do, in a line.
    pub(super) brief: &'static str,
    /// What is the matter and what to do about it, as one does it in C.
    pub(super) text: &'static str,
    /// What that is called elsewhere: the name of a language or runtime and its words for it.
    pub(super) runtimes: &'static [(&'static str, &'static str)],
    /// What one pays for it.
    pub(super) cost: &'static str,
    /// What people try here in vain.
    pub(super) will_not_help: &'static [&'static str],
}

/// What that advice says.
pub(super) fn words(id: AdviceId) -> &'static Words {
    match id {
        AdviceId::LeftoverWithoutReuseaddr => &listeners::LEFTOVER,
        AdviceId::ListenerWithoutReuseaddr => &listeners::LISTENER,
        AdviceId::InheritedListener => &survivors::INHERITED,
        AdviceId::ReuseportSurvivor => &survivors::SURVIVOR,
        AdviceId::CoreDumpHeldPort => &survivors::CORE_DUMP,
        AdviceId::EphemeralExhaustion => &ports::EXHAUSTION,
        AdviceId::TimeWaitChurn => &ports::CHURN,
        AdviceId::FixedPortInEphemeralRange => &ports::FIXED_PORT,
        AdviceId::ClosingSide => &closing::CLOSING_SIDE,
        AdviceId::UnreadDataReset => &closing::UNREAD,
        AdviceId::LingerZero => &closing::LINGER,
        AdviceId::UnreachablePeer => &peers::UNREACHABLE,
        AdviceId::ZeroWindowOrphan => &peers::ZERO_WINDOW,
    }
}

#[cfg(test)]
mod tests;
