//! Typed views of request headers. They borrow from the command; all ext names are the clients'.

/// Declares a request header: a struct of borrowed fields and its `parse`.
///
/// Kinds: `text` (required), `opt_text` (empty counts as absent), `int`, `opt_int`, `long`,
/// `opt_long`, `flag` (absent is false), `opt_flag`.
macro_rules! request {
    (@type text) => { &'a str };
    (@type opt_text) => { Option<&'a str> };
    (@type int) => { i32 };
    (@type opt_int) => { Option<i32> };
    (@type long) => { i64 };
    (@type opt_long) => { Option<i64> };
    (@type flag) => { bool };
    (@type opt_flag) => { Option<bool> };
    (@get $cmd:ident text $key:literal) => { $cmd.req_str($key)? };
    (@get $cmd:ident opt_text $key:literal) => { $cmd.opt_str($key) };
    (@get $cmd:ident int $key:literal) => { $cmd.req_i32($key)? };
    (@get $cmd:ident opt_int $key:literal) => { $cmd.opt_i32($key)? };
    (@get $cmd:ident long $key:literal) => { $cmd.req_i64($key)? };
    (@get $cmd:ident opt_long $key:literal) => { $cmd.opt_i64($key)? };
    (@get $cmd:ident flag $key:literal) => { $cmd.opt_bool($key).unwrap_or(false) };
    (@get $cmd:ident opt_flag $key:literal) => { $cmd.opt_bool($key) };
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $kind:ident $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a> {
            $(
                $(#[$fdoc])*
                #[doc = concat!("Ext field `", $key, "`.")]
                pub $field: request!(@type $kind),
            )*
        }

        impl<'a> $name<'a> {
            /// Reads the header's ext fields.
            pub fn parse(
                cmd: &'a $crate::wire::remoting::Command,
            ) -> Result<Self, $crate::wire::remoting::HeaderError> {
                Ok($name {
                    $($field: request!(@get cmd $kind $key),)*
                })
            }
        }
    };
}

pub mod admin;
pub mod consume;
pub mod names;
pub mod send;

pub use admin::*;
pub use consume::*;
pub use names::*;
pub use send::*;
