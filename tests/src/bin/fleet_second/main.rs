//! A worker process of the second release.

mod release;

fn main() -> anyhow::Result<()> {
    durable_tests::fleet::work(release::register)
}
