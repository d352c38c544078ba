//! What is left: the countdown until it is free, and what may be destroyed.

mod countdown;
mod discard;
mod hazard;
mod reason;
mod removal;

pub use countdown::{Countdown, Freed, Look, LookedAt, NamespaceLook, leftovers};
pub use discard::{Discard, DiscardRule};
pub use hazard::{Danger, Hazard};
pub use reason::Reason;
pub use removal::{Action, Asked, Attempt, Power, Powers, Recorded, Removable, Removal};
