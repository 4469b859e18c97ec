//! Colours that say the cause: one hue a cause, a shade by the function's name.

use std::collections::BTreeMap;

/// Red, green, blue.
type Rgb = [u8; 3];

/// Paul Tol's scheme *light*: told apart with every kind of colour vision, and
/// dark letters can be read on each.
const HUES: [Rgb; 8] = [
    [0xff, 0xaa, 0xbb],
    [0xee, 0x88, 0x66],
    [0xee, 0xdd, 0x88],
    [0x44, 0xbb, 0x99],
    [0x77, 0xaa, 0xdd],
    [0xbb, 0xcc, 0x33],
    [0x99, 0xdd, 0xff],
    [0xaa, 0xaa, 0x00],
];

/// What has no cause: the root and the processes.
const GREY: Rgb = [0xc4, 0xc8, 0xcc];

/// The hue of each cause of a picture.
#[derive(Debug, Default)]
pub(super) struct Hues(BTreeMap<&'static str, usize>);

impl Hues {
    /// A cause has the hue of its name, unless one before it in the alphabet
    /// took that already; so up to eight causes never share one.
    pub(super) fn new(causes: impl IntoIterator<Item = &'static str>) -> Self {
        let mut hues: BTreeMap<_, _> = causes.into_iter().map(|cause| (cause, 0)).collect();
        let mut taken = [false; HUES.len()];
        for (cause, hue) in &mut hues {
            let own = hash(cause) as usize % HUES.len();
            let mut next = (own..HUES.len()).chain(0..own);
            *hue = next.find(|&hue| !taken[hue]).unwrap_or(own);
            taken[*hue] = true;
        }
        Self(hues)
    }

    /// The plain colour of a cause, as `#rrggbb`.
    pub(super) fn cause(&self, cause: Option<&str>) -> String {
        hex(self.base(cause))
    }

    /// The colour of what belongs to a cause: lighter, by its name.
    pub(super) fn shade(&self, cause: Option<&str>, name: &str) -> String {
        // Six steps, the lightest half white.
        let white = 1 + u16::from((hash(name) % 6) as u8);
        let light = |part: u8| ((u16::from(part) * (12 - white) + 0xff * white) / 12) as u8;
        hex(self.base(cause).map(light))
    }

    fn base(&self, cause: Option<&str>) -> Rgb {
        let hue = cause.and_then(|cause| self.0.get(cause));
        hue.and_then(|&hue| HUES.get(hue)).copied().unwrap_or(GREY)
    }
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// FNV-1a: the same in every run and on every host.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::Hues;

    #[test]
    fn a_hue_is_the_causes_own_and_stays_when_others_come() {
        let alone = Hues::new(["disk"]);
        let both = Hues::new(["lock", "disk", "lock"]);
        assert_eq!(alone.cause(Some("disk")), both.cause(Some("disk")));
        assert_ne!(both.cause(Some("lock")), both.cause(Some("disk")));
        assert_eq!(
            alone.shade(Some("disk"), "f"),
            both.shade(Some("disk"), "f")
        );
    }

    #[test]
    fn eight_causes_have_eight_hues_and_a_ninth_has_one_too() {
        let causes = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let hues = Hues::new(causes[..8].iter().copied());
        let mut seen: Vec<_> = causes[..8].iter().map(|c| hues.cause(Some(c))).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 8);
        let grey = hues.cause(None);
        assert_ne!(Hues::new(causes).cause(Some("i")), grey);
    }
}
