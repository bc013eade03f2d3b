//! What a type's tokens say about whether its values can be stored: what borrows, and what has no name, cannot be.
//!
//! Serialisation itself is judged by the compiler; when and how to complain is said in `check`.

use syn::{GenericArgument, PathArguments, Type, TypeReference};

/// Whether the return type can stand outside of the user's own function.
pub(crate) fn is_returnable(ty: &Type) -> bool {
    find(ty, &|ty| borrows(ty) || is_impl_trait(ty)).is_none()
}

pub(crate) fn is_impl_trait(ty: &Type) -> bool {
    matches!(ty, Type::ImplTrait(_))
}

/// A reference, or a path with a lifetime such as `Cow<'_, str>`. `Cow<'static, str>` can be stored.
pub(crate) fn borrows(ty: &Type) -> bool {
    match ty {
        Type::Reference(_) => true,
        Type::Path(path) => path.path.segments.iter().any(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(list) => list
                .args
                .iter()
                .any(|arg| matches!(arg, GenericArgument::Lifetime(lifetime) if lifetime.ident != "static")),
            PathArguments::None | PathArguments::Parenthesized(_) => false,
        }),
        _ => false,
    }
}

/// The first type in `ty`, itself included, for which `wanted` holds. Looks where a serialisable type can have
/// parts; the compiler judges the rest.
pub(crate) fn find<'t>(ty: &'t Type, wanted: &dyn Fn(&Type) -> bool) -> Option<&'t Type> {
    if wanted(ty) {
        return Some(ty);
    }
    match ty {
        Type::Reference(reference) => find(&reference.elem, wanted),
        Type::Slice(slice) => find(&slice.elem, wanted),
        Type::Array(array) => find(&array.elem, wanted),
        Type::Paren(paren) => find(&paren.elem, wanted),
        Type::Group(group) => find(&group.elem, wanted),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(|elem| find(elem, wanted)),
        Type::Path(path) => path.path.segments.iter().find_map(|segment| match &segment.arguments {
            PathArguments::AngleBracketed(list) => list.args.iter().find_map(|arg| match arg {
                GenericArgument::Type(ty) => find(ty, wanted),
                _ => None,
            }),
            PathArguments::None | PathArguments::Parenthesized(_) => None,
        }),
        _ => None,
    }
}

/// How to write `borrowed` so that it owns what it holds.
pub(crate) fn owned(borrowed: &Type) -> String {
    let Type::Reference(TypeReference { elem, .. }) = borrowed else {
        return "an owned type".to_owned();
    };
    match &**elem {
        Type::Path(path) if path.path.is_ident("str") => "`String`".to_owned(),
        Type::Path(path) if path.path.get_ident().is_some() => {
            format!("`{}`", path.path.segments[0].ident)
        }
        Type::Slice(slice) => match &*slice.elem {
            Type::Path(path) if path.path.get_ident().is_some() => {
                format!("`Vec<{}>`", path.path.segments[0].ident)
            }
            _ => "a `Vec`".to_owned(),
        },
        _ => "an owned type".to_owned(),
    }
}
