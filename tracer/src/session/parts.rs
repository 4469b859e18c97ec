//! Parts of a reading that a run can do without: one that fails is counted, and never
//! ends the run.

use std::collections::HashSet;

/// Which parts have failed.
#[derive(Debug, Default)]
pub(super) struct Parts {
    failed: u64,
    logged: HashSet<&'static str>,
}

impl Parts {
    /// What was read; `None` when it could not be, which counts as one failure. The first
    /// of each part is logged.
    pub(super) fn optional<T, E>(&mut self, part: &'static str, read: Result<T, E>) -> Option<T>
    where
        E: Into<anyhow::Error>,
    {
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                self.failed += 1;
                if self.logged.insert(part) {
                    log::warn!("{part}: {:#}", error.into());
                }
                None
            }
        }
    }

    /// Failures since the last time.
    pub(super) fn take_failed(&mut self) -> u64 {
        std::mem::take(&mut self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Parts;

    #[test]
    fn a_failure_is_counted_once() {
        let mut parts = Parts::default();
        assert_eq!(parts.optional("memory", anyhow::Ok(7)), Some(7));
        assert_eq!(parts.take_failed(), 0);
        let failed: anyhow::Result<u8> = Err(anyhow::anyhow!("no memory"));
        assert_eq!(parts.optional("memory", failed), None);
        assert_eq!((parts.take_failed(), parts.take_failed()), (1, 0));
    }
}
