//! What could not be seen, in JSON: an id, its numbers, and the sentence for people.

use serde::Serialize;
use sockleak_core::observed::BlindSpot;

use crate::output::blind::sentence;

#[derive(Serialize)]
pub(super) struct BlindView<'a> {
    #[serde(flatten)]
    spot: Spot<'a>,
    text: String,
}

/// The ids are stable.
#[derive(Serialize)]
#[serde(tag = "id", rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "blind"))]
pub(super) enum Spot<'a> {
    ExitUnseen,
    OtherTables,
    IoUring,
    SubflowsSkipped { sockets: usize },
    NetnsGone { netns: u32 },
    NetnsRefused { netns: u32, why: &'a str },
    TimeWaitsMissing { sockets: usize },
    DescriptorsUnreadable { processes: usize },
    EphemeralUncounted,
    PortReaderRefused { why: &'a str },
    NoCookies,
    FieldMissing { problem: &'a str },
    NamespacesRefused { processes: usize },
    NetnsUnread { path: &'a str, why: &'a str },
    NestedPidNamespace { lists_bound: bool },
    HoldersUnreadable { processes: usize },
    PortListRefused { lists_bound: bool, why: &'a str },
}

impl<'a> BlindView<'a> {
    pub(super) fn new(blind: &'a BlindSpot) -> Self {
        Self {
            spot: Spot::of(blind),
            text: sentence(blind),
        }
    }
}

impl<'a> Spot<'a> {
    fn of(blind: &'a BlindSpot) -> Self {
        match *blind {
            BlindSpot::ExitUnseen => Self::ExitUnseen,
            BlindSpot::OtherTables => Self::OtherTables,
            BlindSpot::IoUring => Self::IoUring,
            BlindSpot::SubflowsSkipped { sockets } => Self::SubflowsSkipped { sockets },
            BlindSpot::NetnsGone { netns } => Self::NetnsGone { netns },
            BlindSpot::NetnsRefused { netns, ref why } => Self::NetnsRefused { netns, why },
            BlindSpot::TimeWaitsMissing { sockets } => Self::TimeWaitsMissing { sockets },
            BlindSpot::DescriptorsUnreadable { processes } => Self::DescriptorsUnreadable { processes },
            BlindSpot::EphemeralUncounted => Self::EphemeralUncounted,
            BlindSpot::PortReaderRefused { ref why } => Self::PortReaderRefused { why },
            BlindSpot::NoCookies => Self::NoCookies,
            BlindSpot::FieldMissing { ref problem } => Self::FieldMissing { problem },
            BlindSpot::NamespacesRefused { processes } => Self::NamespacesRefused { processes },
            BlindSpot::NetnsUnread { ref path, ref why } => Self::NetnsUnread { path, why },
            BlindSpot::NestedPidNamespace { lists_bound } => Self::NestedPidNamespace { lists_bound },
            BlindSpot::HoldersUnreadable { processes } => Self::HoldersUnreadable { processes },
            BlindSpot::PortListRefused { lists_bound, ref why } => Self::PortListRefused { lists_bound, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_blind_spot_has_its_numbers_beside_its_sentence() {
        let refused = BlindSpot::NetnsRefused {
            netns: 7,
            why: "EPERM".into(),
        };
        let told = serde_json::to_string(&BlindView::new(&refused)).expect("it can be written");
        assert!(
            told.starts_with(
                r#"{"id":"netns_refused","netns":7,"why":"EPERM","text":"The network namespace net:[7] "#
            ),
            "{told}"
        );
        let told = serde_json::to_value(BlindView::new(&BlindSpot::IoUring)).expect("it can be written");
        assert_eq!(
            told,
            json!({"id": "io_uring", "text": sentence(&BlindSpot::IoUring)})
        );
    }
}
