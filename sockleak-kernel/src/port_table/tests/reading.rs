//! How the records come, and what is said when they do not.

use super::*;

/// A reader that ends each read within a record.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.0.len().min(7);
        into[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

#[test]
fn a_record_may_be_cut_by_a_read_but_not_by_the_end() {
    let bytes = [0; 3 * PortOwner::SIZE];
    let owners: Vec<PortOwner> = read(Pieces(&bytes), "x").unwrap();
    assert_eq!(owners.len(), 3);
    assert_eq!(latest(owners, |owner| owner.sk).len(), 1);
    let error = read::<PortOwner>(Pieces(&bytes[1..]), "x").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the BPF iterator x cannot be understood")
    );
}

#[test]
fn the_last_sight_of_a_thing_holds() {
    let seen = vec![(1, 'a'), (2, 'b'), (1, 'c')];
    assert_eq!(latest(seen, |one| one.0), [(1, 'c'), (2, 'b')]);
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let denied = io::Error::from_raw_os_error(libc::EPERM);
    let told = refused("tcp_port_owners", "be attached", &denied);
    assert_eq!(told.kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        told.to_string(),
        "the BPF iterator tcp_port_owners cannot be attached: Operation not permitted (os error 1); it needs CAP_BPF \
         and CAP_PERFMON (sudo)"
    );
}
