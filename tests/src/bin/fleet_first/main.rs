//! A worker process of the first release.

mod release;

fn main() -> anyhow::Result<()> {
    durable_tests::fleet::work(release::register)
}
