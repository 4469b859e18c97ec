//! User names, from /etc/passwd: a static binary has no other name service.

use std::{collections::HashMap, fs};

use crate::text::{self, Text};

/// Names by user id.
#[derive(Debug, Default)]
pub struct Users(HashMap<u32, Text>);

impl Users {
    /// Reads /etc/passwd once; users it does not have go by their number.
    pub fn read() -> Self {
        Self::parse(&fs::read(PASSWD).unwrap_or_default())
    }

    fn parse(bytes: &[u8]) -> Self {
        let entry = |line: &[u8]| {
            let mut fields = line.split(|&b| b == b':');
            let (name, uid) = (fields.next()?, fields.nth(1)?);
            Some((
                std::str::from_utf8(uid).ok()?.parse().ok()?,
                Text::from_bytes(name),
            ))
        };
        // The first entry of a number is the one that getpwuid(3) gives.
        let mut names = HashMap::new();
        for (uid, name) in bytes.split(|&b| b == b'\n').filter_map(entry) {
            names.entry(uid).or_insert(name);
        }
        Self(names)
    }

    /// The user's name, or the number.
    pub fn name(&self, uid: u32) -> Text {
        self.0
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| Text::from(uid.to_string().as_str()))
    }
}

/// The real user of a process: an effective one would be that of a program with the
/// set-user-id bit. `None` when it has gone.
pub fn of_process(pid: u32) -> Option<u32> {
    let status = text::read(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let users = lines.find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().next()?.parse().ok()
}

const PASSWD: &str = "/etc/passwd";

#[cfg(test)]
mod tests {
    use super::Users;

    #[test]
    fn first_of_a_number_wins_and_rubbish_is_passed_over() {
        let users =
            Users::parse(b"root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\nx\n:::\na\x1b:x:7:7:::\n");
        assert_eq!(users.name(0).as_str(), "root");
        assert_eq!(users.name(7).as_str(), "a\u{fffd}");
        assert_eq!(users.name(1000).as_str(), "1000");
    }
}
