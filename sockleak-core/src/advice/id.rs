//! The kinds of advice.

/// Makes the enum, its list and its names from one table, so that the list lacks no id.
macro_rules! advice_ids {
    ($($(#[$doc:meta])* $id:ident: $name:literal,)+) => {
        /// What there is to advise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum AdviceId {
            $($(#[$doc])* $id,)+
        }

        impl AdviceId {
            /// Every id, in the order in which advice is given: what a restart needs comes first.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$id),+];

            /// The name that programs know it by, which never changes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)+
                }
            }
        }
    };
}

advice_ids! {
    /// Connections that are left without SO_REUSEADDR keep a restart from its port.
    LeftoverWithoutReuseaddr: "leftover_without_reuseaddr",
    /// A listener had neither SO_REUSEADDR nor SO_REUSEPORT.
    ListenerWithoutReuseaddr: "listener_without_reuseaddr",
    /// A child inherited a listener and still has it.
    InheritedListener: "inherited_listener",
    /// A listener that is still held is in a SO_REUSEPORT group, and gets a part of the new connections.
    ReuseportSurvivor: "reuseport_survivor",
    /// A core dump kept the ports for longer than a restart takes.
    CoreDumpHeldPort: "core_dump_held_port",
    /// The ports towards a destination run out.
    EphemeralExhaustion: "ephemeral_exhaustion",
    /// The process itself closed many outgoing connections.
    TimeWaitChurn: "time_wait_churn",
    /// The kernel gives the port of a listener to outgoing connections too.
    FixedPortInEphemeralRange: "fixed_port_in_ephemeral_range",
    /// The server closed before its clients did.
    ClosingSide: "closing_side",
    /// Unread data made the end a reset.
    UnreadDataReset: "unread_data_reset",
    /// SO_LINGER with 0 seconds made the end a reset.
    LingerZero: "linger_zero",
    /// A peer does not acknowledge the end.
    UnreachablePeer: "unreachable_peer",
    /// A peer does not read what is queued for it.
    ZeroWindowOrphan: "zero_window_orphan",
}
