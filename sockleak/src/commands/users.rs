//! Users by their names.

use std::fs;
use std::process::Command;

/// The uid of a user that is given by name or number: as /etc/passwd has it, or else as `getent` does, which asks every
/// source of names that this machine has.
///
/// # Errors
/// When there is no such user.
pub fn uid(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    let known = fs::read_to_string("/etc/passwd").ok();
    known
        .and_then(|users| uid_in(&users, text))
        .or_else(|| {
            let asked = Command::new("getent")
                .args(["passwd", "--", text])
                .output()
                .ok()?;
            uid_in(&String::from_utf8_lossy(&asked.stdout), text)
        })
        .ok_or_else(|| format!("there is no user {text}: `getent passwd` lists those that there are"))
}

/// passwd(5).
fn uid_in(users: &str, name: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_number() {
        assert_eq!(uid("1000"), Ok(1000));
        assert_eq!(uid("root"), Ok(0));
        assert!(uid("no-such-user").is_err_and(|why| why.contains("no user no-such-user")));
        let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/false\nbroken:x\n";
        assert_eq!(uid_in(users, "web"), Some(33));
        assert_eq!((uid_in(users, "we"), uid_in(users, "broken")), (None, None));
    }
}
