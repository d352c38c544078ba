//! Names in the string section, of which there are tens of thousands to look through at every start.

/// How many bytes of a name are read. The kernel's limit for symbols (KSYM_NAME_LEN) is 512.
const MAX: usize = 1024;
const WORD: usize = 8;

/// The string at an offset of the string section, without its NUL.
pub(super) fn string(strings: &[u8], offset: u32) -> Option<&[u8]> {
    let tail = strings.get(offset as usize..)?;
    let most = &tail[..tail.len().min(MAX)];
    Some(
        most.iter()
            .position(|byte| *byte == 0)
            .map_or(most, |end| &most[..end]),
    )
}

/// The hash of the string at an offset of the string section; `None` if there is none, or an empty one.
pub(super) fn hash_at(strings: &[u8], offset: u32) -> Option<u32> {
    let tail = strings.get(offset as usize..)?;
    (*tail.first()? != 0).then(|| hash(tail))
}

/// The hash of a string, up to its NUL or to the end of the bytes. It takes eight bytes at a time, since most names are
/// not longer than two or three times that; those of equal hash are compared.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    let mut hash = 0_u64;
    let (words, rest) = bytes[..bytes.len().min(MAX)].as_chunks::<WORD>();
    let mut last = [0; WORD];
    last[..rest.len()].copy_from_slice(rest);
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        // The lowest bit that is set is in the first byte that is 0 (the others may be wrong, which does not matter).
        let ends = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
        let kept = word & (ends & ends.wrapping_neg()).wrapping_sub(1);
        hash = (hash.rotate_left(5) ^ kept).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if ends != 0 {
            break;
        }
    }
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_has_its_hash_wherever_it_stands(
            before in proptest::collection::vec(any::<u8>(), 0..20),
            name in proptest::collection::vec(1_u8.., 1..70),
            after in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let strings = [before.as_slice(), &name, &[0], &after].concat();
            let offset = before.len() as u32;
            prop_assert_eq!(hash_at(&strings, offset), Some(hash(&name)));
            prop_assert_eq!(string(&strings, offset), Some(name.as_slice()));
        }
    }

    #[test]
    fn names_that_differ_in_one_letter_differ() {
        let names = [
            "sock",
            "sock_",
            "sock_common",
            "sock_commom",
            "btf_trace_a",
            "btf_trace_b",
        ];
        let mut hashes = names.map(|name| hash(name.as_bytes())).to_vec();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), names.len());
    }

    #[test]
    fn there_is_none_behind_the_end() {
        assert_eq!((hash_at(b"a\0", 1), hash_at(b"a\0", 2)), (None, None));
        assert_eq!((string(b"a\0", 1), string(b"a\0", 3)), (Some(&b""[..]), None));
    }
}
