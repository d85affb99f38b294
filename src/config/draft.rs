//! A config in the making: defaults from the table, then what is derived from other values.

use super::server::Config;
use super::settings::{self, Shape};
use std::path::PathBuf;

/// Java's defaults for every setting, with no directories and no ports.
impl Default for Config {
    fn default() -> Config {
        Draft::new().resolve()
    }
}

/// A config in the making, with those values whose meaning depends on others.
pub(super) struct Draft {
    pub config: Config,
    pub data_dir: Option<PathBuf>,
    pub data_log_dir: Option<PathBuf>,
    pub client_port: Option<u16>,
    pub client_port_address: Option<String>,
    /// None: 2 ticks.
    pub min_session_timeout_ms: Option<u32>,
    /// None: 20 ticks.
    pub max_session_timeout_ms: Option<u32>,
    /// None: a third of `flushDelay`.
    pub max_write_queue_poll_time_ms: Option<u64>,
    /// None: as much as `jute.maxbuffer`.
    pub jute_maxbuffer_extrasize_bytes: Option<usize>,
    /// An `authProvider.*` registers the scheme digest, whatever `DigestAuthenticationProvider.enabled` says.
    pub digest_auth_registered: bool,
    pub enforce_auth_enabled: bool,
    pub enforce_auth_schemes: Vec<String>,
    /// Wins over `syncEnabled`.
    pub observer_sync_enabled: Option<bool>,
    /// Keys that nobody knows are errors.
    pub strict: bool,
}

/// `int` of Java: the largest value of everything that it keeps in one.
const JAVA_INT_MAX: u32 = i32::MAX as u32;

/// Least value of `jute.maxbuffer.extrasize`.
const EXTRA_BYTES_MIN: usize = 1024;

impl Draft {
    pub fn new() -> Draft {
        let mut draft = Draft {
            config: Config::empty(),
            data_dir: None,
            data_log_dir: None,
            client_port: None,
            client_port_address: None,
            min_session_timeout_ms: None,
            max_session_timeout_ms: None,
            max_write_queue_poll_time_ms: None,
            jute_maxbuffer_extrasize_bytes: None,
            digest_auth_registered: false,
            enforce_auth_enabled: false,
            enforce_auth_schemes: Vec::new(),
            observer_sync_enabled: None,
            strict: false,
        };
        for row in settings::all() {
            match &row.shape {
                Shape::Flag { default, store } => store(&mut draft, *default),
                Shape::Number { default, store, .. } => store(&mut draft, *default),
                Shape::Real { default, store } => store(&mut draft, *default),
                Shape::Text { default: "", .. } => {}
                Shape::Text { default, store } => {
                    store(&mut draft, default);
                }
            }
        }
        draft
    }

    /// The bounds of what clients may ask for.
    pub fn session_timeouts_ms(&self) -> (u32, u32) {
        let ticks = |count: u32| self.config.tick_time_ms.saturating_mul(count).min(JAVA_INT_MAX);
        let min = self.min_session_timeout_ms.unwrap_or_else(|| ticks(2));
        (min, self.max_session_timeout_ms.unwrap_or_else(|| ticks(20)))
    }

    /// Fills in what is derived from other values.
    pub fn resolve(self) -> Config {
        let session_timeouts_ms = self.session_timeouts_ms();
        let mut config = self.config;
        config.data_dir = self.data_dir.unwrap_or_default();
        config.data_log_dir = self.data_log_dir.unwrap_or_else(|| config.data_dir.clone());
        (config.min_session_timeout_ms, config.max_session_timeout_ms) = session_timeouts_ms;
        config.max_write_queue_poll_time_ms = self.max_write_queue_poll_time_ms.unwrap_or(config.flush_delay_ms / 3);
        let extra = self.jute_maxbuffer_extrasize_bytes.unwrap_or(config.jute_maxbuffer_bytes).max(EXTRA_BYTES_MIN);
        let room = (i32::MAX as usize).saturating_sub(config.jute_maxbuffer_bytes);
        config.jute_maxbuffer_extrasize_bytes = extra.min(room);
        if config.connect_to_learner_master_limit_ticks == 0 {
            config.connect_to_learner_master_limit_ticks = config.init_limit_ticks;
        }
        config.sync_enabled = self.observer_sync_enabled.unwrap_or(config.sync_enabled);
        config.digest_auth_enabled |= self.digest_auth_registered;
        if self.enforce_auth_enabled {
            config.enforce_auth_schemes = self.enforce_auth_schemes;
        }
        let throttle = &mut config.connection_throttle;
        throttle.global_session_weight = throttle.global_session_weight.max(throttle.local_session_weight);
        throttle.renew_session_weight = throttle.renew_session_weight.max(throttle.local_session_weight);
        let voters = config.membership.participants().count();
        if voters > 2 {
            config.global_outstanding_limit /= u32::try_from(voters - 1).unwrap_or(u32::MAX);
        }
        config
    }
}
