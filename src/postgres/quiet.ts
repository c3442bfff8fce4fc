/** One task: name the settings that keep a statement's text, and a password in it, out of a server's log, views and extensions. */

/**
 * What a server may show a statement for (PostgreSQL documentation, 19.8.2, 27.2.3 and F.32); only a superuser may change these.
 * `log_statement` is looked at before any part of a message runs: the settings go ahead in a message of their own.
 */
export const QUIET_SETTINGS: Readonly<Record<string, string>> = {
  'pg_stat_statements.track_utility': 'off',
  'pgaudit.log': 'none',
  log_statement: 'none',
  log_min_duration_statement: '-1',
  log_min_duration_sample: '-1',
  log_transaction_sample_rate: '0',
  log_min_error_statement: 'panic',
  track_activities: 'off',
};
