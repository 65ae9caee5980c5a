//! The named values of the configuration.

use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Declares an enum whose values have RocketMQ's names, read without regard to letter case.
macro_rules! named_values {
    ($(#[$meta:meta])* $ty:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $ty { $($(#[$vmeta])* $variant),+ }

        impl $ty {
            /// The name as written in configuration files.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl FromStr for $ty {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                $(if s.eq_ignore_ascii_case($text) { return Ok(Self::$variant); })+
                Err(format!("expected one of {}", [$($text),+].join(", ")))
            }
        }

        text_value!($ty);
    };
}

/// Serde through `Display` and `FromStr`.
macro_rules! text_value {
    ($ty:ident) => {
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(|e| {
                    de::Error::custom(format!("invalid value \"{}\": {e}", text.escape_debug()))
                })
            }
        }
    };
}

named_values!(
    /// When an entry counts as stored on a node (reliability reference §1).
    FlushDiskType {
        /// After it was synced to disk.
        SyncFlush = "SYNC_FLUSH",
        /// Once the operating system has it.
        AsyncFlush = "ASYNC_FLUSH",
    }
);

named_values!(
    /// Whose copies an acknowledgement waits for (reliability reference §1).
    BrokerRole {
        /// A majority of the replicas.
        SyncMaster = "SYNC_MASTER",
        /// The leader alone.
        AsyncMaster = "ASYNC_MASTER",
    }
);

named_values!(
    /// Form of the log lines.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
);

/// What a node does. At least one of the two is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// It is a name server.
    pub registry: bool,
    /// It is a broker.
    pub broker: bool,
}

impl Roles {
    /// Both roles.
    pub const ALL: Self = Self {
        registry: true,
        broker: true,
    };

    /// The names as written in configuration files.
    pub const fn as_str(self) -> &'static str {
        match (self.registry, self.broker) {
            (true, true) => "registry,broker",
            (true, false) => "registry",
            (false, true) => "broker",
            (false, false) => "",
        }
    }
}

impl FromStr for Roles {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let mut roles = Self {
            registry: false,
            broker: false,
        };
        for part in s.split(',') {
            match part.trim() {
                "registry" => roles.registry = true,
                "broker" => roles.broker = true,
                _ => return Err("expected registry, broker, or both separated by a comma".into()),
            }
        }
        Ok(roles)
    }
}

text_value!(Roles);
