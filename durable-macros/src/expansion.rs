//! What the expansions of both attributes have in common: their order of stages, the pieces they are made of, and
//! what is kept of a function that is wrong.
//!
//! Names of the emitted code are absolute, its locals have the macro's hygiene, and it is located at the user's
//! tokens, so that whatever the compiler has against it is shown there.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, FnArg, Generics, Item, Token, Type, Visibility, parse_quote};

use crate::check::check;
use crate::complaints::Complaints;
use crate::function::{Function, Kind, Parameter, Role};
use crate::stored;

/// Parse and check `item`; expand it by `right`, or by `wrong` if its signature is; report every complaint.
pub(crate) fn expand(
    item: TokenStream,
    kind: Kind,
    mut complaints: Complaints,
    right: impl FnOnce(&Function) -> TokenStream,
    wrong: impl FnOnce(&Function) -> TokenStream,
) -> TokenStream {
    let emitted = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => {
            let before = complaints.count();
            check(&function, kind, &mut complaints);
            if complaints.count() == before {
                right(&function)
            } else if function.signature.receiver().is_some() {
                // Its callers use it as a method, and nothing but the method itself answers to that.
                item
            } else {
                wrong(&function)
            }
        }
        Err(error) => {
            complaints.add(not_a_function(&item, kind).unwrap_or(error));
            item
        }
    };
    let errors = complaints.into_compile_errors();
    quote! { #errors #emitted }
}

fn not_a_function(item: &TokenStream, kind: Kind) -> Option<syn::Error> {
    if matches!(syn::parse2::<Item>(item.clone()), Ok(Item::Fn(_) | Item::Verbatim(_)) | Err(_)) {
        return None;
    }
    let keyword = |input: ParseStream<'_>| {
        Attribute::parse_outer(input)?;
        input.parse::<Visibility>()?;
        let keyword: TokenTree = input.parse()?;
        input.parse::<TokenStream>().map(|_| keyword)
    };
    let noun = kind.noun();
    let message = format!("only a function can be a {noun}: put the attribute on an `async fn`");
    Some(syn::Error::new(keyword.parse2(item.clone()).ok()?.span(), message))
}

/// Where emitted code stands for the user's function: at its name.
pub(crate) fn span(function: &Function) -> Span {
    Span::mixed_site().located_at(function.name().span())
}

