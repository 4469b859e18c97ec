//! Files that tracer is given by name, and that are not what they seem: links, FIFOs, one
//! file by two names, text with control characters, types without an end.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, fs::symlink},
    path::{Path, PathBuf},
    process,
};

use tests::{
    lanes::Test,
    test,
    tracer::{command, output, run},
};

pub(crate) const TESTS: &[Test] = &[
    test!(outputs_that_are_one_file_are_refused),
    test!(an_output_that_is_a_link_or_a_fifo_is_refused),
    test!(what_a_file_of_limits_says_reaches_no_terminal),
    test!(a_struct_that_contains_itself_is_refused),
];

/// A directory of the test's own that anybody may write to.
struct Shared(PathBuf);

impl Shared {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", process::id()));
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).expect("its mode");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(flame: &Path, folded: &Path) -> (Option<i32>, String) {
    let mut tracer = command();
    tracer.args(["load", "--count", "1", "--interval", "100ms", "--flame"]);
    let (status, _, stderr) = output(tracer.arg(flame).arg("--folded").arg(folded));
    (status.code(), stderr)
}

/// Before anything starts, and what the file had is still there.
fn outputs_that_are_one_file_are_refused() {
    let directory = Shared::new("one-file");
    let (one, two) = (directory.file("one"), directory.file("two"));
    fs::write(&one, "before").expect("a file");
    let other = directory.file("./one");
    for folded in [&one, &other] {
        let (code, stderr) = load(&one, folded);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("same file"), "{stderr}");
        assert_eq!(fs::read(&one).expect("it stays"), b"before");
    }
    // Another name of the same, where only root can have made it.
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).expect("its mode");
    symlink(&one, &two).expect("a link");
    let (code, stderr) = load(&one, &two);
    assert_eq!(
        (code, stderr.contains("same file")),
        (Some(1), true),
        "{stderr}"
    );
    let mut tracer = command();
    tracer.args(["load", "--count", "1", "--flame"]).arg(&one);
    let stdout = fs::File::options().append(true).open(&one);
    let status = tracer.stdout(stdout.expect("it is there")).status();
    assert_eq!(status.expect("tracer starts").code(), Some(1));
    assert_eq!(fs::read(&one).expect("it stays"), b"before");
}

/// What the link leads to is neither cut nor written, and nothing hangs.
fn an_output_that_is_a_link_or_a_fifo_is_refused() {
    let directory = Shared::new("links");
    let [target, link, dangling, fifo, good] =
        ["target", "link", "dangling", "fifo", "good"].map(|name| directory.file(name));
    fs::write(&target, "precious").expect("a file");
    symlink(&target, &link).expect("a link");
    symlink(directory.file("made"), &dangling).expect("a link");
    let name = CString::new(fifo.as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o666) }, 0);
    for (path, why) in [
        (&link, "symbolic link"),
        (&dangling, "symbolic link"),
        (&fifo, "not a regular file"),
    ] {
        let (code, stderr) = load(path, &good);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        let (code, _) = load(&good, path);
        assert_eq!(code, Some(1));
    }
    assert_eq!(fs::read(&target).expect("it stays"), b"precious");
    assert!(!directory.file("made").exists());
    assert_eq!(load(&good, &directory.file("folded")).0, Some(0));
    assert!(fs::metadata(&good).expect("it is written").len() > 0);
}

/// Neither escape codes nor what turns text around.
fn what_a_file_of_limits_says_reaches_no_terminal() {
    let directory = Shared::new("limits");
    let file = directory.file("limits.toml");
    for text in [
        "[disk_used_ratio]\nwarning = \u{1b}[31m\u{202e}1\n",
        "[\"\\u001b]0;title\\u0007\"]\nwarning = 1\n",
        "[disk_used_ratio]\n\"\\u009b31m\\u202e\" = 1\n",
    ] {
        fs::write(&file, text).expect("a file");
        let path = file.to_str().expect("UTF-8");
        let (status, stdout, stderr) = run(&["check", "--config", path]);
        println!("{stderr}");
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
        let is_hostile = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!stderr.contains(is_hostile), "{stderr:?}");
    }
}

/// Sixty members that are the struct itself: 60^16 paths of sixteen steps.
fn a_struct_that_contains_itself_is_refused() {
    const NAME: &[u8] = b"\0task_struct\0";
    const STRUCT: u32 = 4 << 24;
    let mut types = vec![1, STRUCT | 60, 8];
    types.extend([0, 1, 0].repeat(60));
    let length = types.len() as u32 * 4;
    let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
    bytes.extend([1, 0]);
    let header = [24, 0, length, length, NAME.len() as u32];
    bytes.extend(
        header
            .iter()
            .chain(&types)
            .flat_map(|word| word.to_ne_bytes()),
    );
    bytes.extend(NAME);
    let directory = Shared::new("types");
    let file = directory.file("btf");
    fs::write(&file, bytes).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let (status, _, stderr) = run(&["run", "--count", "1", "--btf", path]);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("contains itself"), "{stderr}");
}
