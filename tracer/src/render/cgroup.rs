//! Paths of cgroups in few columns.
//!
//! A path ends with what tells it from others, and loses its beginning. That of a container
//! ends with 64 digits, by their first 12 of which people and tools know it; its pod stands
//! before them.

use super::line::{cut_end, cut_start, width};

/// Digits of an id, by which a container is known (`docker ps`, `crictl ps`).
const ID_DIGITS: usize = 12;
/// Digits of a pod's uid that tell it from others on a host.
const POD_DIGITS: usize = 8;
/// Digits of an id that is a container's, at least: 64 by every runtime.
const LONG: usize = 40;

/// The path in at most `columns`.
pub(super) fn fit(path: &str, columns: usize) -> String {
    if width(path) <= columns {
        return path.to_owned();
    }
    let Some((before, id, after)) = container(path) else {
        return cut_start(path, columns);
    };
    let short = format!("{before}{id}…{after}");
    // The component of the id without what the runtime wraps it in.
    let below = after.split_once('/').map_or("", |(_, below)| below);
    let below = if below.is_empty() {
        String::new()
    } else {
        format!("/{below}")
    };
    let mut shorter = vec![short];
    if let Some(uid) = pod(before) {
        let few: String = uid.chars().take(POD_DIGITS).collect();
        shorter.push(format!("…/pod{uid}/{id}{below}"));
        shorter.push(format!("…/pod{uid}/{id}"));
        shorter.push(format!("…/pod{few}…/{id}"));
    }
    shorter.push(format!("…/{id}{below}"));
    shorter.push(format!("…/{id}"));
    let fits = shorter.into_iter().find(|path| width(path) <= columns);
    fits.unwrap_or_else(|| cut_end(id, columns))
}

/// What stands before the id of the innermost container, its first digits, and what follows
/// the id.
fn container(path: &str) -> Option<(&str, &str, &str)> {
    let is_digit = |c: char| c.is_ascii_hexdigit();
    let mut end = path.len();
    while let Some(rest) = path.get(..end) {
        let last = rest.rfind(is_digit)? + 1;
        let run = rest.get(..last)?;
        let first = run.trim_end_matches(is_digit).len();
        if last - first >= LONG {
            let id = path.get(first..first + ID_DIGITS)?;
            return Some((path.get(..first)?, id, path.get(last..)?));
        }
        end = first;
    }
    None
}

/// The uid of the pod whose slice or directory this is below.
fn pod(before: &str) -> Option<&str> {
    let component = before
        .rsplit('/')
        .find(|part| part.contains("pod") && part.len() > 32)?;
    let uid = component.rsplit("pod").next()?.trim_end_matches(".slice");
    let is_uid = |c: char| c.is_ascii_hexdigit() || c == '-' || c == '_';
    (uid.len() > POD_DIGITS && uid.chars().all(is_uid)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::{fit, width};

    const ID: &str = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1";
    const UID: &str = "0b1c2d3e_4f5a_6b7c_8d9e_0f1a2b3c4d5e";

    #[test]
    fn a_container_keeps_its_first_digits_and_its_pod() {
        let path = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice/\
             cri-containerd-{ID}.scope"
        );
        assert_eq!(fit(&path, 400), path);
        assert_eq!(fit(&path, 60), format!("…/pod{UID}/3f2a9c0d1e4b"));
        assert_eq!(fit(&path, 30), "…/pod0b1c2d3e…/3f2a9c0d1e4b");
        assert_eq!(fit(&path, 20), "…/3f2a9c0d1e4b");
        assert_eq!(fit(&path, 6), "3f2a9…");
        let uid = UID.replace('_', "-");
        let path = format!("/kubepods/besteffort/pod{uid}/{ID}/init.scope");
        assert_eq!(
            fit(&path, 70),
            format!("…/pod{uid}/3f2a9c0d1e4b/init.scope")
        );
        assert_eq!(fit(&path, 58), format!("…/pod{uid}/3f2a9c0d1e4b"));
    }

    #[test]
    fn a_container_without_a_pod_keeps_its_first_digits() {
        let path = format!("/system.slice/docker-{ID}.scope");
        assert_eq!(fit(&path, 50), "/system.slice/docker-3f2a9c0d1e4b….scope");
        assert_eq!(fit(&path, 20), "…/3f2a9c0d1e4b");
        // Of one within another, the inner one.
        let nested = format!("/docker/{}/docker/{ID}", ID.replace('3', "4"));
        assert_eq!(fit(&nested, 20), "…/3f2a9c0d1e4b");
    }

    #[test]
    fn any_other_keeps_its_end() {
        assert_eq!(
            fit("/user.slice/user-1000.slice/session-12.scope", 20),
            "…ce/session-12.scope"
        );
        for columns in 0..60 {
            for path in ["/system.slice/cron.service", "/é漢/podx", ID] {
                assert!(width(&fit(path, columns)) <= columns, "{path} {columns}");
            }
        }
    }
}
