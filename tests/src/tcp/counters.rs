//! The kernel's own counters of a process's namespace (/proc/PID/net/snmp, netstat).

use std::{collections::BTreeMap, fs, io};

/// Counters by name.
#[derive(Debug)]
pub struct Counters(BTreeMap<String, i64>);

impl Counters {
    /// Of the namespace that a process is in.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for file in ["snmp", "netstat"] {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{file}"))?;
            // Names and numbers, a line each, in turns.
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.chunks(2) {
                let [names, numbers] = pair else { continue };
                let is_tcp = names.starts_with("Tcp: ") || names.starts_with("TcpExt: ");
                let both = names.split(' ').zip(numbers.split(' ')).skip(1);
                all.extend(
                    both.filter(|_| is_tcp)
                        .filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))),
                );
            }
        }
        Ok(Self(all))
    }

    /// One of them.
    pub fn get(&self, name: &str) -> i64 {
        let found = self.0.get(name).copied();
        found.unwrap_or_else(|| panic!("the kernel counts {name}"))
    }

    /// What was added to some of them since an earlier reading.
    pub fn since(&self, before: &Self, names: &[&str]) -> u64 {
        let added = |name: &&str| self.get(name) - before.get(name);
        names.iter().map(added).sum::<i64>().unsigned_abs()
    }
}
