//! Facts about servers, clusters and test databases. Every test has a home of its own, so that none meets the clusters
//! of the person who runs it. What is pure is tested at the bottom of its file.

mod cluster;
mod fetch;
mod resolve;
mod server;
mod support;
mod testdb;
