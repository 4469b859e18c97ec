//! Files that root writes where somebody else may write too: what is opened is a regular
//! file that the name itself leads to, and opening it never waits.

use std::{
    fs::File,
    io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{Mode, OFlags, openat};

/// Write permission of the group and of all others (include/uapi/linux/stat.h).
const OTHERS_MAY_WRITE: u32 = 0o022;

/// A regular file, open for writing. What it had is kept until [`Self::cut`].
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    file: File,
}

impl OutputFile {
    /// Makes it, or opens the one that is there.
    ///
    /// # Errors
    /// It cannot be opened, is no regular file, or its directory belongs to somebody else,
    /// or others may write there, and its name is a link.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = open(path).with_context(|| cannot_write(path))?;
        Ok(Self {
            path: path.into(),
            file,
        })
    }

    /// Whether an open file is this one.
    pub(super) fn is_same(&self, other: impl AsFd) -> io::Result<bool> {
        let (own, other) = (rustix::fs::fstat(&self.file)?, rustix::fs::fstat(other)?);
        Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Takes away what it had.
    pub(super) fn cut(&self) -> anyhow::Result<()> {
        let cut = self.file.set_len(0);
        cut.with_context(|| cannot_write(&self.path))
    }

    /// Writes all of it.
    pub(super) fn write(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = io::Write::write_all(&mut self.file, bytes);
        written.with_context(|| cannot_write(&self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for OutputFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let Some(name) = path.file_name() else {
        bail!("it is not the name of a file");
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The directory is held open: another that takes its name later is not used.
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(parent)?;
    let meta = directory.metadata()?;
    let is_own = meta.uid() == rustix::process::geteuid().as_raw();
    let is_shared = !is_own || meta.mode() & OTHERS_MAY_WRITE != 0;
    let mut flags = OFlags::WRONLY
        | OFlags::CREATE
        // A FIFO without a reader is waited for otherwise.
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    if is_shared {
        flags |= OFlags::NOFOLLOW;
    }
    let mode = Mode::from_raw_mode(0o644);
    let file = match openat(&directory, name, flags, mode) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) if is_shared => bail!(
            "it is a symbolic link, and others than this user may write to its directory; \
             name the file that it leads to"
        ),
        Err(rustix::io::Errno::NXIO) => bail!("it is a FIFO or a socket, not a regular file"),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    let meta = file.metadata()?;
    ensure!(meta.is_file(), "it is not a regular file");
    ensure!(
        !is_shared || meta.nlink() <= 1,
        "it has another name too, and others than this user may write to its directory"
    );
    Ok(file)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
    };

    use super::OutputFile;

    /// A directory of the test's own, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str, mode: u32) -> Self {
            let id = std::process::id();
            let path = std::env::temp_dir().join(format!("tracer-{name}-{id}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn why(path: &std::path::Path) -> String {
        format!("{:#}", OutputFile::open(path).unwrap_err())
    }

    #[test]
    fn a_file_keeps_what_it_has_until_it_is_cut() {
        let directory = Directory::new("kept", 0o755);
        let path = directory.file("x");
        fs::write(&path, "before").unwrap();
        let file = OutputFile::open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        file.cut().unwrap();
        file.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_link_is_followed_only_where_nobody_else_can_have_put_it() {
        for (mode, is_followed) in [
            (0o755, true),
            (0o777, false),
            (0o1777, false),
            (0o775, false),
        ] {
            let directory = Directory::new("link", mode);
            let (target, link) = (directory.file("target"), directory.file("link"));
            fs::write(&target, "precious").unwrap();
            symlink(&target, &link).unwrap();
            assert_eq!(OutputFile::open(&link).is_ok(), is_followed, "{mode:o}");
            let hard = directory.file("hard");
            fs::hard_link(&target, &hard).unwrap();
            assert_eq!(OutputFile::open(&hard).is_ok(), is_followed, "{mode:o}");
            assert_eq!(fs::read(&target).unwrap(), b"precious");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let directory = Directory::new("fifo", 0o755);
        let fifo = directory.file("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert!(why(&fifo).contains("not a regular file"), "{}", why(&fifo));
        let reader = fs::File::options().read(true).write(true).open(&fifo);
        assert!(why(&fifo).contains("not a regular file"), "{}", why(&fifo));
        drop(reader);
        assert!(why("/dev/null".as_ref()).contains("not a regular file"));
        assert!(OutputFile::open(&directory.0).is_err());
        assert!(OutputFile::open("..".as_ref()).is_err());
    }
}
