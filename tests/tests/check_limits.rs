//! Limits of the kernel that are used up, as `tracer check` sees them.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use tests::{assert_near, check::Look, known::numbers, provoke::Workload, sysctl::Sysctl};

/// Nobody's, so that nobody else uses up its share.
const UID: u32 = 54_321;

/// A directory with so many empty files; it goes when it is dropped.
struct Files(PathBuf);

impl Files {
    fn new(count: usize) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-watched-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        for n in 0..count {
            File::create(path.join(n.to_string())).expect("a file");
        }
        Self(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A user who has as many instances and watches of inotify as the kernel gives.
#[test]
fn inotify_that_is_used_up_is_found() {
    const INSTANCES: f64 = 24.0;
    const WATCHES: f64 = 60.0;
    let files = Files::new(100);
    let directory = files.0.to_str().expect("UTF-8");
    let mut user = Workload::ready(&["inotify-all", &UID.to_string(), directory]);
    let _instances = Sysctl::set("fs.inotify.max_user_instances", INSTANCES).expect("a limit");
    let _watches = Sysctl::set("fs.inotify.max_user_watches", WATCHES).expect("a limit");
    user.go();
    // It says how many it had when the kernel refused the next.
    assert_eq!(numbers(&user.line()), [INSTANCES as u64, WATCHES as u64]);
    let look = Look::now(&["--only", "files", "--sample", "100ms"]);
    let of = UID.to_string();
    for (name, noun, most) in [
        ("inotify_instances", "instances", INSTANCES),
        ("inotify_watches", "watches", WATCHES),
    ] {
        // Nobody else is this user, so it is exact.
        assert_near(name, look.figure("files", name, &of), most, 0.0);
        let what = format!("user {of} has {most} of {most} inotify {noun}");
        let who = format!("provoke[{}] {most} {noun}", user.pid());
        assert_eq!(look.found("files", &[&what, &who]), "critical");
    }
}
