//! What the compiler says: misuse does not compile and says how to mend it, and every shape that is allowed compiles.
//!
//! The shapes in `ui/pass` are modules of this binary instead of programs of their own: they are compiled anyway,
//! need not be linked one by one, and can be asked what they became. The mistakes in `ui/fail` are compiled by
//! trybuild, which then only has to check and never to build.
//!
//! Tests begin in the order of their names, and trybuild first checks all dependencies in a directory of its own: from this
//! place it does so while others wait, and not when they have ended.

#[path = "../../ui/pass/attributes.rs"]
mod attributes;
#[path = "../../ui/pass/steps.rs"]
mod steps;
#[path = "../../ui/pass/workflows.rs"]
mod workflows;

#[test]
fn every_mistake_is_one_error_at_its_token() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}
