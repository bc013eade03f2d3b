//! `#[step]`: a function that describes the work, around the user's function that does it.
//!
//! What may stand in the attribute is `options`, what may stand in the signature is `check`.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};

use crate::complaints::Complaints;
use crate::expansion::{self, Fallback};
use crate::function::{Function, Kind, Role};
use crate::options::{Retry, StepOptions};

/// The pure core of `#[step]`: from the attribute's arguments and its item to what stands in its place.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut complaints = Complaints::default();
    let options = StepOptions::parse(options, &mut complaints);
    let kind = if options.tx { Kind::TxStep } else { Kind::Step };
    let right = |function: &Function| door(function, &options);
    expansion::expand(item, kind, complaints, right, |function| fallback(function, kind))
}

fn door(function: &Function, options: &StepOptions) -> TokenStream {
    let Some(returned) = function.returned() else {
        // `check` has refused it.
        return TokenStream::new();
    };
    let span = expansion::span(function);
    let attributes = function.door_attributes();
    let (visibility, name) = (&function.visibility, function.name());
    let parameters = expansion::door_parameters(function);
    let described = expansion::described(returned);
    let owner = Ident::new("__Step", span);
    let body = expansion::body(function, &owner);
    let definition = definition(function, options);
    let arguments = expansion::door_arguments(function);
    let perform = perform(function, options, &owner);
    let constructor = if options.tx { "tx_step" } else { "plain_step" };
    let call = expansion::library_call(constructor, returned, quote! { #definition, #arguments, #perform });
    quote_spanned! { span =>
        #(#attributes)*
        #[allow(clippy::too_many_arguments)]
        #visibility fn #name(#parameters) -> #described {
            enum #owner {}
            #body
            #call
        }
    }
}

/// The closure that calls the user's function with its contexts and the arguments taken apart. It is located at the
/// function's name, where a body that is not `Send` is to be shown.
fn perform(function: &Function, options: &StepOptions, owner: &Ident) -> TokenStream {
    let span = expansion::span(function);
    let name = function.name();
    let unpacked = expansion::unpacked(function);
    let given = expansion::call_arguments(function, span);
    let step = if function.has(Role::StepCtx) {
        quote_spanned! { span => step }
    } else {
        quote_spanned! { span => _ }
    };
    let call = quote_spanned! { span => async move { #owner::#name(#given).await } };
    if options.tx {
        quote_spanned! { span => |tx, #step, #unpacked| ::std::boxed::Box::pin(#call) }
    } else {
        quote_spanned! { span => |#step, #unpacked| #call }
    }
}

fn fallback(function: &Function, kind: Kind) -> TokenStream {
    let Fallback { generics, returned, body } = expansion::fallback(function, kind);
    let attributes = function.door_attributes();
    let (visibility, name) = (&function.visibility, function.name());
    let parameters = expansion::door_parameters(function);
    let described = expansion::described(&returned);
    let constraints = &generics.where_clause;
    quote! {
        #(#attributes)*
        #[allow(unused_variables)]
        #visibility fn #name #generics(#parameters) -> #described #constraints #body
    }
}

/// What is known about the step before it is called. A `const` block, because a named item would be in the sight of
/// the user's body.
fn definition(function: &Function, options: &StepOptions) -> TokenStream {
    let name = options.name.clone().unwrap_or_else(|| function.plain_name());
    let retry = optional(options.retry.as_ref().map(|retry| {
        let Retry { max_attempts, factor, jitter, .. } = retry;
        let (first, max) = (duration(retry.first_ms), duration(retry.max_ms));
        quote! {
            ::durable::Retry {
                max_attempts: #max_attempts, first: #first, factor: #factor, max: #max, jitter: #jitter,
            }
        }
    }));
    let timeout = optional(options.timeout_ms.map(duration));
    let limit = optional(options.limit.as_ref().map(|limit| quote! { #limit }));
    quote! {
        const {
            &::durable::__private::StepDefinition { name: #name, retry: #retry, timeout: #timeout, limit: #limit }
        }
    }
}

fn duration(millis: u64) -> TokenStream {
    quote! { ::core::time::Duration::from_millis(#millis) }
}

fn optional(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote! { ::core::option::Option::Some(#value) },
        None => quote! { ::core::option::Option::None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_its_door_its_definition_and_the_users_function() {
        let expanded = expand(
            quote! { retry(max_attempts = 5), timeout = "1m30s" },
            quote! {
                /// Charges.
                #[tracing::instrument]
                pub(crate) async fn charge(step: &StepCtx, mut order: Order, (a, b): (i32, i32)) -> Result<Receipt> {
                    anything at all
                }
            },
        );
        let expected = quote! {
            /// Charges.
            #[allow(clippy::too_many_arguments)]
            pub(crate) fn charge(order: Order, arg2: (i32, i32))
                -> ::durable::Step< <Result<Receipt> as ::durable::__private::Returned>::Output >
            {
                enum __Step {}
                impl __Step {
                    #[allow(clippy::unused_async)]
                    #[tracing::instrument]
                    async fn charge(step: &StepCtx, mut order: Order, (a, b): (i32, i32)) -> Result<Receipt> {
                        anything at all
                    }
                }
                ::durable::__private::plain_step(
                    const {
                        &::durable::__private::StepDefinition {
                            name: "charge",
                            retry: ::core::option::Option::Some(::durable::Retry {
                                max_attempts: 5u32,
                                first: ::core::time::Duration::from_millis(1000u64),
                                factor: 2f64,
                                max: ::core::time::Duration::from_millis(60000u64),
                                jitter: 0.2f64,
                            }),
                            timeout: ::core::option::Option::Some(::core::time::Duration::from_millis(90000u64)),
                            limit: ::core::option::Option::None
                        }
                    },
                    (order, arg2),
                    |step, (arg1, arg2)| async move { __Step::charge(&step, arg1, arg2).await }
                )
            }
        };
        assert_eq!(expanded.to_string(), expected.to_string());
    }

    #[test]
    fn a_transactional_step_is_given_its_transaction() {
        let expanded = expand(
            quote! { tx, name = "save_v2" },
            quote! { async fn save(tx: &mut PgConnection, draft: Draft) -> Result<i64> {} },
        );
        let expected = quote! {
            #[allow(clippy::too_many_arguments)]
            fn save(draft: Draft) -> ::durable::Step< <Result<i64> as ::durable::__private::Returned>::Output > {
                enum __Step {}
                impl __Step {
                    #[allow(clippy::unused_async)]
                    async fn save(tx: &mut PgConnection, draft: Draft) -> Result<i64> {}
                }
                ::durable::__private::tx_step(
                    const {
                        &::durable::__private::StepDefinition {
                            name: "save_v2",
                            retry: ::core::option::Option::None,
                            timeout: ::core::option::Option::None,
                            limit: ::core::option::Option::None
                        }
                    },
                    draft,
                    |tx, _, arg1| ::std::boxed::Box::pin(async move { __Step::save(tx, arg1).await })
                )
            }
        };
        assert_eq!(expanded.to_string(), expected.to_string());
    }

    #[test]
    fn a_wrong_option_leaves_the_door_and_adds_one_error() {
        let item = quote! { async fn f() -> Result<()> {} };
        let wrong = expand(quote! { colour = 1 }, item.clone()).to_string();
        let right = expand(quote! {}, item).to_string();
        assert_eq!(wrong.matches("compile_error").count(), 1);
        assert!(wrong.ends_with(&right));
    }

    #[test]
    fn a_wrong_signature_keeps_the_users_function_and_a_door_for_its_callers() {
        let expanded = expand(quote! {}, quote! { fn f(name: &str) -> Result<i64> { body } }).to_string();
        assert_eq!(expanded.matches("compile_error").count(), 2);
        assert!(expanded.contains("async fn f (name : & str) -> Result < i64 > { body }"));
        assert!(expanded.contains("fn f (name : & str) -> :: durable :: Step < < Result < i64 >"));
    }

    #[test]
    fn what_is_no_function_is_emitted_as_it_was() {
        let item = quote! { #[derive(Debug)] pub struct Charge; };
        let expanded = expand(quote! {}, item.clone()).to_string();
        assert!(expanded.contains("only a function can be a step"));
        assert!(expanded.ends_with(&item.to_string()));
    }
}