/// The door's parameters: the arguments under their own names, without patterns.
pub(crate) fn door_parameters(function: &Function) -> TokenStream {
    let parameters = function.arguments().map(|Parameter { name, written, .. }| {
        let ty = &written.ty;
        quote! { #name: #ty }
    });
    quote! { #(#parameters),* }
}

/// `()`, `one` or `(many, of, them)`: how arguments, their types and their names travel together. Located at the
/// parameters, because that is where an argument is that cannot be stored.
pub(crate) fn packed(function: &Function, parts: impl Iterator<Item = TokenStream>) -> TokenStream {
    let parts: Vec<_> = parts.collect();
    match parts.as_slice() {
        [one] => one.clone(),
        parts => {
            let mut tuple = Group::new(Delimiter::Parenthesis, quote! { #(#parts),* });
            tuple.set_span(Span::mixed_site().located_at(function.signature.paren_token.span.join()));
            tuple.into_token_stream()
        }
    }
}

/// The type that describes a step which returns `returned`.
///
/// Located from its first token to its last, as everything is that the compiler checks the return type by: what it
/// has against the type is then worded alike each time, and shown once.
pub(crate) fn described(returned: &Type) -> TokenStream {
    let (first, last) = ends(returned);
    let projection = quote_spanned! { first => <#returned as ::durable::__private::Returned>:: };
    let output = Ident::new("Output", last);
    let step = quote_spanned! { first => ::durable::Step< };
    let end = quote_spanned! { last => > };
    quote! { #step #projection #output #end }
}

/// `::durable::__private::name(arguments)`, located like `returned`.
pub(crate) fn library_call(name: &str, returned: &Type, arguments: TokenStream) -> TokenStream {
    let (first, last) = ends(returned);
    let path = quote_spanned! { first => ::durable::__private:: };
    let name = Ident::new(name, last);
    let mut arguments = Group::new(Delimiter::Parenthesis, arguments);
    arguments.set_span(last);
    quote! { #path #name #arguments }
}

/// Where `tokens` begin and where they end.
fn ends(tokens: impl ToTokens) -> (Span, Span) {
    let mut spans = tokens.to_token_stream().into_iter().map(|token| Span::mixed_site().located_at(token.span()));
    let first = spans.next().unwrap_or_else(Span::mixed_site);
    (first, spans.last().unwrap_or(first))
}

/// The arguments as the door passes them on.
pub(crate) fn door_arguments(function: &Function) -> TokenStream {
    packed(function, function.arguments().map(|argument| argument.name.to_token_stream()))
}

/// Their types.
pub(crate) fn argument_types(function: &Function) -> TokenStream {
    packed(function, function.arguments().map(|argument| argument.written.ty.to_token_stream()))
}

/// The pattern that takes them apart again.
pub(crate) fn unpacked(function: &Function) -> TokenStream {
    let arguments = locals(function).filter(|(parameter, _)| parameter.role == Role::Argument);
    packed(function, arguments.map(|(_, local)| local.to_token_stream()))
}

/// The arguments of the call of the user's function, given its contexts as `ctx`, `step` and `tx`.
pub(crate) fn call_arguments(function: &Function, span: Span) -> TokenStream {
    let arguments = locals(function).map(|(parameter, local)| match parameter.role {
        Role::Ctx => quote_spanned! { span => ctx },
        Role::StepCtx => quote_spanned! { span => &step },
        Role::Connection | Role::Transaction => quote_spanned! { span => tx },
        Role::Argument => quote! { #local },
    });
    quote! { #(#arguments),* }
}

fn locals(function: &Function) -> impl Iterator<Item = (&Parameter, Ident)> {
    function.parameters.iter().enumerate().map(|(index, parameter)| {
        let span = Span::mixed_site().located_at(parameter.name.span());
        (parameter, Ident::new(&format!("arg{index}"), span))
    })
}

/// The user's function as an associated function of `owner`. Not nested in the door: there its name would hide the
/// door's, and a workflow could not describe another of its kind. It is `async` whether it awaits or not.
pub(crate) fn body(function: &Function, owner: &Ident) -> TokenStream {
    let attributes = function.body_attributes();
    let Function { signature, body, .. } = function;
    quote! {
        impl #owner {
            #[allow(clippy::unused_async)]
            #(#attributes)*
            #signature #body
        }
    }
}

/// The parts of a door whose function is wrong. It type-checks for its callers, takes what the user's function
/// takes, and keeps that function where the compiler and the IDE still look at it.
pub(crate) struct Fallback {
    pub(crate) generics: Generics,
    /// The return type, or another `Result` where that one cannot stand outside of the user's function.
    pub(crate) returned: Type,
    pub(crate) body: TokenStream,
}

pub(crate) fn fallback(function: &Function, kind: Kind) -> Fallback {
    let signature = &function.signature;
    let usable = function.returned().filter(|ty| {
        // Without `async` the type may be a future of what it should be.
        let is_output = signature.asyncness.is_some() || is_named_result(ty);
        is_output && stored::is_returnable(ty) && !mentions(ty, &signature.generics)
    });
    let returned = usable.cloned().unwrap_or_else(|| parse_quote! { ::core::result::Result<(), ::durable::Failure> });
    // Without a return type, every `?` in the body would be one more error.
    let kept = function.returned().map(|_| kept(function, kind));
    let body = quote! { { #kept ::core::unreachable!() } };
    Fallback { generics: signature.generics.clone(), returned, body }
}

fn is_named_result(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident.to_string().ends_with("Result"))
}

fn mentions(ty: &Type, generics: &Generics) -> bool {
    let text = ty.to_token_stream().to_string();
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| {
        let is_type = generics.type_params().any(|param| param.ident == word);
        is_type || generics.const_params().any(|param| param.ident == word)
    })
}

/// The user's function without what the compiler would complain about a second time.
fn kept(function: &Function, kind: Kind) -> TokenStream {
    let mut signature = function.signature.clone();
    signature.asyncness = Some(Token![async](signature.fn_token.span));
    signature.constness = None;
    signature.abi = None;
    signature.variadic = None;
    // The body names the context that was forgotten.
    let forgotten: Option<FnArg> = match kind {
        Kind::Workflow => (!has_named(function, "ctx")).then(|| parse_quote! { ctx: &::durable::Ctx }),
        Kind::TxStep => (!has_named(function, "tx")).then(|| parse_quote! { tx: &mut ::durable::PgConnection }),
        Kind::Step => None,
    };
    signature.inputs.extend(forgotten);
    let attributes = function.body_attributes();
    let body = &function.body;
    let owner = format_ident!("__Kept");
    quote! {
        enum #owner {}
        impl #owner {
            #[allow(dead_code, unused_variables, unused_mut)]
            #(#attributes)*
            #signature #body
        }
    }
}

fn has_named(function: &Function, name: &str) -> bool {
    function.parameters.iter().any(|parameter| parameter.name == name)
}
