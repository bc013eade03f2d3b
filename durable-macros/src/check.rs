//! Every mistake that a signature can show, each with its fix, at its token.
//!
//! What only types can show (a return type that is no `Result`, an argument that is not serialisable, a body
//! that is not `Send`) is left to the compiler; `step` and `workflow` emit code that makes it point at the
//! user's tokens. Mistakes in the attribute's own arguments are found by `options`.

use proc_macro2::Span;
use syn::{FnArg, GenericParam, Safety, Type, TypeReference};

use crate::complaints::Complaints;
use crate::function::{Function, Kind, Parameter, Role};
use crate::stored::{borrows, find, is_impl_trait, owned};

/// The longest tuple that `register` and the arguments' codec accept. More belongs in a struct.
const ARGUMENTS_MAX: usize = 8;

/// Complain about everything in the signature of `function` that a `kind` cannot have.
pub(crate) fn check(function: &Function, kind: Kind, complaints: &mut Complaints) {
    let noun = kind.noun();
    if let Some(receiver) = function.signature.inputs.iter().find(|input| matches!(input, FnArg::Receiver(_))) {
        // A method is wrong in its whole shape; more complaints would only distract.
        return complaints.at(receiver, format!("a {noun} cannot be a method: take what it needs as arguments"));
    }
    qualifiers(function, noun, complaints);
    match kind {
        Kind::Step => {
            step_context(function, complaints);
            no_connection(function, complaints);
        }
        Kind::TxStep => {
            step_context(function, complaints);
            connection(function, complaints);
        }
        Kind::Workflow => workflow_context(function, complaints),
    }
    let before = complaints.count();
    arguments(function, kind, complaints);
    generics(function, noun, complaints.count() > before, complaints);
    returned(function, noun, complaints);
}

fn qualifiers(function: &Function, noun: &str, complaints: &mut Complaints) {
    let signature = &function.signature;
    if signature.asyncness.is_none() {
        complaints.at(signature.fn_token, format!("a {noun} is asynchronous: write `async fn {}`", signature.ident));
    }
    if let Some(keyword) = &signature.constness {
        complaints.at(keyword, format!("a {noun} cannot be `const`: remove the keyword"));
    }
    if let Safety::Unsafe(keyword) = &signature.safety {
        let fix = "remove the keyword and put the unsafe code in a function that it calls";
        complaints.at(keyword, format!("a {noun} cannot be `unsafe`: {fix}"));
    }
    if let Some(abi) = &signature.abi {
        complaints.at(abi, format!("a {noun} cannot be `extern`: remove the ABI"));
    }
    if let Some(variadic) = &signature.variadic {
        complaints.at(variadic, format!("a {noun} cannot be variadic: take a `Vec`"));
    }
}

/// `ctx: &Ctx`, first and once.
fn workflow_context(function: &Function, complaints: &mut Complaints) {
    const FIX: &str = "the first parameter must be `ctx: &Ctx`";
    if !function.has(Role::Ctx) && !function.has(Role::StepCtx) {
        missing(function, Kind::Workflow, format!("a workflow needs its context: {FIX}"), complaints);
    }
    for (index, parameter) in function.parameters.iter().enumerate() {
        let ty = &parameter.written.ty;
        match parameter.role {
            Role::Ctx if index > 0 => complaints.at(&parameter.written, format!("a workflow has one context: {FIX}")),
            Role::Ctx if !is_lent(ty, false) => complaints.at(ty, "the context is lent to the body: take `ctx: &Ctx`"),
            Role::StepCtx => complaints.at(ty, "`StepCtx` belongs to steps: a workflow takes `ctx: &Ctx`"),
            Role::Connection | Role::Transaction => complaints
                .at(ty, "a workflow cannot hold a connection: write to the database in a `#[step(tx)]` that it runs"),
            Role::Ctx | Role::Argument => {}
        }
    }
}

/// `step: &StepCtx`, optional; before the arguments and behind the transaction.
fn step_context(function: &Function, complaints: &mut Complaints) {
    let is_transaction = |parameter: &&Parameter| matches!(parameter.role, Role::Connection | Role::Transaction);
    let place = function.parameters.iter().take_while(is_transaction).count();
    for (index, parameter) in function.parameters.iter().enumerate() {
        let ty = &parameter.written.ty;
        match parameter.role {
            Role::Ctx => {
                complaints.at(ty, "a step cannot contain steps: take `&StepCtx`, or make this function a `#[workflow]`")
            }
            Role::StepCtx if index != place => complaints.at(
                &parameter.written,
                "a step has one context: put `step: &StepCtx` before the arguments, after `tx`",
            ),
            Role::StepCtx if !is_lent(ty, false) => {
                complaints.at(ty, "the context is lent to the step: take `step: &StepCtx`");
            }
            Role::StepCtx | Role::Connection | Role::Transaction | Role::Argument => {}
        }
    }
}

