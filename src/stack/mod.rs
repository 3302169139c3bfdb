//! The whole: settings.

mod settings;

pub use self::settings::{AppEnv, Settings, SettingsError};
