//! What the program `live` is asked for.

/// Which tests, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Only the tests of the contract suite.
    pub(super) is_contract: bool,
    /// Every test alone, each with tracers of its own.
    pub(super) is_serial: bool,
    /// Words name whole tests.
    pub(super) is_exact: bool,
    /// Only say which tests there are.
    pub(super) is_list: bool,
    /// Tests side by side.
    pub(super) jobs: usize,
    /// How often each test runs.
    pub(super) times: usize,
    /// Tests whose name contains one of these stay away.
    pub(super) skip: Vec<String>,
    /// Tests that are wanted; all when there are none.
    pub(super) words: Vec<String>,
}

/// What it says to whoever misspelt something.
pub(super) const USAGE: &str = "\
usage: live [--suite full|contract] [--serial] [--jobs N] [--times N] [--exact] [--list]
            [--skip PATTERN].. [PATTERN]..";

impl Options {
    /// Reads them; `jobs` is how many tests run side by side if nobody says.
    pub(super) fn of(args: &[String], jobs: usize) -> Result<Self, String> {
        let mut options = Self {
            is_contract: false,
            is_serial: false,
            is_exact: false,
            is_list: false,
            jobs,
            times: 1,
            skip: Vec::new(),
            words: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match arg.as_str() {
                "--suite" => {
                    options.is_contract = match value()?.as_str() {
                        "full" => false,
                        "contract" => true,
                        other => return Err(format!("--suite {other}: full or contract")),
                    }
                }
                super::child::SERIAL => options.is_serial = true,
                "--exact" => options.is_exact = true,
                "--list" => options.is_list = true,
                "--jobs" => options.jobs = number(arg, value()?)?,
                "--times" => options.times = number(arg, value()?)?,
                "--skip" => options.skip.push(value()?.clone()),
                option if option.starts_with('-') => return Err(format!("no option {option}")),
                word => options.words.push(word.to_owned()),
            }
        }
        Ok(options)
    }
}

fn number(option: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or(format!("{option} {text}: a number from 1 on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Options, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::of(&args, 8)
    }

    #[test]
    fn words_and_options_may_be_mixed() {
        let options = of("oom --suite contract --times 20 --skip a --exact tcp").unwrap();
        assert_eq!(options.words, ["oom", "tcp"]);
        assert_eq!(options.skip, ["a"]);
        assert!(options.is_contract && options.is_exact && !options.is_serial);
        assert_eq!((options.times, options.jobs), (20, 8));
    }

    #[test]
    fn slips_are_named() {
        for (line, word) in [
            ("--suite most", "most"),
            ("--jobs 0", "--jobs 0"),
            ("--times", "wants a value"),
            ("--paralel", "--paralel"),
        ] {
            let said = of(line).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
