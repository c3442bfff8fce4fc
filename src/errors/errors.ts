/**
 * One task: the table of every error a person can meet.
 *
 * Each row has a stable code, the SQLSTATE a client reads, the log level, the text and what to do next.
 * `docs/errors.md` lists the same rows; a test compares the two in both directions.
 */

export type LogLevel = 'error' | 'warn' | 'info';

export interface ErrorEntry {
  /** five characters, sent in the `C` field of an ErrorResponse */
  readonly sqlstate: string;
  readonly level: LogLevel;
  /** template; `{name}` is replaced from the details */
  readonly message: string;
  /** what the reader can do next, sent as the HINT */
  readonly remedy: string;
}

/** SQLSTATE raised by the fence for a write on the side that does not serve. Not a code PostgreSQL uses. */
export const FENCE_SQLSTATE = 'CUT01';

export const ERRORS = {
  configuration_invalid: {
    sqlstate: 'F0000',
    level: 'error',
    message: '{file}:{line}: {problem}',
    remedy: 'Correct the line and start again, or RELOAD.',
  },
  environment_invalid: {
    sqlstate: 'F0000',
    level: 'error',
    message: 'environment variable {variable}: {problem}',
    remedy: 'Correct or unset the variable and start again.',
  },
  configuration_not_saved: {
    sqlstate: '58030',
    level: 'error',
    message: 'the swapped configuration was not saved: {problem}',
    remedy:
      'The routing in memory stands; make the folder of pgdog.toml and users.toml writable, or edit the names by hand.',
  },
  database_unknown: {
    sqlstate: '3D000',
    level: 'warn',
    message: 'database "{database}" is not configured',
    remedy: 'Name a database of pgdog.toml ([[databases]]).',
  },
  clients_exhausted: {
    sqlstate: '53300',
    level: 'warn',
    message: 'too many clients: {limit} are the most (cutover_max_clients)',
    remedy: 'Close connections that are not needed, or raise cutover_max_clients and send RELOAD; see SHOW CLIENTS.',
  },
  tls_required: {
    sqlstate: '28000',
    level: 'warn',
    message: 'no entry for host "{host}", user "{user}", database "{database}", no encryption',
    remedy: 'Connect with TLS (sslmode=require or more): tls_client_required = true lets nobody in without it.',
  },
  client_certificate_missing: {
    sqlstate: '28000',
    level: 'warn',
    message: 'connection of user "{user}" requires a valid client certificate',
    remedy: 'Connect with TLS and a certificate of the authority in tls_client_ca_certificate (sslcert, sslkey).',
  },
  client_certificate_invalid: {
    sqlstate: '28000',
    level: 'warn',
    message: 'the client certificate is not accepted: {problem}',
    remedy: 'Use a certificate that the authority in tls_client_ca_certificate has issued and that has not expired.',
  },
  gate_timeout: {
    sqlstate: '57P03',
    level: 'warn',
    message: 'database "{database}" did not accept queries within {waitedMs} ms ({reasons})',
    remedy: 'Traffic is held on purpose; try again, and see SHOW MAINTENANCE and SHOW CUTOVERS.',
  },
  schema_admin_missing: {
    sqlstate: 'F0000',
    level: 'error',
    message: 'database "{database}" has no user with schema_admin = true',
    remedy: 'Mark one user of this database with schema_admin = true in users.toml.',
  },
  dev_server_unavailable: {
    sqlstate: 'F0000',
    level: 'error',
    message: '{server} cannot be started: {problem}',
    remedy: '{remedy}',
  },
  database_unreachable: {
    sqlstate: '08001',
    level: 'error',
    message: 'database "{database}" at {address} cannot be reached: {problem}',
    remedy: 'Check that the server runs and that its schema_admin may connect.',
  },
  side_unknown: {
    sqlstate: '3D000',
    level: 'error',
    message: 'no configured database is the side {side} of this migration ({problem})',
    remedy: 'Put both databases of the migration into pgdog.toml, each with a schema_admin.',
  },
  stream_lost: {
    sqlstate: '55000',
    level: 'error',
    message: 'replication stream {stream} is lost: {problem}',
    remedy: 'Stop the task and start the move again; raise max_slot_wal_keep_size if WAL was removed.',
  },
  copy_stalled: {
    sqlstate: '55000',
    level: 'error',
    message: 'the copy into "{database}" makes no progress; tables not ready: {tables}',
    remedy: 'Read the log of the destination server: its synchronisation workers say why.',
  },
  copy_interrupted: {
    sqlstate: '40001',
    level: 'warn',
    message: 'the ranges of stream {stream} are copied from the beginning again: {problem}',
    remedy: 'Nothing: it is done without you. If it comes again and again, see what is named.',
  },
  temporal_unreachable: {
    sqlstate: '08001',
    level: 'error',
    message: 'Temporal at {address} cannot be reached: {problem}',
    remedy:
      'Start Temporal, set TEMPORAL_ADDRESS or [temporal] address, or use serve --dev. Traffic is served without it.',
  },
  temporal_environment_wrong: {
    sqlstate: 'F0000',
    level: 'error',
    message: 'the environment does not say how Temporal is reached: {problem}',
    remedy: 'Correct or unset TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and the other TEMPORAL_ variables.',
  },
  bundle_missing: {
    sqlstate: 'XX000',
    level: 'error',
    message: 'the workflow bundle is missing',
    remedy: 'Run npm run build.',
  },
  destination_serves: {
    sqlstate: '55000',
    level: 'warn',
    message: 'database "{database}" is served by the destination: its migration cannot be removed',
    remedy: 'Finalize it, or roll back first.',
  },
  source_serves: {
    sqlstate: '55000',
    level: 'warn',
    message: 'database "{database}" is served by the source: there is nothing to finalize',
    remedy: 'Cut over first, or stop the task to remove what it made.',
  },
  files_name_old_side: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the configuration files of node {node} still name the old side of "{database}"',
    remedy: 'Save the swapped configuration (STOP_TASK <id> SAVE), then finalize.',
  },
  no_replication_task: {
    sqlstate: '55000',
    level: 'warn',
    message: 'task {task} is not a running replication task',
    remedy: 'See SHOW TASKS; start one with COPY_DATA or RESHARD.',
  },
  already_moved: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the traffic of "{database}" has moved already: nothing was changed',
    remedy: 'To go back, name the reverse task: CUTOVER {task}.',
  },
  verify_required: {
    sqlstate: '55000',
    level: 'warn',
    message: 'cutover_verify = "require": {problem}',
    remedy: 'Run VERIFY {source} {destination}, then try again; or set cutover_verify = "off" and send RELOAD.',
  },
  verify_refused: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the two sides cannot be compared: {problem}',
    remedy: 'Nothing was changed. See SHOW TASKS and SHOW REPLICATION_SLOTS, and start it again when that is over.',
  },
  rehearsal_failed: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the rehearsal did not come to its end: {problem}',
    remedy: 'A cutover would have been aborted in the same way; see SHOW CUTOVERS for the steps it had done.',
  },
  loss_not_allowed: {
    sqlstate: '55000',
    level: 'warn',
    message: 'ACCEPT LOSS needs cutover_timeout_action = "cutover"',
    remedy:
      'Set it in pgdog.toml and send RELOAD, or leave ACCEPT LOSS out: then a cutover without parity is given up.',
  },
  refused_now: {
    sqlstate: '55000',
    level: 'warn',
    message: 'not now: {problem}',
    remedy: 'See SHOW TASKS for what it is doing.',
  },
  admin_password_missing: {
    sqlstate: 'F0000',
    level: 'error',
    message: 'a worker apart from its proxy needs the password of the admin database',
    remedy: 'Set password under [admin] in pgdog.toml or users.toml.',
  },
  node_unreachable: {
    sqlstate: '08001',
    level: 'error',
    message: 'node {node} does not do as told: {problem}',
    remedy: 'Check that the proxy runs and that [admin] is the same in both processes.',
  },
  successor_failed: {
    sqlstate: '58000',
    level: 'error',
    message: 'the clients were not handed over: {problem}',
    remedy: 'This process goes on serving. Correct what the other one says, and send SIGUSR2 again.',
  },
  node_handed_over: {
    sqlstate: '55006',
    level: 'warn',
    message: 'node {node} is being handed over: two processes serve its clients',
    remedy: 'Wait until the process before has ended; a cutover is tried again.',
  },
  node_stranger: {
    sqlstate: '08004',
    level: 'error',
    message: 'node {node} is expected at {address}, where {other} answers',
    remedy: 'Correct [[nodes]]: each row names one proxy, by the address of its admin database.',
  },
  node_unnamed: {
    sqlstate: 'F0000',
    level: 'error',
    message: 'which of [[nodes]] is this process? {problem} (known: {nodes})',
    remedy: 'Start it with --node NAME, or correct host and port of its row.',
  },
  nodes_not_ready: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the fleet cannot switch as one: {problems}',
    remedy: 'See SHOW NODES; start, reload or correct the nodes named here. Nothing was changed.',
  },
  wrong_server: {
    sqlstate: '08004',
    level: 'error',
    message: 'another server answered: expected system identifier {expected}, got {actual}',
    remedy: 'Check host and port of this database; a standby or a stranger answers there.',
  },
  record_newer: {
    sqlstate: '0A000',
    level: 'error',
    message: 'the schema cutover has layout {version}; this program knows layouts up to {known}',
    remedy: 'Use the version of Cutover that wrote it, or a newer one.',
  },
  migration_held: {
    sqlstate: '55006',
    level: 'warn',
    message: 'the migration {database} -> {peer} is held by workflow {holder}',
    remedy: 'Wait for it, or stop it with STOP_TASK.',
  },
  streams_missing: {
    sqlstate: '55000',
    level: 'warn',
    message: 'no streams run between "{source}" and "{destination}"',
    remedy: 'Start them with COPY_DATA {source} {destination} <publication>, then cut over.',
  },
  same_database: {
    sqlstate: '22023',
    level: 'warn',
    message: 'source "{source}" and destination "{destination}" are the same database',
    remedy: 'Name another database as destination.',
  },
  publication_unknown: {
    sqlstate: '42704',
    level: 'warn',
    message: 'publication "{publication}" does not exist in "{database}"',
    remedy: 'Create it with CREATE PUBLICATION, or leave it out to move every table.',
  },
  preflight_failed: {
    sqlstate: '55000',
    level: 'warn',
    message: 'preflight found what would break the move: {problems}',
    remedy: 'See CUTOVER ... DRY RUN for every check with its remedy.',
  },
  drain_timeout: {
    sqlstate: '55P03',
    level: 'warn',
    message: 'transactions were still running after {waitedMs} ms: {holders}',
    remedy:
      'Let them end, or set cutover_drain_action = "cancel"; sessions that hold more than a transaction: cutover_session_state.',
  },
  seal_blocked: {
    sqlstate: '55P03',
    level: 'warn',
    message: 'the source could not be sealed within {waitedMs} ms; writers in flight: {holders}',
    remedy: 'End these sessions or prepared transactions, and try again.',
  },
  fence_blocked: {
    sqlstate: '55P03',
    level: 'warn',
    message: 'the fence could not be armed on {table}: {problem}',
    remedy: 'End the long transaction that holds the table, and try again.',
  },
  identity_unprepared: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the replica identity of {table} could not be changed: {problem}',
    remedy: 'End what holds the table; it is tried again. SHOW TASKS says when it was given up.',
  },
  parity_timeout: {
    sqlstate: '57014',
    level: 'warn',
    message: 'the destination did not reach parity within {waitedMs} ms ({missing})',
    remedy: 'See SHOW REPLICATION_SLOTS; the cutover is tried again when the lag is small.',
  },
  standby_behind: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the seal is not on every standby of the source after {waitedMs} ms: {standbys}',
    remedy: 'Let the standby catch up, or disconnect it and never promote it; the cutover is tried again.',
  },
  failed_over: {
    sqlstate: '55000',
    level: 'error',
    message: 'the {role} failed over since {since} (timeline {pinned}, now {actual})',
    remedy: 'A promoted standby may lack what the streams carried: stop the task and start the move again.',
  },
  schemas_differ: {
    sqlstate: '55000',
    level: 'warn',
    message: '{problem}',
    remedy: 'Make the same change on the other side, or take it back; the cutover is tried again.',
  },
  sequence_withheld: {
    sqlstate: '42501',
    level: 'error',
    message:
      'the schema_admin {role} of "{database}" may not read and set {sequences}: their values would be issued twice',
    remedy: 'GRANT SELECT, UPDATE on these sequences to it, or membership in their owner, and try again.',
  },
  schema_change_refused: {
    sqlstate: '55006',
    level: 'warn',
    message: '{change} is refused while migration {migration} carries the tables of "{database}"',
    remedy:
      'Do it before the migration or after it. With cutover_ddl = "allow" it passes, and ends a migration that has not moved the traffic.',
  },
  schema_changed: {
    sqlstate: '55000',
    level: 'error',
    message:
      '{change} on "{database}" while migration {migration} carried its tables (cutover_ddl = "allow"); the migration is removed',
    remedy: 'Finish the changes of the schema, then start the move again.',
  },
  slot_limit_exceeded: {
    sqlstate: '53100',
    level: 'error',
    message: '{problem}',
    remedy: 'Bring the subscriber back or give it room, raise the limit, and start the move again.',
  },
  epoch_closed: {
    sqlstate: '55000',
    level: 'warn',
    message: 'epoch {epoch} is over ({state})',
    remedy: 'Nothing to do: a later or earlier decision stands.',
  },
  record_unreachable: {
    sqlstate: '57P03',
    level: 'error',
    message: 'the record of "{database}" cannot be read: {problem}',
    remedy: 'Traffic stays held until the record answers; bring the server back.',
  },
  undecided: {
    sqlstate: '57P03',
    level: 'error',
    message: 'database "{database}" is held: nobody can say which side serves ({problem})',
    remedy:
      'It opens by itself once the record answers. If a server is lost for good, a person decides: cutover resolve.',
  },
  resolve_forbidden: {
    sqlstate: '55000',
    level: 'warn',
    message: 'epoch {epoch} cannot be resolved so: {problem}',
    remedy: 'Run cutover resolve without --abort and --commit to see what both sides say.',
  },
  record_contradictory: {
    sqlstate: '57P03',
    level: 'error',
    message: 'the record of "{database}" contradicts itself: {problem}',
    remedy: 'Nobody may guess which side serves: somebody changed the schema cutover by hand. See cutover resolve.',
  },
  destination_shut: {
    sqlstate: '57P03',
    level: 'error',
    message: 'the destination does not open for epoch {epoch}: {problem}',
    remedy: 'See cutover resolve for what the record says of both sides.',
  },
  not_reversible: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the migration {database} -> {peer} cannot be rolled back: {problem}',
    remedy: 'The side that serves stays; make a new migration to go back.',
  },
  protocol_violation: {
    sqlstate: '08P01',
    level: 'warn',
    message: 'protocol violation: {problem}',
    remedy: 'Use a driver that speaks protocol 3 of PostgreSQL.',
  },
  login_failed: {
    sqlstate: '28P01',
    level: 'warn',
    message: 'password authentication failed for user "{user}"',
    remedy: '',
  },
  login_timeout: {
    sqlstate: '57014',
    level: 'warn',
    message: 'the login took longer than {waitedMs} ms',
    remedy: 'See client_login_timeout.',
  },
  password_unchecked: {
    sqlstate: '28000',
    level: 'warn',
    message:
      'the server of database "{database}" asks for no password, so it cannot say whether that of user "{user}" is right',
    remedy: 'Let the server ask for one (scram-sha-256 in pg_hba.conf), or put the user into users.toml ([[users]]).',
  },
  passthrough_full: {
    sqlstate: '53300',
    level: 'warn',
    message: 'user "{user}" cannot be let in by passthrough_auth now: {limit} others are remembered, or wait to be',
    remedy: 'Try again later, or put users into users.toml ([[users]]).',
  },
  user_missing: {
    sqlstate: '28000',
    level: 'warn',
    message: 'user "{user}" may not use database "{database}"',
    remedy: 'Add the pair to users.toml ([[users]]) and RELOAD.',
  },
  feature_unsupported: {
    sqlstate: '0A000',
    level: 'warn',
    message: '{feature} is not supported through the proxy',
    remedy: 'Connect to the server itself for that.',
  },
  statement_not_routed: {
    sqlstate: '0A000',
    level: 'info',
    message: 'not run on the shards of "{database}": {reason}',
    remedy:
      'docs/routing.md has every reason. Bind each sharded table to one value of its key, or name the shard by hand.',
  },
  other_shard: {
    sqlstate: '0A000',
    level: 'info',
    message: 'the transaction runs on {place} of "{database}" and this statement belongs to {needed}: {problem}',
    remedy: 'End the transaction first, or see under transactions in docs/routing.md when one may use several shards.',
  },
  moved_rows_limit: {
    sqlstate: '54000',
    level: 'info',
    message: 'not run on the shards of "{database}": it moves more than {limit} rows to other shards',
    remedy: 'Move fewer rows with each statement; several of them may be in one transaction.',
  },
  shards_not_committed: {
    sqlstate: '40000',
    level: 'warn',
    message: 'nothing was changed on any shard: {problem}',
    remedy: 'Correct what the message names, or run the statement again.',
  },
  shards_not_ready: {
    sqlstate: '55000',
    level: 'warn',
    message: 'the shards of "{database}" cannot commit together, so nothing was changed: {problem}',
    remedy:
      'Set max_prepared_transactions on every shard to as many writes as run at once, and run: cutover coordinator {database}.',
  },
  shards_undecided: {
    sqlstate: '08007',
    level: 'error',
    message: 'whether the change on several shards was committed is not known: {problem}',
    remedy: 'Look before running it again: it is on all shards or on none as soon as the first one answers.',
  },
  admin_simple_only: {
    sqlstate: '0A000',
    level: 'warn',
    message: 'the admin database takes simple queries only',
    remedy: 'Send the command without parameters, as psql does.',
  },
  server_unreachable: {
    sqlstate: '08006',
    level: 'error',
    message: 'no server of database "{database}" at {address} could be reached: {problem}',
    remedy: 'Check that the server runs and that users.toml has the right credentials for it.',
  },
  primary_unknown: {
    sqlstate: '08001',
    level: 'error',
    message: 'nobody knows which server is the primary: {problem}',
    remedy: 'Promote one server of the cluster, or end the one that is no longer to be the primary.',
  },
  server_lost: {
    sqlstate: '08006',
    level: 'error',
    message: 'the server of database "{database}" closed the connection while it was in use',
    remedy: 'The outcome of the statement in flight is unknown; check before you repeat it.',
  },
  statement_cancelled: {
    sqlstate: '57014',
    level: 'info',
    message: 'canceling statement due to user request',
    remedy: 'Nothing: its client asked for it while it waited for a server, to which it was not sent.',
  },
  session_state_lost: {
    sqlstate: '57P01',
    level: 'warn',
    message:
      'the session ends: its server no longer serves database "{database}", and {state} cannot be taken to another one',
    remedy: 'Connect again and make them anew. cutover_session_state = "wait" has a cutover wait for such sessions.',
  },
  checkout_timeout: {
    sqlstate: '53300',
    level: 'warn',
    message: 'no server connection of database "{database}" became free within {waitedMs} ms',
    remedy: 'Raise pool_size or checkout_timeout, or shorten transactions; see SHOW POOLS.',
  },
  settings_refused: {
    sqlstate: '22023',
    level: 'warn',
    message: 'the server did not accept the settings of this session: {problem}',
    remedy: 'Correct the parameter named here in the connection string, or in the SET that made it.',
  },
  statement_mode: {
    sqlstate: '08P01',
    level: 'info',
    message: 'transaction blocks not allowed in statement pooling mode',
    remedy: 'Send the statements of one transaction as one text, or use pooler_mode = "transaction".',
  },
  client_idle: {
    sqlstate: '57P05',
    level: 'info',
    message: 'terminating connection due to idle-session timeout',
    remedy: 'Connect again. See client_idle_timeout.',
  },
  client_idle_in_transaction: {
    sqlstate: '25P03',
    level: 'warn',
    message: 'terminating connection due to idle-in-transaction timeout',
    remedy: 'The transaction was rolled back: connect again. See client_idle_in_transaction_timeout.',
  },
  statements_exhausted: {
    sqlstate: '54000',
    level: 'warn',
    message: 'this session holds {count} prepared statements already',
    remedy: 'Close statements that are no longer used.',
  },
  shutting_down: {
    sqlstate: '57P01',
    level: 'info',
    message: 'terminating connection: the proxy is shutting down',
    remedy: 'Connect again.',
  },
  schema_dump_failed: {
    sqlstate: '58000',
    level: 'error',
    message: 'the schema of {address} could not be read: {problem}',
    remedy: 'Correct what pg_dump names, or name another pg_dump in [replication] pg_dump_path; nothing was changed.',
  },
  schema_failed: {
    sqlstate: '55000',
    level: 'error',
    message: 'the schema could not be made: {problem} (statement: {statement})',
    remedy: 'Correct what PostgreSQL names on the destination, or take the object out on the source, and start again.',
  },
  coordinator_failed: {
    sqlstate: '55000',
    level: 'error',
    message: 'the coordinator database "{database}" could not be made: {problem}',
    remedy: 'Correct what is named, on every shard where it is about a schema, and start again; nothing was changed.',
  },
  admin_syntax: {
    sqlstate: '08P01',
    level: 'info',
    message: 'syntax error in admin command: {problem}',
    remedy: '{usage}',
  },
  not_implemented: {
    sqlstate: '0A000',
    level: 'info',
    message: '{feature} is not implemented',
    remedy: 'See docs/admin-commands.md for what is.',
  },
  setting_fixed: {
    sqlstate: '55P02',
    level: 'info',
    message: '"{name}" cannot be set while the proxy runs',
    remedy: 'Change it in pgdog.toml and send RELOAD.',
  },
  probe_failed: {
    sqlstate: '08006',
    level: 'info',
    message: 'the server at {address} did not answer: {problem}',
    remedy: 'Check address, database, role and password of the URL.',
  },
  internal: {
    sqlstate: 'XX000',
    level: 'error',
    message: 'internal error: {problem}',
    remedy: 'Report it with the log line of the same moment.',
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;
export type ErrorDetails = Readonly<Record<string, string | number | boolean>>;

/** An error from the table; `message` is what the client, the log and the workflow read. */
export class CutoverError extends Error {
  override readonly name = 'CutoverError';
  readonly code: ErrorCode;
  readonly sqlstate: string;
  readonly level: LogLevel;
  readonly remedy: string;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, details: ErrorDetails = {}, options?: ErrorOptions) {
    const entry: ErrorEntry = ERRORS[code];
    super(fill(entry.message, details), options);
    this.code = code;
    this.sqlstate = entry.sqlstate;
    this.level = entry.level;
    this.remedy = fill(entry.remedy, details);
    this.details = details;
  }
}

function fill(template: string, details: ErrorDetails): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(details[name] ?? `{${name}}`));
}

/** The sentence of any thrown value, for logs and failures. Never includes a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
