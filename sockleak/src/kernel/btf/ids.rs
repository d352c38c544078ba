//! The few type ids that a load asks for, as BTF of their own.

use super::TRACEPOINT;

const TYPEDEF: u32 = 8;
const FORWARD: u32 = 7;
const FUNCTION: u32 = 12;

/// Named types and their ids in the running kernel.
///
/// aya looks a name up in the whole BTF of the kernel, of which it makes a tree of its own. It gets BTF that has the
/// same ids and nothing but these names in it: the ids between are nameless forward declarations, the shortest
/// records that there are.
#[derive(Clone, Debug, Default)]
pub struct Ids(Vec<(u32, u32, String)>);

impl Ids {
    /// Adds a tracepoint. One that the kernel does not have is left out, and then its program cannot be loaded.
    pub fn add_tracepoint(&mut self, name: &str, id: Option<u32>) {
        self.add(id, TYPEDEF, format!("{TRACEPOINT}{name}"));
    }

    /// Adds a function. One that the kernel does not have is left out.
    pub fn add_function(&mut self, name: &str, id: Option<u32>) {
        self.add(id, FUNCTION, name.to_owned());
    }

    fn add(&mut self, id: Option<u32>, kind: u32, name: String) {
        if let Some(id) = id {
            self.0.push((id, kind, name));
            self.0.sort_unstable();
            self.0.dedup_by_key(|(id, ..)| *id);
        }
    }

    /// BTF of this machine's byte order in which these names, and no others, have their ids.
    #[must_use]
    pub fn to_btf(&self) -> Vec<u8> {
        let last = self.0.last().map_or(0, |(id, ..)| *id);
        let length = last * 12;
        let strings: u32 = self.0.iter().map(|(.., name)| name.len() as u32 + 1).sum();
        let mut btf = Vec::with_capacity(24 + (length + strings) as usize + 1);
        btf.extend_from_slice(&super::raw::MAGIC.to_ne_bytes());
        btf.extend_from_slice(&[super::raw::VERSION, 0]);
        let mut words = |words: &[u32]| {
            words
                .iter()
                .for_each(|word| btf.extend_from_slice(&word.to_ne_bytes()))
        };
        words(&[24, 0, length, length, strings + 1]);
        let (mut next, mut offset) = (1, 1);
        for (id, kind, name) in &self.0 {
            for _ in next..*id {
                words(&[0, FORWARD << 24, 0]);
            }
            words(&[offset, kind << 24, 0]);
            offset += name.len() as u32 + 1;
            next = id + 1;
        }
        btf.push(0);
        for (.., name) in &self.0 {
            btf.extend_from_slice(name.as_bytes());
            btf.push(0);
        }
        btf
    }
}
