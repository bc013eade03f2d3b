//! What the command line asks for. What it leads to is in `main` and `catalog`.

use std::path::PathBuf;

use anyhow::{Result, bail};

pub(crate) const USAGE: &str = "\
Measure durable beside the limits of PostgreSQL, in one run.

usage: cargo run --release -p durable-benches -- [--quick] [--json] [--only PREFIX]... [--out DIR]

  --quick        under five minutes: one short round of each, and no curves unless --only asks for them
  --json         one JSON object per row on standard output, instead of the table
  --only PREFIX  only rows, curves and profiles whose id begins with PREFIX; may be given several times
  --list         print the ids and end
  --out DIR      where limits.json and limits.svg go; default target/benches
";

/// The command line, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) json: bool,
    pub(crate) list: bool,
    pub(crate) help: bool,
    pub(crate) only: Vec<String>,
    pub(crate) out: Option<PathBuf>,
}

impl Options {
    /// Read the arguments; `known` are the ids that `--only` can select.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>, known: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, mut given) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = |what: &str| match given.take().or_else(|| arguments.next()) {
                Some(value) if !value.is_empty() && !value.starts_with("--") => Ok(value),
                Some(_) | None => bail!("{name} needs {what}: write {name} {what}"),
            };
            match name {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                "--only" => options.only.push(known_prefix(value("PREFIX")?, known)?),
                "--out" => options.out = Some(PathBuf::from(value("DIR")?)),
                _ => bail!("unknown argument {argument}: use --quick, --json, --only PREFIX, --list or --out DIR"),
            }
            if let Some(value) = given {
                bail!("{name} takes no value: leave out ={value}");
            }
        }
        Ok(options)
    }

    /// Whether this id was asked for.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|prefix| id.starts_with(prefix.as_str()))
    }
}

fn known_prefix(prefix: String, known: &[&str]) -> Result<String> {
    if known.iter().any(|id| id.starts_with(prefix.as_str())) {
        return Ok(prefix);
    }
    bail!("--only {prefix} selects nothing: the ids are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        let arguments = line.split_whitespace().map(str::to_owned);
        Options::parse(arguments, &["w1-1", "w1-256", "wal"]).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_are_selected_by_the_beginnings_of_their_ids() {
        let options = parse("--quick --only w1 --only=wal --out here").unwrap();
        assert!(options.quick && !options.json && options.out.is_some());
        assert!(options.wants("w1-256") && options.wants("wal") && !options.wants("w3-bulk"));
        assert!(parse("").unwrap().wants("w3-bulk"));
    }

    #[test]
    fn a_bad_argument_is_named_with_its_fix() {
        for (line, told) in [
            ("--fast", "unknown argument --fast: use --quick"),
            ("--only", "--only needs PREFIX"),
            ("--only --json", "--only needs PREFIX"),
            ("--only w9", "--only w9 selects nothing: the ids are w1-1, w1-256, wal"),
            ("--out", "--out needs DIR"),
            ("--quick=2", "--quick takes no value: leave out =2"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
