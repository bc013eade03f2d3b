//! `#[workflow]`: a type that names the workflow and holds its body, and a function that describes a start of it.
//!
//! What may stand in the attribute is `options`, what may stand in the signature is `check`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

use crate::complaints::Complaints;
use crate::expansion::{self, Fallback};
use crate::fingerprint;
use crate::function::{Function, Kind};
use crate::options::WorkflowOptions;

/// The version of a workflow that does not say its own.
const FIRST_VERSION: i32 = 1;

/// The pure core of `#[workflow]`: from the attribute's arguments and its item to what stands in its place.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut complaints = Complaints::default();
    let options = WorkflowOptions::parse(options, &mut complaints);
    let right = |function: &Function| door(function, &options);
    let wrong = |function: &Function| fallback(function, &options);
    expansion::expand(item, Kind::Workflow, complaints, right, wrong)
}

fn door(function: &Function, options: &WorkflowOptions) -> TokenStream {
    let span = expansion::span(function);
    let (cfgs, attributes) = (function.cfg_attributes(), function.door_attributes());
    let (visibility, name) = (&function.visibility, function.name());
    let ty = type_name(function);
    let input = expansion::argument_types(function);
    let unpacked = expansion::unpacked(function);
    let given = expansion::call_arguments(function, span);
    let perform = quote_spanned! { span => ::std::boxed::Box::pin(Self::#name(#given)) };
    let described = Described { input, unpacked, returned: function.returned().to_token_stream(), perform };
    let definition = definition(function, options, described);
    let body = expansion::body(function, &ty);
    let parameters = expansion::door_parameters(function);
    let arguments = expansion::door_arguments(function);
    quote_spanned! { span =>
        #definition
        #(#cfgs)*
        #body
        #(#attributes)*
        #[allow(clippy::too_many_arguments)]
        #visibility fn #name(#parameters) -> ::durable::Call<#ty> {
            ::durable::__private::call::<#ty>(#arguments)
        }
    }
}

fn fallback(function: &Function, options: &WorkflowOptions) -> TokenStream {
    let Fallback { generics, returned, body } = expansion::fallback(function, Kind::Workflow);
    let attributes = function.door_attributes();
    let (visibility, name) = (&function.visibility, function.name());
    let ty = type_name(function);
    let parameters = expansion::door_parameters(function);
    let constraints = &generics.where_clause;
    let described = Described {
        // Not the arguments' types: they may be what is wrong.
        input: quote! { () },
        unpacked: quote! { () },
        returned: returned.to_token_stream(),
        perform: quote! { ::core::unreachable!() },
    };
    let definition = definition(function, options, described);
    quote! {
        #definition
        #(#attributes)*
        #[allow(unused_variables)]
        #visibility fn #name #generics(#parameters) -> ::durable::Call<#ty> #constraints #body
    }
}

/// What the definition of a workflow says about its body.
struct Described {
    input: TokenStream,
    unpacked: TokenStream,
    returned: TokenStream,
    perform: TokenStream,
}

/// The type, and what the library knows about it.
fn definition(function: &Function, options: &WorkflowOptions, described: Described) -> TokenStream {
    let Described { input, unpacked, returned, perform } = described;
    let span = expansion::span(function);
    let cfgs: Vec<_> = function.cfg_attributes().collect();
    let visibility = &function.visibility;
    let ty = type_name(function);
    let name = options.name.clone().unwrap_or_else(|| function.plain_name());
    let version = options.version.unwrap_or(FIRST_VERSION);
    let fingerprint = fingerprint::of(function);
    let returned_at = Span::mixed_site().located_at(returned.span());
    let returned = quote_spanned! { returned_at => type Returned = #returned; };
    quote_spanned! { span =>
        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types, unreachable_pub)]
        #visibility enum #ty {}
        #(#cfgs)*
        impl ::durable::__private::Workflow for #ty {
            type Input = #input;
            #returned
            const NAME: &'static str = #name;
            const VERSION: i32 = #version;
            const FINGERPRINT: &'static str = #fingerprint;
            fn body<'c>(
                ctx: &'c ::durable::Ctx,
                #unpacked: Self::Input,
            ) -> ::durable::__private::BoxFuture<'c, Self::Returned> {
                #perform
            }
        }
    }
}

fn type_name(function: &Function) -> Ident {
    format_ident!("__workflow_{}", function.plain_name(), span = function.name().span())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_its_type_and_its_door() {
        let expanded = expand(
            quote! { version = 2 },
            quote! {
                /// Sells.
                #[cfg(feature = "sales")]
                #[allow(clippy::too_many_lines)]
                pub async fn sell(ctx: &Ctx, lead: Lead, n: i32) -> Result<Outcome> { anything at all }
            },
        );
        let fingerprint =
            expanded.to_string().split("FINGERPRINT : & 'static str = \"").nth(1).map(|rest| rest[..16].to_owned());
        let expected = quote! {
            #[cfg(feature = "sales")]
            #[doc(hidden)]
            #[allow(non_camel_case_types, unreachable_pub)]
            pub enum __workflow_sell {}
            #[cfg(feature = "sales")]
            impl ::durable::__private::Workflow for __workflow_sell {
                type Input = (Lead, i32);
                type Returned = Result<Outcome>;
                const NAME: &'static str = "sell";
                const VERSION: i32 = 2i32;
                const FINGERPRINT: &'static str = #fingerprint;
                fn body<'c>(
                    ctx: &'c ::durable::Ctx,
                    (arg1, arg2): Self::Input,
                ) -> ::durable::__private::BoxFuture<'c, Self::Returned> {
                    ::std::boxed::Box::pin(Self::sell(ctx, arg1, arg2))
                }
            }
            #[cfg(feature = "sales")]
            impl __workflow_sell {
                #[allow(clippy::unused_async)]
                #[allow(clippy::too_many_lines)]
                async fn sell(ctx: &Ctx, lead: Lead, n: i32) -> Result<Outcome> { anything at all }
            }
            /// Sells.
            #[cfg(feature = "sales")]
            #[allow(clippy::too_many_lines)]
            #[allow(clippy::too_many_arguments)]
            pub fn sell(lead: Lead, n: i32) -> ::durable::Call<__workflow_sell> {
                ::durable::__private::call::<__workflow_sell>((lead, n))
            }
        };
        assert_eq!(expanded.to_string(), expected.to_string());
    }

    #[test]
    fn a_raw_name_is_recorded_without_its_prefix() {
        let expanded = expand(quote! {}, quote! { async fn r#match(ctx: &Ctx) -> Result<()> {} }).to_string();
        assert!(expanded.contains("NAME : & 'static str = \"match\""));
        assert!(expanded.contains("fn r#match () -> :: durable :: Call < __workflow_match >"));
    }

    #[test]
    fn a_body_without_a_context_is_given_one_so_that_only_the_signature_is_wrong() {
        let expanded = expand(quote! {}, quote! { async fn sell(n: i32) -> Result<i64> { body } }).to_string();
        assert_eq!(expanded.matches("compile_error").count(), 1);
        assert!(expanded.contains("async fn sell (n : i32 , ctx : & :: durable :: Ctx) -> Result < i64 > { body }"));
        assert!(expanded.contains("fn sell (n : i32) -> :: durable :: Call < __workflow_sell >"));
    }

    #[test]
    fn a_body_without_a_return_type_is_left_out() {
        let expanded = expand(quote! {}, quote! { async fn sell(ctx: &Ctx) { body? } }).to_string();
        assert_eq!(expanded.matches("compile_error").count(), 1);
        assert!(!expanded.contains("body ?"));
    }
}
