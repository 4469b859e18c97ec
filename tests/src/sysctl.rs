//! Settings of the kernel, changed for a test.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A setting that gets its old value back when this is dropped.
pub struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// Sets one, by its name: `kernel.pid_max`.
    ///
    /// # Errors
    /// This kernel has no such setting, or not such a value of it.
    pub fn set(name: &str, value: impl ToString) -> io::Result<Self> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let before = fs::read_to_string(&path)?;
        fs::write(&path, value.to_string())?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, self.before.trim());
    }
}
