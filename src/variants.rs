//! Enums that know all their variants, and the names of these.

/// An enum without data, with `ALL`.
macro_rules! listed_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant,)* }

        impl $name {
            /// All variants, in their order.
            pub const ALL: [Self; [$(Self::$variant),*].len()] = [$(Self::$variant),*];
        }
    };
}

/// An enum without data, with `ALL` and with a stable name for each variant.
macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $text:literal,)* }) => {
        $crate::variants::listed_enum! { $(#[$meta])* $name { $($(#[$vmeta])* $variant,)* } }

        impl $name {
            /// Its stable name, in the configuration and in `relevo status --json`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

pub(crate) use {listed_enum, named_enum};