/// `tx: &mut PgConnection`, first and once.
fn connection(function: &Function, complaints: &mut Complaints) {
    const FIX: &str = "the first parameter must be `tx: &mut PgConnection`";
    if !function.has(Role::Connection) && !function.has(Role::Transaction) {
        missing(function, Kind::TxStep, format!("a transactional step needs its transaction: {FIX}"), complaints);
    }
    for (index, parameter) in function.parameters.iter().enumerate() {
        let ty = &parameter.written.ty;
        match parameter.role {
            Role::Transaction => complaints
                .at(ty, "the library begins and commits the transaction: take `tx: &mut PgConnection`, which is in it"),
            Role::Connection if index > 0 => {
                complaints.at(&parameter.written, format!("a step has one transaction: {FIX}"));
            }
            Role::Connection if !is_lent(ty, true) => {
                complaints.at(ty, "the transaction is lent to the step: take `tx: &mut PgConnection`");
            }
            Role::Connection | Role::Ctx | Role::StepCtx | Role::Argument => {}
        }
    }
}

fn no_connection(function: &Function, complaints: &mut Complaints) {
    for parameter in &function.parameters {
        match parameter.role {
            Role::Connection | Role::Transaction => complaints.at(
                &parameter.written.ty,
                "only a transactional step has a connection: add `(tx)`, as in `#[step(tx)]`, and take `tx: &mut PgConnection`",
            ),
            Role::Ctx | Role::StepCtx | Role::Argument => {}
        }
    }
}

/// `&T` or `&mut T`, for no longer than the call.
fn is_lent(ty: &Type, exclusively: bool) -> bool {
    let Type::Reference(TypeReference { lifetime, mutability, .. }) = ty else {
        return false;
    };
    mutability.is_some() == exclusively && lifetime.as_ref().is_none_or(|lifetime| lifetime.ident != "static")
}

/// Complain about a context that is not there, at the parameter that was meant to be it, if any.
fn missing(function: &Function, kind: Kind, message: String, complaints: &mut Complaints) {
    match function.parameters.iter().find(|parameter| is_meant_as_context(parameter, kind)) {
        Some(parameter) => complaints.at(&parameter.written.ty, message),
        None => complaints.add(syn::Error::new(parentheses(function), message)),
    }
}

/// Whether its name says that this parameter should be the context, whatever its type says.
fn is_meant_as_context(parameter: &Parameter, kind: Kind) -> bool {
    match kind {
        Kind::Workflow => parameter.name == "ctx",
        Kind::TxStep => parameter.name == "tx",
        Kind::Step => false,
    }
}

fn parentheses(function: &Function) -> Span {
    function.signature.paren_token.span.join()
}

fn arguments(function: &Function, kind: Kind, complaints: &mut Complaints) {
    let noun = kind.noun();
    for parameter in function.arguments() {
        let ty = &parameter.written.ty;
        if let Some(hidden) = find(ty, &is_impl_trait) {
            complaints
                .at(hidden, "arguments are stored, so their types must be known: name a type instead of `impl Trait`");
        } else if is_meant_as_context(parameter, kind) {
            // Complained about already, if it is wrong.
        } else if let Some(borrowed) = find(ty, &borrows) {
            let fix = owned(borrowed);
            complaints.at(borrowed, format!("arguments are stored, so they cannot be borrowed: take {fix}"));
        }
    }
    if let Some(parameter) = function.arguments().nth(ARGUMENTS_MAX) {
        let message = format!("a {noun} takes at most {ARGUMENTS_MAX} arguments: put them in a serialisable struct");
        complaints.at(&parameter.written, message);
    }
}

fn generics(function: &Function, noun: &str, is_explained: bool, complaints: &mut Complaints) {
    let generics = &function.signature.generics;
    let only_lifetimes = generics.params.iter().all(|param| matches!(param, GenericParam::Lifetime(_)));
    if !generics.params.is_empty() && !only_lifetimes {
        let why = "its name would stand for many functions in the history";
        complaints.at(&generics.params, format!("a {noun} cannot be generic, {why}: write one {noun} for each type"));
    } else if !generics.params.is_empty() && !is_explained {
        // A lifetime that an argument borrows for is that argument's mistake, and has been told.
        complaints
            .at(&generics.params, format!("a {noun} has no lifetime parameters: remove them, contexts are `&Ctx`"));
    } else if let Some(clause) = generics.where_clause.as_ref().filter(|_| generics.params.is_empty()) {
        complaints.at(clause, format!("a {noun} has nothing to constrain: remove the `where` clause"));
    }
}

