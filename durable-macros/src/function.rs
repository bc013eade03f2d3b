//! The model of the user's function: what each parameter is for, and which attribute belongs where.
//!
//! Nothing is judged here (`check` does that), and the body is never parsed: it is carried along as
//! one brace group, so that a half-typed body still reaches the compiler and the IDE.

use proc_macro2::{Group, Ident, TokenStream};
use quote::format_ident;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, FnArg, Pat, PatType, ReturnType, Signature, Token, Type, Visibility};

/// Which attribute stands on the function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    TxStep,
    Workflow,
}

impl Kind {
    /// The word for it in a sentence.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Step | Kind::TxStep => "step",
            Kind::Workflow => "workflow",
        }
    }
}

/// The user's function, as written and as understood.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: Group,
    /// Every parameter but `self`, in order.
    pub(crate) parameters: Vec<Parameter>,
}

/// One parameter, and what its type says it is for.
pub(crate) struct Parameter {
    pub(crate) role: Role,
    /// As in the signature, pattern included.
    pub(crate) written: PatType,
    /// What the caller's side calls it; the pattern's own name where it has one.
    pub(crate) name: Ident,
}

/// Told by the last segment of the type's path, behind at most one reference: a macro sees names, not types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `Ctx`, however it is passed.
    Ctx,
    /// `StepCtx`, however it is passed.
    StepCtx,
    /// `PgConnection`, however it is passed.
    Connection,
    /// sqlx's `Transaction`, however it is passed: a mistake, but a recognisable one.
    Transaction,
    /// Anything else is an argument: given by the caller, and stored.
    Argument,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = Attribute::parse_outer(input)?;
        let visibility = input.parse()?;
        let signature: Signature = input.parse()?;
        if input.peek(Token![;]) {
            return Err(input.error("a function with this attribute needs a body"));
        }
        let body = input.parse()?;
        let parameters = signature.inputs.iter().enumerate().filter_map(parameter).collect();
        Ok(Self { attributes, visibility, signature, body, parameters })
    }
}

fn parameter((index, written): (usize, &FnArg)) -> Option<Parameter> {
    let FnArg::Typed(written) = written else {
        return None;
    };
    let name = match written.pat.as_ref() {
        Pat::Ident(pattern) => pattern.ident.clone(),
        // The pattern is for the body alone; the caller's side needs just a name.
        _ => format_ident!("arg{index}"),
    };
    Some(Parameter { role: role(&written.ty), written: written.clone(), name })
}

fn role(ty: &Type) -> Role {
    let Some(name) = last_segment(referent(ty)) else {
        return Role::Argument;
    };
    match name.to_string().as_str() {
        "Ctx" => Role::Ctx,
        "StepCtx" => Role::StepCtx,
        "PgConnection" => Role::Connection,
        "Transaction" | "PgTransaction" => Role::Transaction,
        _ => Role::Argument,
    }
}

/// The type behind one reference, or the type itself.
fn referent(ty: &Type) -> &Type {
    match ty {
        Type::Reference(reference) => &reference.elem,
        _ => ty,
    }
}

/// `Ctx` of `durable::Ctx`.
fn last_segment(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

impl Function {
    /// The function's name, `r#` included where it was written.
    pub(crate) fn name(&self) -> &Ident {
        &self.signature.ident
    }

    /// The name without `r#`: what is recorded by default.
    pub(crate) fn plain_name(&self) -> String {
        let name = self.name().to_string();
        name.strip_prefix("r#").map_or_else(|| name.clone(), str::to_owned)
    }

    /// The parameters that the caller gives.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|parameter| parameter.role == Role::Argument)
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.parameters.iter().any(|parameter| parameter.role == role)
    }

    /// The written return type, if there is one.
    pub(crate) fn returned(&self) -> Option<&Type> {
        match &self.signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some(ty),
        }
    }

    /// Attributes of the function that callers see: documentation, deprecation, lints and the like.
    pub(crate) fn door_attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|attribute| place(attribute) != Place::Body)
    }

    /// Attributes of the function that holds the body: what changes or measures it, and lints.
    pub(crate) fn body_attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|attribute| matches!(place(attribute), Place::Body | Place::Both))
    }

    /// Attributes of everything that is emitted besides: without them a function that is configured
    /// away would leave its companions behind.
    pub(crate) fn cfg_attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"))
    }
}

#[derive(PartialEq, Eq)]
enum Place {
    Door,
    Body,
    Both,
}

fn place(attribute: &Attribute) -> Place {
    let mut name = attribute.path().get_ident().map(ToString::to_string);
    if name.as_deref() == Some("cfg_attr") {
        // It goes where the attribute goes that it would become.
        name = attribute.meta.require_list().ok().and_then(|list| conditional_name(&list.tokens));
    }
    match name.as_deref() {
        Some("doc" | "deprecated" | "must_use" | "cfg") => Place::Door,
        Some("allow" | "warn" | "deny" | "forbid") => Place::Both,
        // `expect` too: on the caller's side nothing would fulfil it.
        _ => Place::Body,
    }
}

/// `allow` of `test, allow(dead_code)`.
fn conditional_name(tokens: &TokenStream) -> Option<String> {
    let mut tokens = tokens.clone().into_iter();
    tokens.find(|token| token.to_string() == ",")?;
    tokens.next().map(|token| token.to_string())
}
