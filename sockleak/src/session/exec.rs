//! Whose the sockets are that close when a process becomes another program.

/// A program whose process has become another one. The kernel closes its sockets on the way back to user mode,
/// one right after the other: a pause means that the new program runs.
pub struct Former {
    comm: String,
    /// Boot-time nanoseconds until which the next close can be one of that row.
    until: u64,
    end: u64,
    /// The new program was seen to have got no connection.
    pub left_nothing: bool,
}

impl Former {
    const PAUSE: u64 = 100_000_000;
    const MOST: u64 = 1_000_000_000;

    /// `exec` is the moment of the exec, in boot-time nanoseconds.
    pub fn new(comm: String, exec: u64) -> Self {
        Self {
            comm,
            until: exec.saturating_add(Self::PAUSE),
            end: exec.saturating_add(Self::MOST),
            left_nothing: false,
        }
    }

    /// Its name, if a close at that moment is one of its row.
    pub fn closes(&mut self, time: u64) -> Option<&str> {
        if time > self.until {
            return None;
        }
        self.until = time.saturating_add(Self::PAUSE).min(self.end);
        Some(&self.comm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn a_pause_ends_the_closes_of_an_exec() {
        let mut former = Former::new("orderd".into(), 0);
        assert_eq!(former.closes(MILLISECOND), Some("orderd"));
        assert_eq!(former.closes(100 * MILLISECOND), Some("orderd"));
        assert_eq!(former.closes(201 * MILLISECOND), None);
    }

    #[test]
    fn a_new_program_that_closes_all_the_time_is_named_itself() {
        let mut former = Former::new("orderd".into(), 0);
        let last = (0..100).filter(|step| former.closes(step * 90 * MILLISECOND).is_some());
        assert_eq!(last.last(), Some(11));
    }
}