fn returned(function: &Function, noun: &str, complaints: &mut Complaints) {
    let Some(ty) = function.returned() else {
        let fix = "add `-> anyhow::Result<()>` or another `Result`";
        return complaints.add(syn::Error::new(parentheses(function), format!("a {noun} returns a `Result`: {fix}")));
    };
    if let Some(borrowed) = find(ty, &borrows) {
        let fix = owned(borrowed);
        complaints.at(borrowed, format!("outputs are stored, so they cannot be borrowed: return {fix}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn complaints(kind: Kind, item: proc_macro2::TokenStream) -> Vec<String> {
        let function = syn::parse2::<Function>(item).expect("a function");
        let mut complaints = Complaints::default();
        check(&function, kind, &mut complaints);
        complaints.messages()
    }

    #[test]
    fn right_signatures_are_left_alone() {
        for (kind, item) in [
            (Kind::Step, quote! { async fn f() -> Result<()> {} }),
            (Kind::Step, quote! { async fn f(step: &durable::StepCtx, mut a: i32, (b, c): (i32, i32)) -> R {} }),
            (Kind::Step, quote! { async fn f(name: Cow<'static, str>, ctx: Context, tx: i32) -> Result<Vec<u8>> {} }),
            (Kind::TxStep, quote! { async fn f(tx: &mut sqlx::PgConnection, step: &StepCtx, a: i32) -> R {} }),
            (Kind::TxStep, quote! { async fn f(_: &mut PgConnection) -> R {} }),
            (Kind::Workflow, quote! { async fn f(_: &'_ Ctx, a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H) -> R {} }),
        ] {
            assert_eq!(complaints(kind, item.clone()), [""; 0], "{item}");
        }
    }

    #[test]
    fn a_wrong_signature_is_one_complaint_that_says_the_fix() {
        for (kind, item, fix) in [
            (Kind::Step, quote! { async fn f<T, U>(a: T) -> R where T: X {} }, "one step for each type"),
            (Kind::Step, quote! { async fn f<const N: usize>() -> R {} }, "one step for each type"),
            (Kind::Step, quote! { async fn f() -> R where i32: Copy {} }, "remove the `where`"),
            (Kind::Step, quote! { async fn f(a: Vec<impl X>) -> R {} }, "name a type"),
            (Kind::Step, quote! { async fn f(a: &Lead) -> R {} }, "take `Lead`"),
            (Kind::Step, quote! { async fn f<'a>(a: &'a [u8]) -> R {} }, "take `Vec<u8>`"),
            (Kind::Step, quote! { async fn f(a: Option<(&str, u8)>) -> R {} }, "take `String`"),
            (Kind::Step, quote! { async fn f(a: [&'static str; 2]) -> R {} }, "take `String`"),
            (Kind::Step, quote! { async fn f(&self, a: &str) {} }, "cannot be a method"),
            (Kind::Step, quote! { async fn f(tx: Transaction<'_, Postgres>) -> R {} }, "#[step(tx)]"),
            (Kind::Step, quote! { async fn f(tx: &mut PgConnection, step: &StepCtx) -> R {} }, "#[step(tx)]"),
            (Kind::Step, quote! { async fn f(step: &mut StepCtx) -> R {} }, "take `step: &StepCtx`"),
            (Kind::Step, quote! { async fn f() {} }, "add `-> anyhow::Result<()>`"),
            (Kind::TxStep, quote! { async fn f(step: &StepCtx) -> R {} }, "must be `tx: &mut PgConnection`"),
            (Kind::TxStep, quote! { async fn f(tx: &PgPool) -> R {} }, "must be `tx: &mut PgConnection`"),
            (
                Kind::TxStep,
                quote! { async fn f(tx: &'static mut PgConnection) -> R {} },
                "take `tx: &mut PgConnection`",
            ),
            (Kind::TxStep, quote! { async fn f(step: &StepCtx, tx: &mut PgConnection) -> R {} }, "must be `tx:"),
            (Kind::Workflow, quote! { async fn f() -> R {} }, "must be `ctx: &Ctx`"),
            (Kind::Workflow, quote! { async fn f(ctx: &Context) -> R {} }, "must be `ctx: &Ctx`"),
            (Kind::Workflow, quote! { async fn f(ctx: &'static Ctx) -> R {} }, "take `ctx: &Ctx`"),
            (Kind::Workflow, quote! { async fn f<'a>(ctx: &'a Ctx) -> R {} }, "remove them"),
            (Kind::Workflow, quote! { fn f(ctx: &Ctx) -> R {} }, "write `async fn f`"),
        ] {
            let messages = complaints(kind, item.clone());
            assert_eq!(messages.len(), 1, "{item}: {messages:?}");
            assert!(messages[0].contains(fix), "{item}: {messages:?}");
        }
    }

    #[test]
    fn independent_mistakes_are_all_reported() {
        let messages = complaints(Kind::Workflow, quote! { const fn f(a: &str, b: impl X) -> Result<&str> {} });
        assert_eq!(messages.len(), 6, "{messages:?}");
        let messages = complaints(Kind::Step, quote! { async unsafe extern "C" fn f(a: i32, ...) -> R {} });
        assert_eq!(messages.len(), 3, "{messages:?}");
    }
}
