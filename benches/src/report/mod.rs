//! What is shown: a table for people, JSON for programs, a picture.

pub(crate) mod json;
pub(crate) mod machine;
pub(crate) mod svg;
pub(crate) mod table;

use anyhow::Result;

use crate::bench::Bench;
use crate::catalog::{Limit, Row};
use crate::figure::Figures;
use crate::sample::median;
use crate::workloads::curves::Curve;
use crate::workloads::profile::Profile;

/// Everything that one run has found.
#[derive(Debug)]
pub(crate) struct Report {
    /// The machine, the date and the server, as names and values.
    pub(crate) about: Vec<(String, String)>,
    pub(crate) rows: Vec<Measured>,
    pub(crate) curves: Vec<Curve>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) seconds: f64,
}

impl Report {
    pub(crate) async fn begin(bench: &Bench) -> Result<Self> {
        let mut about = machine::describe();
        let today = sqlx::query_scalar("select to_char(now() at time zone 'utc', 'YYYY-MM-DD')");
        about.push(("date".to_owned(), today.fetch_one(&bench.pool).await?));
        about.extend(bench.settings().await?);
        Ok(Self { about, rows: Vec::new(), curves: Vec::new(), profiles: Vec::new(), seconds: 0.0 })
    }
}

/// A row with its figures.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// Medians over the rounds.
    pub(crate) ours: f64,
    pub(crate) limit: f64,
    /// The median of the rounds' ratios: what drifts from round to round drifts on both sides of each.
    pub(crate) ratio: f64,
    pub(crate) ratios: Vec<f64>,
}

impl Measured {
    /// `None` when a round has not measured it.
    pub(crate) fn of(row: Row, rounds: &[Figures]) -> Option<Self> {
        let ours: Vec<f64> = rounds.iter().map(|figures| figures.get(&row.ours).copied()).collect::<Option<_>>()?;
        let limits: Vec<f64> = match row.limit {
            Limit::Measured(figure, _) => {
                rounds.iter().map(|figures| figures.get(&figure).copied()).collect::<Option<_>>()?
            }
            Limit::Fixed(limit, _) => vec![limit; rounds.len()],
        };
        let ratios: Vec<f64> = ours.iter().zip(&limits).map(|(ours, limit)| ours / limit).collect();
        Some(Self { row, ours: median(&ours), limit: median(&limits), ratio: median(&ratios), ratios })
    }

    pub(crate) fn limit_is(&self) -> &'static str {
        match self.row.limit {
            Limit::Measured(_, what) | Limit::Fixed(_, what) => what,
        }
    }

    pub(crate) fn ok(&self) -> bool {
        self.row.required.met(self.ratio)
    }
}

/// A number with its thousands apart, or with as many decimals as tell something.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_number_shows_what_tells_something() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (0.0168, "0.0168"),
            (0.204, "0.20"),
            (99.44, "99.4"),
            (123.4, "123"),
            (1_234_567.8, "1,234,568"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
